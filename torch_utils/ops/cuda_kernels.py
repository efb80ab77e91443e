"""The CUDA kernels of bias_act and upfirdn2d: their sources, how they are compiled, and their functions for Python.

The functions are those of docs/kernels.md, on the current stream of the tensors' device. upfirdn2d takes the filter as it is, in the
card's memory, where reading its numbers would make the program wait for the card. Must not know networks or when a kernel is used.
"""

import os
from pathlib import Path
from typing import NamedTuple

import torch

PLUGIN = "cuda_ops_plugin"
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)

# In the order of Kind in activations.h.
_KINDS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")


def sources():
    """The C++ and CUDA files."""
    folder = Path(__file__).resolve().parent
    return [folder / name for name in ("module_cuda.cpp", "bias_act_cuda.cu", "upfirdn2d_cuda.cu")]


def build_options():
    """Keywords for torch.utils.cpp_extension.load, which compiles for the cards of this machine unless TORCH_CUDA_ARCH_LIST names others."""
    return dict(extra_cflags=["/O2" if os.name == "nt" else "-O2"], extra_cuda_cflags=["-O3"])


def bind(compiled):
    """The functions, over the compiled module."""
    return Functions(compiled)


class Sampling(NamedTuple):
    """One pass of upfirdn2d; pairs are (horizontal, vertical). before: zeros in front, negative to crop; size: of the result."""

    up: tuple[int, int]
    down: tuple[int, int]
    before: tuple[int, int]
    size: tuple[int, int]
    correlate: bool
    gain: float

    def transposed(self, size_in, taps):
        """The pass that carries a gradient back to an image of size_in, through a filter of size `taps`.

        Input i meets output o in the tap i * up + before - o * down. Seen from i, this is a pass with up and down changed
        places, the filter reversed, and taps - 1 - before zeros in front.
        """
        before = (taps[0] - 1 - self.before[0], taps[1] - 1 - self.before[1])
        return Sampling(self.down, self.up, before, size_in, not self.correlate, self.gain)


class Functions:
    """activate, derivative and backward of docs/kernels.md, and upfirdn2d with a filter that stays on the card."""

    DTYPES = DTYPES
    TAKES_FILTERS = True  # upfirdn2d instead of resample

    def __init__(self, compiled):
        self.compiled = compiled
        self._kinds = {name: number for number, name in enumerate(_KINDS)}

    def activations(self):
        """Names of the activations that it knows."""
        return self._kinds

    def activate(self, x, b, scale, noise, dim, act, alpha, gain, clamp):
        """clamp(gain * act(scale * x + noise + b)) in one pass; b [C], scale [N,C], noise [N,1,H,W] or None."""
        dim %= x.ndim
        if dim != 1 and not x.is_contiguous():  # the kernel's channels-last memory has its channels along axis 1
            y = self.activate(x.contiguous(), b, scale, noise, dim, act, alpha, gain, clamp)
            return torch.empty_like(x).copy_(y)
        beside = [None if tensor is None else tensor.contiguous() for tensor in (b, scale, noise)]
        return self.compiled.activate(x, *beside, dim, *self._rule(act, alpha, gain, clamp))

    def derivative(self, gradient, reference, order, from_result, act, alpha, gain, clamp):
        """gradient times dy/dz (order 1) or d2y/dz2 (order 2) at z = reference, or where y = reference if from_result."""
        if gradient.stride() != reference.stride():
            gradient = torch.empty_like(reference).copy_(gradient)
        return self.compiled.derivative(gradient, reference, order, from_result, *self._rule(act, alpha, gain, clamp))

    def backward(self, gradient, y, x, scale, dim, act, alpha, gain, clamp, wanted):
        """Gradients of activate at x, b [C], scale [N,C], noise [N,1,H,W], the last three only if in `wanted`; piecewise linear acts.

        The sums are PyTorch's, which add in the same order every time; sums of one pass would need atomic additions, which don't.
        """
        to_z = self.derivative(gradient, y, 1, True, act, alpha, gain, clamp)
        others = [axis for axis in range(to_z.ndim) if axis != dim % to_z.ndim]
        to_b = (to_z.sum(others) if others else to_z) if "b" in wanted else None
        to_scale = (to_z * x).flatten(2).sum(2) if "scale" in wanted else None
        to_noise = to_z.sum(1, keepdim=True) if "noise" in wanted else None
        to_x = to_z if scale is None else to_z * scale.reshape([*scale.shape, *[1] * (to_z.ndim - 2)])
        return to_x, to_b, to_scale, to_noise

    def upfirdn2d(self, x, f, up, down, padding, flip_filter, gain):
        """x [N,C,H,W] on any strides, f [taps] or [rows, columns] on the same device; no gradient for f."""
        f = f.detach().to(torch.float64 if x.dtype == torch.float64 else torch.float32)
        left, right, top, bottom = padding
        if f.ndim == 2:
            return self._pass(x, f.contiguous(), up, down, padding, flip_filter, gain)
        # Along one axis, then along the other; each carries the square root of the gain.
        x = self._pass(x, f[None, :].contiguous(), (up[0], 1), (down[0], 1), (left, right, 0, 0), flip_filter, gain**0.5)
        return self._pass(x, f[:, None].contiguous(), (1, up[1]), (1, down[1]), (0, 0, top, bottom), flip_filter, gain**0.5)

    def _pass(self, x, f, up, down, padding, flip_filter, gain):
        left, right, top, bottom = padding
        width = (x.shape[3] * up[0] + left + right - f.shape[1]) // down[0] + 1
        height = (x.shape[2] * up[1] + top + bottom - f.shape[0]) // down[1] + 1
        return _Resample.apply(self.compiled, x, f, Sampling(up, down, (left, top), (width, height), flip_filter, gain))

    def _rule(self, act, alpha, gain, clamp):
        return self._kinds[act], alpha, gain, -1.0 if clamp is None else clamp


class _Resample(torch.autograd.Function):
    """A pass of upfirdn2d. Linear in x, so that the derivative of every order is another pass."""

    @staticmethod
    def forward(ctx, compiled, x, f, sampling):
        ctx.save_for_backward(f)
        ctx.compiled, ctx.transposed = compiled, sampling.transposed((x.shape[3], x.shape[2]), (f.shape[1], f.shape[0]))
        return compiled.upfirdn2d(x, f, *sampling)

    @staticmethod
    def backward(ctx, gradient):
        return None, _Resample.apply(ctx.compiled, gradient, *ctx.saved_tensors, ctx.transposed), None, None
