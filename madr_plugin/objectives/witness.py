"""Applies the witness: the batch against freshly drawn reals. Keeps nothing between steps."""

import torch

from madr_plugin.maths import kernels, terms
from madr_plugin.objectives.objective import NOTHING_SEEN, Objective
from madr_plugin.strength import signal_share


class WitnessObjective(Objective):
    """Compares the batch, by the witness, with freshly drawn reals (terms.witness_loss). Keeps nothing."""

    parts = ("witness",)

    def __init__(self, config, reference, seed):
        self.reference, self.reals, self.seed = reference, config.reals, seed
        self.kernel = kernels.KERNELS[config.kernel](reference.scale)
        self._null_power = {}  # by batch size

    def _draw(self, count, generator):
        """Draw features of reals; with anchors those reals that are kept for radii, since anchors spread less."""
        if self.reference.mass_N is None:
            return self.reference.features_ND.index_select(0, self.reference.draw(count, generator))
        subset_SD = self.reference.subset_SD
        return subset_SD[torch.randint(len(subset_SD), [count], generator=generator).to(subset_SD.device)]

    def null_power(self, batch):
        """Compute the power of the gradient of a batch of this size at p_g = p_data (signal_share.py) -> 0-d."""
        if batch not in self._null_power:
            self._null_power[batch] = signal_share.null_power(self._draw, self.loss_at_rest, batch, self.seed)
        return self._null_power[batch]

    def loss_at_rest(self, features_BD, generator):
        """Compute the loss as it is where nothing has been remembered yet."""
        return self.loss(features_BD, generator)

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        return terms.witness_loss(features_BD, *self._compared(generator, weight_N, pull_N))

    @torch.no_grad()
    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        gradient_BD = terms.witness_gradient(features_BD, *self._compared(generator, seen.weight_N, seen.pull_N))
        return gradient_BD, dict(power=signal_share.feature_power(gradient_BD))

    def _compared(self, generator, weight_N, pull_N):
        """What a batch is compared with: (features of reals, kernel, their weights or None)."""
        mass_N = self.reference.mass_N
        if mass_N is not None and len(mass_N) <= self.reals:  # all anchors cost less than a draw, and have none of its noise
            share_N = mass_N if weight_N is None else mass_N * weight_N
            share_N = share_N if pull_N is None else share_N * pull_N
            return self.reference.features_ND, self.kernel, share_N / share_N.sum()
        rows = self.reference.draw(self.reals, generator, weight_N)
        # The weights of a draw add up to 1, so that the whole attraction stays in balance with the repulsion.
        weight_n = None if pull_N is None else pull_N[rows] / pull_N[rows].sum()
        return self.reference.features_ND.index_select(0, rows), self.kernel, weight_n

    def signals(self, measured, microbatch):
        return {"witness": (measured["power"], self.null_power(microbatch))} if "power" in measured else {}
