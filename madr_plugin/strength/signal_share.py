"""Measures how much of the witness's gradient is signal: its power against what sampling alone would give at p_g = p_data.

The witness is estimated from one microbatch, and a small one (16 images) gives a gradient of full size where generated and
real features agree already. Scaled to the adversarial gradient, that noise would drown the adversarial signal. Must not know images or hosts.
"""

from collections.abc import Callable
from typing import Any

import torch

from madr_spaces.seeds import generator_for

REPEATS = 64
DECAY = 0.98  # as for the gradient norms that it belongs with


def feature_power(gradient_BD: torch.Tensor) -> torch.Tensor:
    """Average over the batch |B dL/df_i|^2: dL/df_i carries a factor 1/B, so sizes of batches compare -> 0-d."""
    return (gradient_BD * len(gradient_BD)).square().sum(1).mean()


@torch.enable_grad()
def null_power(draw: Callable, loss: Callable, batch: int, seed: int) -> torch.Tensor:
    """Compute feature_power of the witness where the batch is drawn from the reals themselves: noise alone. Mean over REPEATS draws -> 0-d.

    draw(count, generator): features of reals [count, D]; loss(features_BD, generator): the witness.
    """
    generator, total = generator_for("signal-null", seed, batch), 0.0
    for _ in range(REPEATS):
        fake_BD = draw(batch, generator).clone().requires_grad_()
        [gradient_BD] = torch.autograd.grad(loss(fake_BD, generator), fake_BD)
        total = total + feature_power(gradient_BD)
    return total / REPEATS


class SignalShare:
    """Computes factor() = max(0, 1 - P_null / P)^exponent, P a running mean. 1 until measured; 0 where P does not exceed P_null.

    1 - P_null / P is the share of the gradient's power that is no noise, by Wiener's rule the scale at which an estimate of
    that much noise has the least error. Higher exponents are a choice: near full strength in collapse, little where a small batch
    leaves little signal and G has detail to learn from D.
    """

    def __init__(self, device: torch.device, exponent: float) -> None:
        self.exponent = exponent
        self.power = torch.full([], -1.0, device=device)  # running mean; -1: not measured yet
        self.null = torch.full([], 0.0, device=device)
        self._factor: torch.Tensor | None = None  # until something new is measured

    def update(self, power: torch.Tensor, null: torch.Tensor) -> None:
        """Take in both of the running step. Values that are not finite are passed over."""
        blended = torch.where(self.power < 0, power, DECAY * self.power + (1 - DECAY) * power)
        self.power = torch.where(torch.isfinite(power), blended, self.power)
        self.null, self._factor = null, None

    def factor(self) -> torch.Tensor:
        if self._factor is None:
            share = (1 - self.null / self.power.clamp(min=1e-30)).clamp(min=0) ** self.exponent
            self._factor = torch.where(self.power < 0, torch.ones_like(share), share)
        return self._factor

    def live_state(self) -> dict[str, Any]:
        return dict(power=self.power, null=self.null)

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        if state:
            self._factor = None
            self.power, self.null = state["power"].to(device, copy=True), state["null"].to(device, copy=True)
