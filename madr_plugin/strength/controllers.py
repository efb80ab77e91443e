"""Moves the strength of a term: by a sigmoid on recall (published), with a fixed or an adaptive target, or by an integral controller as ADA's.

Must not know features or images: numbers in, numbers out.
"""

import math
from typing import Any


def sigmoid_strength(recall: float, target: float, slope: float) -> float:
    """lambda / lambda_max = sigmoid(kappa * (tau - R))."""
    return 1 / (1 + math.exp(-slope * (target - recall)))


class IntegralController:
    """Moves as ADA's p does: strength += sign(1 - coverage) * images / (kimg * 1000), kept in [0, 1]. Exactly 0 once coverage stays at its
    expected value; coverage is the sensor's ratio, 1 where generated = real."""

    def __init__(self, kimg: float) -> None:
        self.kimg, self.strength = kimg, 1.0

    def update(self, coverage: float, nimg: int) -> None:
        sign = (coverage < 1) - (coverage > 1)
        self.strength = min(max(self.strength + sign * nimg / (self.kimg * 1000), 0.0), 1.0)

    def live_state(self) -> dict[str, Any]:
        return dict(strength=self.strength)

    def load(self, state: dict[str, Any]) -> None:
        self.strength = float(state["strength"])


class RecallController:
    """Moves lambda every `interval` steps. mode 'sigmoid': fixed target. 'adaptive': critique's remedy 4 (without its FID branch:
    FID is not known inside a training step)."""

    HISTORY, START_TARGET, START_STEPS = 100, 0.60, 1000

    def __init__(self, mode: str, target: float, slope: float) -> None:
        self.mode, self.fixed_target, self.slope = mode, target, slope
        self.recalls: list[float] = []
        self.strength = 1.0 if mode == "none" else 0.0

    def target(self, step: int) -> float:
        if self.mode != "adaptive":
            return self.fixed_target
        if step < self.START_STEPS or not self.recalls:
            return self.START_TARGET
        mean = sum(self.recalls) / len(self.recalls)
        variance = sum((recall - mean) ** 2 for recall in self.recalls) / len(self.recalls)
        if variance > 0.01:
            target = max(0.60, mean - 0.05)
        else:
            target = sorted(self.recalls)[int(0.9 * (len(self.recalls) - 1))]
        return min(max(target, 0.60), 0.95)

    def update(self, recall: float, step: int) -> None:
        if self.mode == "none":
            return
        self.recalls = [*self.recalls, float(recall)][-self.HISTORY :]
        self.strength = sigmoid_strength(self.recalls[-1], self.target(step), self.slope)

    def live_state(self) -> dict[str, Any]:
        return dict(recalls=list(self.recalls), strength=self.strength)

    def load(self, state: dict[str, Any]) -> None:
        self.recalls, self.strength = [float(recall) for recall in state["recalls"]], float(state["strength"])
