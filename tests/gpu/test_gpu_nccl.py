"""NCCL: a group of one process on one card, and groups of several."""

import os

import pytest
import torch


def _reduce(rank, options):
    from torch_utils import distributed

    device = distributed.rank_device("cuda", rank)
    mean = distributed.all_reduce_mean_(torch.tensor([float(rank), 1.0], device=device))
    module = torch.nn.Linear(3, 2).to(device)
    distributed.broadcast_module(module)
    anyone = distributed.any_rank(rank == options["ranks"] - 1, device)
    parts = dict(mean=mean.cpu(), anyone=anyone, weight=module.weight.detach().cpu(), backend=torch.distributed.get_backend())
    torch.save(parts, os.path.join(options["dir"], f"{rank}.pt"))


def test_a_group_of_one(card, tmp_path):
    if not torch.distributed.is_nccl_available():
        pytest.skip("this PyTorch has no NCCL")
    torch.distributed.init_process_group("nccl", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        _reduce(0, dict(ranks=1, dir=str(tmp_path)))
        summed = torch.ones(1000, device=card)
        torch.distributed.all_reduce(summed)
        assert summed.sum() == 1000
    finally:
        torch.distributed.destroy_process_group()
    found = torch.load(tmp_path / "0.pt")
    assert found["backend"] == "nccl" and found["anyone"] and found["mean"].tolist() == [0, 1]


def test_several_cards_agree(several, tmp_path):
    from torch_utils import distributed

    ranks = torch.cuda.device_count()
    distributed.launch(_reduce, dict(ranks=ranks, dir=str(tmp_path)), ranks, "cuda")
    results = [torch.load(tmp_path / f"{rank}.pt") for rank in range(ranks)]
    for result in results:
        assert result["backend"] == "nccl" and result["anyone"]
        assert result["mean"].tolist() == [(ranks - 1) / 2, 1] and torch.equal(result["weight"], results[0]["weight"])


def _train(rank, options):
    from training.training_loop import training_loop

    training_loop(rank=rank, **options)


def test_two_cards_train_as_one(several, kernels, tmp_path, loop_options):
    """Equal total batch: the same images and draws, gradients summed in another order."""
    from torch_utils import distributed
    from training import state

    options = loop_options(device="cuda", cudnn_benchmark=False, total_kimg=0.08, network_snapshot_ticks=1)
    parts = []
    for cards in (1, 2):
        folder = tmp_path / str(cards)
        folder.mkdir()
        distributed.launch(_train, {**options, "run_dir": str(folder), "num_gpus": cards}, cards, "cuda")
        parts.append(state.load_state(state.latest_state(folder))["parts"])
    assert parts[0]["progress"]["batch_idx"] == parts[1]["progress"]["batch_idx"]
    for network in ("G", "D"):
        one, two = (torch.cat([value.double().flatten() for value in part[network].values()]) for part in parts)
        assert (one - two).norm() < 0.02 * one.norm(), network
