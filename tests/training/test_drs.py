"""Discriminator rejection sampling: the numbers of F by hand, the distribution that comes out by brute force, what is refused."""

import math

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from torch_utils import rejection_sampling as drs
from training.gan import drs as losses

DOUBLE = dict(dtype=torch.float64)


def test_score_by_hand():
    """a - M of 0, -ln 2, -ln 4: exp(a - M) = 1, 1/2, 1/4, hence F = -log(eps), log(1/2 / 1/2) = 0, log(1/4 / 3/4) = -log 3."""
    ratios = torch.tensor([3.0, 3 - math.log(2), 3 - math.log(4)], **DOUBLE)
    scores = drs.acceptance_score(ratios, 3.0, gamma=0.0, eps=1e-6)
    assert torch.allclose(scores, torch.tensor([-math.log(1e-6), 0, -math.log(3)], **DOUBLE), atol=1e-5)
    assert torch.allclose(drs.acceptance_score(ratios, 3.0, gamma=0.5, eps=1e-6), scores - 0.5)
    exact = drs.acceptance_score(ratios[1:], 3.0, gamma=0.0, eps=0.0).sigmoid()
    assert torch.allclose(exact, torch.tensor([0.5, 0.25], **DOUBLE))


def test_gamma_is_the_percentile_and_follows_new_maxima():
    burn_in = torch.linspace(-3, 1, 101, **DOUBLE)
    acceptance = drs.Acceptance(burn_in, drs.Settings(percentile=90))
    assert acceptance.largest == 1
    at_90 = acceptance.probabilities(burn_in[90:91])
    assert torch.allclose(at_90, torch.tensor([0.5], **DOUBLE))  # what lies at the percentile is accepted with a chance of one half
    before = acceptance.gamma
    assert acceptance.probabilities(torch.tensor([2.0], **DOUBLE)) > 0.99 and acceptance.largest == 2
    assert acceptance.gamma < before and torch.allclose(acceptance.probabilities(burn_in[90:91]), at_90)
    stated = drs.Acceptance(burn_in, drs.Settings(gamma=0.25))
    assert stated.gamma == 0.25 and stated.facts()["percentile"] is None


def test_logits_that_are_not_finite_are_refused():
    with pytest.raises(UserError, match="not finite"):
        drs.Acceptance(torch.tensor([1.0, math.inf]), drs.Settings())


@pytest.mark.parametrize(
    "terms, target",
    [("non-saturating", 1.0), ("minimax", 1.0), ("relativistic", 1.0), ("least-squares", 1.0), ("whole-squares", 1.0), ("minimax", 0.9)],
)
def test_ratios_of_the_best_discriminators(terms, target):
    """The logit at which the gradient of each loss vanishes, found by halving, for p and q of one point: it gives log p / q."""
    sp = torch.nn.functional.softplus

    def slope(a, p, q):
        a = torch.tensor(a, requires_grad=True, **DOUBLE)
        if terms.endswith("squares"):
            value = p * (a - target) ** 2 + q * a**2
        else:
            value = p * (target * sp(-a) + (1 - target) * sp(a)) + q * sp(a)
        return float(torch.autograd.grad(value, a)[0])

    for p, q in [(0.3, 0.6), (0.5, 0.2), (0.1, 0.1)]:
        low, high = -10.0, 10.0
        for _ in range(60):
            middle = (low + high) / 2
            low, high = (middle, high) if slope(middle, p, q) < 0 else (low, middle)
        assert float(drs.Loss(terms, target).log_ratio(torch.tensor(low, **DOUBLE))) == pytest.approx(math.log(p / q), abs=1e-6)


# --- the distribution that comes out ---


class Toy:
    """G draws z ~ N(0, 1) as it is; the data are N(0.5, 0.6^2): log p / q in closed form stands for D."""

    mean, std = 0.5, 0.6

    def D(self, img, c):
        z = img.flatten(1)
        return -0.5 * ((z - self.mean) / self.std) ** 2 - math.log(self.std) + 0.5 * z**2

    def proposals(self):
        return drs.Proposals(lambda z, c: z[:, :, None, None], self.D, drs.Loss())


def drawn(settings, count=3000, seed=0):
    toy, random = Toy(), np.random.RandomState(seed)
    no_labels = torch.zeros(count, 0)
    inputs = lambda first, count: (torch.from_numpy(random.standard_normal([count, 1])), no_labels[:count])
    acceptance = drs.burnt_in(toy.proposals(), inputs, settings)
    slots = [drs.tries(torch.from_numpy(random.standard_normal(1)).float(), random, "cpu") for _ in range(count)]
    images, latents = drs.accepted(toy.proposals(), acceptance, slots, no_labels)
    assert torch.equal(images.flatten(1), latents)
    return latents.flatten().numpy(), acceptance


