import types

import torch

_ROOT = 2**0.5


def _spec(func, alpha=0, gain=1):
    return types.SimpleNamespace(func=func, def_alpha=alpha, def_gain=gain)


activation_funcs = {
    "linear": _spec(lambda x, alpha: x),
    "relu": _spec(lambda x, alpha: x.relu(), gain=_ROOT),
    "lrelu": _spec(lambda x, alpha: torch.where(x > 0, x, x * alpha), alpha=0.2, gain=_ROOT),
    "tanh": _spec(lambda x, alpha: x.tanh()),
    "sigmoid": _spec(lambda x, alpha: x.sigmoid()),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    spec = activation_funcs[act]
    if b is not None:
        x = (x.movedim(dim, -1) + b).movedim(-1, dim)
    x = spec.func(x, spec.def_alpha if alpha is None else alpha) * (spec.def_gain if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)
