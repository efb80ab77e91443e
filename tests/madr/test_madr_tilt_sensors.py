"""The tilt's further sensors: fine cells with their gate and window, D's past logits; resuming, processes, refusals."""

import copy
import types

import numpy as np
import pytest
import torch

from madr_plugin import config
from madr_plugin.maths import coverage
from madr_plugin.memory.sample_memory import CellLedger
from madr_plugin.reals import fine_cells
from madr_plugin.tilt import fine_sensor, logit_sensor
from madr_plugin.tilt.fine_sensor import FineSensor
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Host, madr_loss
from training.gan import dia_gan

FINE = dict(preset="witness", tilt=1, tilt_guard=0.0, deficit_window=64, cells=5, tilt_sensor="fine", tilt_rarest=0.1)
LOGITS = dict(FINE, tilt_sensor="logits")


def clusters(counts, seed=0, spread=0.1):
    """Points of groups on a line, three apart: (features [N, 2], group [N])."""
    group_N = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    noise = spread * torch.randn([len(group_N), 2], generator=torch.Generator().manual_seed(seed))
    return torch.stack([3.0 * group_N, torch.zeros(len(group_N))], 1) + noise, group_N


def cells_of(features_ND, labels_N=None, rarest=0.04):
    labels_N = torch.full([len(features_ND)], -1) if labels_N is None else labels_N
    return fine_cells.FineCells(features_ND, labels_N, fine_cells.fit(features_ND, labels_N, rarest, 0))


def sensor_of(cells, **options):
    resolved = config.resolve({**dict(preset="witness", tilt=1, tilt_sensor="fine", tilt_rarest=0.04), **options})
    return FineSensor(cells, resolved, torch.device("cpu"))


NO_CLASS = torch.full([1], -1)


# --- cells and gates ----------------------------------------------------------------------------------------------------


def test_the_gate_is_the_quantile_of_the_cells_nearest_distances():
    features_ND, _ = clusters([60, 40, 30])
    cells = cells_of(features_ND)
    distance_NN = (features_ND[:, None].double() - features_ND[None].double()).norm(dim=2)
    nearest_N = distance_NN.fill_diagonal_(np.inf).min(1).values
    for cell in range(len(cells.gates_C)):
        own = nearest_N[cells.cell_of_real_N == cell]
        expected = np.quantile((own if len(own) >= 5 else nearest_N).numpy(), 0.9)
        assert float(cells.gates_C[cell]) == pytest.approx(expected, rel=1e-3)


def test_images_belong_to_the_cell_of_the_nearest_real_or_to_none():
    features_ND, group_N = clusters([60, 40, 30])
    cells = cells_of(features_ND)
    fresh_ND, fresh_group_N = clusters([60, 40, 30], seed=1)
    cell_N = cells.assign(fresh_ND)
    inside = cell_N >= 0
    assert 0.75 < float(inside.float().mean()) < 0.98  # GATE, for new points a little less
    owner_C = torch.stack([group_N[cells.cell_of_real_N == cell][0] for cell in range(len(cells.shares_C))])
    assert torch.equal(owner_C[cell_N[inside]], fresh_group_N[inside])
    assert (cells.assign(torch.tensor([[1.5, 0.0], [4.5, 0.0]])) == -1).all()  # blends of two groups
    assert (cells.assign(features_ND) == cells.cell_of_real_N).all()  # a real is its own nearest


def test_of_a_large_set_a_part_is_searched_and_says_the_same(monkeypatch):
    features_ND, group_N = clusters([3000, 2000, 1000, 60])
    monkeypatch.setattr(fine_cells, "MOST_SEARCHED", 1000)
    cells = cells_of(features_ND, rarest=0.04)
    assert len(cells.searched.points_nD) == 1000 < len(features_ND) and len(cells.cell_of_real_N) == len(features_ND)
    fresh_ND, fresh_group_N = clusters([60, 40, 30, 20], seed=1)
    cell_N = cells.assign(fresh_ND)
    inside = cell_N >= 0
    owner_C = torch.stack([group_N[cells.cell_of_real_N == cell][0] for cell in range(len(cells.shares_C))])
    assert 0.75 < float(inside.float().mean()) < 0.98 and torch.equal(owner_C[cell_N[inside]], fresh_group_N[inside])
    brute = (fresh_ND[:, None].double() - cells.searched.points_nD[None].double()).norm(dim=2).min(1)
    own_gate = cells.gates_C[cells.searched_cell_n[brute.indices]]
    assert torch.equal(inside, brute.values <= own_gate)


