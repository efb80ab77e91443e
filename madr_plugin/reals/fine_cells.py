"""Divides the reals into cells that rare modes own, with a gate by the distance to the nearest real: where the fine sensor counts.

A generated image belongs to the cell of the real nearest to it, if it comes as close to that real as most reals of the cell come to another one. Of
a large set the nearest is looked for among a part of the reals, drawn once and large enough for every cell, or the search would cost more than the
step. Blends between two modes, which lie nearest to the rare reals between these, pass no gate. Must not know windows, losses or images.
"""

import torch

from madr_plugin.base import collective
from madr_plugin.maths import cells
from madr_plugin.reals.nearest import NearestPoint
from madr_spaces import files
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for

GATE = 0.9  # share of a cell's reals that have another real within the gate
FEWEST_REALS = 20  # of a cell, on average: fewer say nothing about its share or its gate
MOST_SEARCHED, SEARCHED_PER_CELL = 10_000, 40  # reals among which the nearest is looked for: the larger of the two
FORMAT = 3  # raise when the content of a cache file changes meaning


class FineCells:
    """Cells of the reals, with the names that Reference has for its coarser ones. N reals, C cells, B images, D feature width."""

    def __init__(self, features_ND, labels_N, tensors):
        self.features_ND, self.labels_N = features_ND, labels_N
        moved = {name: value.to(features_ND.device) for name, value in tensors.items()}
        self.centroids_CD, self.shares_C, self.class_C = moved["centroids"], moved["shares"], moved["class"]
        self.cell_of_real_N = self.image_cells_N = moved["cell_of_real"]
        self.gates_C = moved["gates"]
        rows_n = moved["searched"]
        self.searched_cell_n = self.cell_of_real_N[rows_n]
        self.searched = NearestPoint(features_ND[rows_n], self.labels_N[rows_n])

    def assign(self, features_BD, class_B=None):
        """Find the cell of each image, -1 where it lies outside that cell's gate -> int64 [B]. class_B: look among reals of its own class."""
        real_B, squared_B = self.searched.find(features_BD, float(self.gates_C.max()), class_B)
        cell_B = self.searched_cell_n[real_B]
        return torch.where((squared_B <= self.gates_C[cell_B].square()) & squared_B.isfinite(), cell_B, -1)

    def tensors(self):
        return [self.centroids_CD, self.shares_C, self.class_C, self.cell_of_real_N, self.gates_C, *self.searched.tensors()]


def num_cells(rarest, num_reals):
    """Count the cells in which a mode of that share has one: 1/p, with FEWEST_REALS to each."""
    return max(2, min(round(1 / rarest), num_reals // FEWEST_REALS))


@torch.no_grad()
def fit(features_ND, labels_N, rarest, seed):
    """-> dict(centroids [C, D], shares [C], class [C], cell_of_real [N], gates [C], searched [n]: rows of reals), on the CPU."""
    count = num_cells(rarest, len(features_ND))
    fitted = cells.fit_cells_per_class(features_ND, labels_N, count, 1.0, generator_for("fine-cells", seed))
    fitted.pop("radii")
    searched = max(MOST_SEARCHED, SEARCHED_PER_CELL * count)
    rows = torch.randperm(len(features_ND), generator=generator_for("fine-gates", seed))[:searched].sort().values
    nearest_n = torch.full([len(rows)], float("inf"))
    for index in labels_N[rows].unique().tolist():  # as assign() looks: within the class
        own = (labels_N[rows] == index).nonzero()[:, 0]
        nearest_n[own] = nearest_other_real(features_ND[rows[own]])
    return dict(fitted, gates=gates(nearest_n, fitted["cell_of_real"][rows], len(fitted["shares"])), searched=rows)


def nearest_other_real(features_nD, block=512):
    """Distance of each real to the nearest one that is no copy of it -> [n]; inf where there is none."""
    found, kind_n = [], features_nD.unique(dim=0, return_inverse=True)[1]  # a copy says nothing of how near another image comes
    for part in torch.arange(len(features_nD)).split(block):
        squared_mn = squared_distances(features_nD[part], features_nD)
        squared_mn[kind_n[part][:, None] == kind_n] = float("inf")
        found.append(squared_mn.amin(1).sqrt())
    return torch.cat(found)


def gates(nearest_n, cell_n, count):
    """GATE quantile of the distances in each cell -> [C]; where fewer than five were measured, that of all cells together."""
    there_n = torch.isfinite(nearest_n)
    nearest_n, cell_n = nearest_n[there_n], cell_n[there_n]
    everywhere = torch.quantile(nearest_n, GATE) if len(nearest_n) else float("inf")  # copies of one image each: nothing to judge by
    result_C = torch.full([count], float(everywhere))
    for cell in range(count):
        own = nearest_n[cell_n == cell]
        if len(own) >= 5:
            result_C[cell] = torch.quantile(own, GATE)
    return result_C * (1 + 1e-4) + 1e-6  # a hair, so that the gate's own real passes


def build(reference, config, seed, announce=print):
    """FineCells of a run's reference. From the cache where possible; all processes have those of the first."""
    if reference.mass_N is not None:
        raise MADRError(
            "--madr-tilt-sensor=fine measures distances to every real, and --madr-anchors keeps none; use --madr-anchors=0 or --madr-tilt-sensor=cells"
        )
    identity = dict(fine=FORMAT, reference=reference.fingerprint, rarest=config.tilt_rarest, seed=seed)

    def made():
        found = files.load_known(identity, "fine-cells", announce)
        if found:
            return found
        found = fit(reference.features_ND.cpu(), reference.labels_N.cpu(), config.tilt_rarest, seed)
        return files.save_known(identity, "fine-cells", found, announce)

    return FineCells(reference.features_ND, reference.labels_N, collective.from_first_process(made, reference.features_ND.device))
