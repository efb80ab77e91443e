"""2-D convolution together with resampling by an FIR filter.

    up:    enlarge with the filter, then convolve         down:  convolve, then shrink with the filter

Must not know about modulation or networks.
"""
from torch_utils.ops import conv2d_gradfix, upfirdn2d


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """x [N,I,H,W], w [O,I/groups,kh,kw], f a filter of upfirdn2d.setup_filter -> [N,O,h,w].

    Padding is counted in pixels of the enlarged image. flip_weight=True correlates, as torch.nn.functional.conv2d does;
    False convolves.
    """
    left, right, top, bottom = upfirdn2d.parse_padding(padding)
    width, height = upfirdn2d.filter_size(f)
    if up > 1:
        left, right = left + (width + up - 1) // 2, right + (width - up) // 2
        top, bottom = top + (height + up - 1) // 2, bottom + (height - up) // 2
    if down > 1:
        left, right = left + (width - down + 1) // 2, right + (width - down) // 2
        top, bottom = top + (height - down + 1) // 2, bottom + (height - down) // 2
    if not flip_weight:
        w = w.flip([2, 3])
    x = upfirdn2d.upfirdn2d(x, f if up > 1 else None, up=up, padding=[left, right, top, bottom], gain=up ** 2, flip_filter=flip_filter)
    x = conv2d_gradfix.conv2d(x, w, groups=groups)
    if down > 1:
        x = upfirdn2d.upfirdn2d(x, f, down=down, flip_filter=flip_filter)
    return x