def test_a_rare_group_owns_a_cell_and_small_sets_have_cells_of_twenty():
    features_ND, group_N = clusters([300, 300, 300, 40])
    cells = cells_of(features_ND, rarest=0.04)
    rare = cells.cell_of_real_N[group_N == 3].unique()
    assert len(rare) >= 1 and (group_N[torch.isin(cells.cell_of_real_N, rare)] == 3).all()
    assert fine_cells.num_cells(0.004, 100_000) == 250 and fine_cells.num_cells(0.004, 400) == 20 and fine_cells.num_cells(0.4, 16) == 2


def test_with_classes_images_are_compared_with_reals_of_their_own():
    features_ND, group_N = clusters([60, 60])
    cells = cells_of(features_ND, labels_N=group_N)
    near_first = features_ND[:5]
    assert (cells.assign(near_first, torch.zeros([5], dtype=torch.int64)) >= 0).all()
    assert (cells.assign(near_first, torch.ones([5], dtype=torch.int64)) == -1).all()  # of class 1, but among reals of class 0


# --- the window -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dim", [2, 16])
def test_where_classes_overlap_generated_images_like_the_reals_leave_no_deficit(dim):
    """30% of class 0 lie within class 1: gates that looked at reals of any class would be too narrow for them."""
    generator = torch.Generator().manual_seed(0)

    def drawn(count):
        label_N = (torch.rand(count, generator=generator) < 0.9).long()
        far_N = (label_N == 1) | (torch.rand(count, generator=generator) < 0.3)
        return torch.randn([count, dim], generator=generator) + 8.0 * far_N[:, None], label_N

    cells = cells_of(*drawn(4000), rarest=0.02)
    features_BD, class_B = drawn(8000)
    count_C = coverage.cell_counts(cells.assign(features_BD, class_B), len(cells.shares_C))
    expected_C = coverage.expected_counts(count_C, cells.shares_C, cells.class_C)
    mixed_C = (cells.class_C == 0) & (cells.centroids_CD.mean(1) > 4)
    assert 0.75 < float(count_C[mixed_C].sum() / expected_C[mixed_C].sum()) < 1.3


def test_copies_among_the_reals_close_no_gate():
    generator = torch.Generator().manual_seed(0)
    draw = lambda count, place: torch.randn([count, 8], generator=generator) + place
    cells = cells_of(torch.cat([draw(1800, 0.0), draw(40, 10.0).repeat(5, 1)]), rarest=0.05)  # a rare mode, each of its images kept five times
    count_C = coverage.cell_counts(cells.assign(torch.cat([draw(9000, 0.0), draw(1000, 10.0)])), len(cells.shares_C))
    copied_C = cells.centroids_CD.mean(1) > 5
    expected_C = coverage.expected_counts(count_C, cells.shares_C)
    assert 0.7 < float(count_C[copied_C].sum() / expected_C[copied_C].sum()) < 1.3
    nearest_N = fine_cells.nearest_other_real(torch.ones([60, 2]))
    assert nearest_N.isinf().all() and fine_cells.gates(nearest_N, torch.zeros([60]), 2).isinf().all()  # one image alone: nothing to judge by


