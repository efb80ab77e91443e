"""Declares the knobs of the strength: weight, balance, noise, controllers."""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, knob


@dataclasses.dataclass(frozen=True)
class StrengthKnobs(Knobs):
    """Set how strongly the terms act, and what moves that."""

    GROUP: ClassVar[str] = "strength"

    weight: float = knob(
        1.0,
        "Set the strength of the coverage term: its gradient relative to the adversarial one (see --madr-shrink), "
        "with --madr-balance=fixed the factor lambda_max",
        0,
        1000,
        first=True,
    )
    shrink: float = knob(
        4.0,
        "Scale witness and replay by this power of the share of the witness's gradient that is more than sampling noise of the batch; 0: do not",
        0,
        16,
        first=True,
    )
    balance: str = knob(
        "present",
        "Scale the terms by the present norm of their gradient, by its peak (the default where --madr-shrink "
        "has nothing to measure), or by a fixed factor",
        choices=("peak", "present", "fixed"),
    )
    balance_at: str = knob(
        "parameters",
        "Compare the sizes of gradients at the generator's parameters (followed there now and then), or on the image",
        choices=("parameters", "image"),
    )
    controller: str = knob("none", "Choose what moves the strength during training", choices=("none", "sigmoid", "adaptive", "integral"), first=True)
    control_interval: int = knob(4, "Move the controller every so many generator steps", 1, 100_000)
    control_kimg: float = knob(100.0, "Let --madr-controller=integral take so many thousands of images from full strength to none", 0.001, 1e6)
