"""Counts fine cells over a window as long as rare modes need and as what is generated lasts. Must not know images, losses or D."""

import hashlib

import torch

from madr_plugin.maths import coverage
from madr_plugin.memory.sensor import CellSensor
from madr_plugin.reals import fine_cells
from madr_spaces.errors import MADRError

ERROR = 0.3  # relative error of a count that is borne
LEAST_WINDOW = 512  # images; a shorter one is never asked whether it changes


def needed_window(rarest, largest):
    """Images in which a mode of that share is counted to within ERROR, and its reals can reach the largest weight:

    W = max(1 / (p ERROR^2), 3 v_max / (p q)), q = GATE; 3: with one stray image in the cell, 1/rho = p q W / (1 + sqrt(1) + 1) is still v_max.
    """
    return int(max(1 / (rarest * ERROR**2), 3 * largest / (rarest * fine_cells.GATE)) + 1)


class FineSensor(CellSensor):
    """CellSensor over FineCells, with a window that shortens while its two halves tell of different generators.

    auto: take the newest W / 2^k images, k the least with D(halves) <= ERROR^2, D the mean squared relative change of a cell's share between the
    halves beyond counting noise (coverage.share_change). What follows from the ring of cells alone needs no state of its own.
    """

    def __init__(self, cells, config, device):
        self.rarest, self.largest = config.tilt_rarest, config.tilt_max
        self.needed = needed_window(1 / len(cells.shares_C), config.tilt_max)
        self.fixed = config.tilt_window_images
        super().__init__(cells, self.fixed or self.needed, config.tilt_max, fine_cells.GATE, device)
        self._told = 0  # window of the last sentence

    @torch.no_grad()
    def note(self, features_BD, class_B):
        self.ledger.add(self.reference.assign(features_BD, class_B if self.has_classes else None))

    def look(self, microbatch, rounds):
        """Nothing: this sensor looks at generated images alone."""

    def window(self):
        """Count the newest images that are looked at."""
        size = self.ledger.count
        while self.fixed is None and size >= 2 * LEAST_WINDOW and float(self.change(size)) > ERROR**2:
            size //= 2
        return size

    def change(self, size):
        """Compute D of the halves of the newest `size` images -> 0-d."""
        cell_W, count = self.ledger.newest(size), len(self.reference.shares_C)
        return coverage.share_change(coverage.cell_counts(cell_W[: size // 2], count), coverage.cell_counts(cell_W[size // 2 :], count))

    def counts(self):
        return coverage.cell_counts(self.ledger.newest(self.window()), len(self.reference.shares_C))

    def notes(self):
        """Say once what was chosen."""
        count, share = len(self.reference.shares_C), 1 / len(self.reference.shares_C)
        size = f"up to {self.needed} images, fewer while what is generated changes too fast"
        if self.fixed:
            size = (
                f"{self.fixed} images, as --madr-tilt-window says, where modes of {share:.2%} and weights up to {self.largest:g} need {self.needed}"
            )
        yield f"the tilt counts {count} fine cells over {size}; a mode of {share:.2%} of the reals has a cell"
        if share > 1.5 * self.rarest:
            yield (
                f"{len(self.reference.features_ND)} reals are few for modes of --madr-tilt-rarest={self.rarest:g}: a cell has "
                f"{fine_cells.FEWEST_REALS} of them"
            )

    def sentences(self, step, nimg):
        """Say when the window has become four times shorter or longer than was last said."""
        size, room, told = self.window(), self.ledger.count, self._told or len(self.ledger.cells_W)
        still_filling = size == room < len(self.ledger.cells_W)
        if still_filling or told / 4 < size < told * 4:
            return []
        self._told = size
        why = "what is generated lasts again" if size > told else "before them, something else was generated"
        return [f"MADR: from step {step} (kimg {nimg / 1000:.1f}) the tilt counts over the last {size} images: {why}"]

    def telemetry(self):
        size = self.window()
        return dict(tilt_window=size, tilt_change=self.change(size) if size >= 2 * LEAST_WINDOW else 0.0)

    def tensors(self):
        return [*self.reference.tensors(), self.ledger.cells_W]

    def live_state(self):
        return dict(self.ledger.live_state(), cells_of=_fingerprint(self.reference))

    def load(self, state, device):
        """Take up what live_state() gave; {}, of a run with another sensor, begins anew."""
        if not state:
            return
        if state["cells_of"] != _fingerprint(self.reference):
            raise MADRError(
                "the saved window counts other fine cells: --madr-tilt-rarest or --seed changed since, or the version that wrote it drew its gates otherwise; "
                "resume with the former ones"
            )
        if len(state["cells"]) != len(self.ledger.cells_W):
            raise MADRError(
                f"the saved window of fine cells holds {len(state['cells'])} images, this one {len(self.ledger.cells_W)}; resume with the former "
                "--madr-tilt-window and --madr-tilt-max"
            )
        self.ledger.load(state, device)


def _fingerprint(cells):
    return hashlib.sha256(cells.centroids_CD.cpu().numpy().tobytes() + cells.gates_C.cpu().numpy().tobytes()).hexdigest()[:32]
