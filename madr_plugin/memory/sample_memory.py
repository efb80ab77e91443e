"""Keeps generated samples (feature, latents, label and birth of each entry) under one of five policies.

Policies decide slots from numbers alone (a generator of the caller's, counts), so that all processes decide alike.
Must not know generators, losses or images.
"""

import math
from typing import Any

import torch


def draw_uniform(count: int, generator: torch.Generator) -> list[float]:
    return torch.rand([count], generator=generator, dtype=torch.float64).tolist()


class SampleMemory:
    """Holds K slots. Tensors appear with the first offer, when their widths are known, and keep their shape from then on.

    features_KD, latents_KPZ (P latents per image: 2 under style mixing), layers_K (synthesis layers fed by the first
    latent; -1: the image cannot be re-made from its latents), labels_KC, born_K (images generated before it), importance_K.
    """

    FIELDS = ("features", "latents", "layers", "labels", "born", "importance")

    def __init__(self, capacity: int, policy: str, half_life_kimg: float) -> None:
        self.capacity, self.policy = capacity, policy
        # Entries die at random: a half-life of h images is a mean age of h / ln 2.
        self.mean_age_nimg = half_life_kimg * 1000 / math.log(2)
        self.count = 0  # filled slots
        self.offered = 0  # samples offered so far
        self.next_slot = 0  # of the ring, under fifo
        self.tensors: dict[str, torch.Tensor] = {}

    def effective_capacity(self, step: int) -> int:
        """Count the usable slots: all; under 'progressive' 128 at first, growing linearly to all over 5000 steps."""
        if self.policy != "progressive":
            return self.capacity
        start = min(128, self.capacity)
        return int(start + (self.capacity - start) * min(1.0, step / 5000))

    def filled(self, name: str) -> torch.Tensor:
        """Return the filled part of a field."""
        return self.tensors[name][: self.count]

    @torch.no_grad()
    def offer(self, samples: dict[str, torch.Tensor], step: int, nimg: int, generator: torch.Generator, generated: int | None = None) -> int:
        """Offer a batch in order. samples: {field: [B, ...]} without `born`. Returns how many were taken.

        generated: images made since the last offer, if they were more than are offered.
        """
        finite_B = torch.isfinite(samples["features"]).all(1)
        samples = dict(samples) if bool(finite_B.all()) else {name: value[finite_B] for name, value in samples.items()}
        features_BD = samples["features"]
        if len(features_BD) == 0:
            return 0
        samples["born"] = torch.full([len(features_BD)], nimg, dtype=torch.int64, device=features_BD.device)
        if not self.tensors:
            self._allocate(samples)
        slots = self._choose_slots(len(features_BD), step, generator, (generated or len(features_BD)) / len(features_BD))
        source_of_slot = {slot: row for row, slot in enumerate(slots) if slot >= 0}  # a later sample replaces an earlier one
        if source_of_slot:
            slot_index, row_index = torch.tensor([list(source_of_slot), list(source_of_slot.values())], device=features_BD.device).unbind()
            for name, kept in self.tensors.items():
                if kept.numel():
                    rows = samples[name].index_select(0, row_index).to(kept.dtype)
                    kept.index_copy_(0, slot_index, rows.expand(-1, *kept.shape[1:]))  # images of one latent fill the places of two
        return len(source_of_slot)

    @torch.no_grad()
    def renew_features(self, rows_R: torch.Tensor, features_RD: torch.Tensor) -> None:
        """Write the features of re-made entries, in order (a row may be listed twice). What is not finite leaves the entry as it is.

        One nan in the memory would make every distance to it nan, and with that the nearest entry of every real.
        """
        finite_R = torch.isfinite(features_RD).all(1)
        if not bool(finite_R.all()):
            rows_R, features_RD = rows_R[finite_R], features_RD[finite_R]
        last_place = {row: place for place, row in enumerate(rows_R.tolist())}
        places = torch.tensor(list(last_place.values()), dtype=torch.int64, device=rows_R.device)
        self.tensors["features"][rows_R[places]] = features_RD[places]

    def _allocate(self, samples: dict[str, torch.Tensor]) -> None:
        for name in self.FIELDS:
            value = samples[name]
            self.tensors[name] = torch.zeros([self.capacity, *value.shape[1:]], dtype=value.dtype, device=value.device)

    def _choose_slots(self, batch_size: int, step: int, generator: torch.Generator, images_per_sample: float) -> list[int]:
        """Choose the slot of each offered sample, -1: not taken."""
        chances, places = draw_uniform(batch_size, generator), draw_uniform(batch_size, generator)
        capacity = self.effective_capacity(step)
        slots: list[int] = []
        for chance, place in zip(chances, places):
            self.offered += 1
            if self.policy == "fifo":
                slots.append(self.next_slot)
                self.next_slot = (self.next_slot + 1) % self.capacity
                self.count = max(self.count, slots[-1] + 1)
            elif self.count < capacity:
                slots.append(self.count)
                self.count += 1
            elif chance >= self._acceptance(capacity, images_per_sample):
                slots.append(-1)
            else:
                slots.append(self._victim(place))
        return slots

    def _acceptance(self, capacity: int, images_per_sample: float) -> float:
        if self.policy == "forgetting":
            return capacity / self.mean_age_nimg * images_per_sample
        return capacity / self.offered

    def _victim(self, place: float) -> int:
        """Choose the entry that gives way: uniform, or with probability proportional to 1/importance."""
        if self.policy != "importance":
            return int(place * self.count)
        weights = 1 / self.filled("importance").to(torch.float64).clamp(min=1e-12).cpu()
        cumulative = weights.cumsum(0)
        position = torch.searchsorted(cumulative, torch.tensor([place * float(cumulative[-1])], dtype=torch.float64))
        return min(int(position), self.count - 1)

    # --- state ---------------------------------------------------------------------------------------------------

    def live_state(self) -> dict[str, Any]:
        """The state's own tensors (not copies) and numbers."""
        return dict(count=self.count, offered=self.offered, next_slot=self.next_slot, tensors=dict(self.tensors))

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        self.count, self.offered, self.next_slot = int(state["count"]), int(state["offered"]), int(state["next_slot"])
        self.tensors = {name: value.to(device, copy=True) for name, value in state.get("tensors", {}).items()}


