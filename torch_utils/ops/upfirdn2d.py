"""Resampling of images by zero insertion, padding, an FIR filter and decimation.

Must not know about convolution weights or networks. Paddings, like torch.nn.functional.pad, come as
[left, right, top, bottom]; factors as one number or [horizontal, vertical]. Negative padding crops.
"""
import torch
import torch.nn.functional as F

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
    """x [N,C,H,W] -> keep every down-th pixel of: x with up-1 zeros after each pixel, padded, convolved with gain * f."""
    upx, upy = parse_factors(up, "up")
    downx, downy = parse_factors(down, "down")
    padx0, padx1, pady0, pady1 = parse_padding(padding)
    if f is None:
        f = torch.ones([1, 1], dtype=torch.float32, device=x.device)
    channels = x.shape[1]
    if upx > 1 or upy > 1:
        x = F.pad(x.unflatten(2, [x.shape[2], 1]).unsqueeze(5), [0, upx - 1, 0, 0, 0, upy - 1]).flatten(4, 5).flatten(2, 3)
    x = F.pad(x, [padx0, padx1, pady0, pady1])
    f = (f * gain ** (f.ndim / 2)).to(x.dtype)
    if not flip_filter:
        f = f.flip(list(range(f.ndim)))
    if f.ndim == 1:
        x = F.conv2d(x, f[None, None, None, :].repeat(channels, 1, 1, 1), groups=channels)
        x = F.conv2d(x, f[None, None, :, None].repeat(channels, 1, 1, 1), groups=channels)
    else:
        x = F.conv2d(x, f[None, None].repeat(channels, 1, 1, 1), groups=channels)
    return x[:, :, ::downy, ::downx]


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
    horizontal, vertical = (factor, factor) if isinstance(factor, int) else factor
    if not (isinstance(horizontal, int) and isinstance(vertical, int) and horizontal >= 1 and vertical >= 1):
        raise ValueError(f"{name} must be one or two whole numbers of at least 1 (got {factor!r})")
    return horizontal, vertical


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
    return f.shape[-1], f.shape[0]
