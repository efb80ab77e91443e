"""What the controllers do with a real sensor, memory-weighted attraction, and that strengths know no scale."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from madr_plugin import config
from madr_plugin.loss import MADRLoss
from madr_plugin.maths import cells, coverage
from madr_plugin.memory.sensor import CellSensor
from madr_plugin.strength.balance import GradientBalance
from madr_plugin.strength.controllers import IntegralController
from madr_plugin.strength.strength import Strength
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for
from tests.madr.test_madr_loss import NoAdversaryG, Points, Resampler, equilibrium_scores
from tests.madr.toy_host import Host, madr_loss


def strengths_of(images, steps, **madr):
    """Strength of the integral controller after each step of a generator that shows exactly `images` out of Points."""
    data = Points()
    G = Resampler(data.images[images])
    loss = MADRLoss(
        torch.device("cpu"),
        G=G,
        D=None,
        base_class_name=f"{NoAdversaryG.__module__}.NoAdversaryG",
        madr=dict(
            madr,
            preset="witness",
            shrink=0,
            controller="integral",
            control_kimg=0.5,
            balance="fixed",
            extractor="pca",
            capacity=256,
            deficit_window=512,
            random_seed=1,
        ),
    )
    loss.attach(dict(training_set=data, random_seed=1))
    generator, found = torch.Generator().manual_seed(0), []
    for _ in range(steps):
        z, c = torch.randn([32, 4], generator=generator), torch.zeros([32, 0])
        loss.accumulate_gradients("Gmain", None, None, z, c, sync=True, gain=1)
        found.append(loss.engine.strength.share("term"))
    return found, loss


def test_the_integral_controller_rests_at_exactly_zero_where_generated_equals_real():
    found, loss = strengths_of(slice(None), 160)
    assert max(found[:10]) > 0 and max(found[60:]) == 0  # from the filled window on, without a single return
    assert loss.telemetry()["lambda"] == 0


def test_and_stays_at_full_strength_while_half_is_missing():
    centre = Points().images[:, 0, 0, 0] < 128
    found, _ = strengths_of(np.flatnonzero(centre), 100)
    assert min(found[20:]) == 1


@pytest.mark.parametrize("gate", [1.0, 0.9])
def test_the_allowance_covers_counting_noise_and_not_much_more(gate):
    shares = torch.softmax(torch.randn(40, generator=torch.Generator().manual_seed(0)), 0)
    random, probabilities = np.random.RandomState(0), shares.double().numpy() / shares.double().sum().item() * gate
    counts = random.multinomial(512, [*probabilities, max(1 - probabilities.sum(), 0)], size=400)[:, :40]
    overlap = torch.stack([coverage.histogram_overlap(torch.tensor(row).float(), shares, 512, gate) for row in counts])
    deviation = float(coverage.overlap_deviation(shares, 512, gate))
    assert float(overlap.std()) < deviation < 2.5 * float(overlap.std())


def test_strength_is_free_of_scale():
    """The term's gradient is set relative to the host's: its own units, or a loss a thousand times as large, change nothing."""

    def ratio_after(host_scale, term_scale, mode):
        balance = GradientBalance(mode, {"term": 0.7}, "cpu")
        for step in range(50):
            balance.update(dict(host=torch.tensor(host_scale * (1 + step % 3)), term=torch.tensor(term_scale * (2 + step % 5))))
        return float(balance.ratio("term"))

    for mode in ("peak", "present"):
        assert ratio_after(1.0, 1.0, mode) == pytest.approx(ratio_after(1000.0, 1e-4, mode), rel=1e-4)
    assert ratio_after(1.0, 1.0, "present") == pytest.approx(0.7, rel=1e-4)


# --- memory-weighted attraction -------------------------------------------------------------------------------------------


def uncovered_host():
    """A host all of whose recent images lie in the first cell."""
    host = Host(madr_loss(dict(preset="witness", attraction="deficit", cells=5, deficit_max=20.0, reals=128)))
    host.loss.engine.sensor.ledger.add(torch.zeros([64], dtype=torch.int64))
    return host


def test_reals_of_deficient_cells_pull_more():
    engine = uncovered_host().loss.engine
    pull_N, cell_N = engine._pull_weights(), engine.reference.cell_of_real_N
    assert float(pull_N.mean()) == pytest.approx(1, abs=1e-5) and float(pull_N[cell_N != 0].min()) > float(pull_N[cell_N == 0].max()) * 3
    fake = engine.reference.features_ND[cell_N == 0][:16].clone().requires_grad_()
    missing = engine.reference.features_ND[cell_N != 0]

    def distance_after_step(pull_N):
        [gradient] = torch.autograd.grad(engine.objective.loss(fake, generator_for("same"), None, pull_N), fake)
        return float(torch.cdist(fake.detach() - 0.05 * gradient / gradient.norm(), missing).mean())

    start = float(torch.cdist(fake.detach(), missing).mean())
    assert distance_after_step(pull_N) < distance_after_step(None) and distance_after_step(pull_N) < start


def test_the_same_reals_are_drawn_and_equal_weights_are_no_weights():
    engine = uncovered_host().loss.engine
    fake = engine.reference.features_ND[:9]
    one, other = (engine.objective.loss(fake, generator_for("same"), None, pull) for pull in (None, torch.full([200], 3.0)))
    assert float(one) == pytest.approx(float(other), abs=1e-6)
    assert Host(madr_loss(dict(preset="witness"))).loss.engine._pull_weights() is None


def test_at_equilibrium_weighted_attraction_stands_still_too():
    assert equilibrium_scores(300, preset="witness", attraction="deficit", shrink=0).max() < 4


def test_refusals():
    for options in (dict(preset="paper", attraction="deficit"), dict(tilt=1, attraction="deficit")):
        with pytest.raises(MADRError, match="--madr-attraction=deficit .*without the tilt"):
            config.resolve(options)


# --- coverage of new images -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [300, 1500])
def test_coverage_is_one_for_new_images_of_the_same_distribution_also_where_reals_are_few(count):
    """In 16 dimensions gates laid around 300 points hold few others: uncorrected, coverage would end far below 1."""
    draw = torch.Generator().manual_seed(0)
    reals_ND, none = torch.randn([count, 16], generator=draw), torch.full([count], -1)
    cells_of = lambda: torch.Generator().manual_seed(1)
    fitted = cells.fit_cells_per_class(reals_ND, none, 30, 0.98, cells_of())
    held_out = float(cells.held_out_overlap(reals_ND, none, 30, 0.98, cells_of()))
    new_MD = torch.randn([4000, 16], generator=draw)
    counts_C = coverage.cell_counts(coverage.assign_to_cells(new_MD, fitted["centroids"], fitted["radii"]), len(fitted["shares"]))
    plain = float(coverage.histogram_overlap(counts_C, fitted["shares"], 4000, 0.98) / coverage.expected_overlap(fitted["shares"], 4000, 0.98))
    assert plain / held_out == pytest.approx(1, abs=0.06)
    assert plain < (0.85 if count == 300 else 0.97)


def test_the_integral_controller_rests_for_a_generator_that_makes_new_images():
    """...as for one that repeats the reals; and it works where half of them are left out."""
    draw = torch.Generator().manual_seed(0)
    reals_ND, none = torch.randn([800, 16], generator=draw), torch.full([800], -1)
    fitted = cells.fit_cells_per_class(reals_ND, none, 51, 0.98, torch.Generator().manual_seed(1))

    def strength_after(half, held_out, steps=200):
        reals = SimpleNamespace(
            centroids_CD=fitted["centroids"], radii_C=fitted["radii"], shares_C=fitted["shares"], class_C=fitted["class"], held_out=held_out
        )
        sensor, controller = CellSensor(reals, 512, 5.0, 0.98, torch.device("cpu")), IntegralController(3.0)
        for _ in range(steps):
            new_BD = torch.randn([64, 16], generator=draw)
            new_BD[:, 0] = new_BD[:, 0].abs() if half else new_BD[:, 0]
            sensor.note(new_BD, none[:64])
            controller.update(float(sensor.coverage() + 2 * sensor.coverage_deviation()), 64)
        return controller.strength

    held_out = float(cells.held_out_overlap(reals_ND, none, 51, 0.98, torch.Generator().manual_seed(1)))
    assert strength_after(half=False, held_out=held_out) == 0 and strength_after(half=True, held_out=held_out) == 1
    assert strength_after(half=False, held_out=1.0) == 1  # without the yardstick of held-out reals it would never rest


# --- one object that knows how strong -------------------------------------------------------------------------------------


def test_strength_multiplies_balance_signal_and_controllers():
    """lambda = balance * share; the objective's own controller scales the term alone, the integral one and the signal both."""
    chosen = config.resolve(dict(preset="replay", balance="fixed", weight=2.0, replay_weight=3.0, shrink=1.0, controller="integral"))
    strength = Strength(chosen, torch.device("cpu"), of_objective=lambda: 0.5)
    assert (float(strength.factor("term")), float(strength.factor("replay"))) == (1.0, 3.0)
    strength.signals["witness"].update(torch.tensor(4.0), torch.tensor(3.0))  # a quarter is signal
    strength.controller.strength = 0.8
    assert float(strength.share("replay")) == pytest.approx(0.2) and float(strength.share("term")) == pytest.approx(0.1)
    assert float(strength.factor("term")) == pytest.approx(0.2) and float(strength.factor("replay")) == pytest.approx(0.6)
    again = Strength(chosen, torch.device("cpu"), of_objective=lambda: 0.5)
    again.load(strength.live_state(), torch.device("cpu"))
    assert float(again.factor("term")) == float(strength.factor("term"))
