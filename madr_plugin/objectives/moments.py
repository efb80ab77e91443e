"""Applies the moments term: the Frechet distance between remembered features and the reals, felt by the present batch."""

import dataclasses
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
STEPS_PER_DOUBLING = 4  # the null distance is known at so many sizes per doubling of the effective images
# Above this width the eigenvalue problem would cost more than all else. A step moves what is remembered by 1 - b alone, so there the slopes of the
# distance are kept for a few steps, at most for this part of the horizon, once the memory has half of its weight.
KEEP_ABOVE, KEEP_STEPS, KEEP_PART, KEEP_FROM = 128, 4, 0.4, 0.5


@dataclasses.dataclass(frozen=True)
class Slopes:
    """Holds what the distance of one group's moments says: its slopes, itself, and what it is on average at p_g = p_data. All float64."""

    of_mean_D: torch.Tensor
    of_second_DD: torch.Tensor
    distance: torch.Tensor
    null_distance: torch.Tensor


class MomentsObjective(Objective):
    """L = sum_g n_g/B FD_g(m', S'), m' = b m + (1 - b) mean_B f and S' likewise: remembered moments, blended with those of the batch,

    through which alone the gradient goes. b = 1 - n / (1000 horizon), n the images of a step: a step's weight falls to 1/e over the horizon.
    With horizon 0 the moments are those of the batch alone: the memory-free twin. With 'auto' the horizon is the age at which the image of a
    remembered latent has moved by DRIFT of the spread (Replay.drift), found by steering towards it. Of features wider than KEEP_ABOVE the slopes
    dL/dm, dL/dS are those at the remembered moments (m, S) of at most KEEP_STEPS steps ago.
    """

    parts = ("moments",)

    def __init__(self, config, reference, seed):
        self.config, self.seed, device = config, seed, reference.features_ND.device
        self.follows_drift = config.horizon_kimg is None
        self.horizon = START_KIMG if self.follows_drift else config.horizon_kimg
        self.reals = RealMoments(reference, seed, device)
        self.memory = MomentsMemory(len(self.reals.targets), self.reals.width, device)
        self.images_per_step = 0  # of the last step; 0: none yet, when the memory is empty and its weight nothing
        self._null = {}  # by group and size
        self.kept = {}  # Slopes by group, of features wider than KEEP_ABOVE
        self.distance = self.drift = None

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
        projected_BK, groups = self.reals.projected(features_BD), [group for group, _ in memory.groups_of(group_B)]
        if not groups:
            return None, {}
        known = self.kept if memory is self.memory and decay > 0 else {}
        if not known.keys() >= set(groups):
            known = {group: self._slopes(group, *found) for group, found in memory.blended(projected_BK, group_B, decay).items()}
        shares = self._shares(groups, group_B)
        slopes = {group: (shares[group] * known[group].of_mean_D, shares[group] * known[group].of_second_DD) for group in groups}
        gradient_BK = memory.slopes_on_features(projected_BK, group_B, decay, slopes)
        gradient_BD = self.reals.gradient_before_projection(gradient_BK.to(features_BD.dtype))
        distance, null = (sum(shares[group] * getattr(known[group], name) for group in groups) for name in ("distance", "null_distance"))
        return gradient_BD, dict(distance=distance.to(torch.float32), null_distance=null.to(torch.float32))

    def _slopes(self, group, mean_D, second_DD, effective):
        distance, of_mean_D, of_second_DD = moments.frechet_slopes(mean_D, second_DD, self.reals.targets[group])
        return Slopes(of_mean_D, of_second_DD, distance, self.null_distance(group, float(effective)))

    def _compared_with(self, features_BD, seen):
        """Choose what a batch is blended with: (memory, decay, group of each image)."""
        class_B = torch.full([len(features_BD)], -1, device=features_BD.device) if seen.class_B is None else seen.class_B
        memory, decay = self.memory, self.decay(self.images_per_step)
        if seen.fresh is not None:
            memory, decay = self._of_fresh(*seen.fresh, len(features_BD))
        return memory, decay, self.reals.groups(class_B)

    def _shares(self, groups, group_B):
        """Weigh the groups that a batch shows by their images."""
        return {group: float((group_B == group).sum()) / len(group_B) for group in groups} if len(self.reals.targets) > 1 else {0: 1.0}

    @torch.no_grad()
    def _of_fresh(self, features_FD, class_F, batch):
        """Put the moments of fresh images in the memory's place; each image counts as one of the batch."""
        memory = MomentsMemory(len(self.reals.targets), self.reals.width, features_FD.device)
        memory.update(self.reals.projected(features_FD), self.reals.groups(class_F), 0.0)
        return memory, len(features_FD) / (len(features_FD) + batch)

    def null_distance(self, group, effective):
        """Look up the distance of so many images of the reals' own distribution (maths/moments.py), computed once per size -> 0-d."""
        size = round(math.log2(max(effective, 1)) * STEPS_PER_DOUBLING)
        if (group, size) not in self._null:
            draw, generator = (
                (lambda count, generator: self.reals.draw(group, count, generator)),
                generator_for("moments-null", self.seed, group, size),
            )
            self._null[group, size] = moments.null_distance(
                draw, max(round(2 ** (size / STEPS_PER_DOUBLING)), 1), self.reals.targets[group], generator
            )
        return self._null[group, size]

    def after_step(self, step, memory, batch=None):
        self.config.refuse_horizon(batch.generated)  # in hosts whose options do not tell their batch
        self.images_per_step = batch.generated
        if self.follows_drift:
            self._follow(batch.measured.get("drift"), batch.generated / 1000)
        self.memory.update(self.reals.projected(batch.features_BD), self.reals.groups(batch.class_B), self.decay(batch.generated))
        if self.reals.width > KEEP_ABOVE:
            self._keep(step, self.decay(batch.generated))
        self.distance = batch.measured.get("distance", self.distance)

    def _keep(self, step, decay):
        """Make the kept slopes anew if their time has come; none while the memory is young or short."""
        steps = min(KEEP_STEPS, int(KEEP_PART / (1 - decay)))
        if steps < 2 or float(self.memory.weight_G.sum()) < KEEP_FROM:
            self.kept = {}
        elif step % steps == 0 or not self.kept:
            self.kept = {group: self._slopes(group, *found) for group, found in self.memory.remembered().items()}

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

    def live_state(self):
        kept = {group: dataclasses.asdict(slopes) for group, slopes in self.kept.items()}
        return dict(self.memory.live_state(), images_per_step=self.images_per_step, horizon=self.horizon, kept=kept)

    def load(self, state, device):
        if not state:
            return  # of a run without moments: they begin with the next step
        try:
            self.memory.load(state, device)
        except ValueError as error:
            raise MADRError(f"{error}; resume with the former --madr-extractor and --madr-width, or start anew") from error
        self.images_per_step = int(state["images_per_step"])
        kept = state.get("kept", {})
        self.kept = {int(group): Slopes(**{name: value.to(device, copy=True) for name, value in of.items()}) for group, of in kept.items()}
        if self.follows_drift:
            self.horizon = float(state["horizon"])

    def telemetry(self):
        told = {} if self.distance is None else dict(frechet=self.distance)
        if self.follows_drift:
            told.update(dict(horizon_kimg=self.horizon), **({} if self.drift is None else dict(drift=self.drift)))
        return told
