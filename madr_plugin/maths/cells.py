"""Divides the reals' feature space into cells: k-means++ and Lloyd, the gate radius and the share of each cell.

Pure functions; every draw names its generator. A resumed run refuses other cells, so they may depend on no library's version;
faiss is used where K is in the thousands (anchors.py).
"""

import torch

from madr_plugin.maths import coverage
from madr_spaces import kmeans
from madr_spaces.kmeans import nearest_centres

LEAST_HELD_OUT = 0.5  # of held_out_overlap(); below, gates hold so few reals that the number means nothing


@torch.no_grad()
def fit_cells(features_ND, num_cells, quantile, generator, iterations=15, max_rows=20000):
    """-> dict(centroids [C, D], radii [C], shares [C], cell_of_real [N]); C may fall below num_cells with few distinct reals."""
    rows = torch.randperm(len(features_ND), generator=generator)[:max_rows]
    sample_nD = features_ND[rows]
    centroids_CD = kmeans.lloyd(sample_nD, _plus_plus(sample_nD, min(num_cells, len(sample_nD)), generator), iterations)
    cell_N = nearest_centres(features_ND, centroids_CD)
    kept = torch.bincount(cell_N, minlength=len(centroids_CD)).nonzero()[:, 0]
    centroids_CD = centroids_CD[kept]
    cell_N = nearest_centres(features_ND, centroids_CD)
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


def _plus_plus(sample_nD, num_cells, generator):
    """Centroids to start from; fewer where there are not so many distinct reals."""

    def draw(squared_n):
        if float(squared_n.max()) <= 0:
            return None
        cumulative = squared_n.to(torch.float64).cumsum(0)
        position = torch.rand([1], generator=generator, dtype=torch.float64).to(cumulative.device) * cumulative[-1]
        return min(int(torch.searchsorted(cumulative, position)), len(sample_nD) - 1)

    first = int(torch.randint(len(sample_nD), [1], generator=generator))
    return sample_nD[kmeans.plus_plus(sample_nD, num_cells, first, draw)].clone()


def _quantile_per_cell(distance_N, cell_N, num_cells, share):
    """Upper empirical quantile of the members' distances; a relative hair is added so that the gate's own real passes."""
    order = torch.argsort(distance_N)
    order = order[torch.argsort(cell_N[order], stable=True)]
    counts_C = torch.bincount(cell_N, minlength=num_cells)
    starts_C = counts_C.cumsum(0) - counts_C
    offset_C = (share * (counts_C - 1)).ceil().to(torch.int64).clamp(min=0)
    return distance_N[order[starts_C + offset_C]] * (1 + 1e-4) + 1e-6
