"""Assigns generated samples to cells of the reals under quotas: semi-discrete optimal transport with potentials that outlast a batch. Pure functions.

Shapes: B generated samples, C cells of shares p_C (sum 1), D feature width. A cell's potential g_a ('debt') is high where it is owed samples.
Source: the dual of semi-discrete transport and its stochastic ascent, Genevay et al. 2016; that the ascent is an integral controller of cell counts, and
its dead zone, are our own.
"""

import scipy.optimize
import torch

from madr_spaces.distances import squared_distances

CLIP = 4.0  # of potentials, in units of s0^2
DEAD_ZONE = 2.0  # times the sum of the two cells' noise


def costs(features_BD, centroids_CD, scale, class_B=None, class_C=None):
    """c_ia = |f_i - m_a|^2 / s0^2 -> [B, C]; inf for a cell of another class than the sample's (-1: no class)."""
    cost_BC = squared_distances(features_BD, centroids_CD) / scale**2
    if class_C is None or class_B is None:
        return cost_BC
    return cost_BC.masked_fill((class_C[None, :] >= 0) & (class_B[:, None] >= 0) & (class_C[None, :] != class_B[:, None]), torch.inf)


def noise(share_C, step_images, rate):
    """sigma_a = sqrt(eta p_a / (2 n)): how far potentials wander where generated = real -> [C]."""
    return (rate * share_C / (2 * step_images)).sqrt()


def assigned_by_potentials(cost_BC, potential_C, noise_C):
    """a_i = argmin_a c_ia - g_a, b_i = argmin_a c_ia; moved where a_i != b_i and g_a - g_b > 2 (sigma_a + sigma_b) -> (a [B], moved [B])."""
    cell_B, own_B = (cost_BC - potential_C).argmin(1), cost_BC.argmin(1)
    beyond_B = potential_C[cell_B] - potential_C[own_B] > DEAD_ZONE * (noise_C[cell_B] + noise_C[own_B])
    return cell_B, (cell_B != own_B) & beyond_B


def assigned_exactly(cost_BC, quota_B):
    """Assign each sample to one of as many cells, drawn by their shares, at the least total cost: the memory-free twin -> (a [B], moved [B]).

    quota_B: int64 cells, with repetitions. A sample that no allowed cell is left for stays where it is.
    """
    own_B = cost_BC.argmin(1)
    squared = cost_BC[:, quota_B]
    allowed = torch.isfinite(squared)
    rows, columns = scipy.optimize.linear_sum_assignment(torch.where(allowed, squared, 1e9).cpu().double().numpy())
    cell_B = own_B.clone()
    rows, columns = torch.from_numpy(rows).to(own_B.device), torch.from_numpy(columns).to(own_B.device)
    cell_B[rows] = torch.where(allowed[rows, columns], quota_B[columns], own_B[rows])
    return cell_B, cell_B != own_B


def updated_potentials(potential_C, count_C, expected_C, share_C, rate):
    """g_a += eta (e_a - n_a) / sum n; g -= sum_a p_a g_a; clip to +-4. count_C: n_a by a_i; expected_C: what the shares ask for, of the same sum -> [C]."""
    moved_C = potential_C + rate * (expected_C - count_C) / count_C.sum().clamp(min=1)
    return (moved_C - (share_C * moved_C).sum() / share_C.sum()).clamp(-CLIP, CLIP)


def pull_gradient(features_BD, target_BD, moved_B, scale, weight):
    """Gradient of mu/B sum_i moved_i |f_i - t_i|^2 / s0^2 on the features -> [B, D]."""
    return (features_BD - target_BD) * (moved_B[:, None] * (2 * weight / (len(features_BD) * scale**2)))
