"""Features turned to the principal axes of the reals: the moments term says the same there, and costs less."""

import types

import pytest
import torch

from madr_plugin import config, objectives
from madr_plugin.maths import moments
from madr_plugin.memory.moments import MomentsMemory
from madr_plugin.reals import real_moments
from tests.madr.test_madr_moments import ONE_GROUP, drawn, make_reference
from tests.madr.toy_host import Images


def test_along_the_axes_of_the_reals_the_slopes_are_those_of_any_axes():
    real, fake = drawn(4000), drawn(200, seed=1, shift=0.5)
    mean, second = moments.moments_of(real)
    turn = torch.linalg.eigh(second - mean[:, None] * mean).eigenvectors
    usual, along = moments.target_of(mean, second), moments.target_of(*moments.moments_of(real @ turn), along_axes=True)
    distance, of_mean, of_second = moments.frechet_slopes(*moments.moments_of(fake), usual)
    turned = moments.frechet_slopes(*moments.moments_of(fake @ turn), along)
    assert torch.allclose(turned[0], distance, rtol=1e-10) and torch.allclose(turn @ turned[1], of_mean, rtol=1e-8, atol=1e-10)
    assert torch.allclose(turn @ turned[2] @ turn.T, of_second, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("count", [400, 80], ids=["all features", "leading components"])
def test_the_term_turns_features_to_the_axes_and_its_gradient_back(count):
    reference = make_reference(Images(count=count), width=16 if count == 400 else 64)
    objective = objectives.MomentsObjective(config.resolve(dict(preset="witness", term="moments")), reference, 0)
    reals, fake = objective.reals, reference.features_ND[:8] * 0.7
    covariance = torch.cov(reals.projected(reals.features_ND).double().T, correction=0)
    assert float((covariance - covariance.diagonal().diag()).abs().max()) < 1e-5 * float(covariance.diagonal().max())
    gradient, measured = objective.gradient(fake, None)
    leaf = fake.clone().requires_grad_()
    distance = objective.loss(leaf, None)
    assert torch.allclose(gradient, torch.autograd.grad(distance, leaf)[0], rtol=1e-3, atol=1e-5 * float(gradient.abs().max()))
    assert float(measured["distance"]) == pytest.approx(float(distance.detach()), rel=1e-5)


def test_moments_that_an_older_version_remembered_are_turned_when_a_run_goes_on():
    reference = make_reference(Images(count=400), width=16)
    knobs = config.resolve(dict(preset="witness", term="moments"))
    objective, again = objectives.MomentsObjective(knobs, reference, 0), objectives.MomentsObjective(knobs, reference, 0)
    seen = reference.features_ND[:32]
    objective.memory.update(objective.reals.projected(seen), ONE_GROUP[:32], 0.9)
    older = MomentsMemory(1, 16, "cpu")
    older.update(seen, ONE_GROUP[:32], 0.9)
    again.load(dict(older.live_state(), images_per_step=16, horizon=0.8), "cpu")
    for name in ("first_GD", "second_GDD"):
        ours, theirs = getattr(objective.memory, name), getattr(again.memory, name)
        assert torch.allclose(ours, theirs, atol=1e-6 * float(ours.abs().max()))
    # Axes of other signs, as elsewhere; from a version that saved the turn alone.
    flipped = {**again.live_state(), "turn": -again.reals.turn_KK, "basis": None, "first_GD": -again.memory.first_GD}
    elsewhere = objectives.MomentsObjective(knobs, reference, 0)
    elsewhere.load(flipped, "cpu")
    assert torch.allclose(elsewhere.memory.first_GD, again.memory.first_GD) and torch.allclose(elsewhere.memory.second_GDD, again.memory.second_GDD)
    once_more = objectives.MomentsObjective(knobs, reference, 0)
    once_more.load(again.live_state(), "cpu")
    assert torch.equal(once_more.memory.second_GDD, again.memory.second_GDD)


@pytest.mark.parametrize("count, width", [(80, 64), (400, 16)], ids=["leading components", "all features"])
def test_moments_saved_along_components_of_other_signs_are_turned(count, width, monkeypatch):
    reference = make_reference(Images(count=count), width=width)
    knobs = config.resolve(dict(preset="witness", term="moments"))
    objective = objectives.MomentsObjective(knobs, reference, 0)
    seen = reference.features_ND[:32] + 0.5
    objective.memory.update(objective.reals.projected(seen), ONE_GROUP[:32], 0.9)
    in_features = lambda of: of.reals.basis_DK.double() @ of.memory.first_GD[0]
    signs = lambda columns: 1 - 2.0 * (torch.arange(columns) % 2)
    components, eigh = real_moments.principal_directions, torch.linalg.eigh
    monkeypatch.setattr(real_moments, "principal_directions", lambda *given: components(*given) * signs(objective.reals.width))
    monkeypatch.setattr(torch.linalg, "eigh", lambda given: types.SimpleNamespace(eigenvectors=eigh(given).eigenvectors * -signs(len(given))))
    elsewhere = objectives.MomentsObjective(knobs, reference, 0)
    monkeypatch.undo()
    assert not torch.allclose(elsewhere.reals.basis_DK, objective.reals.basis_DK, atol=0.1)
    elsewhere.load(objective.live_state(), "cpu")
    assert torch.allclose(in_features(elsewhere), in_features(objective), atol=1e-4 * float(in_features(objective).norm()))
