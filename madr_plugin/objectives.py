"""Applies the coverage term to every generated batch, and keeps whatever it needs between steps.

One interface: loss(features_BD, generator, weight_N, pull_N) -> 0-d (weight_N: the tilt's weight of the reals, by which they are drawn;
pull_N: weight of their attraction, by which they are not; None: uniform), after_step(step, memory), strength, live_state, load, telemetry.
Must not know images, generators of images or processes: every process calls it with the same state.
"""

import torch

from madr_plugin.maths import bandwidth, coverage, estimators, kernels, terms
from madr_plugin.strength import signal_share
from madr_plugin.strength.controllers import RecallController
from madr_spaces.distances import pairwise_distances, quantile_of_sorted


class WitnessObjective:
    """Compares the batch, by the witness, with freshly drawn reals (terms.witness_loss). Keeps nothing."""

    strength = 1.0

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
            self._null_power[batch] = signal_share.null_power(self._draw, self.loss, batch, self.seed)
        return self._null_power[batch]

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        mass_N = self.reference.mass_N
        if mass_N is not None and len(mass_N) <= self.reals:  # all anchors cost less than a draw, and have none of its noise
            share_N = mass_N if weight_N is None else mass_N * weight_N
            share_N = share_N if pull_N is None else share_N * pull_N
            return terms.witness_loss(features_BD, self.reference.features_ND, self.kernel, share_N / share_N.sum())
        rows = self.reference.draw(self.reals, generator, weight_N)
        # The weights of a draw add up to 1, so that the whole attraction stays in balance with the repulsion.
        weight_n = None if pull_N is None else pull_N[rows] / pull_N[rows].sum()
        return terms.witness_loss(features_BD, self.reference.features_ND.index_select(0, rows), self.kernel, weight_n)

    def after_step(self, step, memory):
        pass

    def live_state(self):
        return {}

    def load(self, state, device):
        pass

    def telemetry(self):
        return {}


class PublishedObjective:
    """`paper` (E1) and `enhanced` (E2): weighted attraction to all reals, weights from a memory's coverage scores.

    Off (None) until the memory is filled to start_fill and start_step steps are done. Scores, bandwidth, radius and recall follow the memory, which
    changes every update_interval steps only.
    """

    PAIRS = 1000  # memory entries whose pairwise distances give bandwidth and radius

    def __init__(self, config, reference, seed):
        self.config, self.reference, self.seed = config, reference, seed
        self.controller = RecallController(
            "none" if config.controller == "integral" else config.controller, config.recall_target, config.recall_slope
        )
        self.estimator = estimators.build(config.estimator, reference.features_ND, config.top_k or None, reference.mass_N)
        self.weights_N = None
        self.sigma = self.radius = self.recall = None
        self.scored_at = -1  # samples offered to the memory when the weights were computed

    @property
    def strength(self):
        return self.controller.strength

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        if self.weights_N is None:
            return None
        return terms.paper_loss(features_BD, self.reference.features_ND, self.weights_N, self.sigma)

    @torch.no_grad()
    def after_step(self, step, memory):
        if memory.count < max(self.config.start_fill * self.config.capacity, 4) or step + 1 < self.config.start_step:
            return
        memory_KD = memory.filled("features")
        renew = self.sigma is None or step % self.config.bandwidth_interval == 0
        if renew:
            self._renew_scales(step, memory_KD)
        if renew or memory.offered != self.scored_at:
            self.weights_N = terms.paper_weights(self.estimator.scores(memory_KD, self.sigma), self.config.beta, self.reference.mass_N)
            self.recall = float(coverage.recall_within(self.reference.features_ND, memory_KD, self.radius, self.reference.mass_N))
            self.scored_at = memory.offered
        if step % self.config.control_interval == 0:
            self.controller.update(self.recall, step)

    def _renew_scales(self, step, memory_KD):
        generator = torch.Generator().manual_seed(self.seed + step)
        distances = pairwise_distances(memory_KD, generator, self.PAIRS)
        median = quantile_of_sorted(distances, 0.5)
        if self.config.bandwidth == "warm":
            limits = [torch.full_like(median, value) for value in (self.reference.scale, self.reference.scale_low, self.reference.scale_high)]
            median = bandwidth.warm_started(step, median, *limits)
        self.sigma = float(median.clamp(min=1e-6))
        self.radius = float(quantile_of_sorted(distances, 0.95))

    def live_state(self):
        return dict(
            weights=torch.zeros([0]) if self.weights_N is None else self.weights_N,
            scored_at=self.scored_at,
            scales=[-1.0 if value is None else value for value in (self.sigma, self.radius, self.recall)],
            controller=self.controller.live_state(),
            estimator=self.estimator.live_state(),
        )

    def load(self, state, device):
        weights_N = state["weights"].to(device, copy=True)
        self.weights_N = weights_N if len(weights_N) else None
        self.scored_at = int(state["scored_at"])
        self.sigma, self.radius, self.recall = [None if value < 0 else float(value) for value in state["scales"]]
        self.controller.load(state["controller"])
        self.estimator.load(state.get("estimator", {}), device)

    def telemetry(self):
        if self.weights_N is None:
            return {}
        mass_N = self.reference.mass_N
        num_reals = len(self.weights_N) if mass_N is None else float(mass_N.sum())
        return dict(recall=self.recall, ess=float(terms.effective_number(self.weights_N, mass_N)) / num_reals)


class NoObjective(WitnessObjective):
    """Applies nothing (--madr-term=none): replay alone."""

    def __init__(self, config, reference):
        pass

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        return None


def build(config, reference, seed):
    if config.term == "witness":
        return WitnessObjective(config, reference, seed)
    if config.term == "none":
        return NoObjective(config, reference)
    return PublishedObjective(config, reference, seed)
