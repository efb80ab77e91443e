"""Bias, activation, gain and clamp in one operator.

    y = clamp(gain * act(x + b), -c, c)

Must not know about layers or networks.
"""
import math
from dataclasses import dataclass
from typing import Callable

import torch
import torch.nn.functional as F

# Filled when the compiled kernel is looked up for the first time.
_inited = False
_plugin = None


@dataclass(frozen=True)
class Activation:
    """func(x, alpha=...) with the values that stand in for an unset alpha and gain."""
    func: Callable
    def_alpha: float = 0.0
    def_gain: float = 1.0


activation_funcs = {
    "linear": Activation(lambda x, **_: x),
    "relu": Activation(lambda x, **_: F.relu(x), def_gain=math.sqrt(2)),
    "lrelu": Activation(lambda x, alpha, **_: F.leaky_relu(x, alpha), def_alpha=0.2, def_gain=math.sqrt(2)),
    "tanh": Activation(lambda x, **_: torch.tanh(x)),
    "sigmoid": Activation(lambda x, **_: torch.sigmoid(x)),
    "elu": Activation(lambda x, **_: F.elu(x)),
    "selu": Activation(lambda x, **_: F.selu(x)),
    "softplus": Activation(lambda x, **_: F.softplus(x)),
    "swish": Activation(lambda x, **_: torch.sigmoid(x) * x, def_gain=math.sqrt(2)),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    """x [any shape], b [x.shape[dim]] or None -> clamp(gain * act(x + b)), in x's shape and dtype."""
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    clamp = -1.0 if clamp is None else float(clamp)
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = spec.func(x, alpha=alpha)
    if gain != 1:
        x = x * gain
    if clamp >= 0:
        x = x.clamp(-clamp, clamp)
    return x
