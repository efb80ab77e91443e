"""Bilinear sampling of images at given places, with derivatives of every order in the image and in the places.

Convention: zeros outside the image, align_corners=False. Must not know about augmentation.
"""
import torch
import torch.nn.functional as F

# Scripts written for this interface set `enabled`; results are the same whichever value it has.
enabled = False


def grid_sample(input, grid):
    """input [N,C,H,W], grid [N,h,w,2] with (x, y) in [-1, 1] -> [N,C,h,w]."""
    height, width = input.shape[2:]
    channels = input.shape[1]
    x = ((grid[..., 0] + 1) * width - 1) / 2
    y = ((grid[..., 1] + 1) * height - 1) / 2
    left, top = x.detach().floor(), y.detach().floor()
    flat = input.flatten(2)
    result = 0
    for column, weight_x in ((left, left + 1 - x), (left + 1, x - left)):
        for row, weight_y in ((top, top + 1 - y), (top + 1, y - top)):
            inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
            index = (row.clamp(0, height - 1) * width + column.clamp(0, width - 1)).long()
            corner = flat.gather(2, index.flatten(1).unsqueeze(1).expand(-1, channels, -1)).unflatten(2, index.shape[1:])
            result = result + corner * (weight_x * weight_y * inside).unsqueeze(1)
    return result
