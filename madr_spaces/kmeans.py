"""k-means: the start of k-means++, Lloyd's steps, the nearest centre.

Every draw is made by the caller, which keeps its own stream. By our own hand and not by faiss: a few hundred centres take about
a second and come out the same whether or not faiss is installed. Must not know what the points are.
Legend: N points, K centres, D feature dimensions.
"""

import torch

from madr_spaces.distances import squared_distances

BLOCK_ROWS = 8192


def plus_plus(points_ND, num_centres, first, draw, dtype=None):
    """k-means++: row numbers of the chosen points. first: of the first one. dtype: to measure in, if not that of the points.

    draw(weights_N) -> row number, drawn in proportion to the squared distance to the nearest chosen point; None ends the choice.
    """
    chosen, squared_N = [first], _squared_to(points_ND, points_ND[first].to(dtype or points_ND.dtype))
    while len(chosen) < num_centres:
        row = draw(squared_N)
        if row is None:
            break
        chosen.append(row)
        squared_N = torch.minimum(squared_N, _squared_to(points_ND, points_ND[row].to(squared_N.dtype)))
    return torch.tensor(chosen, device=points_ND.device)


def _squared_to(points_ND, centre_D):
    return torch.cat([(part - centre_D).square().sum(1) for part in points_ND.split(BLOCK_ROWS)])


def lloyd(points_ND, centres_KD, iterations):
    """Centres after so many of Lloyd's steps, or as soon as no point moves; an empty cell stays where it was."""
    former_N = None
    for _ in range(iterations):
        cell_N = nearest_centres(points_ND, centres_KD)
        if former_N is not None and torch.equal(cell_N, former_N):
            break
        former_N = cell_N
        counts_K, sums_KD = torch.bincount(cell_N, minlength=len(centres_KD)), torch.zeros_like(centres_KD)
        for part_nD, cell_n in zip(points_ND.split(BLOCK_ROWS), cell_N.split(BLOCK_ROWS)):
            sums_KD.index_add_(0, cell_n, part_nD.to(sums_KD.dtype))
        centres_KD = torch.where(counts_K[:, None] > 0, sums_KD / counts_K.clamp(min=1)[:, None], centres_KD)
    return centres_KD


def nearest_centres(points_ND, centres_KD, class_N=None, class_K=None, block=BLOCK_ROWS):
    """Row of the nearest centre -> int64 [N]; with classes, among those of the point's own class. Measured in the centres' precision."""
    found = []
    for start in range(0, len(points_ND), block):
        squared_nK = squared_distances(points_ND[start : start + block].to(centres_KD.dtype), centres_KD)
        if class_K is not None:
            squared_nK = squared_nK.masked_fill(class_N[start : start + block, None] != class_K[None, :], float("inf"))
        found.append(squared_nK.argmin(1))
    return torch.cat(found)
