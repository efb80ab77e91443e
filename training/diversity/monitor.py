"""Watching the generator's diversity while it trains: one look per tick at images of the same latents, numbers, an alarm.

It looks at G, not at its moving average: the average of a generator that cycles through modes shows nothing of it until
long after. Latents come from a generator of their own and noise inputs are constant, so training draws what it would
draw without the monitor. Must not know the loop, losses, or where numbers are written. Used by the first process only.
"""

import numpy as np
import torch

from torch_utils import misc
from training import phases
from training.diversity import alarm, statistics as diversity_statistics

NUM_FAKES = 256  # images of G per tick
MAX_REALS = 1024  # read once, when the run starts
NO_KIMG = -1.0  # in place of the last healthy snapshot's kimg as long as there is none

PREFIX = "MADR/"
NAMES = ("diversity", "spread", "cells", "within", "distance", "lost", "found_again", "turnover", "alarm", "healthy_kimg")
TICK_LINE = ("diversity", "spread", "lost")


class DiversityMonitor:
    """fit() or load_state_dict() first; then look() once per tick, note_snapshot() after each network snapshot."""

    def __init__(self, random_seed, z_dim, labels, k_means, num_fakes=NUM_FAKES):
        """labels: float32 [num_images, c_dim] of the training set. k_means: see diversity_statistics.fit_reference."""
        self.seed, self.num_fakes, self.k_means = phases.derived_seed(random_seed, 3), num_fakes, k_means
        generator = torch.Generator().manual_seed(self.seed)
        self.z = torch.randn([num_fakes, z_dim], generator=generator)
        self.c = labels[torch.randint(len(labels), [num_fakes], generator=generator)]
        self.reference = self.alarm = None
        self.healthy = None  # (file name, kimg) of the last snapshot that was saved in health
        self.pending = []  # sentences to print

    # --- the reals ------------------------------------------------------------------------------------------------------

    @property
    def is_fitted(self):
        return self.reference is not None

    def fit(self, training_set):
        """Learn cells and spread of the real images: a random part of them at most."""
        rng = np.random.Generator(np.random.PCG64(self.seed))
        indices = rng.choice(len(training_set), min(len(training_set), MAX_REALS), replace=False)
        thumbs = [
            diversity_statistics.thumbnails(torch.from_numpy(training_set[int(index)][0])[None].to(torch.float32) / 127.5 - 1)
            for index in np.sort(indices)
        ]
        self.fit_thumbnails(torch.cat(thumbs), len(training_set))

    def fit_thumbnails(self, thumbs_ND, population):
        self._set_reference(diversity_statistics.fit_reference(thumbs_ND, self.num_fakes, population, self.k_means, self.seed))

    def _set_reference(self, reference):
        self.reference = reference
        self.alarm = alarm.DiversityAlarm(reference["shares"], reference["noise"] / reference["expected"])

    # --- every tick -----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def look(self, G, batch_size, device, kimg, step):
        """Generate and observe(). batch_size: images at a time. G is left as it was."""
        with misc.evaluation_mode(G):  # or the mapping network would move its average of w
            thumbs = [
                diversity_statistics.thumbnails(G(z=z.to(device), c=c.to(device), noise_mode="const"))
                for z, c in zip(self.z.split(batch_size), self.c.split(batch_size))
            ]
        return self.observe(torch.cat(thumbs), kimg, step)

    def observe(self, thumbs_MD, kimg, step):
        """Numbers of this tick, {name: float} with all of NAMES. Sentences about a change wait in take_sentences()."""
        numbers, held_K = diversity_statistics.measure(thumbs_MD, self.reference, self.num_fakes)
        former = self.alarm.state
        numbers.update(self.alarm.update(numbers["diversity"], numbers["distance"], held_K, step))
        numbers.update(alarm=float(self.alarm.state), healthy_kimg=NO_KIMG if self.healthy is None else self.healthy[1])
        if self.alarm.state != former:
            self.pending.append(self._sentence(numbers, kimg))
        return numbers

    def _sentence(self, numbers, kimg):
        at = f"at kimg {kimg:.1f}"
        if not self.alarm.state:
            return f"Diversity {at}: the generator is diverse again ({numbers['diversity']:.2f} of what the reals show)."
        if self.alarm.state == 2:
            what = "cycles through modes"
        else:
            what = "has collapsed" if numbers["within"] >= 0.5 else f"makes images unlike the real ones, {numbers['within']:.0%} lie near any"
        return (
            f"Diversity alarm {at}: the generator {what} (diversity {numbers['diversity']:.2f} of the real images', "
            f"{self.alarm.level:.2f} at best before); {self.last_healthy()}"
        )

    def last_healthy(self):
        return "no healthy snapshot yet" if self.healthy is None else f"last healthy: {self.healthy[0]} (kimg {self.healthy[1]:g})"

    def take_sentences(self):
        sentences, self.pending = self.pending, []
        return sentences

    def note_snapshot(self, name, kimg):
        """A network snapshot of the last observed G was saved."""
        if not self.alarm.suspicious and not self.alarm.state:
            self.healthy = (name, kimg)
        elif self.healthy_name == name:
            self.healthy = None  # ticks of less than a kimg: it was overwritten

    @property
    def healthy_name(self):
        """File name of the snapshot to return to, or None."""
        return None if self.healthy is None else self.healthy[0]

    # --- state ----------------------------------------------------------------------------------------------------------

    def state_dict(self):
        """The reference goes along: fitted on another machine, the cells might be numbered otherwise."""
        return dict(reference=dict(self.reference), alarm=self.alarm.state_dict(), healthy=self.healthy)

    def load_state_dict(self, state):
        self._set_reference(dict(state["reference"]))
        self.alarm.load_state_dict(state["alarm"])
        self.healthy = state["healthy"]
