"""Distances of features as training computes them, in float32 with gradients, and the scale that follows from them.

Numbers that a metric reports come from neighbours.py, which is exact. Legend: N, M features, D their width.
"""

import torch


def squared_distances(a_ND, b_MD):
    """|a_i - b_j|^2 -> [N, M], never negative, with exact gradients (also where a_i = b_j)."""
    square_N1 = a_ND.square().sum(1, keepdim=True)
    square_1M = b_MD.square().sum(1)[None, :]
    return torch.addmm(square_N1 + square_1M, a_ND, b_MD.T, alpha=-2).clamp(min=0)


def pairwise_distances(features_ND, generator, count=1000):
    """Distances of all pairs among `count` random rows -> 1-d, sorted."""
    rows = torch.randperm(len(features_ND), generator=generator)[:count]
    sample_nD = features_ND[rows.to(features_ND.device)].to(torch.float32)
    upper = torch.triu_indices(len(sample_nD), len(sample_nD), offset=1, device=sample_nD.device)
    distances = squared_distances(sample_nD, sample_nD)[upper[0], upper[1]].sqrt()
    return distances.sort().values


def quantile_of_sorted(sorted_values, share):
    """Linear between neighbours; without torch.quantile's limit on the number of values."""
    position = share * (len(sorted_values) - 1)
    low = int(position)
    high = min(low + 1, len(sorted_values) - 1)
    return sorted_values[low] + (sorted_values[high] - sorted_values[low]) * (position - low)
