"""Coverage debts: assignment and potentials against brute force, gradient, rest at equilibrium, the twin, place in a step, state, refusals."""

import copy
import itertools
import math

import pytest
import torch
from click.testing import CliRunner

from experiments import zipf
from madr_plugin import config, objectives
from madr_plugin.maths import debts
from madr_spaces.errors import MADRError
from tests.madr.test_madr_loss import assert_same
from tests.madr.test_madr_moments import make_reference
from tests.madr.toy_host import Host, Images, madr_loss


def points(count, seed=0, width=3):
    return torch.randn([count, width], generator=torch.Generator().manual_seed(seed))


# --- pure functions ------------------------------------------------------------------------------------------------------


def test_assignment_by_potentials_is_its_definition():
    cost, potential, noise = debts.costs(points(30), points(5, seed=1), 1.7).double(), points(5, seed=2)[:, 0].double(), torch.full([5], 0.1).double()
    cell, moved = debts.assigned_by_potentials(cost, potential, noise)
    for i in range(30):
        a = min(range(5), key=lambda k: float((points(30)[i] - points(5, seed=1)[k]).square().sum()) / 1.7**2 - float(potential[k]))
        b = min(range(5), key=lambda k: float((points(30)[i] - points(5, seed=1)[k]).square().sum()))
        assert int(cell[i]) == a and bool(moved[i]) == (a != b and float(potential[a] - potential[b]) > 2 * (0.1 + 0.1))


def test_the_exact_assignment_is_the_cheapest():
    cost, quota = debts.costs(points(5), points(4, seed=1), 1.0), torch.tensor([0, 0, 1, 3, 2])
    cell, moved = debts.assigned_exactly(cost, quota)
    best = min(itertools.permutations(quota.tolist()), key=lambda order: sum(float(cost[i, a]) for i, a in enumerate(order)))
    assert cell.tolist() == list(best) and torch.equal(moved, cell != cost.argmin(1))


def test_cells_of_another_class_are_no_choice():
    classes = torch.tensor([0, 1, 0, 1])
    cost = debts.costs(points(6), points(4, seed=1), 1.0, torch.tensor([0, 1, 0, 1, 1, -1]), classes)
    cell, _ = debts.assigned_by_potentials(cost.double(), torch.tensor([4.0, 0, 0, 0]).double(), torch.zeros([4]).double())
    assert classes[cell[:5]].tolist() == [0, 1, 0, 1, 1]
    cell, moved = debts.assigned_exactly(cost[:2], torch.tensor([1, 3]))  # nothing is left for the first
    assert classes[cell].tolist() == [0, 1] and not bool(moved[0])


def test_potentials_ascend_stay_centred_and_are_clipped():
    share, count = torch.tensor([0.5, 0.3, 0.2]).double(), torch.tensor([8.0, 2.0, 0.0]).double()
    new = debts.updated_potentials(torch.tensor([0.1, 0.0, 0.2]).double(), count, share * 10, share, 0.5)
    raw = torch.tensor([0.1 + 0.5 * (0.5 - 0.8), 0.5 * (0.3 - 0.2), 0.2 + 0.5 * 0.2]).double()
    assert torch.allclose(new, raw - (share * raw).sum())
    for _ in range(200):
        new = debts.updated_potentials(new, count, share * 10, share, 0.5)
    assert float(new.abs().max()) == debts.CLIP and new[2] == debts.CLIP


def test_in_the_long_run_the_cells_get_their_shares():
    """Fixed samples, quotas far from their cells: the ascent of the dual finds the assignment that meets them."""
    fake, centres, share = points(400), 2 * points(6, seed=1), torch.tensor([0.3, 0.25, 0.2, 0.1, 0.1, 0.05]).double()
    cost, potential = debts.costs(fake, centres, 2.0).double(), torch.zeros([6]).double()
    for _ in range(3000):
        cell, _ = debts.assigned_by_potentials(cost, potential, torch.zeros([6]).double())
        potential = debts.updated_potentials(potential, torch.bincount(cell, minlength=6).double(), share * 400, share, 0.05)
    assert torch.allclose(torch.bincount(cell, minlength=6) / 400, share.float(), atol=0.02)


