"""Declares the knobs of the coverage terms: the witness of the default, and the published terms."""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, knob
from madr_spaces.errors import MADRError

DEFAULT_HORIZON = "0.8"


@dataclasses.dataclass(frozen=True)
class TermKnobs(Knobs):
    """Choose which term acts on each generated batch, and on how much of it."""

    GROUP: ClassVar[str] = "term"

    term: str = knob(
        "witness",
        "Choose the coverage term on each generated batch",
        choices=("witness", "moments", "witness+moments", "paper", "enhanced", "none"),
        first=True,
    )
    kernel: str = knob("mixture", "Choose the kernel of the witness", choices=("mixture", "rational-quadratic"))
    attraction: str = knob(
        "uniform", "Pull to all reals alike, or more to those in deficient cells (weights up to --madr-deficit-max)", choices=("uniform", "deficit")
    )
    debt: str = knob(
        "none",
        "Beside the witness, pull images from cells of the reals with more than their share to cells that are owed some, by potentials that remember "
        "it, or by the batch alone",
        choices=("none", "potentials", "batch"),
    )
    debt_weight: float = knob(1.0, "Set the weight of that pull in the witness's loss", 0, 1000)
    debt_rate: float = knob(0.2, "Move the potentials so fast: the step of their ascent", 1e-6, 10)
    interval: int = knob(1, "Apply the coverage term every so many generator steps, with weight times interval", 1, 10000)
    batch: int = knob(0, "Let so many images of each microbatch take part in the coverage term; 0: all", 0, 65536)
    moments_horizon: str = knob(
        DEFAULT_HORIZON,
        "Remember moments over so many thousands of generated images; auto: as long as remembered latents still give much the same image; "
        "0: those of the batch alone",
    )
    moments_shrink: float = knob(
        1.0, "Scale the moments' part by this power of the share of its distance that is more than sampling noise; 0: do not", 0, 16
    )
    moments_fresh: int = knob(
        0,
        "Take the moments of so many images made anew for each microbatch, without gradient, in place of the remembered ones; 0: none",
        0,
        1_000_000,
    )
    reals: int = knob(512, "Draw so many real images afresh for each evaluation of the witness", 2, 1_000_000)

    @property
    def parts(self):
        """Name what is mixed in the term; () for those that are not mixed."""
        return tuple(self.term.split("+")) if set(self.term.split("+")) <= {"witness", "moments"} else ()

    @property
    def horizon_kimg(self):
        """Read the horizon of the moments as a number; None for auto."""
        return None if self.moments_horizon == "auto" else float(self.moments_horizon)

    def refuse_horizon(self, batch_size, total_kimg=None, typed=False):
        """Refuse a horizon of less than two steps or longer than the run. None: not known.

        The default, unless it was typed, passes: a step of as many images as it has needs no memory, and a short run is a trial.
        """
        horizon = self.horizon_kimg if "moments" in self.parts else None
        if not horizon or horizon == float(DEFAULT_HORIZON) and not typed:
            return
        if batch_size and 1000 * horizon < 2 * batch_size:
            raise MADRError(
                f"--madr-moments-horizon={horizon:g} kimg is shorter than two steps of {batch_size} images; "
                f"give at least {2 * batch_size / 1000:g}, or auto, or 0 for the moments of the batch alone"
            )
        if total_kimg and horizon > total_kimg:
            raise MADRError(
                f"--madr-moments-horizon={horizon:g} kimg is longer than the run of {total_kimg:g}; give a part of it (.8 is usual), or auto"
            )

    @property
    def needs_pairs(self):
        """Tell whether a microbatch of one image says nothing to the term."""
        return self.weight > 0 and ("witness" in self.parts or ("moments" in self.parts and self.horizon_kimg == 0 and not self.moments_fresh))

    def refuse(self):
        try:
            horizon = self.horizon_kimg or 0.0
        except ValueError:
            horizon = -1.0
        if not 0 <= horizon <= 1e6:
            raise MADRError(f"--madr-moments-horizon must be auto or a number of thousands of images, 0 or more (got {self.moments_horizon!r})")
        if self.debt != "none" and "witness" not in self.parts:
            raise MADRError(f"--madr-debt={self.debt} adds to the witness; use it with --madr-term=witness or witness+moments (got {self.term})")
        if self.moments_fresh and "moments" not in self.parts:
            raise MADRError(f"--madr-moments-fresh makes images for the moments; use it with --madr-term=witness+moments (got {self.term})")


@dataclasses.dataclass(frozen=True)
class PublishedKnobs(Knobs):
    """Set what the published terms (paper, enhanced) alone take."""

    GROUP: ClassVar[str] = "published terms"

    beta: float = knob(1.0, "Sharpen the published weights softmax(-beta * coverage)", 0, 1e6)
    recall_target: float = knob(0.8, "Set the target recall tau of the published controller", 0, 1)
    recall_slope: float = knob(10.0, "Set the slope kappa of the published controller", 0, 1000)
    start_fill: float = knob(0.0, "Keep the published terms off until this share of the memory is filled", 0, 1)
    start_step: int = knob(0, "Keep the published terms off until so many generator steps are done", 0, 10_000_000)
    estimator: str = knob("exact", "Choose how the published coverage score is computed", choices=("exact", "incremental", "faiss", "ratio"))
    top_k: int = knob(0, "Count so many nearest memory entries in the published coverage score of a real; 0: all", 0, 1_000_000)
    bandwidth: str = knob(
        "memory",
        "Take the published bandwidth from distances in the memory, or (warm) from the reals' first and from the memory's step by step",
        choices=("memory", "warm"),
    )
    bandwidth_interval: int = knob(1000, "Renew the published bandwidth every so many generator steps", 1, 1_000_000)

    def refuse(self):
        if self.estimator == "ratio" and self.top_k:
            raise MADRError(
                f"--madr-estimator=ratio weighs all entries against the reals; use it with --madr-term=paper and without --madr-top-k (got {self.top_k})"
            )
        if self.estimator == "faiss" and not self.top_k:
            raise MADRError(
                "--madr-estimator=faiss searches nearest entries; use it with --madr-term=enhanced, or with --madr-term=paper --madr-top-k=20, "
                "or choose exact or incremental"
            )