def test_share_change_is_unbiased_where_nothing_changes_and_exact_where_all_does():
    shares, random = torch.tensor([0.5, 0.3, 0.15, 0.04, 0.01]), torch.Generator().manual_seed(0)
    draw = lambda p, count: torch.bincount(torch.multinomial(p, count, True, generator=random), minlength=5).float()
    raw = []
    for _ in range(400):
        n, m = draw(shares, 300), draw(shares, 200)
        chi_square = sum((float(a) * (2 / 3) ** 0.5 - float(b) * 1.5**0.5) ** 2 / float(a + b) for a, b in zip(n, m) if a + b > 0)
        value = (chi_square - (int(((n + m) > 0).sum()) - 1)) / 500
        assert float(coverage.share_change(n, m)) == pytest.approx(max(value, 0), abs=1e-5)
        raw.append(value)
    assert abs(np.mean(raw)) < 3 * np.std(raw) / 20
    one, other = torch.tensor([100.0, 0.0]), torch.tensor([0.0, 100.0])
    assert float(coverage.share_change(one, other)) == pytest.approx(199 / 200)
    assert float(coverage.share_change(one, torch.zeros([2]))) == 0
    # A cell of half the mass that has lost 30% of it: relative change .15 / .85 of the mean there, beside the others' gain.
    n, m = torch.tensor([5e6, 5e6]), torch.tensor([3.5e6, 6.5e6])
    expected = 0.425 * (1.5 / 8.5) ** 2 + 0.575 * (1.5 / 11.5) ** 2
    assert float(coverage.share_change(n, m)) == pytest.approx(expected, rel=1e-3)


def test_newest_of_the_ring():
    ledger = CellLedger(5, torch.device("cpu"))
    ledger.add(torch.tensor([1, 2, 3]))
    assert ledger.newest(2).tolist() == [2, 3]
    ledger.add(torch.tensor([4, 5, 6, 7]))
    assert ledger.newest(5).tolist() == [3, 4, 5, 6, 7] and ledger.newest(1).tolist() == [7]


def test_the_window_is_what_a_rare_mode_needs():
    assert fine_sensor.needed_window(0.01, 20) == int(3 * 20 / (0.01 * 0.9) + 1)
    assert fine_sensor.needed_window(0.01, 1) == int(1 / (0.01 * 0.09) + 1)
    features_ND, group_N = clusters([300, 300, 300, 40])
    cells = cells_of(features_ND)
    sensor = sensor_of(cells, tilt_max=20.0)
    assert len(sensor.ledger.cells_W) == sensor.needed == fine_sensor.needed_window(1 / len(cells.shares_C), 20.0)
    pool = features_ND[group_N != 3]
    for part in pool[torch.randint(len(pool), [sensor.needed], generator=torch.Generator().manual_seed(0))].split(64):
        sensor.note(part, NO_CLASS.expand(len(part)))
    v_N = sensor.deficits(20.0)[cells.cell_of_real_N]
    rare_N = group_N == 3  # some of its cells are smaller than the mean one, for which the window is made
    assert float(v_N[rare_N].mean()) > 10 and (v_N[rare_N] == 20).any() and float(v_N[~rare_N].max()) < 2
    assert sensor.window() == sensor.needed  # nothing changes


def test_the_window_shortens_while_something_else_is_generated_and_lengthens_again():
    features_ND, group_N = clusters([300, 300, 300, 300])
    cells, random = cells_of(features_ND), torch.Generator().manual_seed(0)
    auto, fixed = sensor_of(cells, tilt_max=30.0), sensor_of(cells, tilt_max=30.0, tilt_window="2000")

    def generate(groups, count):
        pool = features_ND[torch.isin(group_N, torch.tensor(groups))]
        for part in pool[torch.randint(len(pool), [count], generator=random)].split(50):
            auto.note(part, NO_CLASS.expand(len(part))), fixed.note(part, NO_CLASS.expand(len(part)))

    generate([0, 1], 2000)
    assert auto.window() == auto.ledger.count == 2000 and auto.sentences(1, 1000) == []
    generate([2, 3], 600)
    size = auto.window()
    assert size < 2 * 600 and fixed.window() == 2000
    assert float(auto.deficits(20.0)[cells.cell_of_real_N][group_N == 0].min()) > float(
        fixed.deficits(20.0)[cells.cell_of_real_N][group_N == 0].max()
    )
    [sentence] = auto.sentences(10, 2000)
    assert sentence == f"MADR: from step 10 (kimg 2.0) the tilt counts over the last {size} images: before them, something else was generated"
    assert auto.sentences(11, 2000) == [] and auto.telemetry()["tilt_window"] == size
    generate([2, 3], auto.needed)
    assert auto.window() == auto.needed and "lasts again" in auto.sentences(12, 3000)[0]


# --- D's logits -----------------------------------------------------------------------------------------------------------------


