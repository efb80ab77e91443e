"""Finds the nearest of many fixed points exactly, most of them by a bound that costs a fraction of their distance. Must not know cells or images.

Along LEADING principal directions a point is (a, r), r the length of what is left of it; then |f - x|^2 >= |a_f - a_x|^2 + (r_f - r_x)^2, since two
remainders of those lengths are nowhere nearer than r_f - r_x. Only points whose bound passes are measured. Shapes: n points, B queries, D width.
"""

import torch

from madr_spaces.pca import principal_directions
from madr_spaces.seeds import generator_for

LEADING = 64
BLOCK = 128  # points whose least bound is looked at first
MOST_MEASURED = 1 / 128  # of all pairs: where more pass the bound, one matrix product with all points costs less than to gather them
ROUNDING = 1e-5  # of the squared lengths in play, by which a bound in float32 may be off


class NearestPoint:
    """Holds the points, and their bounds where these pay: on a CPU, and in at least twice LEADING dimensions."""

    def __init__(self, points_nD, label_n):
        """label_n: class of each point, -1 for none, which every class may find."""
        self.points_nD, self.label_n = points_nD, label_n
        self.square_n = points_nD.square().sum(1)
        self.has_bounds = points_nD.device.type == "cpu" and points_nD.shape[1] >= 2 * LEADING
        if self.has_bounds:
            self.mean_D = points_nD.mean(0)
            self.basis_Dp = principal_directions(points_nD - self.mean_D, LEADING, generator_for("nearest-point", 0))
            embedded_nq = self._embedded(points_nD)
            square_n, missing = embedded_nq.square().sum(1), -len(points_nD) % BLOCK
            self.largest_square = float(square_n.max())
            self.embedded_qn = torch.nn.functional.pad(embedded_nq.T, [0, missing]).contiguous()
            self.embedded_square_n = torch.nn.functional.pad(square_n, [0, missing], value=float("inf"))

    @torch.no_grad()
    def find(self, features_BD, furthest, class_B=None):
        """-> (point_B, squared_B): the nearest point within `furthest` and its squared distance; (0, inf) where there is none.

        class_B: look among points of the query's own class and of none. Of equally near points the first.
        """
        if not self.has_bounds:
            return self._by_all(features_BD, furthest, class_B)
        query_k, point_k = self._candidates(features_BD, furthest, class_B)
        if len(query_k) > MOST_MEASURED * len(features_BD) * len(self.points_nD):
            return self._by_all(features_BD, furthest, class_B)
        squared_k = (features_BD[query_k] - self.points_nD[point_k]).square().sum(1)
        squared_B = torch.full([len(features_BD)], float("inf")).scatter_reduce(0, query_k, squared_k, "amin")
        nearest_k = squared_k == squared_B[query_k]
        point_B = torch.full([len(features_BD)], len(self.points_nD))
        point_B.scatter_reduce_(0, query_k[nearest_k], point_k[nearest_k], "amin")
        return self._within(point_B, squared_B, furthest)

    def _candidates(self, features_BD, furthest, class_B):
        """Pair each query with the points that may be its nearest within `furthest` -> (query_k, point_k)."""
        embedded_Bq = self._embedded(features_BD)
        square_B = embedded_Bq.square().sum(1)
        bound_Bn = torch.addmm(self.embedded_square_n, embedded_Bq, self.embedded_qn, alpha=-2)  # but for |f|^2, which stands on the other side
        if class_B is not None:
            bound_Bn[:, : len(self.label_n)].masked_fill_(self._of_other_classes(class_B), float("inf"))
        bound_Bbk = bound_Bn.unflatten(1, [-1, BLOCK])
        least_Bb = bound_Bbk.amin(2)  # a vectorised pass: where a block's least does not pass, nothing of it does
        likely_B = self._likely(bound_Bbk, least_Bb)
        squared_B = (features_BD - self.points_nD[likely_B]).square().sum(1)  # the nearest is no further
        limit_B = squared_B.clamp(max=furthest**2) + ROUNDING * (square_B + self.largest_square) - square_B
        query_m, block_m = (least_Bb <= limit_B[:, None]).nonzero(as_tuple=True)
        row_k, column_k = (bound_Bbk[query_m, block_m] <= limit_B[query_m, None]).nonzero(as_tuple=True)
        return query_m[row_k], block_m[row_k] * BLOCK + column_k

    def _likely(self, bound_Bbk, least_Bb):
        """The point with the least bound -> int64 [B]; some point where there is none."""
        row_B, block_B = torch.arange(len(least_Bb)), least_Bb.argmin(1)
        return (block_B * BLOCK + bound_Bbk[row_B, block_B].argmin(1)).clamp(max=len(self.points_nD) - 1)

    def _embedded(self, features_BD):
        """(a, r) of each -> [B, LEADING + 1]."""
        centred_BD = features_BD - self.mean_D
        leading_Bp = centred_BD @ self.basis_Dp
        rest_B = (centred_BD.square().sum(1) - leading_Bp.square().sum(1)).clamp(min=0).sqrt()
        return torch.cat([leading_Bp, rest_B[:, None]], dim=1)

    def _by_all(self, features_BD, furthest, class_B):
        apart_Bn = torch.addmm(self.square_n, features_BD, self.points_nD.T, alpha=-2)  # squared distances but for |f|^2
        if class_B is not None:
            apart_Bn.masked_fill_(self._of_other_classes(class_B), float("inf"))
        least = apart_Bn.min(1)
        squared_B = (features_BD - self.points_nD[least.indices]).square().sum(1)
        return self._within(least.indices, squared_B.masked_fill(least.values.isinf(), float("inf")), furthest)

    def _of_other_classes(self, class_B):
        return (self.label_n >= 0) & (self.label_n != class_B[:, None])

    @staticmethod
    def _within(point_B, squared_B, furthest):
        there_B = (squared_B <= furthest**2) & squared_B.isfinite()
        return torch.where(there_B, point_B, 0), torch.where(there_B, squared_B, float("inf"))

    def tensors(self):
        bounds = [self.basis_Dp, self.embedded_qn, self.embedded_square_n] if self.has_bounds else []
        return [self.points_nD, self.square_n, *bounds]
