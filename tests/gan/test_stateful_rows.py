"""Unrolled steps, VEEGAN and Dia-GAN together in runs of a few steps: stopped and resumed, in two processes, with MADR."""

import os
import pickle

import pytest
import torch

from tests.gan.test_training import StopAfter, assert_same, is_finite, run
from torch_utils import distributed
from training import state
from training.training_loop import training_loop

TOGETHER = ["unrolled:k=2", "veegan:width=2", "dia-gan:record=0,start=0.024"]  # logits of three steps of eight, then drawn
TOLERANCE = 1e-3  # sums of float32 gradients in another order, carried on through Adam and through steps of D


def test_resume_is_bitwise(options_of, data16):
    """Stopped while logits are noted, and again once reals are drawn."""
    options = options_of(steps=6, method=TOGETHER, cond=True)
    whole = run("whole", options)
    for resumed in (False, True):
        with pytest.raises(SystemExit):  # after two steps
            run("parts", options, abort_fn=StopAfter(1), **(dict(resume_state=state.latest_state("parts")) if resumed else {}))
    parts = run("parts", options, resume_state=state.latest_state("parts"))
    assert_same(whole, parts)
    kept = whole["loss"]["methods"]
    assert kept["dia-gan"]["memory"]["count"].tolist() == [1] * 24 and float(kept["dia-gan"]["memory"]["squares"].min()) > 0
    assert kept["veegan"]["optimizers"]["reconstructor"]["state"][0]["step"] == 6
    with open("whole/network-snapshot-000000.pkl", "rb") as file:
        snapshot = pickle.load(file)
    assert set(snapshot) == {"G", "D", "G_ema", "augment_pipe", "training_set_kwargs"} and snapshot["D"].c_dim == 8 + 2
    assert b"econstructor" not in open("whole/network-snapshot-000000.pkl", "rb").read()


def _train(rank, options):
    torch.set_num_threads(1)
    training_loop(rank=rank, **options)


def train_in_processes(path, options, num_gpus):
    os.makedirs(path, exist_ok=True)
    distributed.launch(_train, {**options, "run_dir": path, "num_gpus": num_gpus}, num_gpus)
    return state.load_state(state.latest_state(path))["parts"]


def difference(a, b):
    """The largest, as a share of the tensor's size, over all tensors of two nested dicts."""
    if isinstance(a, dict):
        assert list(a) == list(b)
        return max([difference(a[key], b[key]) for key in a if not str(key).endswith("w_avg")], default=0)
    if isinstance(a, torch.Tensor) and a.is_floating_point() and a.numel():
        return float((a - b).abs().max()) / max(float(a.abs().max()), 1e-2)
    return 0


@pytest.mark.slow
def test_two_processes_equal_one(options_of, data16, warm_processes):
    options = options_of(steps=6, method=TOGETHER, batch=16, batch_gpu=8)
    options.loss_kwargs.methods[-1].update(start=0.048)
    one, two = (train_in_processes(path, options, count) for path, count in (("one", 1), ("two", 2)))
    assert one["loss"]["methods"]["dia-gan"]["memory"]["count"].tolist() == [2] * 24
    for part in ("G", "D", "loss"):
        assert difference(one[part], two[part]) < TOLERANCE


def test_with_madr(options_of, data16):
    small = dict(madr=1, madr_tilt=0, madr_deficit_window=64, madr_reals=16, madr_width=8, madr_extractor="random")
    parts = run("run", options_of(steps=6, method=TOGETHER, **small))
    assert is_finite(parts) and parts["progress"]["nonfinite_steps"] == 0
    assert int(parts["loss"]["madr"]["step"]) == 6 and set(parts["loss"]["base"]["methods"]) == {"r1", "unrolled", "veegan", "dia-gan"}
