"""The share of signal in the witness's gradient: zero where the generator has arrived, one where it has collapsed."""

import pytest
import torch

from madr_plugin.maths import kernels, terms
from madr_plugin.strength import signal_share
from tests.madr.toy_host import Host, madr_loss

kernel = kernels.MixtureKernel(4.0)


@pytest.fixture(scope="module")
def reals():
    return torch.randn([3000, 8], generator=torch.Generator().manual_seed(0)) * 1.2


def drawing(reals):
    return lambda count, generator: reals[torch.randint(len(reals), [count], generator=generator)]


def witness(reals):
    return lambda fake_BD, generator: terms.witness_loss(fake_BD, drawing(reals)(256, generator), kernel)


def share_of(draw, reals, batch, steps=200):
    generator = torch.Generator().manual_seed(5)
    share, null = signal_share.SignalShare("cpu", 2), signal_share.null_power(drawing(reals), witness(reals), batch, seed=0)
    for _ in range(steps):
        fake = draw(batch, generator).requires_grad_()
        rows = torch.randint(len(reals), [256], generator=generator)
        [gradient] = torch.autograd.grad(terms.witness_loss(fake, reals[rows], kernel), fake)
        share.update(signal_share.feature_power(gradient), null)
    return float(share.factor())


@pytest.mark.parametrize("batch", [8, 64])
def test_at_equilibrium_hardly_anything_is_signal(reals, batch):
    assert share_of(lambda count, generator: drawing(reals)(count, generator).clone(), reals, batch) < 0.02


@pytest.mark.parametrize("batch", [8, 64])
def test_in_collapse_nearly_everything_is(reals, batch):
    assert share_of(lambda count, generator: reals[:1] + 0.05 * torch.randn([count, 8], generator=generator), reals, batch) > 0.7


def test_larger_batches_have_less_noise_and_power_does_not_depend_on_the_batch_otherwise(reals):
    nulls = [float(signal_share.null_power(drawing(reals), witness(reals), batch, seed=0)) for batch in (8, 32, 128)]
    assert nulls[0] > 2 * nulls[1] > 4 * nulls[2]
    far = reals[:1] * 0 + 1.0
    powers = []
    for batch in (8, 128):
        fake = far.repeat(batch, 1).requires_grad_()
        [gradient] = torch.autograd.grad(terms.witness_loss(fake, reals, kernel), fake)
        powers.append(float(signal_share.feature_power(gradient)))
    assert powers[0] == pytest.approx(powers[1], rel=1e-4)


def test_one_until_measured_exactly_zero_below_the_noise_and_state_comes_back():
    share = signal_share.SignalShare("cpu", 2)
    assert float(share.factor()) == 1
    share.update(torch.tensor(1.0), torch.tensor(2.0))
    assert float(share.factor()) == 0
    share.update(torch.tensor(float("nan")), torch.tensor(2.0))
    share.update(torch.tensor(151.0), torch.tensor(2.0))  # 0.98 + 0.02 * 151 = 4, (1 - 2/4)^2 = .25
    assert float(share.factor()) == pytest.approx(0.25)
    again = signal_share.SignalShare("cpu", 2)
    again.load(share.live_state(), "cpu")
    assert torch.equal(again.factor(), share.factor())


def test_the_term_is_scaled_by_it():
    values = {}
    for shrink in (0, 2.0):
        host = Host(madr_loss(dict(preset="witness", balance="fixed", shrink=shrink)))
        for _ in range(4):
            host.step()
        values[shrink] = host.loss.engine
    share = float(values[2.0].strength.signals["witness"].factor())
    assert 0 < share < 1 and values[0].strength.signals == {}
    assert float(values[2.0].strength.share("term")) == pytest.approx(share) and values[0].strength.share("term") == 1
    assert float(values[2.0].telemetry()["signal"]) == pytest.approx(share)


@pytest.mark.parametrize("unmeasured", ["shrink", "moments_shrink"])
def test_a_part_whose_noise_is_not_measured_speaks_in_full(unmeasured):
    host = Host(madr_loss(dict(preset="moments", width=8, **{unmeasured: 0})))
    host.step()
    strength = host.loss.engine.strength
    assert len(strength.signals) == 1 and strength.share("term") == 1
    [measured] = strength.signals.values()
    measured.factor = lambda: torch.zeros([])  # the other part rests
    assert strength.share("term") == 1


def test_published_terms_know_nothing_of_it():
    host = Host(madr_loss(dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1)))
    for _ in range(3):
        host.step()
    assert host.loss.engine.strength.signals == {} and "signal" not in host.loss.engine.telemetry()


def test_with_all_anchors_in_the_loss_the_null_knows_no_drawing_noise():
    """The loss over all anchors draws no reals: less noise than the loss over a few drawn ones."""
    pytest.importorskip("faiss")
    from madr_plugin import config, objectives
    from tests.madr.test_madr_anchors import make_reference
    from tests.madr.toy_host import Images

    made = make_reference(Images(seed=31), anchors=20)
    nulls = {reals: float(objectives.WitnessObjective(config.resolve(dict(reals=reals, anchors=20)), made, 0).null_power(64)) for reals in (4, 64)}
    assert nulls[64] < 0.8 * nulls[4]
