"""How well the reals are covered by generated features: estimators as pure functions.

Shapes: N reals, K memory entries, C cells, W window of generated images, D feature width.
"""
import torch

from madr_plugin.terms import gaussian_kernel, squared_distances


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
        lambda real_nD: gaussian_kernel(squared_distances(real_nD, memory_KD).topk(k, dim=1, largest=False).values, sigma).mean(1), real_ND)


def leave_one_out_score(real_ND, kernel):
    """c_r(X) = 1/(N-1) sum_{q != r} k(x_r, x_q): what a memory drawn from the data itself would give -> [N]."""
    kernel_NN = kernel(squared_distances(real_ND, real_ND))
    return (kernel_NN.sum(1) - kernel_NN.diagonal()) / (len(real_ND) - 1)


def recall_within(real_ND, memory_KD, radius):
    """Published online recall: share of reals with an entry closer than `radius` -> 0-d."""
    nearest_N = in_blocks(lambda real_nD: squared_distances(real_nD, memory_KD).amin(1), real_ND)
    return (nearest_N < radius ** 2).to(torch.float32).mean()


# ----------------------------------------------------------------------------
# Gated cells.

def assign_to_cells(features_BD, centroids_CD, radii_C):
    """Nearest cell of each feature, or -1 where it lies outside that cell's radius -> int64 [B]."""
    squared_B, cell_B = squared_distances(features_BD, centroids_CD).min(dim=1)
    return torch.where(squared_B <= radii_C[cell_B].square(), cell_B, torch.full_like(cell_B, -1))


def cell_counts(cell_W, num_cells):
    """n_a: entries of the window in each cell; -1 (outside every gate) is not counted -> float32 [C]."""
    inside = cell_W[cell_W >= 0]
    return torch.bincount(inside, minlength=num_cells).to(torch.float32)


def cell_ratio(count_C, share_C):
    """rho_a = (n_a + sqrt(n_a) + 1) / (p_a * N_in): upper confidence bound of 'as many as expected' -> [C]."""
    inside = count_C.sum().clamp(min=1)
    return (count_C + count_C.sqrt() + 1) / (share_C * inside)


def deficit_weights(count_C, share_C, largest):
    """v_a = clip(1 / rho_a, 1, largest): 1 up to about one sigma where generated = real -> [C]."""
    return (1 / cell_ratio(count_C, share_C)).clamp(1, largest)


def histogram_overlap(count_C, share_C, window):
    """sum_a min(p_a, n_a / W): share of the real mass matched by the window's images; 1 minus counting noise at best."""
    return torch.minimum(share_C, count_C / max(window, 1)).sum()