class CellLedger:
    """Notes in which cell each of the last W generated images fell (-1: outside every gate): a ring of integers."""

    def __init__(self, window: int, device: torch.device) -> None:
        self.cells_W = torch.full([window], -1, dtype=torch.int32, device=device)
        self.count = 0
        self.next_slot = 0

    @torch.no_grad()
    def add(self, cell_B: torch.Tensor) -> None:
        """Write a batch in place of the oldest entries."""
        window = len(self.cells_W)
        cell_B = cell_B[-window:]
        up_to_end = min(len(cell_B), window - self.next_slot)
        self.cells_W[self.next_slot : self.next_slot + up_to_end] = cell_B[:up_to_end]
        if up_to_end < len(cell_B):
            self.cells_W[: len(cell_B) - up_to_end] = cell_B[up_to_end:]
        self.next_slot = (self.next_slot + len(cell_B)) % window
        self.count = min(self.count + len(cell_B), window)

    def filled(self) -> torch.Tensor:
        """Return the cells of the images seen so far."""
        return self.cells_W[: self.count].to(torch.int64)

    def newest(self, size: int) -> torch.Tensor:
        """Return the cells of the newest `size` images, the oldest of them first."""
        place = torch.arange(self.next_slot - size, self.next_slot, device=self.cells_W.device) % len(self.cells_W)
        return self.cells_W[place].to(torch.int64)

    def live_state(self) -> dict[str, Any]:
        return dict(cells=self.cells_W, count=self.count, next_slot=self.next_slot)

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        self.cells_W = state["cells"].to(device, copy=True)
        self.count, self.next_slot = int(state["count"]), int(state["next_slot"])
