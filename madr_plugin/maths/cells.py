"""Divides the reals' feature space into cells: k-means++ and Lloyd, the gate radius and the share of each cell.

Pure functions; every draw names its generator. By our own hand and not by faiss: a few hundred cells are fitted once per data
set in about a second, they come out the same whether or not faiss is installed, and a resumed run refuses other cells. faiss
is used where K is in the thousands (anchors.py).
"""

import torch

from madr_plugin.maths import coverage
from madr_plugin.maths.terms import squared_distances

LEAST_HELD_OUT = 0.5  # of held_out_overlap(); below, gates hold so few reals that the number means nothing


@torch.no_grad()
def fit_cells(features_ND, num_cells, quantile, generator, iterations=15, max_rows=20000):
    """-> dict(centroids [C, D], radii [C], shares [C], cell_of_real [N]); C may fall below num_cells with few distinct reals."""
    rows = torch.randperm(len(features_ND), generator=generator)[:max_rows]
    sample_nD = features_ND[rows]
    centroids_CD = _plus_plus(sample_nD, min(num_cells, len(sample_nD)), generator)
    for _ in range(iterations):
        cell_n = nearest(sample_nD, centroids_CD)
        counts_C = torch.bincount(cell_n, minlength=len(centroids_CD))
        sums_CD = torch.zeros_like(centroids_CD).index_add_(0, cell_n, sample_nD)
        centroids_CD = torch.where(counts_C[:, None] > 0, sums_CD / counts_C.clamp(min=1)[:, None], centroids_CD)
    cell_N = nearest(features_ND, centroids_CD)
    kept = torch.bincount(cell_N, minlength=len(centroids_CD)).nonzero()[:, 0]
    centroids_CD = centroids_CD[kept]
    cell_N = nearest(features_ND, centroids_CD)
    counts_C = torch.bincount(cell_N, minlength=len(centroids_CD))
    distance_N = (features_ND - centroids_CD[cell_N]).norm(dim=1)
    radii_C = _quantile_per_cell(distance_N, cell_N, len(centroids_CD), quantile)
    return dict(centroids=centroids_CD, radii=radii_C, shares=counts_C.to(torch.float32) / len(features_ND), cell_of_real=cell_N)


def fit_cells_per_class(features_ND, class_N, num_cells, quantile, generator):
    """fit_cells within each class, with cells in proportion to its reals; adds class [C] (-1 without labels)."""
    parts, offset, cell_N = [], 0, torch.zeros([len(features_ND)], dtype=torch.int64)
    for index in class_N.unique().tolist():
        rows = (class_N == index).nonzero()[:, 0]
        share = len(rows) / len(features_ND)
        part = fit_cells(features_ND[rows], max(1, round(num_cells * share)), quantile, generator)
        cell_N[rows] = part.pop("cell_of_real") + offset
        offset += len(part["shares"])
        part["shares"] = part["shares"] * share
        part["class"] = torch.full([len(part["shares"])], index, dtype=torch.int64)
        parts.append(part)
    whole = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    whole["radii"] = _widened_where_few(whole["radii"], whole["shares"] * len(features_ND))
    return dict(whole, cell_of_real=cell_N)


@torch.no_grad()
def held_out_overlap(features_ND, class_N, num_cells, quantile, generator, folds=5, max_rows=8000):
    """Coverage of each fifth of the reals by cells fitted to the others, over what those others would show themselves -> 0-d, at most 1.

    New images fall outside gates that were laid around the very reals: about 1 where reals are many, less where they are few. Less one standard
    error of the fifths' mean, so that what is held against it comes to rest.
    """
    rows = torch.randperm(len(features_ND), generator=generator)[:max_rows]
    if len(rows) < 10 * folds:
        return torch.ones([])
    ratios = []
    for fold in range(folds):
        is_tested = torch.arange(len(rows)) % folds == fold
        tested, rest = rows[is_tested], rows[~is_tested]
        fitted = fit_cells_per_class(features_ND[rest], class_N[rest], num_cells, quantile, generator)
        cell_n = coverage.assign_to_cells(features_ND[tested], fitted["centroids"], fitted["radii"], class_N[tested], fitted["class"])
        found = coverage.histogram_overlap(coverage.cell_counts(cell_n, len(fitted["shares"])), fitted["shares"], len(tested), quantile)
        ratios.append(found / coverage.expected_overlap(fitted["shares"], len(tested), quantile))
    return (torch.stack(ratios).mean() - torch.stack(ratios).std() / folds**0.5).clamp(LEAST_HELD_OUT, 1)


def _widened_where_few(radii_C, count_C, few=10):
    """A handful of reals says little about how far a cell reaches: such cells get at least the typical radius of the others."""
    many_C = count_C >= few
    if not many_C.any():
        return torch.full_like(radii_C, float(radii_C.max()))
    typical = radii_C[many_C].median()
    return torch.where(many_C, radii_C, radii_C.clamp(min=float(typical)))


def nearest(features_ND, centroids_CD, class_N=None, class_C=None, block=8192):
    """Row of the nearest centroid -> int64 [N]; with classes, among those of the feature's own class."""
    found = []
    for start in range(0, len(features_ND), block):
        squared_nC = squared_distances(features_ND[start : start + block], centroids_CD)
        if class_C is not None:
            squared_nC = squared_nC.masked_fill(class_N[start : start + block, None] != class_C[None, :], float("inf"))
        found.append(squared_nC.argmin(1))
    return torch.cat(found)


def _plus_plus(sample_nD, num_cells, generator):
    """k-means++: each next centre is drawn with probability proportional to the squared distance to those chosen."""
    first = int(torch.randint(len(sample_nD), [1], generator=generator))
    chosen = [first]
    squared_n = (sample_nD - sample_nD[first]).square().sum(1)
    while len(chosen) < num_cells and float(squared_n.max()) > 0:
        cumulative = squared_n.to(torch.float64).cumsum(0)
        position = torch.rand([1], generator=generator, dtype=torch.float64).to(cumulative.device) * cumulative[-1]
        chosen.append(min(int(torch.searchsorted(cumulative, position)), len(sample_nD) - 1))
        squared_n = torch.minimum(squared_n, (sample_nD - sample_nD[chosen[-1]]).square().sum(1))
    return sample_nD[torch.tensor(chosen, device=sample_nD.device)].clone()


def _quantile_per_cell(distance_N, cell_N, num_cells, share):
    """Upper empirical quantile of the members' distances; a relative hair is added so that the gate's own real passes."""
    order = torch.argsort(distance_N)
    order = order[torch.argsort(cell_N[order], stable=True)]
    counts_C = torch.bincount(cell_N, minlength=num_cells)
    starts_C = counts_C.cumsum(0) - counts_C
    offset_C = (share * (counts_C - 1)).ceil().to(torch.int64).clamp(min=0)
    return distance_N[order[starts_C + offset_C]] * (1 + 1e-4) + 1e-6
