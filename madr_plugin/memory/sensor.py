"""Tells which cells of the reals the recent generated images leave out.

Counts gated cells over a short window (coverage.py has the formulae) and keeps accounts per class where there are
labels. Must not know images, losses or memories of latents.
"""

from typing import Any

import torch

from madr_plugin.maths import coverage
from madr_plugin.memory.sample_memory import CellLedger


class CellSensor:
    """note() takes the features of each step; everything else is read from the window's counts."""

    def __init__(self, reference: Any, window: int, deficit_max: float, quantile: float, device: torch.device) -> None:
        self.reference, self.deficit_max, self.quantile = reference, deficit_max, quantile
        self.ledger = CellLedger(window, device)
        self.has_classes = bool((reference.class_C >= 0).any())

    @property
    def cells(self) -> Any:
        """The cells that deficits() speaks of: what the tilt asks of a sensor."""
        return self.reference

    @torch.no_grad()
    def note(self, features_BD: torch.Tensor, class_B: torch.Tensor) -> None:
        reference = self.reference
        class_C = reference.class_C if self.has_classes else None
        self.ledger.add(coverage.assign_to_cells(features_BD, reference.centroids_CD, reference.radii_C, class_B=class_B, class_C=class_C))

    def counts(self) -> torch.Tensor:
        return coverage.cell_counts(self.ledger.filled(), len(self.reference.shares_C))

    def deficits(self, largest: float | None = None) -> torch.Tensor:
        """Weigh each cell by its deficit, v_a [C]. With labels a cell is judged within its class: G does not choose its labels."""
        count_C = self.counts()
        expected_C = coverage.expected_counts(count_C, self.reference.shares_C, self.reference.class_C if self.has_classes else None)
        return coverage.deficit_weights(count_C, expected_C, self.deficit_max if largest is None else largest)

    def weight_of_reals(self) -> torch.Tensor | None:
        """Weigh each real by its cell's deficit, [N]; None where that would be uniform for certain."""
        return None if self.deficit_max <= 1 else self.deficits()[self.reference.cell_of_real_N]

    def coverage(self) -> torch.Tensor:
        """Compute the covered share of the real mass over what new images of the reals' distribution would show in this window: about 1 at equilibrium."""
        return coverage.histogram_overlap(self.counts(), self.reference.shares_C, self.ledger.count, self.quantile) / self._expected()

    def _expected(self) -> torch.Tensor:
        return coverage.expected_overlap(self.reference.shares_C, self.ledger.count, self.quantile) * self.reference.held_out

    def coverage_deviation(self) -> torch.Tensor:
        """Compute the standard deviation of coverage() over windows of this length where generated = real."""
        window, shares_C = self.ledger.count, self.reference.shares_C
        return coverage.overlap_deviation(shares_C, window, self.quantile) / self._expected()

    def inside(self) -> torch.Tensor:
        """Compute the share of the window's images inside some gate."""
        return self.counts().sum() / max(self.ledger.count, 1)

    def effective_share(self) -> torch.Tensor:
        """Compute the effective number of reals under the deficit weights, as a share of all."""
        shares_C, weight_C = self.reference.shares_C, self.deficits()
        return (weight_C * shares_C).sum().square() / (weight_C.square() * shares_C).sum()

    def live_state(self) -> dict[str, Any]:
        return self.ledger.live_state()

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        self.ledger.load(state, device)
