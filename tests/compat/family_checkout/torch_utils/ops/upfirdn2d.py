import torch


def _pair(value):
    return (value, value) if isinstance(value, int) else tuple(value)


def _four(padding):
    values = _pair(padding)
    return values if len(values) == 4 else (values[0], values[0], values[1], values[1])


def size_of(f):
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def setup_filter(f, device=torch.device("cpu"), normalize=True, flip_filter=False, gain=1, separable=None):
    f = torch.tensor([1] if f is None else f, dtype=torch.float32)
    if separable is None:
        separable = f.ndim == 1 and len(f) >= 8
    if f.ndim == 1 and not separable:
        f = f[:, None] * f[None, :]
    return (f / f.sum() * gain ** (f.ndim / 2)).to(device)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    (ux, uy), (dx, dy) = _pair(up), _pair(down)
    n, c, h, w = x.shape
    sparse = x.new_zeros([n, c, h * uy, w * ux])
    sparse[:, :, ::uy, ::ux] = x
    sparse = torch.nn.functional.pad(sparse, _four(padding))
    f = torch.ones(1, 1) if f is None else f
    f = f[:, None] * f[None, :] if f.ndim == 1 else f
    f = (f if flip_filter else f.flip([0, 1])).to(x.dtype) * gain
    return torch.nn.functional.conv2d(sparse, f.expand(c, 1, *f.shape), groups=c)[:, :, ::dy, ::dx]


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    (ux, uy), (w, h), (a, b, c, d) = _pair(up), size_of(f), _four(padding)
    padding = [a + (w + ux - 1) // 2, b + (w - ux) // 2, c + (h + uy - 1) // 2, d + (h - uy) // 2]
    return upfirdn2d(x, f, up=up, padding=padding, flip_filter=flip_filter, gain=gain * ux * uy)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    (dx, dy), (w, h), (a, b, c, d) = _pair(down), size_of(f), _four(padding)
    padding = [a + (w - dx + 1) // 2, b + (w - dx) // 2, c + (h - dy + 1) // 2, d + (h - dy) // 2]
    return upfirdn2d(x, f, down=down, padding=padding, flip_filter=flip_filter, gain=gain)
