"""Runs of a few steps of every row on StyleGAN2's networks; resumed and in two processes they are the same."""

import os
import signal

import pytest
import torch

from torch_utils import distributed
from training import setup, state
from training.gan import methods
from training.training_loop import training_loop


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return state.load_state(state.latest_state(str(path)))["parts"]


def is_finite(parts):
    return all(bool(torch.isfinite(value).all()) for name in ("G", "D") for value in parts[name].values())


ALONE = [dict(gan=name) for name in methods.RECIPES] + [dict(method=[name]) for name in methods.METHODS]


@pytest.mark.parametrize("flags", ALONE, ids=lambda flags: str(flags.get("gan") or flags["method"][0]))
def test_every_row_trains(flags, options_of, data16):
    """Six steps, so that G learns twice where D learns five times as often."""
    options = options_of(steps=6, **flags)
    parts = run("run", options)
    assert is_finite(parts) and parts["progress"]["nonfinite_steps"] == 0 and parts["progress"]["batch_idx"] == 6
    training_set, _ = setup.build_training_set(options["training_set_kwargs"], torch.device("cpu"))
    for name, network in zip("GD", setup.build_networks(options["G_kwargs"], options["D_kwargs"], training_set, torch.device("cpu"), 0)):
        assert any(not torch.equal(value, parts[name][key]) for key, value in network.named_parameters())


class StopAfter:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self):
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return False


RESUMED = [dict(gan="wgan-gp", method=["top-k:decay=0.1"], cond=True), dict(gan="rpgan+r1+r2", method=["mode-seeking"])]


@pytest.mark.parametrize("flags", RESUMED, ids=lambda flags: flags["gan"])
def test_resume_is_bitwise(flags, options_of, data16):
    options = options_of(steps=8, **flags)
    whole = run("whole", options)
    with pytest.raises(SystemExit) as stopped:
        run("parts", options, abort_fn=StopAfter(3))
    assert stopped.value.code == distributed.EXIT_STOPPED
    parts = run("parts", options, resume_state=state.latest_state("parts"))
    assert_same(whole, parts)


def assert_same(a, b, place=""):
    if isinstance(a, dict):
        assert list(a) == list(b), place
        for key in a:
            if key != "elapsed_sec":
                assert_same(a[key], b[key], f"{place}.{key}")
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b), place
    elif isinstance(a, (list, tuple)):
        assert len(a) == len(b), place
        for index, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{place}.{index}")
    else:
        assert a == b or a != a, place
