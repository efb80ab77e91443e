"""The pure numbers against the golden ones, brute force, closed forms and planted cases."""

import numpy as np
import pytest
import scipy.linalg
import torch

from dnnlib.errors import UserError
from madr_spaces import neighbours
from madr_spaces.errors import MADRError
from metrics import kernels, modes


@pytest.fixture(scope="module")
def sets(rs_module):
    rs = rs_module
    mix = rs("metrics:A").standard_normal((48, 48))
    real = rs("metrics:real").standard_normal((3000, 48)) @ mix * 0.3
    fake = rs("metrics:fake").standard_normal((3000, 48)) @ mix * 0.27 + 0.15
    return real.astype(np.float32), fake.astype(np.float32)


@pytest.fixture(scope="module")
def rs_module():
    import zlib

    return lambda name: np.random.RandomState(zlib.crc32(name.encode()))


def near(expected, rel=1e-6):
    return pytest.approx(expected, rel=rel)


# ----------------------------------------------------------------------------------------------------------------
# Golden numbers.


def test_frechet_distance_golden(sets, golden):
    real, fake = sets
    assert kernels.frechet_distance(*kernels.mean_and_covariance(real), *kernels.mean_and_covariance(fake)) == near(golden("metrics.json")["fid"])


def test_kernel_distance_golden(sets, golden):
    real, fake = (s.astype(np.float64) for s in sets)
    assert kernels.polynomial_mmd2(real, fake) == near(golden("metrics.json")["kid_unbiased_all"])


def test_neighbour_numbers_golden(sets, golden):
    real, fake = sets
    expected = golden("metrics.json")
    assert neighbours.precision_recall(real, fake, 3) == pytest.approx((expected["precision_k3"], expected["recall_k3"]), abs=1e-12)
    assert neighbours.density_coverage(real, fake, 5) == pytest.approx((expected["density_k5"], expected["coverage_k5"]), abs=1e-12)


def test_inception_score_golden(rs, golden):
    logits = 2 * rs("metrics:probs").standard_normal((2000, 10))
    probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert kernels.inception_score(probs, 1)[0] == near(golden("metrics.json")["inception_score_one_split"])


# ----------------------------------------------------------------------------------------------------------------
# Frechet distance, kernel distance, inception score, trimmed mean.


def test_frechet_distance_closed_form_and_matrix_root():
    rng = np.random.default_rng(0)
    # Diagonal covariances: |mu|^2 + sum (s_a - s_b)^2.
    mean = rng.standard_normal(7)
    a, b = rng.uniform(0, 2, 7), rng.uniform(0, 2, 7)
    assert kernels.frechet_distance(mean, np.diag(a**2), np.zeros(7), np.diag(b**2)) == near((mean**2).sum() + ((a - b) ** 2).sum())
    x, y = rng.standard_normal((90, 12)), rng.standard_normal((90, 12)) @ rng.standard_normal((12, 12))
    stats_x, stats_y = kernels.mean_and_covariance(x), kernels.mean_and_covariance(y)
    root = scipy.linalg.sqrtm(stats_x[1] @ stats_y[1]).real
    expected = ((stats_x[0] - stats_y[0]) ** 2).sum() + np.trace(stats_x[1] + stats_y[1] - 2 * root)
    assert kernels.frechet_distance(*stats_x, *stats_y) == near(expected)


def test_frechet_distance_is_zero_for_equal_sets_of_low_rank():
    features = np.random.default_rng(1).standard_normal((10, 40))  # fewer items than dimensions
    stats = kernels.mean_and_covariance(features)
    assert abs(kernels.frechet_distance(*stats, *stats)) < 1e-6 * np.trace(stats[1])


def test_covariance_is_biased():
    x = np.random.default_rng(2).standard_normal((5, 3))
    np.testing.assert_allclose(kernels.mean_and_covariance(x)[1], np.cov(x, rowvar=False, bias=True))


def test_kernel_distance_is_unbiased_and_seeded():
    rng = np.random.default_rng(3)
    real, fake = rng.standard_normal((2000, 8)), rng.standard_normal((2000, 8))
    draw = lambda seed: kernels.kernel_distance(real, fake, 40, 100, np.random.default_rng(seed))
    assert draw(0) == draw(0) != draw(1)
    assert abs(draw(0)) < 0.01  # two samples of one distribution: zero in expectation, the biased estimate is about 0.1


def test_inception_score_limits():
    assert kernels.inception_score(np.full((40, 10), 0.1), 4) == pytest.approx((1, 0))
    assert kernels.inception_score(np.tile(np.eye(10), (4, 1)), 4) == pytest.approx((10, 0))


