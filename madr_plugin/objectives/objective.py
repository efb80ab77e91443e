"""Says what an objective is: a term on every generated batch, with whatever it keeps between steps.

Must not know images, generators of images or processes: every process calls it with the same state.
"""

import dataclasses
from collections.abc import Mapping

import torch


@dataclasses.dataclass(frozen=True)
class Seen:
    """Holds what an objective may use of a microbatch besides its features and of the state, all standing still during the step."""

    weight_N: torch.Tensor | None = None  # the tilt's weight of the reals, by which they are drawn; None: uniform
    pull_N: torch.Tensor | None = None  # weight of their attraction, by which they are not drawn; None: uniform
    class_B: torch.Tensor | None = None  # class of each image, -1 without
    shares: Mapping[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # of each part, how much of it is signal; none: all
    fresh: tuple[torch.Tensor, torch.Tensor] | None = None  # features [F, D] and classes [F] of images made for their moments alone


NOTHING_SEEN = Seen()


@dataclasses.dataclass(frozen=True)
class Batch:
    """Holds a finished step's images of all processes, in global order."""

    features_BD: torch.Tensor
    class_B: torch.Tensor
    generated: int  # images of the step, with those that --madr-batch leaves out
    microbatch: int  # images of one microbatch that took part
    measured: Mapping[str, torch.Tensor]  # what gradient() measured, the mean over the microbatches


class Objective:
    """Does nothing (--madr-term=none); the terms derive from it. A running step changes nothing of an objective, after_step() does."""

    strength = 1.0  # what a controller of its own leaves of the term, in [0, 1]
    parts: tuple[str, ...] = ()  # names of what is mixed in it
    drift_age: float | None = None  # kimg: the age of remembered latents whose drift it wants measured ("drift", at times); None: of none

    def loss(self, features_BD, generator, weight_N=None, pull_N=None):
        """Compute the loss of a generated batch -> 0-d with a graph to the features, or None where nothing acts."""
        return None

    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        """Compute (gradient on the features [B, D] or None, {name: 0-d} measured on the way)."""
        fake_BD = features_BD.detach().requires_grad_()
        with torch.enable_grad():
            loss = self.loss(fake_BD, generator, seen.weight_N, seen.pull_N)
            return (None, {}) if loss is None else (torch.autograd.grad(loss, fake_BD)[0], {})

    def after_step(self, step, memory, batch=None):
        """Take in a finished step: its number, the memory of samples, and its Batch."""

    def potentials(self):
        """Return what each cell of the reals is owed, [C]; None where the objective keeps no such account."""
        return None

    def signals(self, measured, microbatch):
        """Tell each part's power as measured, and that of noise alone: {part: (0-d, 0-d)}. microbatch: number of images of one."""
        return {}

    def notes(self):
        """List what the user should know, sentence by sentence."""
        return []

    def sentences(self):
        """Say what has changed since the last time, for the log."""
        return []

    def live_state(self):
        """Return what a resumed run needs, the state's own tensors and numbers."""
        return {}

    def load(self, state, device):
        """Take up what live_state() gave. Raises MADRError where it does not fit."""

    def telemetry(self):
        """Return numbers to report, {name: 0-d tensor or number}."""
        return {}
