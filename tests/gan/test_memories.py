"""Methods with memories in whole runs, all at once: in two processes as in one, resumed as if never stopped, and with MADR around them."""

import pytest
import torch

from tests.gan.test_processes import close, run, same
from training import state

ALL = ["image-pool:size=12", "imle:size=20,interval=2", "historical-averaging:weight=0.01", "feature-matching:adversarial=1"]
MADR = dict(madr=1, madr_deficit_window=64, madr_reals=16, madr_width=8, madr_shrink=0.0)


@pytest.fixture
def all_at_once(options_of):
    return options_of(steps=4, method=ALL, cond=True, batch=16, batch_gpu=8)


@pytest.mark.slow
def test_two_processes_remember_what_one_does(all_at_once, data16, warm_processes):
    one, two = run("one", all_at_once), run("two", all_at_once, num_gpus=2)
    for part in ("G", "D", "loss"):
        close(one[part], two[part], part)
    kept = one["loss"]["methods"]
    assert kept["image-pool"]["memory"]["images"].shape == (12, 3, 16, 16) and kept["image-pool"]["memory"]["labels"].shape == (12, 2)
    assert kept["imle"]["memory"]["z"].shape == (20, 8) and int(kept["imle"]["memory"]["age"]) == 1
    assert int(kept["historical-averaging"]["memory"]["count_D"]) == 5 and kept["feature-matching"] == {}


def test_a_resumed_run_remembers(all_at_once, data16):
    whole = run("whole", all_at_once)
    first = run("parts", all_at_once, total_kimg=0.032)
    assert first["progress"]["batch_idx"] == 2
    same(whole, run("parts", all_at_once, resume_state=state.latest_state("parts")))


def test_with_MADR_around_them(options_of, data16):
    """Its tap watches G's own images, whatever else is made in the step; both remember, and a resumed run is the same."""
    options = options_of(steps=6, method=ALL, **MADR)
    acting = run("acting", options)
    assert acting["progress"]["nonfinite_steps"] == 0 and int(acting["loss"]["madr"]["step"]) == 6
    watching = run("watching", options_of(steps=6, method=ALL, **MADR, madr_weight=0, madr_replay_weight=0, madr_tilt=0))
    plain = run("plain", options_of(steps=6, method=ALL))
    for part in ("G", "D"):
        same(watching[part], plain[part], part)
    same(watching["loss"]["base"], plain["loss"], "loss")
    assert any(not torch.equal(acting["G"][name], plain["G"][name]) for name in plain["G"])
    run("parts", options, total_kimg=0.016)
    again = run("parts", options, resume_state=state.latest_state("parts"))
    for part in ("G", "D", "G_ema", "loss"):  # what watches the run has looked once more
        same(acting[part], again[part], part)
