"""Estimates how well generated features cover the reals, by pure functions.

Shapes: N reals, K memory entries, C cells, W window of generated images, D feature width.
"""

import torch

from madr_plugin.maths.terms import gaussian_kernel
from madr_spaces.distances import squared_distances


def in_blocks(function, real_ND, block=4096):
    """Apply function([n, D]) -> [n] to blocks of reals: bounds memory, leaves the result as it is."""
    return torch.cat([function(block_nD) for block_nD in real_ND.split(block)])


def kernel_score(real_ND, memory_KD, sigma):
    """c_r = 1/|M| sum_m k_sigma(x_r, m) -> [N]."""
    return in_blocks(lambda real_nD: gaussian_kernel(squared_distances(real_nD, memory_KD), sigma).mean(1), real_ND)


def topk_score(real_ND, memory_KD, sigma, k):
    """E2: c_r = 1/k sum over the k entries nearest to x_r of k_sigma(x_r, m) -> [N]."""
    k = min(k, len(memory_KD))
    return in_blocks(
        lambda real_nD: gaussian_kernel(squared_distances(real_nD, memory_KD).topk(k, dim=1, largest=False).values, sigma).mean(1), real_ND
    )


def leave_one_out_score(real_ND, kernel):
    """c_r(X) = 1/(N-1) sum_{q != r} k(x_r, x_q): what a memory drawn from the data itself would give -> [N]."""
    kernel_NN = kernel(squared_distances(real_ND, real_ND))
    return (kernel_NN.sum(1) - kernel_NN.diagonal()) / (len(real_ND) - 1)


def recall_within(real_ND, memory_KD, radius, mass_N=None):
    """Published online recall: share of reals with an entry closer than `radius` -> 0-d. mass_N: reals that each row stands for."""
    nearest_N = in_blocks(lambda real_nD: squared_distances(real_nD, memory_KD).amin(1), real_ND)
    found_N = (nearest_N < radius**2).to(torch.float32)
    return found_N.mean() if mass_N is None else (found_N * mass_N).sum() / mass_N.sum()


# ----------------------------------------------------------------------------
# Gated cells.


def assign_to_cells(features_BD, centroids_CD, radii_C, class_B=None, class_C=None):
    """Nearest cell of each feature, or -1 where it lies outside that cell's radius -> int64 [B].

    With classes (>= 0) only cells of the feature's own class are eligible.
    """
    squared_BC = squared_distances(features_BD, centroids_CD)
    if class_C is not None:
        squared_BC = squared_BC.masked_fill((class_C[None, :] >= 0) & (class_C[None, :] != class_B[:, None]), float("inf"))
    squared_B, cell_B = squared_BC.min(dim=1)
    return torch.where(squared_B <= radii_C[cell_B].square(), cell_B, -1)


def cell_counts(cell_W, num_cells):
    """n_a: entries of the window in each cell; -1 (outside every gate) is not counted -> float32 [C]."""
    inside = cell_W[cell_W >= 0]
    return torch.bincount(inside, minlength=num_cells).to(torch.float32)


def expected_counts(count_C, share_C, class_C=None):
    """p_a * N_in: what the images inside gates would show if they were spread as the reals are -> [C].

    With classes both p_a and N_in are taken within the cell's class.
    """
    if class_C is None or (class_C < 0).all():
        return share_C * count_C.sum()
    num_classes = int(class_C.max()) + 1
    inside = torch.zeros([num_classes], dtype=count_C.dtype, device=count_C.device).index_add_(0, class_C, count_C)
    mass = torch.zeros([num_classes], dtype=share_C.dtype, device=share_C.device).index_add_(0, class_C, share_C)
    return share_C / mass[class_C] * inside[class_C]


def cell_ratio(count_C, expected_C):
    """rho_a = (n_a + sqrt(n_a) + 1) / (p_a * N_in): upper confidence bound of 'as many as expected' -> [C]."""
    return (count_C + count_C.sqrt() + 1) / expected_C.clamp(min=1e-6)


def deficit_weights(count_C, expected_C, largest):
    """v_a = clip(1 / rho_a, 1, largest): 1 up to about one sigma where generated = real -> [C]."""
    return (1 / cell_ratio(count_C, expected_C)).clamp(1, largest)


def share_change(older_C, newer_C):
    """Mean squared relative change of a cell's share between two parts of a window, beyond counting noise -> 0-d, 0 to 1.

    (X - (K - 1)) / M with X = sum_a (sqrt(N2/N1) n_a - sqrt(N1/N2) m_a)^2 / (n_a + m_a), the chi-square of homogeneity over the K cells with
    images, n and m the counts, N1 and N2 their sums, M = N1 + N2. Its mean is 0 where both parts follow one distribution.
    """
    total_C = older_C + newer_C
    first, second = older_C.sum().to(torch.float64), newer_C.sum().to(torch.float64)
    if float(first) == 0 or float(second) == 0:
        return torch.zeros([], dtype=torch.float64, device=total_C.device)
    ratio, seen_C = (second / first).sqrt(), total_C > 0
    difference_C = ratio * older_C - newer_C / ratio
    chi_square = (difference_C[seen_C].square() / total_C[seen_C]).sum()
    return ((chi_square - (seen_C.sum() - 1)) / (first + second)).clamp(0, 1)


def histogram_overlap(count_C, share_C, window, gate=1.0):
    """1/q sum_a min(q p_a, n_a / W): share of the real mass matched by the window's images; q: share of reals inside gates."""
    return torch.minimum(share_C * gate, count_C / max(window, 1)).sum() / gate


def expected_overlap(share_C, window, gate=1.0):
    """Mean of histogram_overlap where generated = real: 1 - 1/(qW) sum_a E(l_a - n_a)+ with n_a ~ Poisson(l_a), l_a = q p_a W.

    E(l - n)+ = e^-l l^(floor(l)+1) / floor(l)!  (half the Poisson's mean deviation).
    """
    rate_C = (share_C * gate * max(window, 1)).to(torch.float64).clamp(min=1e-12)
    floor_C = rate_C.floor()
    shortfall_C = torch.exp(-rate_C + (floor_C + 1) * rate_C.log() - torch.lgamma(floor_C + 1))
    return (1 - shortfall_C.sum() / (gate * max(window, 1))).clamp(min=1e-3).to(torch.float32)


def overlap_deviation(share_C, window, gate=1.0):
    """Standard deviation of histogram_overlap where generated = real, from above: 1/(qW) sqrt(sum_a Var (l_a - n_a)+) with n_a as above.

    Var (l - n)+ <= E(l - n)^2 over n < l = about l/2, less (E(l - n)+)^2; the cells' fixed total, left out here, lowers it further.
    """
    rate_C = (share_C * gate * max(window, 1)).to(torch.float64).clamp(min=1e-12)
    floor_C = rate_C.floor()
    shortfall_C = torch.exp(-rate_C + (floor_C + 1) * rate_C.log() - torch.lgamma(floor_C + 1))
    return ((rate_C / 2 - shortfall_C.square()).clamp(min=0).sum().sqrt() / (gate * max(window, 1))).to(torch.float32)
