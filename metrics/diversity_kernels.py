"""Further numbers of diversity: smooth recall, Vendi score, authenticity, bins that differ. Arrays in, numbers out.

Exact and blockwise where pairs are compared; nothing draws without being given a generator. Must not know where features
come from. Legend: N reals, M fakes, D feature dimensions, K bins.
"""

import numpy as np
import torch

from dnnlib.errors import UserError
from madr_spaces import kmeans, neighbours
from madr_spaces.feature_sets import as_matrix, check_same_width, checked_matrix

SMOOTH_K = 4
SMOOTH_REACH = 1.2
_SIGNIFICANT_Z = 1.959963984540054  # two-sided, 5 %


# ----------------------------------------------------------------------------------------------------------------
# Smooth recall (Park and Kim 2023, P-recall).


def smooth_recall_per_real(real_ND, fake_MD, *, k=SMOOTH_K, reach=SMOOTH_REACH, tile_bytes=neighbours.TILE_BYTES, device="cpu", progress=None):
    """Of each real i: 1 - prod_j (1 - max(0, 1 - d_ij / (reach R))), [N] float64; R = mean distance of a fake to its k-th other fake.

    How probably at least one fake's neighbourhood holds the real, when a neighbourhood fades with distance instead of
    ending at a rim. Fakes that are all equal have R = 0: then a real counts 1 where a fake equals it, else 0.
    """
    real, fake = neighbours.check_sets(real_ND, fake_MD, k)
    radius = reach * float(neighbours.kth_neighbour_distances(fake, k, device=device, tile_bytes=tile_bytes).mean())
    points, centres = neighbours.prepare(real, "Real", device), neighbours.prepare(fake, "Generated", device)
    tiles = neighbours.Tiles(points, centres, tile_bytes)
    parts = []
    for start, y_nD, norms_n in tiles.row_blocks(0, len(points)):
        log_missed = y_nD.new_zeros(len(y_nD))
        for col, squared, bound_rows, bound_cols in tiles.column_blocks(y_nD, norms_n):
            distances = squared.clamp(min=0).sqrt()
            # The root magnifies rounding near zero: such pairs are measured again.
            i, j = (squared <= 1e6 * (bound_rows + bound_cols)).nonzero(as_tuple=True)
            if len(i):
                distances[i, j] = neighbours.pair_distances(points, centres, i + start, j + col)
            inside = (1 - distances / radius).clamp(min=0) if radius > 0 else (distances == 0).double()
            log_missed += torch.log1p(-inside).sum(dim=1)
        parts.append(-torch.expm1(log_missed))
        if progress is not None:
            progress(start + len(y_nD))
    return torch.cat(parts).cpu().numpy()


# ----------------------------------------------------------------------------------------------------------------
# Vendi score (Friedman and Dieng 2023).


def vendi_score(features_ND):
    """exp(-sum_i l_i log l_i) over the eigenvalues l of K / N, K_ij = cosine of items i and j: between 1 and min(N, D).

    The effective number of different items. Knows no reals: noise scores highest, so print its ratio to the real data's
    for as many items.
    """
    x_ND = as_matrix(features_ND, "Given")
    norms_N = np.linalg.norm(x_ND, axis=1)
    if (norms_N == 0).any():
        raise UserError(
            f"Features of item {int(np.flatnonzero(norms_N == 0)[0])} are all zero and have no direction; the Vendi score needs another feature space."
        )
    x_ND = x_ND / norms_N[:, None]
    # X X^T and X^T X have the same eigenvalues other than zero; the smaller one is cheaper.
    gram = x_ND.T @ x_ND if x_ND.shape[1] <= len(x_ND) else x_ND @ x_ND.T
    values = np.linalg.eigvalsh(gram / len(x_ND))
    values = values[values > 0]
    return float(np.exp(-(values * np.log(values)).sum()))


# ----------------------------------------------------------------------------------------------------------------
# Authenticity (Alaa et al. 2022, section 4.3).


