"""Measures what MADR costs, its share of the time and the memory that it keeps, once early in a run.

Must not know what is measured.
"""

import contextlib
import time

import torch


class CostMeter:
    """Measures steps FIRST to LAST of this process: the first ones are slow for everybody (allocation, choice of kernels)."""

    FIRST, LAST = 16, 48

    def __init__(self, device):
        self.device = torch.device(device)
        self.steps = 0  # finished since the process began
        self.own_sec = 0.0
        self.start = None

    @contextlib.contextmanager
    def running(self):
        """Around the plugin's own work."""
        if not self.FIRST <= self.steps < self.LAST:
            yield
            return
        start = self._now()
        try:
            yield
        finally:
            self.own_sec += self._now() - start

    def step_done(self):
        """True once, when figures() can be read."""
        self.steps += 1
        if self.steps == self.FIRST:
            self.start = self._now()
        elif self.steps == self.LAST:
            self.total_sec = self._now() - self.start
            return True
        return False

    def figures(self):
        """(own milliseconds per step, share of the whole time)."""
        return self.own_sec / (self.LAST - self.FIRST) * 1000, self.own_sec / max(self.total_sec, 1e-9)

    def _now(self):
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # during these few steps only: otherwise the work would be booked on whoever waits for it
        return time.perf_counter()


def num_bytes(tensors):
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def sentence(milliseconds, share, mebibytes):
    """mebibytes: {what: number}."""
    parts = ", ".join(f"{what} {size:.1f}" for what, size in mebibytes.items())
    return f"MADR: costs {milliseconds:.1f} ms per step, {share:.0%} of the time; keeps {sum(mebibytes.values()):.1f} MiB ({parts})"
