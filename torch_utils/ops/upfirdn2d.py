"""Resampling of images by zero insertion, padding, an FIR filter and decimation.

Must not know about convolution weights or networks. Paddings, like torch.nn.functional.pad, come as
[left, right, top, bottom]; factors as one number or [horizontal, vertical]. Negative padding crops.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from torch_utils.ops import fir_matrices, plugins, upfirdn2d_kernel

# Filled when the compiled kernel is looked up for the first time.
_inited = False
_plugin = None

# From this many taps on, two 1-D passes beat one 2-D pass.
SEPARABLE_FROM_TAPS = 8


def setup_filter(f, device=torch.device("cpu"), normalize=True, flip_filter=False, gain=1, separable=None):
    """Numbers, a 1-D list or a 2-D array -> float32 filter, [taps] when applied along both axes in turn, else [rows, columns]."""
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"a filter has one or two dimensions and at least one tap (got shape {list(f.shape)})")
    if f.ndim == 0:
        f = f[None]
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= SEPARABLE_FROM_TAPS
    if f.ndim == 1 and not separable:
        f = f.outer(f)
    if separable and f.ndim != 1:
        raise ValueError(f"a separable filter is given as one row of taps (got shape {list(f.shape)})")
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(list(range(f.ndim)))
    # A 1-D filter acts twice, once per axis, so each pass carries the square root of the gain.
    f = f * gain ** (f.ndim / 2)
    return f.to(device)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """x [N,C,H,W] -> every down-th pixel of: x with up-1 zeros after each pixel, padded, convolved with gain * f.

    f is a filter of setup_filter, or None for a single tap of 1. flip_filter=True correlates instead of convolving.
    """
    spec = _Resampling(parse_factors(up, "up"), parse_factors(down, "down"), parse_padding(padding), flip_filter, gain)
    _check_arguments(x, f, spec)
    kernel = plugins.find("upfirdn2d", impl, x)
    if f is None or f.numel() == 1:
        result = _without_filter(x, f, spec)
    elif kernel is not None and kernel.TAKES_FILTERS and f.device == x.device and not f.requires_grad:
        return kernel.upfirdn2d(x, f, *spec)
    elif _may_look_at(x, f) and (plans := _axis_plans(x.dtype, f, spec)):
        if kernel is not None and not fir_matrices.is_one_small_product(x, *plans):
            return upfirdn2d_kernel.resample(kernel, x, *plans)
        result = fir_matrices.resample(x, *plans)
    else:
        result = _by_convolution(x, f, spec)
    if x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous():
        result = result.contiguous(memory_format=torch.channels_last)
    return result


class _Resampling(NamedTuple):
    """The arguments of upfirdn2d, spelled out: (horizontal, vertical) factors, four paddings."""

    up: tuple[int, int]
    down: tuple[int, int]
    padding: tuple[int, int, int, int]
    flip_filter: bool
    gain: float


def _check_arguments(x, f, spec):
    if x.ndim != 4 or not x.is_floating_point():
        raise ValueError(f"images come as floating-point [N, C, H, W] (got {x.dtype} {list(x.shape)})")
    if f is not None and (f.ndim not in (1, 2) or f.numel() == 0 or not f.is_floating_point()):
        raise ValueError(f"a filter is a floating-point tensor of one or two dimensions (got {f.dtype} {list(f.shape)}); see setup_filter")
    left, right, top, bottom = spec.padding
    padded = (x.shape[3] * spec.up[0] + left + right, x.shape[2] * spec.up[1] + top + bottom)
    covered = filter_size(f)
    if padded[0] < covered[0] or padded[1] < covered[1]:
        raise ValueError(
            f"after enlarging and padding the image is {padded[0]} x {padded[1]} pixels, less than the {covered[0]} x {covered[1]} of the filter"
        )


def _may_look_at(x, f):
    """Whether the filter's numbers can be read at once: on the CPU, and not while a program of the network is recorded (torch.export)."""
    return x.device.type == "cpu" and f.device.type == "cpu" and not f.requires_grad and not torch.compiler.is_compiling()


def _axis_plans(dtype, f, spec):
    """The two axes' plans where f is separable to the accuracy of dtype, else None."""
    return _plans_of_taps(tuple(f.flatten().tolist()), f.shape, f.dtype, dtype, spec)


@lru_cache(maxsize=128)
def _plans_of_taps(taps, shape, filter_dtype, dtype, spec):
    """_axis_plans() of a filter's numbers: a network has a few filters and asks for each in every layer."""
    f = _scaled(torch.tensor(taps, dtype=filter_dtype, device="cpu").reshape(shape), spec)
    if not spec.flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 1:
        taps_y = taps_x = tuple(f.tolist())
    else:
        factors = fir_matrices.separate(tuple(map(tuple, f.tolist())), tolerance=torch.finfo(dtype).eps)
        if factors is None:
            return None
        taps_y, taps_x = factors
    left, right, top, bottom = spec.padding
    return (
        fir_matrices.AxisPlan(taps_y, spec.up[1], spec.down[1], top, bottom),
        fir_matrices.AxisPlan(taps_x, spec.up[0], spec.down[0], left, right),
    )


