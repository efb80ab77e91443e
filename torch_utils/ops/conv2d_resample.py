"""2-D convolution together with resampling by an FIR filter f.

    up:    spread x by zeros, filter with f, convolve with w, in one
    down:  convolve with w, filter with f, keep every down-th pixel, in one

Filtering and convolving commute, so the order that is cheapest is chosen: large kernels always run on the smaller image.
Must not know about modulation or networks.
"""

from torch_utils.ops import conv2d_gradfix
from torch_utils.ops.upfirdn2d import filter_size, parse_padding, upfirdn2d


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    """x [N,I,H,W], w [O,I/groups,kh,kw], f a filter of upfirdn2d.setup_filter or None -> [N,O,h,w].

    Padding is counted in pixels of the enlarged image and comes on top of what keeps the filter centred.
    flip_weight=True correlates, as torch.nn.functional.conv2d does; False convolves.
    """
    _check_arguments(x, w, up, down, groups)
    padding = _add_filter_border(parse_padding(padding), f, up, down)
    if up > 1:
        x = _enlarge_and_convolve(x, w, f, up, padding, groups, flip_weight, flip_filter)
        return upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x
    if not flip_weight:
        w = w.flip([2, 3])
    if down > 1:
        return _convolve_and_shrink(x, w, f, down, padding, groups, flip_filter)
    return _convolve(x, w, padding, groups)


def _check_arguments(x, w, up, down, groups):
    if x.ndim != 4 or w.ndim != 4 or x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(f"images {list(x.shape)} do not fit weights {list(w.shape)} in {groups} group(s)")
    for name, factor in (("up", up), ("down", down)):
        if not isinstance(factor, int) or factor < 1:
            raise ValueError(f"{name} must be a whole number of at least 1 (got {factor!r})")


def _add_filter_border(padding, f, up, down):
    """Extend the padding so that the filter's centre stays on the pixel that it belongs to."""
    left, right, top, bottom = padding
    width, height = filter_size(f)
    if up > 1:
        left, right = left + (width + up - 1) // 2, right + (width - up) // 2
        top, bottom = top + (height + up - 1) // 2, bottom + (height - up) // 2
    if down > 1:
        left, right = left + (width - down + 1) // 2, right + (width - down) // 2
        top, bottom = top + (height - down + 1) // 2, bottom + (height - down) // 2
    return left, right, top, bottom


def _convolve(x, w, padding, groups):
    left, right, top, bottom = padding
    if left == right >= 0 and top == bottom >= 0:
        return conv2d_gradfix.conv2d(x, w, padding=(top, left), groups=groups)
    return conv2d_gradfix.conv2d(upfirdn2d(x, None, padding=list(padding)), w, groups=groups)


def _enlarge_and_convolve(x, w, f, up, padding, groups, flip_weight, flip_filter):
    """A transposed convolution by w on the small image, then the filter."""
    left, right, top, bottom = padding
    out_channels, _, height, width = map(int, w.shape)  # numbers also while a trace is recorded
    if height == width == 1:  # nothing to flip
        x = conv2d_gradfix.conv2d(x, w, groups=groups)
        return upfirdn2d(x, f, up=up, padding=list(padding), gain=up**2, flip_filter=flip_filter)
    # [O, I/groups] -> [I, O/groups]. With these conv_transpose2d convolves; turned by 180 degrees they make it correlate.
    w = w.unflatten(0, [groups, out_channels // groups]).transpose(1, 2).flatten(0, 1)
    if flip_weight:
        w = w.flip([2, 3])
    x = conv2d_gradfix.conv_transpose2d(x, w, stride=up, groups=groups)
    # The transposed convolution has already widened the image by its kernel, less the zeros after the last pixel.
    padding = [left - (width - 1), right - (width - up), top - (height - 1), bottom - (height - up)]
    return upfirdn2d(x, f, padding=padding, gain=up**2, flip_filter=flip_filter)


def _convolve_and_shrink(x, w, f, down, padding, groups, flip_filter):
    """The filter, then a convolution by w at those pixels only that are kept."""
    if w.shape[2] == w.shape[3] == 1:
        x = upfirdn2d(x, f, down=down, padding=list(padding), flip_filter=flip_filter)
        return conv2d_gradfix.conv2d(x, w, groups=groups)
    x = upfirdn2d(x, f, padding=list(padding), flip_filter=flip_filter)
    return conv2d_gradfix.conv2d(x, w, stride=down, groups=groups)
