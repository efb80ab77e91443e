"""Smooth recall, Vendi score and differing bins against brute force, closed forms and planted cases; and as metrics."""

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from madr_spaces.errors import MADRError
from metrics import diversity_kernels as kernels, metric_main


def brute_smooth_recall(real, fake):
    distance = lambda a, b: np.sqrt(((a[:, None].astype(np.float64) - b[None].astype(np.float64)) ** 2).sum(-1))
    own = np.sort(distance(fake, fake), axis=1)[:, 4].mean()  # column 0 is the item itself
    return 1 - np.prod(1 - np.maximum(0, 1 - distance(real, fake) / (1.2 * own)), axis=1)


@pytest.mark.parametrize("offset", [0, 1e3])
def test_smooth_recall_equals_brute_force_for_every_block_size(offset):
    rng = np.random.default_rng(0)
    real, fake = (offset + rng.standard_normal((n, 6)) for n in (70, 50))
    fake[:5] = real[:5]
    expected = brute_smooth_recall(real, fake)
    assert expected[:5].tolist() == [1] * 5 and 0.05 < expected.mean() < 0.95
    for tile_bytes in (8, 999, 1 << 20):
        np.testing.assert_allclose(kernels.smooth_recall_per_real(real, fake, tile_bytes=tile_bytes), expected, rtol=1e-9, atol=1e-12)


def test_smooth_recall_limits():
    rng = np.random.default_rng(1)
    x = rng.standard_normal((40, 3))
    assert kernels.smooth_recall_per_real(x, x).tolist() == [1] * 40
    assert kernels.smooth_recall_per_real(x + 1e3, x).max() == 0
    constant = np.repeat(x[:1], 10, axis=0)
    assert kernels.smooth_recall_per_real(x, constant).tolist() == [1] + [0] * 39
    with pytest.raises(MADRError, match="more than 4 generated"):
        kernels.smooth_recall_per_real(x, x[:4])


def test_vendi_counts_orthogonal_groups():
    groups = np.repeat(np.eye(7), 5, axis=0)
    assert kernels.vendi_score(groups) == pytest.approx(7)
    assert kernels.vendi_score(3 * groups[:5]) == pytest.approx(1)
    shares = np.array([0.5, 0.25, 0.25])
    assert kernels.vendi_score(np.eye(3)[[0, 0, 1, 2]]) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()))


@pytest.mark.parametrize("shape", [(30, 8), (8, 30)])
def test_vendi_equals_the_definition(shape):
    x = np.random.default_rng(2).standard_normal(shape) + 0.5
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    values = np.linalg.eigvalsh(unit @ unit.T / len(x))
    values = values[values > 1e-14]
    assert kernels.vendi_score(x) == pytest.approx(np.exp(-(values * np.log(values)).sum()), rel=1e-9)
    with pytest.raises(UserError, match="item 3 are all zero"):
        kernels.vendi_score(np.where(np.arange(len(x))[:, None] == 3, 0, x))


@pytest.mark.parametrize("offset", [0, 1e4])
def test_authenticity_equals_brute_force(offset):
    rng = np.random.default_rng(5)
    real, fake = offset + rng.standard_normal((80, 4)), offset + rng.standard_normal((60, 4))
    to_real = np.linalg.norm(fake[:, None] - real[None], axis=-1)
    between = np.linalg.norm(real[:, None] - real[None], axis=-1)
    np.fill_diagonal(between, np.inf)
    expected = to_real.min(axis=1) > between.min(axis=1)[to_real.argmin(axis=1)]
    assert (kernels.authentic_fakes(real, fake) == expected).all() and 0.2 < expected.mean() < 0.9


def test_copies_are_not_authentic_and_new_draws_on_a_line_are_in_a_third_of_the_cases():
    rng = np.random.default_rng(6)
    real, fake = rng.random((4000, 1)), rng.random((4000, 1))
    assert kernels.authentic_fakes(real, real + 1e-9).mean() < 0.01
    # Exponential gaps: the fake's gap G is size-biased, the next one G' is not; P(U G / 2 > G') = 1 - 2 (1 - 2/3) = 1/3.
    assert kernels.authentic_fakes(real, fake).mean() == pytest.approx(1 / 3, abs=0.03)
    assert kernels.authentic_fakes(real, real + 100).all()


