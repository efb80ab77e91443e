"""Bias, activation, gain and clamp in one operator.

    y = clamp(gain * act(x + b), -c, c)

Must not know about layers or networks.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from torch_utils.ops import bias_act_kernel, plugins

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
    "swish": Activation(lambda x, **_: F.silu(x), def_gain=math.sqrt(2)),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    """x [any shape], b [x.shape[dim]] or None -> clamp(gain * act(x + b)), in x's shape, type and memory layout."""
    _check_arguments(x, b, dim, act, clamp)
    spec = activation_funcs[act]
    alpha = float(spec.def_alpha if alpha is None else alpha)
    gain = float(spec.def_gain if gain is None else gain)
    clamp = None if clamp is None else float(clamp)
    kernel = plugins.find("bias_act", impl, x)
    if kernel is not None and act in kernel.activations():
        return bias_act_kernel.apply(kernel, x, b, dim, bias_act_kernel.Settings(act, alpha, gain, clamp))
    if b is not None:
        b = b.reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    slope = {"linear": 1.0, "relu": 0.0, "lrelu": alpha}.get(act)
    if slope is None or not 0 <= slope <= 1 or gain <= 0:
        return _composed(x, b, spec, alpha, gain, clamp)
    if b is None and slope == gain == 1 and clamp is None:
        return x
    if torch.is_grad_enabled() and (x.requires_grad or (b is not None and b.requires_grad)):
        return _PiecewiseLinear.apply(x, b, slope, gain, clamp)
    return _piecewise_linear(x, b, slope, gain, clamp)


def has_kernel(x, act):
    """Whether modulated_bias_act() takes one pass over x, [N,C,H,W]; without a kernel it is no faster than its parts."""
    kernel = plugins.find("bias_act", "cuda", x)
    return kernel is not None and act in kernel.activations()


def prefers_channels_last(device, dtype):
    """Whether networks in full precision run faster with channels last: where the C++ kernels are, which keep that layout, as convolutions do."""
    device = torch.device(device)
    return device.type == "cpu" and all(plugins.find(op, "cuda", torch.empty(0, dtype=dtype)) is not None for op in plugins.OPERATORS)


def modulated_bias_act(x, b, scale=None, noise=None, act="linear", gain=1.0, clamp=None):
    """x [N,C,H,W], b [C], scale [N,C], noise broadcastable to [N,1,H,W], each but x or None -> clamp(gain * act(scale * x + noise + b)).

    What follows a convolution in StyleGAN2's generator (arXiv 1912.04958, figure 2): demodulation, noise, bias and activation.
    """
    _check_arguments(x, b, 1, act, clamp)
    if scale is not None:
        scale = scale.to(x.dtype)
    if noise is not None:
        noise = noise.to(x.dtype)
    kernel = plugins.find("bias_act", "cuda", x)
    if kernel is not None and act in kernel.activations():
        noise = None if noise is None else noise.expand(x.shape[0], 1, *x.shape[2:])
        alpha, clamp = float(activation_funcs[act].def_alpha), None if clamp is None else float(clamp)
        return bias_act_kernel.apply(kernel, x, b, 1, bias_act_kernel.Settings(act, alpha, float(gain), clamp), scale, noise)
    x = x if scale is None else x * scale[:, :, None, None]
    x = x if noise is None else x + noise
    return bias_act(x, b, act=act, gain=gain, clamp=clamp)


def _check_arguments(x, b, dim, act, clamp):
    if act not in activation_funcs:
        raise ValueError(f"act must be one of {', '.join(activation_funcs)} (got {act!r})")
    if clamp is not None and not clamp >= 0:
        raise ValueError(f"clamp must be None or at least 0 (got {clamp!r})")
    if b is None:
        return
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"dim must name an axis of a tensor with {x.ndim} of them (got {dim})")
    if b.ndim != 1 or b.shape[0] != x.shape[dim] or b.dtype != x.dtype:
        raise ValueError(f"the bias must be {x.dtype} [{x.shape[dim]}] like axis {dim} of the input (got {b.dtype} {list(b.shape)})")


def _composed(x, b, spec, alpha, gain, clamp):
    """The formula, step by step; right for every activation and value."""
    x = spec.func(x if b is None else x + b, alpha=alpha)
    if gain != 1:
        x = x * gain
    return x if clamp is None else x.clamp(-clamp, clamp)


def _piecewise_linear(x, b, slope, gain, clamp):
    """linear, relu, lrelu in few passes over memory: for gain > 0 they satisfy gain * act(z) = act(gain * z)."""
    y = x * gain if b is None else torch.add(b * gain, x, alpha=gain)
    if slope != 1:
        y = F.leaky_relu_(y, slope)
    return y if clamp is None else y.clamp_(-clamp, clamp)


class _PiecewiseLinear(torch.autograd.Function):
    """_piecewise_linear with gradients read off the result: its sign tells the slope, its size whether it was clamped.

    Keeps one tensor for the backward pass where the composed formula keeps up to three.
    """

    @staticmethod
    def forward(ctx, x, b, slope, gain, clamp):
        y = _piecewise_linear(x, b, slope, gain, clamp)
        ctx.save_for_backward(y, b)
        ctx.settings = slope, gain, clamp
        return y

    @staticmethod
    def backward(ctx, gradient):
        # Everything here is linear in `gradient`, and PyTorch differentiates these operators again: the second derivative.
        y, b = ctx.saved_tensors
        y = y.detach()
        slope, gain, clamp = ctx.settings
        if clamp is not None:
            limit = float(torch.tensor(clamp, dtype=y.dtype, device="cpu"))  # as y holds it: else what was clamped would seem to lie inside
            gradient = torch.ops.aten.hardtanh_backward(gradient, y, -limit, limit)
        if slope != 1:
            gradient = torch.ops.aten.leaky_relu_backward(gradient, y, slope, True)
            if b is not None and b.requires_grad and torch.is_grad_enabled():
                gradient = bias_act_kernel.ZeroForBias.apply(gradient, b)
        if gain != 1:
            gradient = gradient * gain
        to_bias = None
        if b is not None and ctx.needs_input_grad[1]:
            to_bias = gradient.sum_to_size(b.shape)
        return (gradient if ctx.needs_input_grad[0] else None), to_bias, None, None, None
