"""Slopes of the distance that are kept for a few steps, where features are wide: against those of every step."""

import pytest
import torch

from madr_plugin import config, objectives
from madr_plugin.maths import moments as maths
from madr_plugin.objectives import moments
from madr_plugin.objectives.objective import Batch
from tests.madr.test_madr_moments import host_with, make_reference
from tests.madr.toy_host import Images

NO_CLASS = torch.full([16], -1)


@pytest.fixture
def kept_above(monkeypatch):
    """The width above which slopes are kept, lowered below that of the tests' features."""
    monkeypatch.setattr(moments, "KEEP_ABOVE", 4)


def objective_of(reference, horizon="0.16"):
    return objectives.MomentsObjective(config.resolve(dict(preset="witness", term="moments", moments_horizon=horizon)), reference, 0)


def step(objective, reference, number):
    """One step with a batch of reals drawn anew, closer together than the reals. Returns its gradient."""
    rows = torch.randint(len(reference.features_ND), [16], generator=torch.Generator().manual_seed(number))
    fake = reference.features_ND[rows] * 0.7
    gradient, measured = objective.gradient(fake, None)
    objective.after_step(number, None, Batch(fake, NO_CLASS, 16, 16, measured))
    return gradient


def test_they_are_nearly_those_of_every_step(monkeypatch):
    reference = make_reference(Images(count=400), width=16)
    every, kept = objective_of(reference), objective_of(reference)
    cosines = []
    for number in range(80):
        monkeypatch.setattr(moments, "KEEP_ABOVE", 128)
        one = step(every, reference, number)
        monkeypatch.setattr(moments, "KEEP_ABOVE", 4)
        other = step(kept, reference, number)
        cosines.append(float(torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)))
        assert not every.kept and (number < 30 or kept.kept)
    assert min(cosines[:5]) == pytest.approx(1, abs=1e-6)  # a young memory moves fast: nothing is kept
    assert 0.9 < min(cosines[20:]) < 1 - 1e-6  # with a horizon of ten steps, the shortest at which slopes are kept for four


def test_they_are_made_anew_every_fourth_step(kept_above, monkeypatch):
    reference, calls = make_reference(Images(count=400), width=16), []
    made = maths.frechet_slopes
    monkeypatch.setattr(maths, "frechet_slopes", lambda *given: calls.append(1) or made(*given))
    objective = objective_of(reference)
    counts = []
    for number in range(40):
        calls.clear()
        step(objective, reference, number)
        counts.append(len(calls))
    assert counts[:5] == [1] * 5 and sorted(counts[-8:]) == [0] * 6 + [1] * 2


@pytest.mark.parametrize("horizon", ["0", "0.04"])  # of no step, and of less than three
def test_without_memory_or_with_a_short_one_none_are_kept(kept_above, horizon):
    reference = make_reference(Images(count=400), width=16)
    objective = objective_of(reference, horizon)
    for number in range(12):
        step(objective, reference, number)
    assert not objective.kept


def test_their_distance_rests_against_the_same_null(kept_above):
    reference = make_reference(Images(count=400), width=16)
    objective = objective_of(reference)
    for number in range(80):
        step(objective, reference, number)
    (slopes,) = objective.kept.values()
    _, effective = objective.memory.remembered()[0][0], objective.memory.remembered()[0][2]
    assert torch.equal(slopes.null_distance, objective.null_distance(0, float(effective))) and float(slopes.distance) > float(slopes.null_distance)


@pytest.mark.parametrize("options", [{}, dict(c_dim=2), dict(term="moments")], ids=str)
def test_a_run_that_goes_on_between_two_renewals_is_uninterrupted(kept_above, options):
    def run():
        return host_with(moments_horizon="0.16", **options)

    whole, first, second = run(), run(), run()
    for _ in range(18):
        whole.step()
    for _ in range(10):
        first.step()
    parts = getattr(first.loss.engine.objective, "objectives", {"moments": first.loss.engine.objective})
    assert parts["moments"].kept
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.loss.load_state_dict(first.loss.state_dict())
    second.cur_nimg = first.cur_nimg
    for _ in range(8):
        second.step()
    assert all(torch.equal(one, other) for one, other in zip(whole.weights(), second.weights()))
