"""The numbers of the diversity monitor: what a perfect, a collapsed and a hopeless generator show."""

import numpy as np
import pytest
import torch

from tests.training.planted_modes import SIZE, drawn, fitted_monitor, images_of, only
from training.diversity import statistics as diversity_statistics


def measured(reference, thumbs):
    return diversity_statistics.measure(thumbs, reference, len(thumbs))


@pytest.fixture(scope="module")
def reference():
    return fitted_monitor().reference


@pytest.mark.parametrize("num_reals, population", [(1000, 1000), (1000, 100000), (60, 60)])
def test_a_perfect_generator_scores_one(num_reals, population):
    """Whether the reals are the whole set or a small part of it. Few reals: the set itself is drawn from."""
    reference = fitted_monitor(num_reals, population).reference
    rng = np.random.default_rng(0)
    reals = images_of(np.arange(num_reals) % 10, np.random.default_rng(100))  # those that were fitted
    fakes = [reals[rng.integers(num_reals, size=256)] if population == num_reals else drawn(only(*range(10)), rng) for _ in range(20)]
    numbers = [measured(reference, thumbs)[0] for thumbs in fakes]
    assert np.mean([n["diversity"] for n in numbers]) == pytest.approx(1, abs=0.05)
    assert np.mean([n["spread"] for n in numbers]) == pytest.approx(1, abs=0.03)
    assert np.std([n["diversity"] for n in numbers]) < 3 * reference["noise"]
    assert min(n["within"] for n in numbers) > 0.9


def test_the_share_of_modes_is_read_off(reference):
    """Modes with more than their share fill their cells whole, which a perfect generator's never quite are."""
    rng = np.random.default_rng(1)
    for count in (1, 2, 5):
        numbers, held_K = measured(reference, drawn(only(*range(count)), rng))
        assert numbers["diversity"] == pytest.approx(count / 10 / reference["expected"], abs=0.05)
        assert numbers["cells"] == int(held_K.sum()) and float(reference["shares"][held_K].sum()) == pytest.approx(count / 10, abs=0.05)


def test_constant_images_have_no_spread_and_hit_one_cell(reference):
    numbers, held_K = measured(reference, images_of([3], np.random.default_rng(2)).expand(256, -1))
    assert numbers["spread"] == 0 and int(held_K.sum()) == 1
    assert numbers["diversity"] == pytest.approx(float(reference["shares"][held_K]) / reference["expected"])


def test_varied_images_that_resemble_nothing_are_not_diverse(reference):
    numbers, held_K = measured(reference, 3 * torch.randn([256, SIZE], generator=torch.Generator().manual_seed(0)))
    assert numbers["diversity"] == numbers["within"] == 0 and not held_K.any() and numbers["spread"] > 1


def test_half_the_distances_are_half_the_spread(reference):
    fakes = drawn(only(*range(10)), np.random.default_rng(3))
    mean = fakes.mean(0)
    whole, half = (measured(reference, mean + factor * (fakes - mean))[0]["spread"] for factor in (1, 0.5))
    assert half == pytest.approx(whole / 2)


def test_images_that_are_not_finite_count_for_nothing(reference):
    fakes = drawn(only(*range(10)), np.random.default_rng(4))
    fakes[:128] = float("nan")
    assert measured(reference, fakes)[0]["within"] == pytest.approx(0.5, abs=0.02)
    assert measured(reference, torch.full([256, SIZE], float("inf")))[0]["diversity"] == 0


def test_expected_overlap_is_what_an_equal_draw_shows():
    """K = 2, p = 1/2, M = 4: E min sums 1 - E|n/4 - 1/2| = 1 - (2 * 1/16 * 1/2 + 8 * 1/16 * 1/4) = 13/16."""
    mean, deviation = diversity_statistics.simulated_overlap(np.array([0.5, 0.5]), 4, 10, 10, np.random.default_rng(0))
    assert mean == pytest.approx(13 / 16, abs=4 * deviation / 20)
    sampled, _ = diversity_statistics.simulated_overlap(np.array([0.5, 0.5]), 4, 10, 1000, np.random.default_rng(0))
    assert sampled < mean  # shares that are estimates themselves


@pytest.mark.parametrize("shape, width", [((5, 3, 64, 64), 768), ((5, 1, 8, 8), 64), ((2, 3, 16, 32), 768)])
def test_thumbnails_are_means_over_areas(shape, width):
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    thumbs = diversity_statistics.thumbnails(images)
    assert thumbs.shape == (shape[0], width) and thumbs.dtype == torch.float32
    assert torch.allclose(thumbs.mean(1), images.mean([1, 2, 3]), atol=1e-6)


@pytest.mark.parametrize("num_reals", [1, 2, 20])
def test_the_smallest_sets_work(num_reals):
    """Cells of single images: repeating the set is as diverse as can be."""
    reals = images_of(np.arange(num_reals) % 10, np.random.default_rng(5))
    reference = fitted_monitor(num_reals, num_reals).reference
    reals = images_of(np.arange(num_reals) % 10, np.random.default_rng(100))
    numbers, _ = measured(reference, reals[torch.arange(256) % num_reals])
    assert numbers["diversity"] == pytest.approx(1, abs=0.1) and numbers["spread"] == pytest.approx(1, abs=0.1 if num_reals > 2 else 0.5)
