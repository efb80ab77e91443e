"""Declares the knobs of the reference: how many reals serve, and whether they are compressed."""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, knob
from madr_spaces.errors import MADRError


@dataclasses.dataclass(frozen=True)
class ReferenceKnobs(Knobs):
    """Choose which real features the terms compare with."""

    GROUP: ClassVar[str] = "reference"

    reference_cap: int = knob(50000, "Use so many real images as reference at most", 16, 100_000_000, first=True)
    anchors: int = knob(
        0, "Compress the reference to so many weighted k-means anchors (needs faiss), for sets too large to keep; 0: do not", 0, 100_000_000
    )

    def refuse(self):
        if 0 < self.anchors < 16:
            raise MADRError(f"--madr-anchors must be at least 16 (got {self.anchors}); use --madr-anchors=0 to keep every real")
