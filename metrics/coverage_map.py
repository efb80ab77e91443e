"""Which real images a generator misses: how near the generated ones come to each real, per class, and a plane to draw it in.

Arrays in, numbers out. Must not know where features come from, nor how the result is shown.
Legend: N reals, M fakes, D feature dimensions, L classes.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats

from dnnlib.errors import UserError
from madr_spaces import neighbours
from metrics import diversity_kernels

K = 5  # neighbours that make a real's radius: that of coverage (Naeem et al. 2020)
CLEARLY_BELOW_LEVEL = 0.01  # probability that any class of a perfect generator is called so


@dataclass(frozen=True)
class NearestFakes:
    """Of each real: radius_N, distance to its k-th other real; nearest_N, index of the nearest fake; distance_N to it, float64."""

    radius_N: np.ndarray
    nearest_N: np.ndarray
    distance_N: np.ndarray

    @property
    def covered_N(self):
        """Whether a fake lies in the real's ball, bool; their mean is the coverage of Naeem et al."""
        return self.distance_N <= self.radius_N

    @property
    def ratio_N(self):
        """Distance to the nearest fake in units of the real's radius: covered up to 1. A radius of 0 (more than k equal
        reals) counts as the smallest positive one, so that the order among them stays."""
        positive = self.radius_N[self.radius_N > 0]
        least = positive.min() if len(positive) else 1.0
        ratio = self.distance_N / np.maximum(self.radius_N, least)
        return np.where(self.covered_N, np.minimum(ratio, 1.0), np.maximum(ratio, np.nextafter(1.0, 2.0)))


def nearest_fakes(real_ND, fake_MD, k=K, *, device="cpu", progress=None):
    """Find the fake nearest to each real. Raises UserError for too few items, features that are not finite or of unlike width."""
    real, fake = neighbours.check_sets(real_ND, fake_MD, k)
    radius = neighbours.kth_neighbour_distances(real, k, device=device, progress=progress).cpu().numpy()
    nearest, distance = diversity_kernels.nearest_centres(real, fake, block=max(1, neighbours.TILE_BYTES // (8 * len(fake))))
    return NearestFakes(radius, nearest, distance)


def least_covered(nearest, real_ND, count):
    """Indices of uncovered reals, the farthest first. Of a neighbourhood only the farthest is named: a real within the
    radius of one that was already chosen is passed over, so that one missing mode does not fill the list."""
    order = np.argsort(-nearest.ratio_N, kind="stable")
    chosen = []
    for i in order[~nearest.covered_N[order]]:
        if all(np.linalg.norm(np.asarray(real_ND[i], np.float64) - real_ND[j]) > max(nearest.radius_N[j], 0) for j in chosen):
            chosen.append(int(i))
        if len(chosen) == count:
            break
    return chosen


def class_coverage(covered_N, classes_N, num_classes):
    """(reals, share of them covered or NaN without any) of each class, int64 [L] and float64 [L]."""
    total = np.bincount(classes_N, minlength=num_classes)
    hit = np.bincount(classes_N, weights=np.asarray(covered_N, np.float64), minlength=num_classes)
    return total, np.divide(hit, total, out=np.full(num_classes, np.nan), where=total > 0)


def clearly_below(total_L, coverage_L, expected):
    """Classes whose coverage is below what a perfect generator would reach by more than chance explains, the lowest first: an exact
    binomial test of each class, its level shared among the classes that have reals (Bonferroni)."""
    hits_L = np.rint(np.nan_to_num(coverage_L) * total_L)
    below = np.flatnonzero(
        (total_L > 0) & (scipy.stats.binom.cdf(hits_L, total_L, expected) < CLEARLY_BELOW_LEVEL / max(np.count_nonzero(total_L), 1))
    )
    return below[np.argsort(coverage_L[below], kind="stable")]


class Plane:
    """The two directions in which the reals vary most (principal components), for drawing. The same features give the same plane."""

    def __init__(self, real_ND):
        real = np.asarray(real_ND, np.float64)
        if len(real) < 2:
            raise UserError(f"A map needs at least two real images (got {len(real)}).")
        self.mean_D = real.mean(axis=0)
        _, vectors = np.linalg.eigh((real - self.mean_D).T @ (real - self.mean_D) / len(real))
        axes = vectors[:, ::-1][:, :2].T
        # The sign of a component is arbitrary; the largest entry is made positive.
        self.axes_2D = axes * np.sign(axes[np.arange(len(axes)), np.abs(axes).argmax(axis=1)])[:, None]

    def place(self, features_ND):
        """Coordinates [N, 2] float32; with one feature the second is 0."""
        xy = (np.asarray(features_ND, np.float64) - self.mean_D) @ self.axes_2D.T
        return np.pad(xy, ((0, 0), (0, 2 - xy.shape[1]))).astype(np.float32)