def test_scores_by_hand():
    """Three reals with logits (1, 3), (-2), none; k = .3."""
    weight, first, second = torch.tensor([[2.0, 1, 0], [4.0, -2, 0], [10.0, 4, 0]], dtype=torch.float64)
    found = logit_sensor.scores(weight, first, second)
    assert found.tolist() == pytest.approx([0.5, 0.01, 0.255])  # 2 + .3 * 1 = 2.3, beyond 50 x .01; -2 below .01; the mean of the two
    high = logit_sensor.scores(weight, first + 10 * weight, second + 20 * first + 100 * weight)
    assert high.tolist() == pytest.approx([12.3, 8.0, 10.15])


def test_scores_are_those_of_the_rival():
    """--method=dia-gan has the formula, too; neither side may import the other."""
    sums = torch.rand([3, 50], dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, first = (10 * sums[0]).floor(), 6 * sums[1] - 2
    second = first.square() / weight.clamp(min=1) + sums[2]
    assert (weight == 0).any() and torch.equal(
        logit_sensor.scores(weight, first, second), dia_gan.scores(weight, first, second, logit_sensor.STD_WEIGHT)
    )
    assert (logit_sensor.LOWEST, logit_sensor.MOST) == (dia_gan.LOWEST, dia_gan.MOST)


class Pictures:
    """Each image is its row number / 127.5 - 1 everywhere."""

    def __len__(self):
        return 10

    def __getitem__(self, row):
        return np.full([1, 2, 2], row, np.uint8), np.zeros([0], np.float32)


def logits_sensor():
    reference = types.SimpleNamespace(features_ND=torch.zeros([10, 2]), labels_N=torch.full([10], -1), mass_N=None)
    discriminator = types.SimpleNamespace(logits=lambda images, labels: (images[:, 0, 0, 0] + 1) * 127.5)
    return logit_sensor.LogitSensor(reference, Pictures(), np.arange(10), discriminator, 0)


def test_looks_go_through_all_reals_and_remember_their_logits():
    sensor = logits_sensor()
    assert (sensor.deficits(5.0) == 1).all()
    sensor.look(3, 2)
    assert int((sensor.weight_N > 0).sum()) == 6 and sensor.position == 6
    sensor.look(3, 1)
    assert int((sensor.weight_N > 0).sum()) == 9  # the tenth is left over
    for _ in range(20):
        sensor.look(3, 2)
    assert (sensor.weight_N > 0).all() and torch.allclose(sensor.first_N / sensor.weight_N, torch.arange(10, dtype=torch.float64), atol=1e-4)
    v_N = sensor.deficits(1000.0)
    assert float(v_N[0]) == 1 and float(v_N[1:].min()) == pytest.approx(50) and float(sensor.deficits(5.0).max()) == 5


def test_a_discriminator_that_judges_no_single_images_is_a_sentence():
    sensor = logits_sensor()

    def packs_alone(images, labels):
        raise AssertionError("expected a tensor of shape (*, 6, 4, 4)")

    sensor.discriminator.logits = packs_alone
    with pytest.raises(MADRError, match=r"cannot be asked about single images.*\(\*, 6, 4, 4\).*use --madr-tilt-sensor=cells or fine"):
        sensor.look(3, 1)


def test_old_looks_fade():
    sensor = logits_sensor()
    for logit in (0.0, 4.0):
        sensor.discriminator = types.SimpleNamespace(logits=lambda images, labels, logit=logit: torch.full([len(images)], logit))
        sensor.look(10, 1)
    assert sensor.first_N[0] / sensor.weight_N[0] == pytest.approx(4 / 1.9)


def test_several_processes_look_at_the_same_reals(monkeypatch):
    """Each its own microbatches, in global order."""
    whole, seen = logits_sensor(), []
    ask = whole.discriminator.logits
    whole.discriminator = types.SimpleNamespace(logits=lambda *inputs: seen.append(ask(*inputs)) or seen[-1])
    for _ in range(3):
        whole.look(2, 2)
    ranks = {0: [], 1: []}
    for rank, own in ranks.items():
        sensor = logits_sensor()
        monkeypatch.setattr(logit_sensor.collective, "world", lambda rank=rank: (rank, 2))
        monkeypatch.setattr(logit_sensor.collective, "gather_microbatches", lambda rounds, own=own: own.append(rounds[0]) or torch.stack(rounds * 2))
        for _ in range(3):
            sensor.look(2, 1)
        assert sensor.position == whole.position == 12
    assert torch.equal(torch.stack(seen), torch.stack([logits for step in zip(ranks[0], ranks[1]) for logits in step]))


# --- in the loop ------------------------------------------------------------------------------------------------------------------


def started(options, steps=4):
    """A host whose gates are wide enough for images of an untrained generator; these all lie in few cells."""
    host = Host(madr_loss(options))
    if options["tilt_sensor"] == "fine":
        host.loss.engine.tilt_sensor.cells.gates_C.mul_(100)
    for _ in range(steps):
        host.step()
    return host


@pytest.mark.parametrize("options", [FINE, LOGITS])
def test_d_is_shown_what_the_sensor_names_and_resuming_is_bit_exact(options):
    whole, first, second = started(options, 4), started(options, 4), started(options, 0)
    engine = whole.loss.engine
    v_N = engine.tilt()
    assert v_N is not None and len(v_N) == len(whole.images) and 1 < float(v_N.max()) <= 5 and float(v_N.min()) == 1
    assert float(engine.telemetry()["tilt"]) > 0
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    second.cur_nimg = first.cur_nimg
    second.loss.load_state_dict(copy.deepcopy(first.loss.state_dict()))
    assert torch.equal(second.loss.engine.tilt(), first.loss.engine.tilt())
    for _ in range(3):
        whole.step(), second.step()
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), second.weights()))
    assert torch.equal(whole.loss.engine.tilt(), second.loss.engine.tilt())