# --- the objective -------------------------------------------------------------------------------------------------------


def objective_of(kind, images=None, **knobs):
    images = images or Images(count=400)
    reference = make_reference(images, **knobs)
    chosen = config.resolve(dict(preset="witness", debt=kind, reals=32, deficit_window=64, **knobs))
    return objectives.build(chosen, reference, 0), reference


@pytest.mark.parametrize("kind", ["potentials", "batch"])
@pytest.mark.parametrize("num_classes", [0, 2])
def test_gradcheck_float64_and_the_gradient_is_that_of_the_loss(kind, num_classes):
    objective, reference = objective_of(kind, Images(count=400, num_classes=num_classes))
    fake, class_B = reference.features_ND[:12] * 0.6, reference.labels_N[:12]
    objective.potential_C = torch.linspace(-1, 1, len(objective.share_C)).double()
    objective.step_images = 12
    reference.features_ND, reference.centroids_CD = reference.features_ND.double(), reference.centroids_CD.double()
    fake = fake.double().requires_grad_()
    generator = lambda: torch.Generator().manual_seed(1)
    moved, targets = objective._targets(fake.detach(), generator(), class_B)
    assert 0 < float(moved.mean())
    pull = lambda x: objective.config.debt_weight * ((x - targets).square().sum(1) * moved).mean() / reference.scale**2
    assert torch.autograd.gradcheck(pull, [fake])
    by_hand = debts.pull_gradient(fake.detach(), targets, moved, reference.scale, objective.config.debt_weight)
    assert torch.allclose(torch.autograd.grad(pull(fake), fake)[0], by_hand)
    [slow] = torch.autograd.grad(objective.loss(fake, generator(), class_B=class_B), fake)
    fast, measured = objective.gradient(fake.detach(), generator(), objectives.Seen(class_B=class_B))
    assert torch.allclose(slow, fast, atol=1e-6 * float(slow.norm())) and float(measured["moved"]) > 0
    if num_classes:
        nearest = (targets[:, None] - reference.features_ND).square().sum(2).argmin(1)
        assert torch.equal(reference.labels_N[nearest], class_B)


def run(kind, draw, steps=400, batch=16):
    """-> (share moved, |mean pull| over s0, the distance of two reals) over the second half."""
    objective, reference = objective_of(kind)
    total, moved = 0.0, 0.0
    for step in range(steps):
        fake = draw(reference, batch, torch.Generator().manual_seed(step))
        generator = torch.Generator().manual_seed(10_000 + step)
        moved_B, target_BD = objective._targets(fake, generator, None)
        if step >= steps / 2:
            total, moved = total + ((fake - target_BD) * moved_B[:, None]).mean(0), moved + float(moved_B.mean())
        objective.after_step(step, None, objectives.Batch(fake, torch.full([batch], -1), batch, batch, dict(moved=moved_B.mean())))
    return moved / (steps / 2), float(total.norm()) / (steps / 2 * reference.scale)


def of_reals(reference, batch, generator):
    return reference.features_ND[torch.randint(len(reference.features_ND), [batch], generator=generator)]


def test_at_equilibrium_debts_rest_within_their_dead_zone_and_the_twin_does_not():
    moved, mean = run("potentials", of_reals)
    assert moved < 0.03 and mean < 0.02
    twin_moved, twin_mean = run("batch", of_reals)
    assert twin_moved > 0.15 and twin_mean < 0.1  # its quotas are drawn: it moves samples about, to no side on average


def test_a_missing_cell_is_owed_and_samples_are_sent_there():
    def without_cell(reference, batch, generator):
        rows = (reference.cell_of_real_N != 0).nonzero()[:, 0]
        return reference.features_ND[rows[torch.randint(len(rows), [batch], generator=generator)]]

    moved, _ = run("potentials", without_cell, steps=800)
    assert moved > 0.1


# --- in a step -----------------------------------------------------------------------------------------------------------

