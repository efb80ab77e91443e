"""bias_act by a compiled kernel, with first and second derivatives, for any device that has one.

    y = clamp(gain * act(z), -c, c),   z = scale * x + noise + b

The kernel's functions (docs/kernels.md) know nothing of autograd; here it is decided what is kept for the backward pass, and how the
backward pass is differentiated again. Must not know which device it is, or when a kernel is used.
"""

from typing import NamedTuple

import torch


class Settings(NamedTuple):
    """What an activation is told besides its tensors; clamp may be None."""

    act: str
    alpha: float
    gain: float
    clamp: float | None

    @property
    def is_piecewise_linear(self):
        return self.act in ("linear", "relu", "lrelu")

    @property
    def result_tells_slope(self):
        """Whether dy/dz can be read off y: it rises with z and has its sign."""
        return self.is_piecewise_linear and self.gain > 0 and self.alpha >= 0


def apply(kernel, x, b, dim, settings, scale=None, noise=None):
    """x [any shape], b [x.shape[dim]], scale [N,C], noise [N,1,H,W], each but x or None -> y, in x's shape, type and memory layout.

    With scale or noise dim must be 1. A tensor that is neither contiguous nor channels-last is copied.
    """
    if dim % x.ndim != 1 and not x.is_contiguous():  # the kernels' channels-last memory has its channels along axis 1
        y = apply(kernel, x.contiguous(), b, dim, settings, scale, noise)
        return y.contiguous(memory_format=torch.channels_last) if _is_channels_last(x) else y
    x = _dense(x)
    b, scale, noise = (None if tensor is None else tensor.contiguous() for tensor in (b, scale, noise))
    if torch.is_grad_enabled() and any(tensor is not None and tensor.requires_grad for tensor in (x, b, scale, noise)):
        return _BiasAct.apply(kernel, x, b, scale, noise, dim % x.ndim, settings)
    return kernel.activate(x, b, scale, noise, dim % x.ndim, *settings)


def _is_channels_last(x):
    return x.ndim == 4 and x.is_contiguous(memory_format=torch.channels_last)


def _dense(x):
    """x as the kernels take it."""
    return x if x.is_contiguous() or _is_channels_last(x) else x.contiguous()


def _in_layout_of(tensor, like):
    """tensor with the strides of `like`, which has its shape."""
    return tensor if tensor.stride() == like.stride() else torch.empty_like(like).copy_(tensor)


def _along(tensor, dim, ndim):
    """[C] -> [1, C, 1, ...] with C at dim."""
    return tensor.reshape([-1 if axis == dim else 1 for axis in range(ndim)])


def _over_channels(scale, ndim):
    """[N, C] -> [N, C, 1, ...]."""
    return scale.reshape([*scale.shape, *[1] * (ndim - 2)])


class _BiasAct(torch.autograd.Function):
    """The forward pass. Keeps the result alone where that tells the slope, and x besides only if scale wants a gradient."""

    @staticmethod
    def forward(ctx, kernel, x, b, scale, noise, dim, settings):
        y = kernel.activate(x, b, scale, noise, dim, *settings)
        if settings.result_tells_slope:
            scale_learns = scale is not None and scale.requires_grad
            ctx.save_for_backward(y, x if scale_learns else None, b, scale, None)
        else:
            ctx.save_for_backward(None, x, b, scale, noise)
        ctx.kernel, ctx.dim, ctx.settings = kernel, dim, settings
        return y

    @staticmethod
    def backward(ctx, gradient):
        wants_x, *wants = ctx.needs_input_grad[1:5]
        wanted = [name for name, is_wanted in zip(("b", "scale", "noise"), wants) if is_wanted]
        y, x, b, scale, noise = ctx.saved_tensors
        if torch.is_grad_enabled() or not ctx.settings.result_tells_slope:
            to_x, *rest = _differentiable_backward(ctx, gradient, wanted)
        else:
            to_x, *rest = ctx.kernel.backward(_in_layout_of(gradient, y), y, x, scale, ctx.dim, *ctx.settings, wanted)
        return None, to_x if wants_x else None, *rest, None, None


def _differentiable_backward(ctx, gradient, wanted):
    """The gradients of x, b, scale and noise as operators that PyTorch differentiates again; all are linear in `gradient`."""
    y, x, b, scale, noise = ctx.saved_tensors
    dim, settings = ctx.dim, ctx.settings
    if settings.act == "linear" and settings.clamp is None:
        dz = gradient if settings.gain == 1 else gradient * settings.gain
    elif settings.result_tells_slope:
        dz = _Slope.apply(ctx.kernel, _in_layout_of(gradient, y), y.detach(), True, settings)
        bends = settings.act != "linear" and not (settings.act == "lrelu" and settings.alpha == 1)
        if bends and b is not None and b.requires_grad and torch.is_grad_enabled():
            dz = ZeroForBias.apply(dz, b)
    else:
        z = x if scale is None else x * _over_channels(scale, x.ndim)
        z = z if noise is None else z + noise
        z = z if b is None else z + _along(b, dim, x.ndim)
        dz = _Slope.apply(ctx.kernel, _in_layout_of(gradient, z), z, False, settings)
    other_axes = [axis for axis in range(dz.ndim) if axis != dim]
    to_b = (dz.sum(other_axes) if other_axes else dz) if "b" in wanted else None
    to_scale = (dz * x).flatten(2).sum(2) if "scale" in wanted else None
    to_noise = dz.sum(1, keepdim=True) if "noise" in wanted else None
    return dz if scale is None else dz * _over_channels(scale, dz.ndim), to_b, to_scale, to_noise


class _Slope(torch.autograd.Function):
    """gradient * dy/dz. reference: y if from_result, which then counts as a constant, else z."""

    @staticmethod
    def forward(ctx, kernel, gradient, reference, from_result, settings):
        ctx.save_for_backward(None if from_result else gradient, reference)
        ctx.kernel, ctx.from_result, ctx.settings = kernel, from_result, settings
        return kernel.derivative(gradient, reference, 1, from_result, *settings)

    @staticmethod
    def backward(ctx, second):
        gradient, reference = ctx.saved_tensors
        second = _in_layout_of(second, reference)
        to_gradient = _Slope.apply(ctx.kernel, second, reference, ctx.from_result, ctx.settings)
        if ctx.from_result or not ctx.needs_input_grad[2]:
            return None, to_gradient, None, None, None
        if torch.is_grad_enabled():
            raise NotImplementedError(f"bias_act's kernel has no third derivative of {ctx.settings.act}; use impl='ref'")
        to_z = second * ctx.kernel.derivative(gradient, reference, 2, False, *ctx.settings)
        return None, to_gradient, to_z, None, None


class ZeroForBias(torch.autograd.Function):
    """The identity on a gradient, which depends on the bias piecewise constantly: the bias's second derivative is 0, not absent.

    An optimizer skips a parameter without a gradient but moves one whose gradient is 0 by its momentum, so the difference
    shows in training. For x the zeros stay unsaid: sending them would cost a whole backward pass through the layers below.
    """

    @staticmethod
    def forward(ctx, gradient, b):
        ctx.save_for_backward(b)
        return gradient.view_as(gradient)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, torch.zeros_like(ctx.saved_tensors[0])
