"""Learning rates that fall to zero over the last part of a run: the values, the resumed run, and what stays as it was."""

import pytest
import torch

from training import phases, state, training_loop


def two_optimizers():
    return [torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate, fused=True) for rate in (0.004, 0.01)]


@pytest.mark.parametrize("kimg, expected", [(0, 1), (7.5, 1), (10, 0.5), (12, 0.1), (12.5, 0), (13, 0)])
def test_the_share_falls_linearly_over_the_tail(kimg, expected):
    rates = phases.LearningRates(two_optimizers(), total_kimg=12.5, tail=0.4)
    assert rates.share(kimg * 1000) == pytest.approx(expected, abs=1e-12)


def test_each_optimizer_keeps_its_own_rate():
    optimizers = two_optimizers()
    rates = phases.LearningRates(optimizers, total_kimg=10, tail=0.5)
    rates.set(7_500)
    assert [opt.param_groups[0]["lr"] for opt in optimizers] == pytest.approx([0.002, 0.005])


def test_a_loaded_state_does_not_become_the_rate_that_falls():
    before, after = two_optimizers(), two_optimizers()
    phases.LearningRates(before, total_kimg=10, tail=1).set(9_000)
    rates = phases.LearningRates(after, total_kimg=10, tail=1)
    for opt, saved in zip(after, before):
        opt.load_state_dict(saved.state_dict())
    rates.set(5_000)
    assert [opt.param_groups[0]["lr"] for opt in after] == pytest.approx([0.002, 0.005])


def test_without_a_tail_the_rates_are_left_as_they_are():
    optimizers = two_optimizers()
    rates = phases.LearningRates(optimizers, total_kimg=10, tail=0)
    optimizers[0].param_groups[0]["lr"] = 0.123
    rates.set(9_999)
    assert rates.share(9_999) == 1 and optimizers[0].param_groups[0]["lr"] == 0.123


def weights_of(run):
    return dict(state.load_state(state.latest_state(run))["parts"]["G"])


def test_the_resumed_run_is_the_same_with_a_tail(tmp_path, loop_options):
    whole, halves = tmp_path / "whole", tmp_path / "halves"
    options = dict(lr_tail=0.75, total_kimg=0.064, kimg_per_tick=0.032, network_snapshot_ticks=1, snapshots_apart=False)
    for folder in (whole, halves):
        folder.mkdir()
    training_loop.training_loop(run_dir=str(whole), **loop_options(**options))
    stopped = iter([False] * 3 + [True])
    training_loop.training_loop(run_dir=str(halves), **loop_options(**options, abort_fn=lambda: next(stopped)))
    training_loop.training_loop(run_dir=str(halves), **loop_options(**options, resume_state=str(halves / "training-state-000000.pt")))
    one, other = weights_of(whole), weights_of(halves)
    assert one and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
    plain = tmp_path / "plain"
    plain.mkdir()
    training_loop.training_loop(run_dir=str(plain), **loop_options(**dict(options, lr_tail=0)))
    assert any(not torch.equal(tensor, one[name]) for name, tensor in weights_of(plain).items())  # the tail does something
