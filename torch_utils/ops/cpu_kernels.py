"""The C++ kernels of bias_act and upfirdn2d for CPUs: their sources, how they are compiled, and their functions for Python.

The functions are those of docs/kernels.md. They check what the C++ side, which sees addresses and sizes alone, could not survive.
Must not know autograd, networks or when a kernel is used.
"""

import ctypes
import functools
import os
import platform
import sys
from pathlib import Path

import torch

PLUGIN = "cpu_ops_plugin"
DTYPES = (torch.float32, torch.float64, torch.bfloat16)  # in the order of ElementType in cpu_tools.h

_DTYPE_NUMBERS = {dtype: number for number, dtype in enumerate(DTYPES)}
_FROM_RESULT, _FIRST, _SECOND = 1, 2, 3  # Order in bias_act_cpu.cpp


def sources():
    """The C++ files."""
    folder = Path(__file__).resolve().parent
    return [folder / name for name in ("module_cpu.cpp", "bias_act_cpu.cpp", "upfirdn2d_cpu.cpp")]


def build_options():
    """Keywords for torch.utils.cpp_extension.load. NaN and infinity keep their meaning: nothing of -ffast-math that touches them."""
    if os.name == "nt":
        return dict(extra_cflags=["/O2", "/openmp:experimental"])
    flags = ["-O3", "-fno-math-errno", "-fno-trapping-math"]
    if sys.platform == "darwin":  # Apple's compiler has no OpenMP; PyTorch's threads there need none
        return dict(extra_cflags=flags)
    if platform.machine() in ("x86_64", "AMD64", "aarch64"):
        flags.append("-march=native")
    return dict(extra_cflags=[*flags, "-fopenmp"], extra_ldflags=["-fopenmp"])


def bind(compiled):
    """The functions, over the compiled module."""
    return Functions(compiled)


class Functions:
    """activate, derivative, backward and resample of docs/kernels.md, on the CPU."""

    DTYPES = DTYPES
    TAKES_FILTERS = False  # resample, with numbers that Python has read

    def __init__(self, compiled):
        self._compiled = compiled
        self._kinds = {name: number for number, name in enumerate(_KINDS)}

    def activations(self):
        """Names of the activations that it knows."""
        return self._kinds

    def activate(self, x, b, scale, noise, dim, act, alpha, gain, clamp):
        y = torch.empty_like(x)
        sizes = _sizes(x, dim, scale)
        _check(x, y, *_shaped(x, dim, b, scale, noise))
        self._compiled.bias_act_activate(*map(_address, (y, x, b, scale, noise)), *sizes, *self._rule(x, act, alpha, gain, clamp))
        return y

    def derivative(self, gradient, reference, order, from_result, act, alpha, gain, clamp):
        out = torch.empty_like(gradient)
        _check(gradient, out, (reference, gradient.shape))
        which = _FROM_RESULT if from_result else (_FIRST if order == 1 else _SECOND)
        rule = self._rule(gradient, act, alpha, gain, clamp)
        self._compiled.bias_act_derivative(*map(_address, (out, gradient, reference)), gradient.numel(), which, *rule)
        return out

    def backward(self, gradient, y, x, scale, dim, act, alpha, gain, clamp, wanted):
        to_x = torch.empty_like(gradient)
        to_b = gradient.new_empty([y.shape[dim]]) if "b" in wanted else None
        to_scale = gradient.new_empty(y.shape[:2]) if "scale" in wanted else None
        to_noise = gradient.new_empty([y.shape[0], 1, *y.shape[2:]]) if "noise" in wanted else None
        x = x if "scale" in wanted else None
        beside = [(y, gradient.shape)] if x is None else [(y, gradient.shape), (x, gradient.shape)]
        sizes = _sizes(y, dim, scale if to_scale is None else to_scale)
        _check(gradient, to_x, *beside, *_shaped(y, dim, to_b, scale, to_noise))
        rule = self._rule(y, act, alpha, gain, clamp)
        self._compiled.bias_act_backward(*map(_address, (to_x, to_b, to_scale, to_noise, gradient, y, x, scale)), *sizes, *rule)
        return to_x, to_b, to_scale, to_noise

    def resample(self, x, plan_y, plan_x):
        images, channels, height, width = x.shape
        layout = torch.contiguous_format if x.is_contiguous() else torch.channels_last
        y = torch.empty([images, channels, plan_y.size_out(height), plan_x.size_out(width)], dtype=x.dtype, memory_format=layout)
        _check(x, x)
        axes, kept = zip(_axis(plan_y, height, y.shape[2]), _axis(plan_x, width, y.shape[3]))
        self._compiled.upfirdn2d_resample(_address(y), _address(x), images, channels, x.is_contiguous(), _DTYPE_NUMBERS[x.dtype], *axes)
        del kept  # the taps lived until here
        return y

    def _rule(self, x, act, alpha, gain, clamp):
        return _DTYPE_NUMBERS[x.dtype], self._kinds[act], alpha, gain, -1.0 if clamp is None else clamp


_KINDS = ("linear", "relu", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus", "swish")  # Kind in activations.h


def _address(tensor):
    return 0 if tensor is None else tensor.data_ptr()


@functools.lru_cache(maxsize=256)
def _axis(plan, size_in, size_out):
    """(what C++ wants to know of one axis, the memory that it points to)."""
    taps = (ctypes.c_double * len(plan.taps))(*plan.taps)
    return (ctypes.addressof(taps), len(plan.taps), plan.up, plan.down, plan.before, size_in, size_out), taps


def _sizes(x, dim, scale):
    """(images, channels, pixels, whether planes): how C++ sees the memory of x with the bias along dim."""
    dim %= x.ndim
    before, channels = x.shape[:dim].numel(), x.shape[dim]
    pixels = x.shape[dim + 1 :].numel()
    if not x.is_contiguous():
        return before, channels, pixels, False  # channels-last
    if pixels == 1 and scale is None:
        return 1, channels, before, False
    return before, channels, pixels, True


def _shaped(x, dim, b, scale, noise):
    """(tensor, the shape that it must have) of the tensors beside x that there are."""
    shaped = [] if b is None else [(b, (x.shape[dim],))]
    if scale is not None:
        shaped.append((scale, x.shape[:2]))
    if noise is not None:
        shaped.append((noise, (x.shape[0], 1, *x.shape[2:])))
    return shaped


def _same_memory(a, b):
    """Whether tensors of one shape lie alike although their strides differ: those of dimensions of size 1 say nothing."""
    return a.shape == b.shape and all(size == 1 or one == other for size, one, other in zip(a.shape, a.stride(), b.stride()))


def _check(x, like, *shaped):
    """Refuse what would read or write memory of others: a fault of the caller, never of a user. Runs several hundred times per step."""
    shape, strides, dtype = x.shape, x.stride(), x.dtype
    dense = x.is_contiguous() or (len(shape) == 4 and x.is_contiguous(memory_format=torch.channels_last))
    if not dense or not x.is_cpu or dtype not in _DTYPE_NUMBERS or (like.stride() != strides and not _same_memory(like, x)):
        raise ValueError(f"a kernel for CPUs got {dtype} {list(shape)} with strides {strides} on {x.device}")
    for tensor, wanted in shaped:
        dense = (tensor.stride() == strides or _same_memory(tensor, x)) if tensor.shape == shape else tensor.is_contiguous()
        if not dense or not tensor.is_cpu or tensor.dtype != dtype or tensor.shape != wanted:
            raise ValueError(f"a kernel got {tensor.dtype} {list(tensor.shape)} with strides {tensor.stride()} beside {dtype} {list(shape)}")