def test_the_other_sensor_begins_anew_and_other_cells_are_refused():
    state = started(FINE, 2).loss.state_dict()
    other = started(LOGITS, 0)
    other.loss.load_state_dict(copy.deepcopy(state))
    assert other.loss.engine.tilt_sensor.position == 0
    with pytest.raises(MADRError, match="--madr-tilt-rarest"):
        started(dict(FINE, tilt_rarest=0.3), 0).loss.load_state_dict(copy.deepcopy(state))
    with pytest.raises(MADRError, match="--madr-tilt-window"):
        started(dict(FINE, tilt_window="100"), 0).loss.load_state_dict(copy.deepcopy(state))


def test_a_refused_state_leaves_nothing_behind():
    state = started(dict(FINE, preset="default", width=8), 3).loss.engine.live_state()
    other = started(dict(FINE, preset="default", width=8, tilt_window="100"), 0).loss
    other.prepare()
    before = copy.deepcopy(other.engine.live_state())
    with pytest.raises(MADRError, match="--madr-tilt-window"):
        other.engine.load(copy.deepcopy(state))
    moments, untouched = other.engine.live_state()["objective"]["moments"], before["objective"]["moments"]
    assert float(moments["weight_G"]) == float(untouched["weight_G"]) == 0 and other.engine.step == 0 and other.engine.memory.count == 0


def test_fine_cells_weigh_logits_too():
    host = started(dict(FINE, tilt_form="weight"), 4)
    assert host.loss.engine.tilt() is not None and host.loss.telemetry()["tilt"] > 0


@pytest.mark.parametrize(
    "options, words",
    [
        (dict(tilt=1, tilt_window="512"), "--madr-tilt-window=512 is the window of --madr-tilt-sensor=fine"),
        (dict(tilt=1, tilt_sensor="fine", tilt_window="long"), "must be auto or a number"),
        (dict(tilt=1, tilt_sensor="fine", tilt_window="3"), "between 16 and"),
        (dict(tilt=1, tilt_sensor="logits", tilt_form="weight"), "use --madr-tilt-form=draw"),
    ],
)
def test_refusals(options, words):
    with pytest.raises(MADRError, match=words):
        config.resolve(dict(options, preset="witness"))


@pytest.mark.parametrize(
    "build", [lambda reference: fine_cells.build(reference, None, 0), lambda reference: logit_sensor.LogitSensor(reference, None, None, None, 0)]
)
def test_anchors_are_refused(build):
    with pytest.raises(MADRError, match="--madr-anchors=0"):
        build(types.SimpleNamespace(mass_N=torch.ones([3])))