def _scaled(f, spec):
    """f with the gain in it. A 1-D filter acts twice, so each pass carries the square root."""
    return f if spec.gain == 1 else f * spec.gain ** (f.ndim / 2)


def _spread_and_pad(x, spec):
    """Insert the zeros of `up`, then pad or crop."""
    upx, upy = spec.up
    if upx > 1 or upy > 1:
        x = F.pad(x[:, :, :, None, :, None], [0, upx - 1, 0, 0, 0, upy - 1]).flatten(4, 5).flatten(2, 3)
    # PyTorch crops before it pads, and would refuse to crop more than the image has on a side.
    if max(spec.padding) > 0:
        x = F.pad(x, [max(amount, 0) for amount in spec.padding])
    return F.pad(x, [min(amount, 0) for amount in spec.padding]) if min(spec.padding) < 0 else x


def _without_filter(x, f, spec):
    """The case of a single tap."""
    x = _spread_and_pad(x, spec)[:, :, :: spec.down[1], :: spec.down[0]]
    if f is None:
        return x if spec.gain == 1 else x * spec.gain
    tap = f.to(x.dtype).reshape([]) ** (2 if f.ndim == 1 else 1)
    return x * (tap * spec.gain)


def _by_convolution(x, f, spec):
    """Any filter on any device, differentiable in the filter too."""
    x = _spread_and_pad(x, spec)
    f = _scaled(f, spec).to(x.dtype)
    if not spec.flip_filter:
        f = f.flip(list(range(f.ndim)))
    channels = x.shape[1]
    downx, downy = spec.down
    passes = [(f[None, :], (1, downx)), (f[:, None], (downy, 1))] if f.ndim == 1 else [(f, (downy, downx))]
    for taps, stride in passes:
        x = F.conv2d(x, taps.expand(channels, 1, *taps.shape), stride=stride, groups=channels)
    return x


def filter2d(x, f, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Filter without resampling; with padding=0 the result has the size of x."""
    width, height = filter_size(f)
    left, right, top, bottom = parse_padding(padding)
    p = [left + width // 2, right + (width - 1) // 2, top + height // 2, bottom + (height - 1) // 2]
    return upfirdn2d(x, f, padding=p, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Enlarge by `up`; the filter is scaled so that brightness stays. Extra padding is counted in output pixels."""
    upx, upy = parse_factors(up, "up")
    left, right, top, bottom = parse_padding(padding)
    width, height = filter_size(f)
    p = [left + (width + upx - 1) // 2, right + (width - upx) // 2, top + (height + upy - 1) // 2, bottom + (height - upy) // 2]
    return upfirdn2d(x, f, up=up, padding=p, flip_filter=flip_filter, gain=gain * upx * upy, impl=impl)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    """Shrink by `down`. Extra padding is counted in input pixels."""
    downx, downy = parse_factors(down, "down")
    left, right, top, bottom = parse_padding(padding)
    width, height = filter_size(f)
    p = [left + (width - downx + 1) // 2, right + (width - downx) // 2, top + (height - downy + 1) // 2, bottom + (height - downy) // 2]
    return upfirdn2d(x, f, down=down, padding=p, flip_filter=flip_filter, gain=gain, impl=impl)


def parse_factors(factor, name="factor"):
    """One number or [horizontal, vertical] -> (horizontal, vertical)."""
    values = [factor, factor] if isinstance(factor, int) else list(factor)
    if len(values) != 2 or not all(isinstance(value, int) and value >= 1 for value in values):
        raise ValueError(f"{name} must be one or two whole numbers of at least 1 (got {factor!r})")
    return tuple(values)


def parse_padding(padding):
    """One number, [horizontal, vertical] or [left, right, top, bottom] -> the four numbers."""
    values = [padding, padding] if isinstance(padding, int) else list(padding)
    if len(values) == 2:
        horizontal, vertical = values
        values = [horizontal, horizontal, vertical, vertical]
    if len(values) != 4 or not all(isinstance(value, int) for value in values):
        raise ValueError(f"padding must be 1, 2 or 4 whole numbers (got {padding!r})")
    return tuple(values)


def filter_size(f):
    """(width, height) of the region that a filter covers."""
    if f is None:
        return 1, 1
    return int(f.shape[-1]), int(f.shape[0])  # numbers also while a trace is recorded
