"""Two processes train as one does."""

import os

import pytest
import torch

from torch_utils import distributed
from training import state
from training.training_loop import training_loop

STEPS = 20
# What 20 steps may differ by: two sums of float32 gradients in another order, carried on through Adam (which divides
# tiny gradients by their own size). Measured: 4e-6 of the largest element of a tensor.
TOLERANCE = 1e-4


def _train(rank, options):
    torch.set_num_threads(1)
    training_loop(rank=rank, **options)


def train(path, options, num_gpus):
    os.makedirs(path)
    distributed.launch(_train, {**options, "run_dir": str(path), "num_gpus": num_gpus}, num_gpus)
    return state.load_state(state.latest_state(path))["parts"]


@pytest.mark.parametrize("kind", ["plain", "augmented"])
def test_two_processes_equal_one(tmp_path, loop_options, kind, warm_processes):
    """Equal total batch and microbatch size: same images, latents, labels, noise; gradients summed in another order."""
    options = loop_options(total_kimg=STEPS * 8 / 1000, network_snapshot_ticks=1)
    if kind == "plain":
        options.update(augment_kwargs=None, ada_target=None, augment_p=0)
    one, two = train(tmp_path / "one", options, 1), train(tmp_path / "two", options, 2)
    assert one["progress"]["batch_idx"] == two["progress"]["batch_idx"] == STEPS
    for network in ("G", "D", "G_ema"):
        for name, value in one[network].items():
            scale = max(float(value.abs().max()), 1e-3)
            # w_avg: the processes' displacements are added up, which one process would apply one after the other.
            tolerance = 0.02 if name.endswith("w_avg") else TOLERANCE
            assert float((value - two[network][name]).abs().max()) <= tolerance * scale, (network, name)
    assert float(one["loss"]["pl_mean"]) == pytest.approx(float(two["loss"]["pl_mean"]), rel=1e-4)
    if kind == "augmented":
        assert torch.equal(one["augment_pipe"]["p"], two["augment_pipe"]["p"]) and float(one["augment_pipe"]["p"]) != pytest.approx(0.2)
    moved = max(float((one["G"][name] - train_start).abs().max()) for name, train_start in initial_weights(options).items() if name in one["G"])
    assert moved > 100 * TOLERANCE  # the steps did something


def initial_weights(options):
    from training import setup

    training_set, _ = setup.build_training_set(options["training_set_kwargs"], torch.device("cpu"))
    G, _ = setup.build_networks(options["G_kwargs"], options["D_kwargs"], training_set, torch.device("cpu"), options["random_seed"])
    return dict(G.named_parameters())