def authentic_fakes(real_ND, fake_MD, *, device="cpu", progress=None):
    """Whether each fake is farther from its nearest real than that real is from its own nearest other real, bool [M].

    A generator that repeats its training images scores 0. What one scores that draws from their distribution depends on
    the dimension (Gaussians: 0.33 in 1, 0.39 in 2, 0.70 in 16 dimensions): compare with the score of held-out real images.
    """
    real, fake = neighbours.check_sets(real_ND, fake_MD, 1)
    nearest, distance = nearest_centres(fake, real, block=max(1, neighbours.TILE_BYTES // (8 * len(real))), progress=progress)
    between_reals = neighbours.kth_neighbour_distances(real, 1, device=device).cpu().numpy()
    return distance > between_reals[nearest]


# ----------------------------------------------------------------------------------------------------------------
# Number of statistically different bins (Richardson and Weiss 2018).


def nearest_centres(points_ND, centres_KD, block=4096, progress=None):
    """(index of the nearest centre, distance to it) of each point, float64."""
    origin_D = np.mean(centres_KD, axis=0, dtype=np.float64)  # rounding is smallest near it
    centres = torch.from_numpy(np.asarray(centres_KD, np.float64) - origin_D)
    indices, distances = [], []
    for start in range(0, len(points_ND), block):
        x = torch.from_numpy(np.asarray(points_ND[start : start + block], np.float64) - origin_D)
        indices.append(kmeans.nearest_centres(x, centres))
        distances.append(torch.linalg.vector_norm(x - centres[indices[-1]], dim=1))
        if progress is not None:
            progress(start + len(x))
    return torch.cat(indices).numpy(), torch.cat(distances).numpy()


def count_bins(points_ND, centres_KD):
    """How many points lie nearest to each centre, int64 [K]."""
    check_same_width(centres_KD, points_ND, ("Centre", "Point"))
    return np.bincount(nearest_centres(points_ND, centres_KD)[0], minlength=len(centres_KD))


def k_means(points_ND, num_centres, rng, max_iterations=40):
    """Centres [K, D]: k-means++ start, then Lloyd's steps until nothing moves."""
    points_ND = checked_matrix(points_ND, "Real")
    if len(points_ND) < num_centres:
        raise UserError(f"{num_centres} bins need at least as many real images (got {len(points_ND)}); use more images.")
    points = torch.from_numpy(points_ND)

    def draw(weights_N):
        weights, total = weights_N.numpy(), float(weights_N.sum())
        return int(rng.choice(len(weights), p=weights / total) if total > 0 else rng.integers(len(weights)))

    chosen = kmeans.plus_plus(points, num_centres, int(rng.integers(len(points))), draw, torch.float64)
    return kmeans.lloyd(points, points[chosen].to(torch.float64), max_iterations).numpy()


def different_bins(real_counts_K, fake_counts_K):
    """(share of bins whose proportions differ by the pooled two-proportion z-test at 5 %, Jensen-Shannon divergence in nats).

    Two samples of one distribution: about 0.05 and nearly 0. The divergence lies in [0, log 2].
    """
    real, fake = np.asarray(real_counts_K, np.float64), np.asarray(fake_counts_K, np.float64)
    if real.shape != fake.shape or real.sum() <= 0 or fake.sum() <= 0:
        raise UserError("Counts of bins must be of the same bins and not all zero.")
    p, q, pooled = real / real.sum(), fake / fake.sum(), (real + fake) / (real.sum() + fake.sum())
    error = np.sqrt(pooled * (1 - pooled) * (1 / real.sum() + 1 / fake.sum()))
    differs = np.abs(p - q) > _SIGNIFICANT_Z * error
    middle = (p + q) / 2
    half = lambda a: np.where(a > 0, a * np.log(np.divide(a, middle, out=np.ones_like(a), where=a > 0)), 0).sum() / 2
    return float(differs.mean()), float(half(p) + half(q))
