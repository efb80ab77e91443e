"""The witness with its repulsion from remembered features instead of the present batch: the form that MADR does not take, for comparison."""

import torch

from madr_plugin.objectives import WitnessObjective
from madr_spaces.distances import squared_distances


class OldRepulsion(WitnessObjective):
    """L = 2/(B K) sum_{i,m} k(f_i, m) - 2/(B n) sum_{i,r} k(f_i, x_r), m over the K features of the memory; nothing until there are some.

    The first factor is 2 as a pair inside the batch is pushed from both ends.
    """

    def __init__(self, config, reference, seed):
        super().__init__(config, reference, seed)
        self.old_KD = None

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        real_nD = self.reference.features_ND[self.reference.draw(self.reals, generator, weight_N)]
        attraction = self.kernel(squared_distances(features_BD, real_nD)).mean()
        repulsion = 0 if self.old_KD is None else self.kernel(squared_distances(features_BD, self.old_KD)).mean()
        return 2 * (repulsion - attraction)

    @torch.no_grad()
    def after_step(self, step, memory, batch=None):
        self.old_KD = memory.filled("features").clone() if memory.count else None
