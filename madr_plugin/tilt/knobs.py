"""Declares the knobs of the tilt."""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, knob
from madr_spaces.errors import MADRError


@dataclasses.dataclass(frozen=True)
class TiltKnobs(Knobs):
    """Set how D is shown more of the reals that the generator leaves out."""

    GROUP: ClassVar[str] = "tilt"

    tilt: int = knob(
        0, "Show D and the witness reals from cells that recent generated images leave out more often (1), or all as they come (0)", 0, 1, first=True
    )
    tilt_max: float = knob(5.0, "Bound the tilt's weight of a real in a deficient cell", 1, 1000, first=True)
    tilt_form: str = knob(
        "draw", "Tilt D's reals by exchanging some (draw), or by weighting the gradient at their logits (weight)", choices=("draw", "weight")
    )
    tilt_by: str = knob(
        "deficits",
        "Weigh the tilted reals by the deficits of their cells, or by what --madr-debt=potentials says they are owed",
        choices=("deficits", "debts"),
    )
    tilt_temperature: float = knob(1.0, "Weigh reals by exp(potential / this) with --madr-tilt-by=debts", 0.01, 100)
    tilt_guard: float = knob(0.4, "Pause the tilt while less than this share of recent generated images lies inside the gates of the cells", 0, 1)

    def refuse(self):
        if self.tilt_form != "draw" and not self.tilt:
            raise MADRError(f"--madr-tilt-form={self.tilt_form} has no effect without --madr-tilt=1; add it, or leave the form out")
