"""Applies the moments term: the Frechet distance between remembered features and the reals, felt by the present batch."""

import math

import torch

from madr_plugin.maths import moments
from madr_plugin.memory.moments import MomentsMemory
from madr_plugin.objectives.objective import NOTHING_SEEN, Objective
from madr_plugin.reals.real_moments import RealMoments
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for

DRIFT, RATE = 0.2, 0.1  # of the spread; of a doubling per measurement
START_KIMG, MOST_KIMG, LEAST_STEPS = 0.8, 100.0, 4


class MomentsObjective(Objective):
    """L = sum_g n_g/B FD_g(m', S'), m' = b m + (1 - b) mean_B f and S' likewise: remembered moments, blended with those of the batch,

    through which alone the gradient goes. b = 1 - n / (1000 horizon), n the images of a step: a step's weight falls to 1/e over the horizon.
    With horizon 0 the moments are those of the batch alone: the memory-free twin. With 'auto' the horizon is the age at which the image of a
    remembered latent has moved by DRIFT of the spread (Replay.drift), found by steering towards it.
    """

    parts = ("moments",)

    def __init__(self, config, reference, seed):
        self.config, self.seed, device = config, seed, reference.features_ND.device
        self.follows_drift = config.horizon_kimg is None
        self.horizon = START_KIMG if self.follows_drift else config.horizon_kimg
        self.reals = RealMoments(reference, seed, device)
        self.memory = MomentsMemory(len(self.reals.targets), self.reals.width, device)
        self.images_per_step = 0  # of the last step; 0: none yet, when the memory is empty and its weight nothing
        self._null = {}  # by group and doublings of one image
        self.distance = self.drift = None
        self._said_short = False

    @property
    def drift_age(self):
        return self.horizon if self.follows_drift else None

    def decay(self, generated):
        """Compute b for steps of so many images."""
        return max(0.0, 1 - generated / (1000 * self.horizon)) if self.horizon > 0 and generated > 0 else 0.0

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        """Compute the distance with a graph to the features: slow, and what gradient() is held to."""
        memory, decay, group_B = self._compared_with(features_BD, NOTHING_SEEN)
        found = memory.blended(self.reals.projected(features_BD), group_B, decay)
        shares = self._shares(found, group_B)
        return sum(
            shares[group] * moments.frechet_distance(mean_D, second_DD, self.reals.targets[group]) for group, (mean_D, second_DD, _) in found.items()
        )

    @torch.no_grad()
    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        memory, decay, group_B = self._compared_with(features_BD, seen)
        projected_BK = self.reals.projected(features_BD)
        # What is measured has the same names in every microbatch and process: they are gathered. eigh() raises at what is not finite.
        unknown = torch.full([], math.nan, device=features_BD.device)
        if not bool(torch.isfinite(projected_BK).all()):
            return torch.full_like(features_BD, math.nan), dict(distance=unknown, null_distance=unknown)
        found = memory.blended(projected_BK, group_B, decay)
        if not found:
            return None, dict(distance=unknown, null_distance=unknown)
        shares, slopes, distance, null = self._shares(found, group_B), {}, 0.0, 0.0
        for group, (mean_D, second_DD, effective) in found.items():
            own, slope_D, slope_DD = moments.frechet_slopes(mean_D, second_DD, self.reals.targets[group])
            slopes[group] = shares[group] * slope_D, shares[group] * slope_DD
            distance, null = distance + shares[group] * own, null + shares[group] * self.null_distance(group, float(effective))
        gradient_BK = memory.slopes_on_features(projected_BK, group_B, decay, slopes)
        gradient_BD = self.reals.gradient_before_projection(gradient_BK.to(features_BD.dtype))
        return gradient_BD, dict(distance=distance.to(torch.float32), null_distance=null.to(torch.float32))

    def _compared_with(self, features_BD, seen):
        """Choose what a batch is blended with: (memory, decay, group of each image)."""
        class_B = torch.full([len(features_BD)], -1, device=features_BD.device) if seen.class_B is None else seen.class_B
        memory, decay = self.memory, self.decay(self.images_per_step)
        if seen.fresh is not None:
            memory, decay = self._of_fresh(*seen.fresh, len(features_BD))
        return memory, decay, self.reals.groups(class_B)

    def _shares(self, found, group_B):
        """Weigh the groups that a batch shows by their images."""
        return {group: float((group_B == group).sum()) / len(group_B) for group in found} if len(self.reals.targets) > 1 else {0: 1.0}

    @torch.no_grad()
    def _of_fresh(self, features_FD, class_F, batch):
        """Put the moments of fresh images in the memory's place; each image counts as one of the batch."""
        memory = MomentsMemory(len(self.reals.targets), self.reals.width, features_FD.device)
        memory.update(self.reals.projected(features_FD), self.reals.groups(class_F), 0.0)
        return memory, len(features_FD) / (len(features_FD) + batch)

    def null_distance(self, group, effective):
        """Find the distance of so many images of the reals' own distribution (maths/moments.py) -> 0-d.

        Simulated at powers of two, each once, and a power law between two of them: within some per cent of a simulation at that very size
        (tests/madr/test_madr_moments.py), and a filling memory passes through few of them.
        """
        doublings = math.log2(max(effective, 1))
        lower = math.floor(doublings)
        if doublings == lower:
            return self._simulated_null(group, lower)
        return torch.lerp(self._simulated_null(group, lower).log(), self._simulated_null(group, lower + 1).log(), doublings - lower).exp()

    def _simulated_null(self, group, doublings):
        if (group, doublings) not in self._null:
            draw, generator = (
                (lambda count, generator: self.reals.draw(group, count, generator)),
                generator_for("moments-null", self.seed, group, doublings),
            )
            self._null[group, doublings] = moments.null_distance(draw, 2**doublings, self.reals.targets[group], generator)
        return self._null[group, doublings]

    def after_step(self, step, memory, batch=None):
        self.config.refuse_horizon(batch.generated)  # in hosts whose options do not tell their batch
        self.images_per_step = batch.generated
        if self.follows_drift:
            self._follow(batch.measured.get("drift"), batch.generated / 1000)
        self.memory.update(self.reals.projected(batch.features_BD), self.reals.groups(batch.class_B), self.decay(batch.generated))
        self.distance = batch.measured.get("distance", self.distance)

    def _follow(self, drift, step_kimg):
        """Lengthen the horizon where images of that age have moved less than DRIFT, shorten it where more; by RATE of a doubling at most."""
        self.horizon = max(self.horizon, LEAST_STEPS * step_kimg)
        if drift is None or not torch.isfinite(drift):
            return
        self.drift = drift
        doublings = max(-1.0, min(1.0, math.log2(DRIFT / max(float(drift), DRIFT / 16))))
        self.horizon = min(max(self.horizon * 2 ** (RATE * doublings), LEAST_STEPS * step_kimg), MOST_KIMG)

    def signals(self, measured, microbatch):
        # In units of the null distance, which falls as the memory fills: a mean of distances would tell for long of the few images it began with.
        if "distance" not in measured:
            return {}
        null = measured["null_distance"]
        return {"moments": (measured["distance"] / null.clamp(min=1e-30), torch.ones_like(null))}

    def notes(self):
        return list(self.reals.notes())

    def sentences(self):
        if self._said_short or not self.images_per_step >= 1000 * self.horizon > 0:
            return []
        self._said_short = True
        return [
            f"a step of {self.images_per_step} images is as long as --madr-moments-horizon={self.horizon:g} kimg, so that moments are those of each step "
            f"alone; a horizon of {4 * self.images_per_step / 1000:g} or more remembers"
        ]

    def live_state(self):
        return dict(
            self.memory.live_state(), images_per_step=self.images_per_step, horizon=self.horizon, turn=self.reals.turn_KK, basis=self.reals.basis_DK
        )

    def load(self, state, device):
        if not state:
            return  # of a run without moments: they begin with the next step
        try:
            self.memory.load(state, device)
        except ValueError as error:
            raise MADRError(f"{error}; resume with the former --madr-extractor and --madr-width, or start anew") from error
        self._turn_as_the_reals(state.get("basis"), state.get("turn"))
        self.images_per_step = int(state["images_per_step"])
        if self.follows_drift:
            self.horizon = float(state["horizon"])

    def _turn_as_the_reals(self, basis_DK, turn_KK):
        """Turn loaded moments from the axes that they were saved along to the present ones.

        On another machine axes may come out with other signs. The first versions did not save the basis (None), in which the turn is the last
        step, and the very first remembered features unturned (turn None too).
        """
        own_DK, own_KK = self.reals.basis_DK, self.reals.turn_KK
        if basis_DK is not None and own_DK is not None:
            saved_DK = basis_DK.to(own_DK.device)
            if not torch.equal(saved_DK, own_DK):
                self.memory.turn(saved_DK.to(torch.float64).T @ own_DK.to(torch.float64))
        elif own_KK is not None and (turn_KK is None or not torch.equal(turn_KK.to(own_KK.device), own_KK)):
            self.memory.turn(own_KK if turn_KK is None else turn_KK.to(own_KK.device).T @ own_KK)

    def telemetry(self):
        told = {} if self.distance is None else dict(frechet=self.distance)
        if self.follows_drift:
            told.update(dict(horizon_kimg=self.horizon), **({} if self.drift is None else dict(drift=self.drift)))
        return told