def test_k_means_finds_separate_groups_and_depends_on_its_generator_alone():
    rng = np.random.default_rng(3)
    truth = rng.standard_normal((6, 4)) * 100
    points = np.repeat(truth, 30, axis=0) + rng.standard_normal((180, 4))
    centres = kernels.k_means(points, 6, np.random.default_rng(0))
    index, distance = kernels.nearest_centres(truth, centres)
    assert sorted(index) == list(range(6)) and distance.max() < 1.5
    assert kernels.count_bins(points, centres).tolist() == [30] * 6
    assert (centres == kernels.k_means(points, 6, np.random.default_rng(0))).all()
    np.testing.assert_allclose(kernels.nearest_centres(points, centres, block=7)[1], np.linalg.norm(points - centres[np.repeat(index, 30)], axis=1))
    assert kernels.k_means(np.zeros((5, 2)), 3, rng).tolist() == [[0, 0]] * 3
    with pytest.raises(UserError, match="6 bins need at least"):
        kernels.k_means(points[:5], 6, rng)


def test_different_bins_by_hand():
    # Pooled z of the first bin: (0.6 - 0.4) / sqrt(0.5 * 0.5 * 2 / n) = 2.83 for n = 100, 1.26 for n = 20.
    assert kernels.different_bins([60, 40], [40, 60])[0] == 1
    assert kernels.different_bins([12, 8], [8, 12])[0] == 0
    expected = 0.6 * np.log(0.6 / 0.5) + 0.4 * np.log(0.4 / 0.5)
    assert kernels.different_bins([60, 40], [40, 60])[1] == pytest.approx(expected)
    assert kernels.different_bins([50, 0], [0, 50]) == (1, pytest.approx(np.log(2)))
    assert kernels.different_bins([50, 0, 50], [500, 0, 500]) == (0, 0)
    with pytest.raises(UserError, match="same bins"):
        kernels.different_bins([1, 2], [1, 2, 3])


def test_bins_of_one_distribution_differ_as_often_as_the_test_says():
    rng = np.random.default_rng(4)
    probabilities = rng.dirichlet(np.full(50, 5.0))
    shares = [kernels.different_bins(rng.multinomial(5000, probabilities), rng.multinomial(5000, probabilities))[0] for _ in range(100)]
    assert np.mean(shares) == pytest.approx(0.05, abs=0.015)


@pytest.mark.parametrize("short", ["", "_10k"])
@pytest.mark.parametrize("name", ["madr_smooth_recall", "madr_vendi", "madr_authenticity", "madr_ndb"])
def test_registered(name, short, options):
    opts, items = options(), {}
    result = metric_main.calc_metric(
        name + short, G=opts.G, dataset_kwargs=opts.dataset_kwargs, device="cpu", num_gen=40, space="pixels", per_item=items
    )
    assert list(result.results)[0] == name + short and all(np.isfinite(value) for value in result.results.values())
    assert result.facts["held_out"]["space"] == "random-conv" and len(result.facts["held_out"]) > 1
    assert metric_main.higher_is_better(name + short) == (name != "madr_ndb")
    if name == "madr_smooth_recall":
        assert items[name + short][0] == "real" and items[name + short][1].mean() == result.results[name + short]
    if name == "madr_vendi":
        assert result.results[name + short] == pytest.approx(result.facts["vendi_generated"] / result.facts["vendi_real"])
        assert result.facts["num_compared"] == 30
        assert result.facts["variety"] == pytest.approx((result.facts["vendi_generated"] - 1) / (result.facts["vendi_real"] - 1))


def test_a_collapsed_generator_is_seen(options):
    class Constant(torch.nn.Module):
        z_dim, c_dim, img_channels, img_resolution = 8, 0, 3, 16

        def forward(self, z, c):
            return torch.linspace(-1, 1, 768).reshape(1, 3, 16, 16).repeat(len(z), 1, 1, 1)

    score = lambda G, name: (
        metric_main.calc_metric(name, G=G, dataset_kwargs=options().dataset_kwargs, device="cpu", num_gen=40, space="pixels").results
    )
    assert score(Constant(), "madr_vendi")["madr_vendi"] < score(options().G, "madr_vendi")["madr_vendi"]
    constant = metric_main.calc_metric("madr_vendi", G=Constant(), dataset_kwargs=options().dataset_kwargs, device="cpu", num_gen=40, space="pixels")
    assert constant.facts["variety"] == pytest.approx(0, abs=1e-6) and constant.results["madr_vendi"] == pytest.approx(
        1 / constant.facts["vendi_real"]
    )
    assert score(Constant(), "madr_ndb")["madr_ndb"] > 0.5 and score(Constant(), "madr_smooth_recall")["madr_smooth_recall"] == 0
