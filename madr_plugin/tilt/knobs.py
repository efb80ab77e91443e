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
    tilt_guard: float = knob(0.4, "Pause the tilt while less than this share of recent generated images lies inside the gates of the cells", 0, 1)
    tilt_sensor: str = knob(
        "cells",
        "Find what is left out by counts in the deficit window (cells), finer cells with a longer window (fine), D's past logits of each real (logits), "
        "or what --madr-debt=potentials says is owed (debts)",
        choices=("cells", "fine", "logits", "debts"),
    )
    tilt_temperature: float = knob(1.0, "Weigh reals by exp(potential / this) with --madr-tilt-sensor=debts", 0.01, 100)
    tilt_rarest: float = knob(0.004, "Make the fine cells and their window for modes of this share of the reals", 1e-5, 0.5)
    tilt_window: str = knob(
        "auto",
        "Count fine cells over so many generated images; auto: as many as --madr-tilt-rarest and --madr-tilt-max need, "
        "fewer while what is generated changes too fast",
    )

    def refuse_window(self, total_kimg):
        """Refuse a window of the tilt that the run would never fill. total_kimg: None where it is not known."""
        images = self.tilt_window_images or 0
        if total_kimg and images > 1000 * total_kimg:
            raise MADRError(
                f"--madr-tilt-window={images} images are more than the whole run of {total_kimg:g} kimg, so that it would never be full; "
                f"give a part of it, such as {max(int(100 * total_kimg), 16)}, or auto"
            )

    @property
    def tilt_window_images(self):
        """Read the window as a number of images; None for auto."""
        return None if self.tilt_window == "auto" else int(self.tilt_window)

    def refuse(self):
        try:
            window = self.tilt_window_images
        except ValueError:
            window = 0
        if window is not None and not 16 <= window <= 10_000_000:
            raise MADRError(f"--madr-tilt-window must be auto or a number of images between 16 and 10000000 (got {self.tilt_window!r})")
        if window is not None and self.tilt_sensor != "fine":
            raise MADRError(
                f"--madr-tilt-window={window} is the window of --madr-tilt-sensor=fine (got {self.tilt_sensor}); "
                "add it, or give --madr-deficit-window for the sensor of cells"
            )
        if self.tilt_sensor == "logits" and self.tilt_form == "weight":
            raise MADRError(
                "--madr-tilt-form=weight finds the weight of a real by its cell, and --madr-tilt-sensor=logits has none; use --madr-tilt-form=draw"
            )
