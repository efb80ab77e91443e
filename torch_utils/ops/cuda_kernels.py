"""The compiled kernels for CUDA devices as functions of tensors, in the form that docs/kernels.md states.

They run on the current stream of the tensors' device. `resample_on_device` is this device's own: the filter stays in the card's
memory, so that nothing waits for the card. Must not build anything when imported, nor know networks.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from torch_utils import custom_ops

FOLDER = Path(__file__).resolve().parent
SOURCES = ("kernels_cuda.cpp", "bias_act_cuda.cu", "upfirdn2d_cuda.cu")
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
# In the order of activations::Kind in activations.h.
KINDS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")


def compiled():
    """The compiled module. Raises custom_ops.PluginError where it cannot be had."""
    return custom_ops.get_plugin("madr_kernels_cuda", [FOLDER / name for name in SOURCES])


# ------------------------------------------------------------------------------------------
# bias_act.


def _limit(clamp):
    """The kernels' word for no limit is a negative one."""
    return -1.0 if clamp is None else float(clamp)


def _laid_out_as(tensor, model):
    """tensor in the memory layout of model; gradients arrive in any."""
    return tensor if tensor.stride() == model.stride() else torch.empty_like(model).copy_(tensor)


def activate(x, b, scale, noise, dim, act, alpha, gain, clamp):
    """clamp(gain * act(scale * x + noise + b)) in one pass. x dense; b [C], scale [N,C], noise [N,1,H,W] or None."""
    beside = [None if tensor is None else tensor.contiguous() for tensor in (b, scale, noise)]
    return compiled().activate(x, *beside, dim % x.ndim, KINDS.index(act), alpha, gain, _limit(clamp))


def derivative(gradient, reference, order, from_result, act, alpha, gain, clamp):
    """gradient times dy/dz (order 1) or d2y/dz2 (order 2) at z = reference, or where y = reference if from_result."""
    gradient = _laid_out_as(gradient, reference)
    return compiled().derivative(gradient, reference, order, from_result, KINDS.index(act), alpha, gain, _limit(clamp))


def backward(gradient, y, x, scale, dim, act, alpha, gain, clamp, wanted):
    """Gradients of activate at x, b [C], scale [N,C], noise [N,1,H,W], the last three only if in `wanted`; piecewise linear acts.

    The sums are PyTorch's, which add in one order always; adding in the kernel would take atomics, whose order varies.
    """
    to_z = derivative(gradient, y, 1, True, act, alpha, gain, clamp)
    images = [to_z.shape[axis] if axis < 2 else 1 for axis in range(to_z.ndim)]
    to_b = to_z.sum([axis for axis in range(to_z.ndim) if axis != dim % to_z.ndim]) if "b" in wanted else None
    to_scale = (to_z * x).flatten(2).sum(2) if "scale" in wanted else None
    to_noise = to_z.sum(1, keepdim=True) if "noise" in wanted else None
    to_x = to_z if scale is None else to_z * scale.reshape(images)
    return to_x, to_b, to_scale, to_noise


# ------------------------------------------------------------------------------------------
# upfirdn2d.


class Sampling(NamedTuple):
    """One pass of upfirdn2d; pairs are (horizontal, vertical). before: zeros in front, negative to crop; size: of the result."""

    up: tuple[int, int]
    down: tuple[int, int]
    before: tuple[int, int]
    size: tuple[int, int]
    correlate: bool
    gain: float

    def transposed(self, size_in, taps):
        """The pass that carries a gradient back to an image of size_in, through a filter of `taps`.

        out[o] sums tap o * down .. met by input i where i * up + before - o * down is that tap; seen from i this is a pass with
        up and down changed places, the filter reversed and taps - 1 - before zeros in front.
        """
        before = (taps[0] - 1 - self.before[0], taps[1] - 1 - self.before[1])
        return Sampling(self.down, self.up, before, size_in, not self.correlate, self.gain)


class _Resample(torch.autograd.Function):
    """A pass of upfirdn2d, linear in x, with itself as the derivative of every order."""

    @staticmethod
    def forward(ctx, x, f, sampling):
        ctx.save_for_backward(f)
        ctx.sampling, ctx.size_in = sampling, (x.shape[3], x.shape[2])
        return compiled().upfirdn2d(x, f, *sampling)

    @staticmethod
    def backward(ctx, gradient):
        (f,) = ctx.saved_tensors
        return _Resample.apply(gradient, f, ctx.sampling.transposed(ctx.size_in, (f.shape[1], f.shape[0]))), None, None


def resample_on_device(x, f, up, down, padding, flip_filter, gain):
    """upfirdn2d of x [N,C,H,W] with f [taps] or [rows, columns] on x's device; no gradient for f."""
    f = f.to(torch.float64 if x.dtype == torch.float64 else torch.float32)
    left, right, top, bottom = padding
    if f.ndim == 2:
        passes = [(f.contiguous(), up, down, (left, right, top, bottom))]
    else:
        # Along one axis, then along the other.
        passes = [
            (f[None, :].contiguous(), (up[0], 1), (down[0], 1), (left, right, 0, 0)),
            (f[:, None].contiguous(), (1, up[1]), (1, down[1]), (0, 0, top, bottom)),
        ]
    for taps, spread, kept, (before_x, after_x, before_y, after_y) in passes:
        width = (x.shape[3] * spread[0] + before_x + after_x - taps.shape[1]) // kept[0] + 1
        height = (x.shape[2] * spread[1] + before_y + after_y - taps.shape[0]) // kept[1] + 1
        x = _Resample.apply(x, taps, Sampling(spread, kept, (before_x, before_y), (width, height), flip_filter, gain ** (f.ndim / 2)))
    return x