OPTIONS = dict(preset="witness", debt="potentials", debt_rate=1.0)


@pytest.mark.parametrize(
    "options",
    [
        {},
        dict(c_dim=2),
        dict(debt="batch"),
        dict(tilt=1, tilt_sensor="debts", tilt_guard=0.0),
        dict(term="witness+moments", tilt=1, tilt_sensor="debts", tilt_guard=0.0),
    ],
    ids=str,
)
def test_resumed_is_uninterrupted(options):
    make = lambda: Host(
        madr_loss(dict(OPTIONS, **{name: value for name, value in options.items() if name != "c_dim"})), c_dim=options.get("c_dim", 0)
    )
    whole, first, second = make(), make(), make()
    for _ in range(8):
        whole.step()
    for _ in range(4):
        first.step()
    saved = copy.deepcopy(first.loss.state_dict())
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(getattr(first, name).state_dict())
    second.loss.load_state_dict(saved)
    second.cur_nimg = first.cur_nimg
    for _ in range(4):
        second.step()
    assert all(torch.equal(one, other) for one, other in zip(whole.weights(), second.weights()))
    assert_same(whole.loss.state_dict(), second.loss.state_dict())
    told = whole.loss.engine.telemetry()
    assert float(told["debt_moved"]) >= 0 and ("debt_spread" in told) == (options.get("debt") != "batch")


def test_reals_of_cells_that_are_owed_are_shown_more_often():
    host = Host(madr_loss(dict(OPTIONS, tilt=1, tilt_sensor="debts", tilt_guard=0.0, tilt_temperature=0.5, tilt_max=20.0)))
    engine = host.loss.engine
    engine.objective.potential_C = torch.linspace(-0.5, 0.5, len(engine.objective.share_C)).double()
    weight = engine.tilt_of_cells()
    assert float(weight[0]) == 1 and float(weight[-1]) == pytest.approx(torch.e**2, rel=1e-4)
    assert torch.allclose(weight.log(), torch.linspace(0, 2, len(weight)), atol=1e-5)


@pytest.mark.parametrize(
    "options, said",
    [
        (dict(term="moments"), "--madr-debt=potentials adds to the witness"),
        (dict(anchors=64), "--madr-debt=potentials pulls to reals"),
        (dict(debt="batch", tilt=1, tilt_sensor="debts"), r"--madr-tilt-sensor=debts .*--madr-debt=batch"),
        (dict(debt_rate=0.0), "--madr-debt-rate must lie between"),
    ],
)
def test_knobs_that_make_no_sense(options, said):
    with pytest.raises(MADRError, match=said):
        config.resolve(dict(OPTIONS, **options))


def test_a_state_of_other_cells_is_refused_before_anything_is_taken_up():
    host = Host(madr_loss(OPTIONS))
    host.step()
    state = copy.deepcopy(host.loss.state_dict())
    state["madr"]["objective"]["potentials"] = state["madr"]["objective"]["potentials"][:-1]
    other = Host(madr_loss(OPTIONS))
    with pytest.raises(MADRError, match="resume with the former --madr-cells"):
        other.loss.load_state_dict(state)
    assert other.loss.engine.step == 0


# --- a generator without an adversary ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("batch", [64, 16])
@pytest.mark.parametrize("term", ["witness", "witness+moments"])
def test_without_an_adversary_debts_bring_modes_to_their_shares_and_the_twin_does_not(term, batch):
    found = {name: zipf.train(term + name, batch, 100, 2000)["variation"] for name in ("", "+batch-debt", "+debt")}
    print(term, batch, found)
    assert found["+debt"] < 0.9 * min(found[""], found["+batch-debt"])


