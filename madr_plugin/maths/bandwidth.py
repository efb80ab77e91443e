"""Measures length scales of a feature space, taken from the REAL data, where they stay fixed; and the published moving ones.

Pure functions; every draw names its generator.
"""

import torch

from madr_plugin.maths.terms import squared_distances


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


def warm_started(step, sigma_memory, start, smallest, largest):
    """Lead over from the reals' scale to the memory's: `start` for 1000 steps, then alpha*median(M) + (1-alpha)*start, alpha = min(1, step/10000), clipped."""
    if step < 1000:
        return start
    alpha = min(1.0, step / 10000)
    return (alpha * sigma_memory + (1 - alpha) * start).clamp(smallest, largest)
