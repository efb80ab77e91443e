"""The map of coverage: what is covered agrees with the metric, what is missing is found."""

import numpy as np
import pytest

from dnnlib.errors import UserError
from madr_spaces import neighbours
from madr_spaces.errors import MADRError
from metrics import coverage_map


def clusters(centres, per_cluster, seed, spread=0.1):
    rng = np.random.default_rng(seed)
    return np.concatenate([centre + spread * rng.standard_normal((per_cluster, 2)) for centre in centres]).astype(np.float32)


CENTRES = np.array([[0, 0], [3, 0], [0, 3]], np.float32)


def test_covered_reals_are_those_of_the_metric(rs):
    real, fake = rs("map-real").randn(300, 6), rs("map-fake").randn(200, 6)
    nearest = coverage_map.nearest_fakes(real, fake)
    assert nearest.covered_N.mean() == neighbours.density_coverage(real, fake, k=5)[1]
    distances = np.linalg.norm(real[:, None] - fake[None], axis=2)
    assert (nearest.nearest_N == distances.argmin(axis=1)).all() and np.allclose(nearest.distance_N, distances.min(axis=1))
    assert ((nearest.ratio_N <= 1) == nearest.covered_N).all()


def test_a_lost_mode_is_what_is_missing():
    real, fake = clusters(CENTRES, 50, 0), clusters(CENTRES[:2], 50, 1)
    nearest = coverage_map.nearest_fakes(real, fake)
    classes = np.repeat([0, 1, 2], 50)
    total, share = coverage_map.class_coverage(nearest.covered_N, classes, 4)
    assert total.tolist() == [50, 50, 50, 0] and share[0] > 0.8 and share[1] > 0.8 and share[2] == 0 and np.isnan(share[3])
    assert coverage_map.clearly_below(total, share, neighbours.expected_coverage(150, 100)).tolist() == [2]
    missing = coverage_map.least_covered(nearest, real, 5)
    assert missing and set(classes[missing]) == {2}
    ratios = nearest.ratio_N[missing]
    assert (ratios[:-1] >= ratios[1:]).all() and ratios[0] == nearest.ratio_N.max()
    for place, i in enumerate(missing):  # no two of one neighbourhood
        assert all(np.linalg.norm(real[i] - real[j]) > nearest.radius_N[j] for j in missing[:place])


def test_small_classes_are_called_low_only_by_what_chance_cannot_do():
    # Of 2 reals that are covered with probability .97 each, one is missed in 6 % of all cases; both in .09 %.
    assert coverage_map.clearly_below(np.array([2]), np.array([0.5]), 0.97).tolist() == []
    assert coverage_map.clearly_below(np.array([2]), np.array([0.0]), 0.97).tolist() == [0]
    # Among many classes that happens to some.
    total, coverage = np.full(1000, 2), np.ones(1000)
    coverage[7] = 0
    assert coverage_map.clearly_below(total, coverage, 0.97).tolist() == []
    assert coverage_map.clearly_below(np.array([60, 0, 60]), np.array([0.5, np.nan, 0.2]), 0.97).tolist() == [2, 0]


def test_nothing_missing():
    real = clusters(CENTRES, 30, 0)
    nearest = coverage_map.nearest_fakes(real, real)
    assert nearest.covered_N.all() and coverage_map.least_covered(nearest, real, 5) == []
    assert len(coverage_map.clearly_below(*coverage_map.class_coverage(nearest.covered_N, np.zeros(90, int), 1), 0.97)) == 0


def test_equal_reals_have_no_radius_and_are_ordered_still():
    real = np.concatenate([np.zeros((8, 2)), clusters(CENTRES[1:], 20, 0)])
    far = coverage_map.nearest_fakes(real, clusters(CENTRES[1:], 20, 1))
    assert (far.radius_N[:8] == 0).all() and not far.covered_N[:8].any() and np.isfinite(far.ratio_N).all()
    on_them = coverage_map.nearest_fakes(real, np.zeros((10, 2)))
    assert on_them.covered_N[:8].all()
    assert len(coverage_map.least_covered(far, real, 20)) < 20 and sum(i < 8 for i in coverage_map.least_covered(far, real, 20)) >= 1


def test_plane_shows_what_varies_most_and_is_always_the_same(rs):
    spread = np.array([0.1, 5, 0.2, 2])
    real = rs("plane").randn(200, 4) * spread
    plane = coverage_map.Plane(real)
    assert abs(plane.axes_2D[0, 1]) > 0.99 and abs(plane.axes_2D[1, 3]) > 0.99
    placed = plane.place(real)
    assert placed.dtype == np.float32 and (placed == coverage_map.Plane(real).place(real)).all()
    assert np.allclose(placed, coverage_map.Plane(real[::-1]).place(real), atol=1e-4)
    assert coverage_map.Plane(real[:, :1]).place(real[:, :1]).shape == (200, 2)


def test_sentences():
    with pytest.raises(MADRError, match="more than 5 real images"):
        coverage_map.nearest_fakes(np.zeros((1, 3)), np.zeros((50, 3)))
    with pytest.raises(UserError, match="at least two"):
        coverage_map.Plane(np.zeros((1, 3)))