def test_trimmed_mean_drops_both_tails():
    values = np.arange(1000.0)
    values[[0, 999]] = -1e9, 1e9
    assert kernels.trimmed_mean(values) == pytest.approx(499.5)


# ----------------------------------------------------------------------------------------------------------------
# Nearest neighbours.


def brute_force(real, fake, k, strict):
    distance = lambda a, b: np.sqrt(((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(-1))

    def radii(x):
        d = distance(x, x)
        np.fill_diagonal(d, np.inf)
        return np.sort(d, axis=1)[:, k - 1]

    below = np.less if strict else np.less_equal
    in_real, in_fake = below(distance(fake, real), radii(real)[None]), below(distance(real, fake), radii(fake)[None])
    return in_real.any(1).mean(), in_fake.any(1).mean(), in_real.sum() / (k * len(fake)), in_real.any(0).mean()


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("lattice", [False, True])
def test_neighbours_equal_brute_force_for_every_block_size(strict, lattice):
    rng = np.random.default_rng(4)
    # On a lattice distances tie exactly, duplicates included: rounding must not decide them.
    draw = (lambda n: rng.integers(0, 4, (n, 3)).astype(np.float32)) if lattice else (lambda n: rng.standard_normal((n, 5)).astype(np.float32) + 30)
    real, fake = draw(157), draw(121)
    expected = brute_force(real, fake, 3, strict)
    for tile_bytes in (8 * 13**2, 8 * 64**2, 1 << 24):
        got = (
            *neighbours.precision_recall(real, fake, 3, strict=strict, tile_bytes=tile_bytes),
            *neighbours.density_coverage(real, fake, 3, strict=strict, tile_bytes=tile_bytes),
        )
        assert got == pytest.approx(expected, abs=1e-12)


def test_own_radius_counts_to_the_last_bit():
    # Each ball's k-th neighbour lies exactly on its rim: k - 1 others and the centre inside with <, one more with <=.
    x = np.random.default_rng(5).standard_normal((300, 64)).astype(np.float32) * 7
    radii = neighbours.kth_neighbour_distances(x, 4)
    for tile_bytes in (8 * 17**2, 1 << 24):
        assert (neighbours.ball_hits(x, x, radii, tile_bytes=tile_bytes)[1] == 5).all()
        assert (neighbours.ball_hits(x, x, radii, tile_bytes=tile_bytes, strict=True)[1] == 4).all()


def test_rows_in_parts_equal_the_whole():
    x, y = (np.random.default_rng(s).standard_normal((50, 6)) for s in (0, 1))
    radii = neighbours.kth_neighbour_distances(x, 3)
    parts = [neighbours.kth_neighbour_distances(x, 3, rows=r) for r in ((0, 17), (17, 50), (50, 50))]
    assert torch.equal(torch.cat(parts), radii)
    whole, halves = neighbours.ball_hits(y, x, radii), [neighbours.ball_hits(y, x, radii, rows=r) for r in ((0, 20), (20, 50))]
    assert torch.equal(torch.cat([h[0] for h in halves]), whole[0]) and torch.equal(halves[0][1] + halves[1][1], whole[1])


def test_identical_collapsed_and_far_sets():
    rng = np.random.default_rng(6)
    real = rng.standard_normal((400, 16))
    assert neighbours.precision_recall(real, real.copy()) == (1, 1)
    collapsed = real[:1] + 1e-3 * rng.standard_normal((400, 16))
    precision, recall = neighbours.precision_recall(real, collapsed)
    assert precision == 1 and recall < 0.01
    assert neighbours.density_coverage(real, collapsed)[1] < 0.1
    assert neighbours.precision_recall(real, real + 100) == (0, 0)


def test_constant_features_are_one_with_ties_and_zero_without():
    same = np.full((60, 4), 0.1, np.float32)
    assert neighbours.precision_recall(same, same) == (1, 1)
    assert neighbours.precision_recall(same, same, strict=True) == (0, 0)
    assert neighbours.density_coverage(same, same, 5) == (60 / 5, 1)
    assert neighbours.density_coverage(same, same, 5, strict=True) == (0, 0)


def test_prdc_package_agrees():
    prdc = pytest.importorskip("prdc")
    rng = np.random.default_rng(7)
    real, fake = rng.standard_normal((300, 20)), rng.standard_normal((250, 20)) * 0.9
    theirs = prdc.compute_prdc(real, fake, nearest_k=5)
    ours = (*neighbours.precision_recall(real, fake, 5, strict=True), *neighbours.density_coverage(real, fake, 5, strict=True))
    assert ours == pytest.approx([theirs[key] for key in ("precision", "recall", "density", "coverage")], abs=1e-12)


def test_expected_coverage_matches_simulation():
    assert neighbours.expected_coverage(10**6, 10**6, 5) == pytest.approx(1 - 2**-5, abs=1e-4)
    rng = np.random.default_rng(8)
    seen = [neighbours.density_coverage(rng.standard_normal((60, 3)), rng.standard_normal((80, 3)), 2)[1] for _ in range(150)]
    assert np.mean(seen) == pytest.approx(neighbours.expected_coverage(60, 80, 2), abs=0.015)


def test_progress_ends_at_the_number_of_rows():
    seen = []
    neighbours.kth_neighbour_distances(np.random.default_rng(9).standard_normal((100, 3)), 3, tile_bytes=8 * 30**2, progress=seen.append)
    assert seen == [30, 60, 90, 100]


# ----------------------------------------------------------------------------------------------------------------
# Bad input is a sentence.


@pytest.mark.parametrize(
    "call, words",
    [
        (lambda x: neighbours.precision_recall(x[:3], x, 3), ["more than 3", "got 3"]),
        (lambda x: neighbours.density_coverage(x, x[:5], 5), ["more than 5", "generated"]),
        (lambda x: neighbours.precision_recall(x, x[:, :2]), ["4 dimensions", "2"]),
        (lambda x: neighbours.precision_recall(x, np.where(np.arange(20)[:, None] == 7, np.nan, x)), ["NaN", "item 7"]),
        (lambda x: neighbours.kth_neighbour_distances(x[:2], 2), ["needs more than 2 items"]),
        (lambda x: kernels.mean_and_covariance(x[0]), ["matrix"]),
        (lambda x: kernels.frechet_distance(*kernels.mean_and_covariance(x), *kernels.mean_and_covariance(x[:, :2])), ["dimensions"]),
        (lambda x: kernels.frechet_distance(np.zeros(2), np.diag([1.0, -1.0]), np.zeros(2), np.eye(2)), ["negative eigenvalue"]),
        (lambda x: kernels.kernel_distance(x, x[:1], 2, 10, np.random.default_rng(0)), ["at least 2"]),
        (lambda x: kernels.inception_score(np.full((3, 2), 0.5), 10), ["at least 10", "got 3"]),
        (lambda x: kernels.inception_score(x - 10, 2), ["negative"]),
        (lambda x: modes.kl_divergence([1, 2], [1, 2, 3]), ["2 modes", "3"]),
        (lambda x: modes.kl_divergence([0, 0], [1, 1]), ["at least one"]),
    ],
)
def test_bad_input_is_a_sentence(call, words):
    with pytest.raises((UserError, MADRError)) as error:
        call(np.random.default_rng(0).standard_normal((20, 4)))
    assert all(word in str(error.value) for word in words), str(error.value)


# ----------------------------------------------------------------------------------------------------------------
# Modes.

MNIST_DIGIT_COUNTS = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]


def test_labels_round_trip():
    labels = np.arange(1000)
    assert (modes.stacked_label(modes.unstacked_label(labels)) == labels).all()
    assert modes.stacked_label([[3, 1, 4]]).tolist() == [314]


def test_mode_statistics_of_known_counts():
    uniform = np.ones(4)
    assert modes.mode_statistics([5, 5, 5, 5], uniform) == {"modes": 4, "modes_5hits": 4, "kl": 0, "outside": 0}
    one = modes.mode_statistics([20, 0, 0, 0], uniform)
    assert (one["modes"], one["modes_5hits"]) == (1, 1) and one["kl"] == pytest.approx(np.log(4))
    stray = modes.mode_statistics([10, 1, 0, 9], [1, 1, 1, 0])
    assert (stray["modes"], stray["modes_5hits"]) == (2, 1) and stray["outside"] == pytest.approx(9 / 20)


@pytest.mark.parametrize(
    "num_samples, expected, tolerance", [(10_000, 0.055, 0.001), (24_000, 0.0251, 0.0005), (26_000, 0.0236, 0.0005), (50_000, 0.0143, 0.0003)]
)
def test_floor_of_a_perfect_generator(num_samples, expected, tolerance):
    """The published floors for 1000 modes with MNIST's digit frequencies."""
    p = np.array(MNIST_DIGIT_COUNTS) / 60000
    data = np.einsum("i,j,k->ijk", p, p, p).ravel()
    kl, spread, hit = modes.real_data_floor(data, np.ones(1000), num_samples, np.random.default_rng(0))
    assert kl == pytest.approx(expected, abs=tolerance) and spread < 0.003
    assert num_samples < 24_000 or hit > 999.9


def test_independent_digits_recovers_the_frequencies():
    p = np.array(MNIST_DIGIT_COUNTS) / 60000
    data = np.einsum("i,j,k->ijk", p, p[::-1], p).ravel()
    np.testing.assert_allclose(modes.independent_digits(data * 1e5), data)
