"""Memory policies counted, cells and deficits, estimators, reference features."""

import numpy as np
import pytest
import torch
from scipy import stats

from madr_plugin import config
from madr_plugin.base import collective
from madr_plugin.maths import cells, coverage, estimators, kernels, terms
from madr_plugin.memory.sample_memory import CellLedger, SampleMemory
from madr_plugin.reals import reference
from madr_plugin.strength import controllers
from madr_spaces import files, registry
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.pca import PCASpace
from madr_spaces.seeded_conv import RandomSpace
from madr_spaces.seeds import generator_for
from tests.madr.toy_host import Images


def samples(first, count, importance=None):
    """Feature = number of the sample, so that survivors can be named."""
    numbers = torch.arange(first, first + count, dtype=torch.float32)
    return dict(
        features=numbers[:, None],
        latents=torch.zeros([count, 1, 2]),
        layers=torch.ones([count], dtype=torch.int64),
        labels=torch.zeros([count, 0]),
        importance=torch.ones([count]) if importance is None else importance,
    )


def fill(policy, seed, capacity=20, total=100, batch=10, half_life_kimg=1.0, importance_of=None, update_interval=1):
    memory = SampleMemory(capacity, policy, half_life_kimg)
    for step in range(0, total // batch, update_interval):
        first = step * batch
        importance = None if importance_of is None else torch.tensor([importance_of(n) for n in range(first, first + batch)])
        memory.offer(samples(first, batch, importance), step, first, generator_for("test", seed, step), batch * update_interval)
    return memory


def survivors(policy, runs, **kwargs):
    kept = np.zeros(kwargs.get("total", 100))
    for seed in range(runs):
        kept[fill(policy, seed, **kwargs).filled("features")[:, 0].long().numpy()] += 1
    return kept


def test_reservoir_is_uniform():
    kept = survivors("reservoir", runs=400)
    # Blocks of ten neighbours: a memory that forgets or clings would show a trend.
    blocks = kept.reshape(10, 10).sum(1)
    assert kept.sum() == 400 * 20
    # Numbers of one run are drawn without replacement, which makes the statistic smaller, never larger.
    assert stats.chisquare(blocks).pvalue > 1e-3


@pytest.mark.parametrize("update_interval", [1, 2])
def test_forgetting_halves_at_its_half_life(update_interval):
    # Capacity 50; half-life 100 images; 1000 generated: survivors per age must follow 2^(-age/100), also where every other batch is offered.
    runs = 60
    kept = survivors("forgetting", runs, capacity=50, total=1000, batch=50 // update_interval, half_life_kimg=0.1, update_interval=update_interval)
    age = np.arange(1000)[::-1] // 100
    shares = np.array([kept[age == group].sum() for group in range(6)]) / (runs * 50)
    expected = 0.5 ** np.arange(6) * 0.5
    assert np.abs(shares - expected).max() < 0.035


def test_fifo_keeps_the_last():
    memory = fill("fifo", 0, capacity=15)
    assert sorted(memory.filled("features")[:, 0].tolist()) == list(range(85, 100))


def test_progressive_grows_and_then_is_full():
    memory = SampleMemory(1000, "progressive", 1.0)
    for step in range(0, 6000, 100):
        memory.offer(samples(step, 100), step, step, generator_for(step))
        assert memory.count <= memory.effective_capacity(step)
    assert memory.count == 1000 and memory.effective_capacity(0) == 128 and memory.effective_capacity(2500) == 564


def test_importance_evicts_what_lies_close_to_the_reals():
    kept = survivors("importance", 150, importance_of=lambda n: 10.0 if n % 2 else 1.0)
    assert kept[1::2].sum() > 1.5 * kept[::2].sum()


@pytest.mark.parametrize("policy", ["reservoir", "fifo", "forgetting", "progressive", "importance"])
def test_draws_follow_from_the_generator_handed_over_and_from_nothing_else(policy):
    torch.manual_seed(0)
    a = fill(policy, 7)
    torch.manual_seed(1)
    b, c = fill(policy, 7), fill(policy, 8)
    assert torch.equal(a.tensors["features"], b.tensors["features"]) and a.offered == b.offered == 100
    assert policy == "fifo" or not torch.equal(a.filled("features"), c.filled("features"))


class LabelledPoints(Images):
    """Points of a plane with classes that say nothing about where a point lies."""

    def __init__(self, count=1500, num_classes=5):
        super().__init__(count=16)
        random = np.random.RandomState(0)
        self.images = ((random.randn(count, 2) * [0.25, 0.15] + 1) * 127.5).round().clip(0, 255)[:, :, None, None]
        self.labels, self.image_shape, self.label_shape = (
            np.eye(num_classes, dtype=np.float32)[random.randint(0, num_classes, count)],
            [2, 1, 1],
            [num_classes],
        )


def test_with_labels_a_ball_holds_as_many_entries_of_its_class_as_asked():
    dataset = LabelledPoints()
    extractor = registry.build("pca", (2, 1, 1), width=2)
    reals = reference.build(dataset, extractor, config.resolve(dict(deficit_window=64)), 0, torch.device("cpu"), announce=len)
    drawn_RD = reals.features_ND[::3]  # as if they were generated: of the same distribution, and here the same points
    class_R, rows = reals.labels_N[::3], torch.arange(1, 1500, 3)
    entries_of_class = torch.bincount(class_R, minlength=5)
    radius_r = reals.dead_zone_radius(rows, 3.0, entries_of_class)
    own_class = class_R[None, :] == reals.labels_N[rows][:, None]
    found = ((squared_distances(reals.features_ND[rows], drawn_RD).sqrt() <= radius_r[:, None]) & own_class).sum(1)
    assert float(found.float().mean()) == pytest.approx(3, rel=0.15)
    assert 0.02 < float((found == 0).float().mean()) < 0.2  # what is left of the pull
    # Counted over all classes alike, most reals would count as unreached.
    blind = (
        (squared_distances(reals.features_ND[rows], drawn_RD).sqrt() <= reals.dead_zone_radius(rows, 3.0, len(drawn_RD))[:, None]) & own_class
    ).sum(1)
    assert float((blind == 0).float().mean()) > 0.4


def test_ledger_is_a_ring():
    ledger = CellLedger(6, torch.device("cpu"))
    for start in range(0, 12, 4):
        ledger.add(torch.arange(start, start + 4))
    assert sorted(ledger.filled().tolist()) == [6, 7, 8, 9, 10, 11]
    ledger.add(torch.arange(20, 30))
    assert sorted(ledger.filled().tolist()) == list(range(24, 30))


# --- estimators ---------------------------------------------------------------------------------------------------------


def ring(count, masses, seed, spread=0.05, between=0.0):
    """Points of an eight-mode ring; a share `between` lies on the circle between modes."""
    random = np.random.RandomState(seed)
    mode = random.choice(8, size=count, p=np.array(masses) / sum(masses))
    angle = 2 * np.pi * mode / 8
    angle = np.where(random.rand(count) < between, angle + np.pi / 8, angle)
    return torch.tensor(np.stack([2 * np.cos(angle), 2 * np.sin(angle)], 1) + spread * random.randn(count, 2), dtype=torch.float32), mode


MASSES = [0.32, 0.02, 0.22, 0.01, 0.20, 0.01, 0.20, 0.02]


def test_gated_cells_see_a_small_missing_mode_where_kernels_do_not():
    real, mode = ring(8000, MASSES, seed=0)
    fitted = cells.fit_cells(real, 40, 0.98, generator_for("cells"))
    without = [mass if index != 3 else 0.0 for index, mass in enumerate(MASSES)]
    fake, _ = ring(1024, without, seed=1, between=0.10)
    counts = coverage.cell_counts(coverage.assign_to_cells(fake, fitted["centroids"], fitted["radii"]), len(fitted["shares"]))
    weight_N = coverage.deficit_weights(counts, coverage.expected_counts(counts, fitted["shares"]), 20.0)[fitted["cell_of_real"]]
    missing = torch.from_numpy(mode == 3)
    assert weight_N[missing].mean() > 4 and weight_N[~missing].mean() < 2
    kernel = kernels.MixtureKernel(2.0)
    ratio = kernel(squared_distances(real[missing], fake)).mean() / kernel(squared_distances(real[missing], real[:2000])).mean()
    assert ratio > 0.7  # the wide kernel hardly notices: this is why cells are the sensor


def test_deficits_are_near_one_when_generated_equals_real():
    real, _ = ring(8000, MASSES, seed=0)
    fitted = cells.fit_cells(real, 40, 0.98, generator_for("cells"))
    fake, _ = ring(1024, MASSES, seed=1)
    cell = coverage.assign_to_cells(fake, fitted["centroids"], fitted["radii"])
    assert 0.95 < (cell >= 0).float().mean() < 1
    counts = coverage.cell_counts(cell, len(fitted["shares"]))
    weight_N = coverage.deficit_weights(counts, coverage.expected_counts(counts, fitted["shares"]), 20.0)[fitted["cell_of_real"]]
    assert weight_N.mean() < 1.1
    ratio = coverage.histogram_overlap(counts, fitted["shares"], 1024, 0.98) / coverage.expected_overlap(fitted["shares"], 1024, 0.98)
    assert float(ratio) == pytest.approx(1, abs=0.04)


def test_deficits_are_uniform_before_anything_is_counted():
    shares = torch.tensor([0.5, 0.3, 0.2])
    weights = coverage.deficit_weights(torch.zeros(3), coverage.expected_counts(torch.zeros(3), shares), 5.0)
    assert torch.equal(weights, torch.ones(3))


def test_expected_overlap_is_the_mean_of_simulations():
    shares = torch.softmax(torch.randn(30, generator=torch.Generator().manual_seed(0)), 0)
    random = np.random.RandomState(0)
    for gate in (1.0, 0.9):
        simulated = [
            float(
                coverage.histogram_overlap(
                    torch.tensor(
                        random.multinomial(300, [*(shares.double().numpy() / shares.double().sum().item() * gate * 0.999999), 0])[:30]
                    ).float(),
                    shares,
                    300,
                    gate,
                )
            )
            for _ in range(300)
        ]
        assert float(coverage.expected_overlap(shares, 300, gate)) == pytest.approx(np.mean(simulated), abs=0.006)


def test_with_labels_each_class_has_its_own_account():
    """Class 1 misses its second cell; class 0 is fine, though it is generated twice as often as its share."""
    shares, classes = torch.tensor([0.25, 0.25, 0.25, 0.25]), torch.tensor([0, 0, 1, 1])
    counts = torch.tensor([100.0, 100.0, 100.0, 0.0])
    weights = coverage.deficit_weights(counts, coverage.expected_counts(counts, shares, classes), 20.0)
    assert weights.tolist()[:3] == [1, 1, 1] and float(weights[3]) == 20
    features = torch.tensor([[0.0], [10.0], [0.0]])
    cell = coverage.assign_to_cells(features, torch.tensor([[0.0], [10.0], [0.0], [10.0]]), torch.ones(4), torch.tensor([0, 0, 1]), classes)
    assert cell.tolist() == [0, 1, 2]


def test_cells_are_fitted_per_class_and_small_cells_are_as_wide_as_others():
    generator = torch.Generator().manual_seed(0)
    features, labels = torch.randn([1000, 2], generator=generator), (torch.arange(1000) >= 995).long()
    fitted = cells.fit_cells_per_class(features, labels, 20, 0.98, generator_for("cells"))
    assert fitted["class"].tolist() == [0] * 20 + [1] and float(fitted["shares"].sum()) == pytest.approx(1)
    assert torch.equal(fitted["class"][fitted["cell_of_real"]], labels)
    assert float(fitted["shares"][20]) == pytest.approx(0.005) and fitted["radii"][20] >= fitted["radii"][:20].median() * 0.99


def test_estimators_agree():
    generator = torch.Generator().manual_seed(0)
    real, memory = torch.randn([300, 8], generator=generator), torch.randn([50, 8], generator=generator)
    exact, incremental = estimators.build("exact", real), estimators.build("incremental", real)
    for step in range(30):
        size = min(20 + 2 * step, 50)
        memory[torch.randint(size, [4], generator=generator)] = torch.randn([4, 8], generator=generator)
        sigma = 2.0 if step < 20 else 3.0
        assert torch.allclose(exact.scores(memory[:size], sigma), incremental.scores(memory[:size], sigma), rtol=1e-6, atol=9e-6)
    pytest.importorskip("faiss")
    topk = [estimators.build(name, real, k=20).scores(memory, 2.0) for name in ("exact", "faiss")]
    assert torch.allclose(*topk, rtol=1e-4, atol=1e-6)
    assert torch.allclose(estimators.build("exact", real, k=50).scores(memory, 2.0), exact.scores(memory, 2.0), rtol=1e-5)


def test_integral_controller_reaches_exactly_zero_and_comes_back():
    controller = controllers.IntegralController(kimg=1)
    for _ in range(20):
        controller.update(1.01, 64)
    assert controller.strength == 0
    controller.update(0.5, 64)
    assert controller.strength == pytest.approx(0.064)


def test_adaptive_target_follows_the_published_rule():
    controller = controllers.RecallController("adaptive", 0.8, 10.0)
    assert controller.target(10) == 0.60
    for recall in [0.7] * 90 + [0.9] * 10:
        controller.update(recall, 2000)
    assert controller.target(2000) == pytest.approx(0.7)
    for recall in [0.1, 1.0] * 50:
        controller.update(recall, 2000)
    assert controller.target(2000) == 0.60
    assert controllers.sigmoid_strength(1.0, 0.8, 10.0) == pytest.approx(0.119, abs=1e-3)


def test_cells_share_the_reals_and_gate_by_quantile():
    real = torch.randn([3000, 4], generator=torch.Generator().manual_seed(0))
    fitted = cells.fit_cells(real, 30, 0.9, generator_for("cells"))
    assert len(fitted["shares"]) == 30 and float(fitted["shares"].sum()) == pytest.approx(1)
    inside = (coverage.assign_to_cells(real, fitted["centroids"], fitted["radii"]) >= 0).float().mean()
    assert 0.9 <= inside < 0.94
    assert (coverage.assign_to_cells(real + 100, fitted["centroids"], fitted["radii"]) == -1).all()


def test_scores_equal_their_definitions():
    real, memory = torch.randn(30, 3, dtype=torch.float64), torch.randn(12, 3, dtype=torch.float64)
    kernel = torch.exp(-torch.cdist(real, memory).square() / (2 * 0.7**2))
    assert torch.allclose(coverage.kernel_score(real, memory, 0.7), kernel.mean(1))
    assert torch.allclose(coverage.topk_score(real, memory, 0.7, 5), kernel.topk(5, dim=1).values.mean(1))
    assert torch.allclose(coverage.topk_score(real, memory, 0.7, 12), kernel.mean(1))
    assert float(coverage.recall_within(real, memory, 0.5)) == pytest.approx(float((torch.cdist(real, memory).amin(1) < 0.5).double().mean()))
    gram = torch.exp(-torch.cdist(real, real).square() / 2)
    assert torch.allclose(coverage.leave_one_out_score(real, lambda squared: terms.gaussian_kernel(squared, 1.0)), (gram.sum(1) - 1) / 29)


# --- reference ------------------------------------------------------------------------------------------------------------


def make_reference(dataset, announce=lambda text: None, **options):
    chosen = config.resolve(dict(deficit_window=64, **options))
    extractor = registry.build(chosen.extractor, dataset.image_shape, chosen.width, 0)
    return reference.build(dataset, extractor, chosen, 0, torch.device("cpu"), announce), extractor


def test_reference_comes_back_from_the_cache_bit_for_bit():
    said = []
    first, extractor_a = make_reference(Images(seed=11), said.append)
    again, extractor_b = make_reference(Images(seed=11), said.append)
    assert len(said) == 1 and "200 real features" in said[0]
    assert torch.equal(first.features_ND, again.features_ND) and first.fingerprint == again.fingerprint
    assert torch.equal(extractor_a.basis_PD, extractor_b.basis_PD)


def test_reference_notices_changed_data():
    first, _ = make_reference(Images(seed=11))
    changed = Images(seed=11)
    changed.images[17] = 255 - changed.images[17]
    assert make_reference(changed)[0].fingerprint != first.fingerprint


def test_damaged_cache_is_made_again():
    first, _ = make_reference(Images(seed=12))
    for path in files.cache_folder().glob("*.pt"):
        path.write_bytes(path.read_bytes()[:100])
    again, _ = make_reference(Images(seed=12))
    assert torch.equal(first.features_ND, again.features_ND)


def test_reading_the_reals_leaves_the_hosts_randomness_alone():
    class Restless(Images):
        def __getitem__(self, index):
            np.random.rand(), torch.rand(1)
            return super().__getitem__(index)

    np.random.seed(1), torch.manual_seed(1)
    expected = np.random.rand(), torch.rand(1)
    np.random.seed(1), torch.manual_seed(1)
    dataset = Restless(seed=13)
    dataset.content_fingerprint = lambda: "restless"
    make_reference(dataset)
    assert (np.random.rand(), torch.rand(1)) == expected


def test_reference_refuses_data_that_cannot_serve():
    with pytest.raises(MADRError, match="at least 16 training images"):
        make_reference(Images(count=10))
    same = Images(count=40)
    same.images[:] = same.images[0]
    with pytest.raises(MADRError, match="identical"):
        make_reference(same)
    with pytest.raises(MADRError, match="same features|same for all"):
        make_reference(same, extractor="random")


def test_weighted_draw_follows_the_weights():
    made, _ = make_reference(Images(seed=11))
    weight = torch.zeros(len(made.features_ND))
    weight[3], weight[50] = 1, 3
    drawn = made.draw(4000, generator_for("draw"), weight)
    assert set(drawn.tolist()) == {3, 50}
    assert float((drawn == 50).float().mean()) == pytest.approx(0.75, abs=0.03)


def test_the_dead_zone_holds_the_expected_number_of_samples():
    made, _ = make_reference(Images(seed=11))
    rows = torch.tensor([5, 9, 70])
    distance = torch.cdist(made.features_ND, made.features_ND).sort(1).values
    assert torch.allclose(made.dead_zone_radius(rows, 3, 200), distance[rows, 3], atol=1e-5)
    assert torch.allclose(made.dead_zone_radius(rows, 3, 20), distance[rows, 30], atol=1e-5)
    assert torch.allclose(made.dead_zone_radius(rows, 1e9, 1), distance[rows, -1], atol=1e-5)


@pytest.mark.parametrize("num_processes", [2, 5])
def test_shares_of_the_processes_sum_to_the_whole(monkeypatch, num_processes):
    """Also where there are more processes than batches (200 images: 4 batches of 64), and with random views."""
    dataset, chosen = Images(seed=14), config.resolve(dict(view="shift"))
    extractor = registry.build("random", dataset.image_shape, 8, 0)
    share = lambda: reference._own_share(dataset, extractor, np.arange(200), chosen, 0, torch.device("cpu"), len)
    whole, shares = share(), []
    for rank in range(num_processes):
        monkeypatch.setattr(collective, "world", lambda: (rank, num_processes))
        shares.append(share())
    for name in ("features", "labels"):
        assert torch.equal(sum(part[name] for part in shares), whole[name])
    assert (whole["features"].abs().sum(1) > 0).all() and sum((part["features"].abs().sum(1) > 0).sum() for part in shares) == 200


def test_fitting_keeps_shrunk_images_only(monkeypatch):
    """Thousands of large ones would not fit into a GPU. The result is that of the whole images."""
    seen = []
    original = PCASpace.fit
    monkeypatch.setattr(PCASpace, "fit", lambda self, images: seen.append(tuple(images.shape)) or original(self, images))
    dataset = Images()
    dataset.images, dataset.image_shape = np.repeat(np.repeat(dataset.images, 8, axis=2), 8, axis=3), [3, 64, 64]
    extractor = registry.build("pca", dataset.image_shape)
    reference.build(dataset, extractor, config.resolve(dict(deficit_window=64)), 0, torch.device("cpu"), announce=len)
    assert seen == [(200, 3, 32, 32)]
    whole = registry.build("pca", dataset.image_shape)
    original(whole, torch.from_numpy(dataset.images).float() / 127.5 - 1)
    spans = [torch.linalg.qr(e.basis_PD[:, :4]).Q for e in (extractor, whole)]
    assert torch.linalg.svdvals(spans[0].T @ spans[1]).min() > 0.999


class Counting(RandomSpace):
    """Counts the images that pass; its features do not depend on the run."""

    passed = 0

    def __init__(self):
        super().__init__((3, 8, 8), 4, 0)
        self.images_to_fit = 0

    def forward(self, images):
        Counting.passed += len(images)
        return super().forward(images)


def test_features_are_extracted_once_whatever_follows_from_them():
    for passed, seed, options in [
        (150, 0, {}),
        (150, 0, {}),
        (150, 1, {}),
        (150, 0, dict(cell_quantile=0.9)),
        (150, 0, dict(cells=5)),
        (150, 2, dict(view="shift", reference_cap=100_000)),
        (250, 0, dict(reference_cap=100)),
        (350, 1, dict(reference_cap=100)),
    ]:
        if options.get("view"):
            passed, Counting.passed = 150, 0  # other views are other features
        made = reference.build(
            Images(count=150, seed=51), Counting(), config.resolve(dict(deficit_window=64, **options)), seed, torch.device("cpu"), announce=len
        )
        assert Counting.passed == passed, (seed, options)
        assert len(made.features_ND) == min(150, options.get("reference_cap", 150))


def test_what_is_not_finite_is_not_remembered():
    memory = SampleMemory(8, "fifo", 1.0)
    offered = samples(0, 4)
    offered["features"][1] = torch.nan
    memory.offer(offered, 0, 4, torch.Generator())
    assert memory.filled("features")[:, 0].tolist() == [0.0, 2.0, 3.0]
    offered["features"][:] = torch.inf
    assert memory.offer(offered, 1, 8, torch.Generator()) == 0 and memory.count == 3
    renewed = torch.tensor([[5.0], [torch.nan], [6.0], [torch.inf]])
    memory.renew_features(torch.tensor([0, 1, 1, 2]), renewed)
    assert memory.filled("features")[:, 0].tolist() == [5.0, 6.0, 3.0]
    memory.renew_features(torch.tensor([0, 1]), torch.full([2, 1], torch.nan))
    assert memory.filled("features")[:, 0].tolist() == [5.0, 6.0, 3.0]
