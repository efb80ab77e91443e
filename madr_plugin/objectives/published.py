"""Applies the published terms (`paper`, `enhanced`): weights of the reals from a memory's coverage."""

import torch

from madr_plugin.maths import bandwidth, coverage, estimators, terms
from madr_plugin.objectives.objective import Objective
from madr_plugin.strength.controllers import RecallController
from madr_spaces.distances import pairwise_distances, quantile_of_sorted


class PublishedObjective(Objective):
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
    def after_step(self, step, memory, batch=None):
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
        if not state:
            return  # of a run with another term: this one begins with the next step
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