def total_variation(values):
    """Between a histogram and the target's, by the error function."""
    edges = np.linspace(-2, 3, 21)
    cdf = np.array([0.5 * (1 + math.erf((edge - Toy.mean) / Toy.std / 2**0.5)) for edge in edges])
    shares = np.histogram(values, edges)[0] / len(values)
    return 0.5 * np.abs(shares - np.diff(cdf)).sum()


def test_acceptance_moves_the_distribution_to_the_target():
    plain = np.random.RandomState(1).standard_normal(3000)
    exact, acceptance = drawn(drs.Settings(gamma=0.0, burn_in=4000))
    mild, mild_acceptance = drawn(drs.Settings(gamma=-1.5, burn_in=4000))
    # gamma = 0 draws from the target itself, up to chance (3000 draws in 20 bins: 0.03 on average); below 0 goes part of the way.
    assert total_variation(plain) > 0.3 and total_variation(exact) < 0.05
    assert total_variation(exact) < total_variation(mild) < total_variation(plain)
    largest = math.exp(acceptance.largest)
    assert acceptance.rate == pytest.approx(1 / largest, rel=0.1)  # of exact rejection sampling: 1 / M
    assert acceptance.num_accepted == mild_acceptance.num_accepted == 3000 and acceptance.rate < mild_acceptance.rate
    # Above 0 it is stricter than the target asks for, and draws what D finds most real alone.
    strict, strict_acceptance = drawn(drs.Settings(gamma=2.0, burn_in=4000), count=300)
    assert strict.std() < exact.std() and strict_acceptance.rate < acceptance.rate


def test_the_same_seed_draws_the_same():
    first, again, other = drawn(drs.Settings(burn_in=200), 20), drawn(drs.Settings(burn_in=200), 20), drawn(drs.Settings(burn_in=200), 20, seed=1)
    assert np.array_equal(first[0], again[0]) and first[1].facts() == again[1].facts() and not np.array_equal(first[0], other[0])


def test_acceptance_by_loops():
    """The first accepted proposal of each image, with D always before whole batches: the same by a loop over one slot's proposals."""
    toy, acceptance = Toy(), drs.Acceptance(torch.tensor([0.0, 50.0]), drs.Settings(gamma=-49.5))  # M stays: nothing depends on order
    expected = []
    for seed in range(40):
        proposals = drs.tries(torch.zeros(1), np.random.RandomState(seed), "cpu")
        for z, uniform in proposals:
            score = float(toy.D(z[None, :, None, None], None)) - 50
            if uniform < 1 / (1 + math.exp(-(score - math.log(1 - math.exp(score - 1e-6)) + 49.5))):
                expected.append(float(z))
                break
    slots = [drs.tries(torch.zeros(1), np.random.RandomState(seed), "cpu") for seed in range(40)]
    _images, latents = drs.accepted(toy.proposals(), acceptance, slots, torch.zeros(40, 0))
    assert latents.flatten().tolist() == expected
    assert acceptance.num_accepted == 40 < acceptance.num_proposed


def test_an_endless_search_ends_in_a_sentence(monkeypatch):
    monkeypatch.setattr(drs, "MOST_PROPOSALS", 100)
    acceptance = drs.Acceptance(torch.tensor([0.0]), drs.Settings(gamma=60.0))
    with pytest.raises(UserError, match="--drs-gamma"):
        drs.accepted(Toy().proposals(), acceptance, [drs.tries(torch.zeros(1), np.random.RandomState(0), "cpu")], torch.zeros(1, 0))


# --- what D was trained with ---


@pytest.mark.parametrize("options", [None, {}, dict(loss_kwargs={})])
def test_a_loss_that_nobody_knows_is_assumed_aloud(options, capsys):
    loss = losses.loss_of_run(options, "n.pkl")
    assert loss == drs.Loss(is_assumed=True) and loss.facts() == dict(assumed_loss="non-saturating") and drs.Loss().facts() == {}
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Warning: --drs: nobody knows which loss trained D of n.pkl") and "StyleGAN2's is assumed" in line


def test_losses_by_the_options_of_the_run(capsys):
    plugin = dict(class_name="madr_plugin.loss.MADRLoss", base_class_name="training.loss.StyleGAN2Loss")
    assert losses.loss_of_run(dict(loss_kwargs=plugin), "n.pkl") == drs.Loss()
    with pytest.raises(UserError, match="somebodys.OwnLoss"):
        losses.loss_of_run(dict(loss_kwargs=dict(class_name="somebodys.OwnLoss")), "n.pkl")
    assert "nobody knows which loss" not in capsys.readouterr().err
