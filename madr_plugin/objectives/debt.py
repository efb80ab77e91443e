"""Applies the witness with coverage debts: samples are pulled from cells that have more than their share to cells that are owed some."""

import torch

from madr_plugin.maths import coverage, debts, terms
from madr_plugin.objectives.objective import NOTHING_SEEN
from madr_plugin.objectives.witness import WitnessObjective
from madr_plugin.strength import signal_share
from madr_spaces.errors import MADRError

CANDIDATES = 32  # reals of the cell, of which the nearest is the target


class DebtObjective(WitnessObjective):
    """L = witness + mu/B sum_i moved_i |f_i - t_i|^2 / s0^2, a_i the cell that sample i is assigned to and t_i the nearest of 32 random reals of it.

    --madr-debt=potentials: a_i by potentials that remember what every cell is owed (maths/debts.py), moved after each step by the counts of all
    processes. --madr-debt=batch, the memory-free twin: an exact assignment of the batch to cells drawn by their shares, anew each time.
    """

    def __init__(self, config, reference, seed):
        super().__init__(config, reference, seed)
        self.config = config
        self.class_C = reference.class_C if bool((reference.class_C >= 0).any()) else None
        self.share_C = reference.shares_C.to(torch.float64)
        self.potential_C = torch.zeros_like(self.share_C)
        self.step_images = 0  # of the last step; 0: none yet, when nothing is owed
        order_N = torch.argsort(reference.cell_of_real_N, stable=True)
        count_C = torch.bincount(reference.cell_of_real_N, minlength=len(self.share_C))
        self.order_N, self.count_C, self.start_C = order_N, count_C, count_C.cumsum(0) - count_C
        self.moved = None
        self._said_clipped = False

    def loss(self, features_BD, generator, weight_N=None, pull_N=None, class_B=None):
        """Compute L with a graph to the features: slow, and what gradient() is held to."""
        loss = super().loss(features_BD, generator, weight_N, pull_N)
        moved_B, target_BD = self._targets(features_BD.detach(), generator, class_B)
        squared_B = (features_BD - target_BD).square().sum(1) * moved_B
        return loss + self.config.debt_weight * squared_B.mean() / self.reference.scale**2

    def loss_at_rest(self, features_BD, generator):
        if self.config.debt == "potentials":
            return WitnessObjective.loss(self, features_BD, generator)  # no potentials, no pull: found at any time, it must be the same
        return self.loss(features_BD, generator)

    @torch.no_grad()
    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        gradient_BD = terms.witness_gradient(features_BD, *self._compared(generator, seen.weight_N, seen.pull_N))
        moved_B, target_BD = self._targets(features_BD, generator, seen.class_B)
        gradient_BD = gradient_BD + debts.pull_gradient(features_BD, target_BD, moved_B, self.reference.scale, self.config.debt_weight)
        return gradient_BD, dict(power=signal_share.feature_power(gradient_BD), moved=moved_B.mean())

    def assigned(self, features_BD, generator, class_B=None):
        """Assign samples to cells -> (a [B], moved [B])."""
        reference = self.reference
        cost_BC = debts.costs(features_BD, reference.centroids_CD, reference.scale, class_B, self.class_C).to(torch.float64)
        if self.config.debt == "potentials":
            return debts.assigned_by_potentials(cost_BC, self.potential_C, debts.noise(self.share_C, max(self.step_images, 1), self.config.debt_rate))
        quota_B = self._quota(len(features_BD), generator, class_B)
        return debts.assigned_exactly(cost_BC, quota_B)

    def _quota(self, count, generator, class_B):
        """Draw a cell for each sample by the cells' shares, within the samples' classes -> int64 [B]."""
        position_B = torch.rand([count], generator=generator, dtype=torch.float64).to(self.share_C.device)
        if self.class_C is None or class_B is None:
            cumulative_C = self.share_C.cumsum(0)
            return torch.searchsorted(cumulative_C, position_B * cumulative_C[-1], right=True).clamp(max=len(cumulative_C) - 1)
        own_BC = torch.where(self.class_C[None, :] == class_B[:, None], self.share_C, 0)
        own_BC = torch.where(own_BC.sum(1, keepdim=True) > 0, own_BC, self.share_C)  # a class that the reference lacks
        cumulative_BC = own_BC.cumsum(1)
        return (cumulative_BC <= position_B[:, None] * cumulative_BC[:, -1:]).sum(1).clamp(max=len(self.share_C) - 1)

    def _targets(self, features_BD, generator, class_B):
        """Find (moved as 0 and 1 [B], targets [B, D]). The draws are as many whoever moves, so that runs stay in step."""
        cell_B, moved_B = self.assigned(features_BD, generator, class_B)
        place_Bk = torch.rand([len(features_BD), CANDIDATES], generator=generator).to(cell_B.device)
        rows_Bk = self.order_N[self.start_C[cell_B, None] + (place_Bk * self.count_C[cell_B, None]).to(torch.int64)]
        candidates_BkD = self.reference.features_ND[rows_Bk]
        nearest_B = (candidates_BkD - features_BD[:, None]).square().sum(2).argmin(1)
        return moved_B.to(features_BD.dtype), candidates_BkD[torch.arange(len(features_BD), device=cell_B.device), nearest_B]

    def after_step(self, step, memory, batch=None):
        self.moved = batch.measured.get("moved", self.moved)
        if self.config.debt != "potentials":
            return
        finite_B = torch.isfinite(batch.features_BD).all(1)
        features_BD, class_B = batch.features_BD[finite_B], batch.class_B[finite_B]
        self.step_images = len(features_BD)
        if self.step_images == 0:
            return
        cell_B, _ = self.assigned(features_BD, None, class_B)
        count_C = torch.bincount(cell_B, minlength=len(self.share_C)).to(torch.float64)
        expected_C = coverage.expected_counts(count_C, self.share_C, self.class_C)
        self.potential_C = debts.updated_potentials(self.potential_C, count_C, expected_C, self.share_C, self.config.debt_rate)

    def potentials(self):
        """Return g_C; None for the twin, which has none."""
        return self.potential_C if self.config.debt == "potentials" else None

    def clipped(self):
        """Tell the share of the cells whose potential is at its limit -> 0-d."""
        return (self.potential_C.abs() >= debts.CLIP).to(torch.float32).mean()

    def sentences(self):
        if self._said_clipped or self.config.debt != "potentials" or float(self.clipped()) == 0:
            return []
        self._said_clipped = True
        return [
            f"{float(self.clipped()):.1%} of the cells' debts have reached their limit of {debts.CLIP:g} (told as debt_clipped from now on): for long these "
            "cells have had other than their share; a lower --madr-debt-rate lets debts grow more slowly, fewer --madr-cells make shares easier to meet"
        ]

    def live_state(self):
        return dict(potentials=self.potential_C, step_images=self.step_images) if self.config.debt == "potentials" else {}

    def load(self, state, device):
        if "potentials" not in state or self.config.debt != "potentials":
            return  # of a run without debts: they begin with the next step
        if len(state["potentials"]) != len(self.share_C):
            raise MADRError(
                f"the saved debts are of {len(state['potentials'])} cells, there are {len(self.share_C)} now; resume with the former --madr-cells, or start anew"
            )
        self.potential_C = state["potentials"].to(device, copy=True)
        self.step_images = int(state["step_images"])

    def telemetry(self):
        told = {} if self.moved is None else dict(debt_moved=self.moved)
        if self.config.debt == "potentials":
            told["debt_spread"] = (self.share_C * self.potential_C.square()).sum().sqrt()
            told["debt_clipped"] = self.clipped()
        return told
