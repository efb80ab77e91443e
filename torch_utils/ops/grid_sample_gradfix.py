"""Bilinear sampling of images at given places, with derivatives of every order in the image and in the places.

Convention: zeros outside the image, align_corners=False. PyTorch's own operator has first derivatives only. Sampling is linear
in the image, so its derivative in the image (spreading values back) and sampling are each other's derivatives; the derivative
in the places is written out over the four neighbours. Must not know about augmentation.
"""

import torch
import torch.nn.functional as F

# Scripts written for this interface set `enabled`; results are the same whichever value it has.
enabled = False

# The numbers that PyTorch's internal operators use for these modes.
_BILINEAR = 0
_ZEROS = 0


def grid_sample(input, grid):
    """input [N,C,H,W], grid [N,h,w,2] holding (x, y), -1..1 from edge to edge of the image -> [N,C,h,w]."""
    if input.ndim != 4 or grid.ndim != 4 or grid.shape[3] != 2 or input.shape[0] != grid.shape[0]:
        raise ValueError(f"grid_sample takes images [N,C,H,W] and places [N,h,w,2] (got {list(input.shape)} and {list(grid.shape)})")
    if torch.is_grad_enabled() and (input.requires_grad or grid.requires_grad):
        return _Sample.apply(input, grid)
    return _sample(input, grid)


def _sample(image, grid):
    return F.grid_sample(image, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _Sample(torch.autograd.Function):
    """image, grid -> values at the grid's places."""

    @staticmethod
    def forward(ctx, image, grid):
        ctx.save_for_backward(image, grid)
        return _sample(image, grid)

    @staticmethod
    def backward(ctx, weights):
        image, grid = ctx.saved_tensors
        to_image = _Spread.apply(weights, grid, image.shape) if ctx.needs_input_grad[0] else None
        to_grid = _pull_on_grid(weights, image, grid) if ctx.needs_input_grad[1] else None
        return to_image, to_grid


class _Spread(torch.autograd.Function):
    """values at the grid's places, grid -> an image to which each value is added over its four neighbours."""

    @staticmethod
    def forward(ctx, values, grid, image_shape):
        ctx.save_for_backward(values, grid)
        image = values.new_zeros([]).expand(image_shape)
        return torch.ops.aten.grid_sampler_2d_backward(values, image, grid, _BILINEAR, _ZEROS, False, [True, False])[0]

    @staticmethod
    def backward(ctx, image):
        # <image, spread(values)> = <sample(image), values>, so both derivatives are those of sampling.
        values, grid = ctx.saved_tensors
        to_values = _Sample.apply(image, grid) if ctx.needs_input_grad[0] else None
        to_grid = _pull_on_grid(values, image, grid) if ctx.needs_input_grad[1] else None
        return to_values, to_grid, None


def _pull_on_grid(weights, image, grid):
    """d <weights, sample(image, grid)> / d grid, [N,h,w,2], in operators that PyTorch can differentiate again.

    With the fractions p, q of a place between its neighbours v00 v01 / v10 v11 (row, column) the sample is
    (1-q) ((1-p) v00 + p v01) + q ((1-p) v10 + p v11).
    """
    height, width = image.shape[2:]
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    p, q = (x - left).unsqueeze(1), (y - top).unsqueeze(1)
    v00, v01, v10, v11 = (_pixels(image, top + down, left + right) for down in (0, 1) for right in (0, 1))
    along_x = (1 - q) * (v01 - v00) + q * (v11 - v10)
    along_y = (1 - p) * (v10 - v00) + p * (v11 - v01)
    return torch.stack([(weights * along_x).sum(1) * (width / 2), (weights * along_y).sum(1) * (height / 2)], dim=-1)


def _pixels(image, row, column):
    """image [N,C,H,W] at whole-numbered row, column [N,h,w]; zero outside -> [N,C,h,w]."""
    height, width = image.shape[2:]
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
    values = image.flatten(2).gather(2, index.flatten(1).unsqueeze(1).expand(-1, image.shape[1], -1))
    return values.unflatten(2, index.shape[1:]) * inside.unsqueeze(1)
