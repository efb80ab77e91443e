import torch

from torch_utils.ops import upfirdn2d


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    a, b, c, d = upfirdn2d._four(padding)
    fw, fh = upfirdn2d.size_of(f)
    if up > 1:
        a, b, c, d = a + (fw + up - 1) // 2, b + (fw - up) // 2, c + (fh + up - 1) // 2, d + (fh - up) // 2
    if down > 1:
        a, b, c, d = a + (fw - down + 1) // 2, b + (fw - down) // 2, c + (fh - down + 1) // 2, d + (fh - down) // 2
    x = upfirdn2d.upfirdn2d(x, f if up > 1 else None, up=up, padding=[a, b, c, d], gain=up**2, flip_filter=flip_filter)
    x = torch.nn.functional.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d.upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x
