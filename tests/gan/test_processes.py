"""Two processes train as one does, and a run that was stopped goes on as if it had not been, also with networks and memories of a method."""

import os
import pickle

import pytest
import torch

from tests.gan.counting import register
from torch_utils import distributed
from training import state
from training.gan import methods
from training.training_loop import training_loop

TOLERANCE = 1e-4  # sums of float32 gradients in another order, carried on through Adam


def _train(rank, options):
    torch.set_num_threads(1)
    register()
    training_loop(rank=rank, **options)


def run(path, options, num_gpus=1, **more):
    os.makedirs(path, exist_ok=True)
    distributed.launch(_train, {**options, "run_dir": str(path), "num_gpus": num_gpus, **more}, num_gpus)
    return state.load_state(state.latest_state(str(path)))["parts"]


@pytest.fixture
def with_counting(options_of):
    """Packs, a critic that learns twice as often, a generator with few rows, and the method with a network and a memory."""
    options = options_of(
        steps=4, gan="wgan-gp", method=["pacgan:m=2", "n-critic:n=2", "top-k:decay=0.5", "zcr", "spectral-norm"], batch=16, batch_gpu=8
    )
    options.loss_kwargs.methods.append(dict(name="counting"))
    yield options
    methods.METHODS.pop("counting", None)  # other tests compare the table with its page


def close(a, b, place=""):
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            close(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, torch.Tensor) and a.is_floating_point():
        tolerance = 0.02 if place.endswith("w_avg") else TOLERANCE
        assert float((a - b).abs().max()) <= tolerance * max(float(a.abs().max()), 1e-2), place


def test_two_processes_equal_one(with_counting, data16, warm_processes):
    one, two = run("one", with_counting), run("two", with_counting, num_gpus=2)
    for part in ("G", "D", "loss"):
        close(one[part], two[part], part)
    kept = one["loss"]["methods"]["counting"]
    assert kept["memory"]["images"].shape == (16, 3 * 16 * 16) and one["progress"]["batch_idx"] == 4
    assert kept["optimizers"]["reader"]["state"][0]["step"] == 2
    with open("one/network-snapshot-000000.pkl", "rb") as file:
        snapshot = pickle.load(file)
    names = [name for network in ("G", "D", "G_ema") for name, _ in snapshot[network].named_parameters()]
    assert not [name for name in names if "reader" in name] and set(snapshot) == {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"}
    assert b"reader" not in open("one/network-snapshot-000000.pkl", "rb").read()
    parts = run("parts", with_counting, total_kimg=0.032)
    assert parts["progress"]["batch_idx"] == 2
    same(one, run("parts", with_counting, resume_state=state.latest_state("parts")))


def same(a, b, place=""):
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for key in set(a) - {"elapsed_sec", "cur_tick", "tick_start_nimg", "named"}:  # the run of parts was told of once more
            same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, pair in enumerate(zip(a, b)):
            same(*pair, f"{place}.{index}")
    else:
        assert a == b or a != a, place