def test_zipf_measures_shares_and_writes_its_table(tmp_path):
    assert zipf.measure(zipf.reals())["variation"] < 0.03 and zipf.measure(zipf.reals())["quality"] > 0.98
    collapsed = zipf.measure(zipf.centres()[:1].repeat(100, 1))
    assert collapsed["variation"] == pytest.approx(1 - float(zipf.true_shares()[0])) and collapsed["kl"] == pytest.approx(
        -math.log(float(zipf.true_shares()[0]))
    )
    args = ["--methods=witness,witness+debt", "--batches=8", "--seeds=2", "--steps=3", f"--out={tmp_path / 'zipf.json'}"]
    first, again = (CliRunner().invoke(zipf.main, args) for _ in range(2))
    assert first.exit_code == 0 and "| witness+debt, batch 8 | 2 |" in first.output and "| witness+debt, batch 8 minus |" in first.output
    assert "seed 0:" in first.output and "seed 0:" not in again.output  # finished runs are not repeated
    assert CliRunner().invoke(zipf.main, ["--batches=1"]).exit_code == 2


def test_the_least_owed_cell_of_each_class_is_shown_as_often_as_it_comes():
    """A cell that is owed little in one class must not raise all of another."""
    host = Host(madr_loss(dict(OPTIONS, tilt=1, tilt_sensor="debts", tilt_guard=0.0, tilt_max=5.0)), c_dim=2)
    engine = host.loss.engine
    class_C = engine.reference.class_C
    potential_C = torch.zeros(len(class_C), dtype=torch.float64)
    potential_C[class_C == 0] = torch.linspace(-4, 0, int((class_C == 0).sum())).double()
    potential_C[(class_C == 1).nonzero()[0]] = 1.0
    engine.objective.potential_C = potential_C
    weight = engine.tilt_of_cells()
    of_second = weight[class_C == 1]
    assert float(weight[class_C == 0].min()) == 1 and float(of_second[0]) == pytest.approx(torch.e, rel=1e-4) and bool((of_second[1:] == 1).all())


def test_debts_at_their_limit_are_told_once():
    host = Host(madr_loss(OPTIONS))
    engine = host.loss.engine
    assert not engine.sentences() or not list(engine.sentences())
    engine.objective.potential_C[0] = debts.CLIP
    told = list(engine.sentences())
    assert len(told) == 1 and "debts have reached their limit of 4" in told[0] and not list(engine.sentences())
    assert float(engine.telemetry()["debt_clipped"]) == pytest.approx(1 / len(engine.objective.share_C))


@pytest.mark.parametrize(
    "before, after, anew, left",
    [
        (dict(debt="none", term="moments"), dict(debt="none", term="paper"), ["published"], ["moments"]),
        (dict(debt="none"), dict(debt="none", term="witness+moments"), ["moments"], []),
        (dict(), dict(term="witness+moments"), ["moments"], []),
        (dict(), dict(debt="none"), [], ["debts"]),
        (dict(), dict(debt="batch"), [], ["debts"]),
        (dict(term="witness+moments"), dict(), [], ["moments"]),
        (dict(debt="none", term="witness+moments"), dict(), ["witness"], ["moments"]),
        (dict(debt="none", term="paper", start_fill=0.0), dict(debt="none", term="witness+moments"), ["moments"], ["published"]),
        (dict(debt="none"), dict(debt="none", tilt=1, tilt_sensor="fine"), ["the tilt's sensor"], []),
        (dict(debt="none", tilt=1, tilt_sensor="fine"), dict(debt="none"), [], ["the tilt's sensor"]),
    ],
    ids=str,
)
def test_a_state_of_another_term_gives_what_both_have(before, after, anew, left):
    """In a fork nothing else holds a run to its term."""
    first, second = (Host(madr_loss(dict(OPTIONS, **options))) for options in (before, after))
    for _ in range(3):
        first.step()
    saved = copy.deepcopy(first.loss.engine.live_state())
    second.loss.engine.load(saved)
    for told, words in ((second.loss.engine.begun_anew, anew), (second.loss.engine.left_behind, left)):
        assert len(told) == len(words) and all(word in what for what, word in zip(told, words)), told
    if not before and not left:  # debts stay
        debt = second.loss.engine.objective.objectives["witness"]
        assert torch.equal(debt.potential_C, first.loss.engine.objective.potential_C) and bool((debt.potential_C != 0).any())
    second.step()
