"""Shows the extractor a random view of each image, so that G cannot please it with adversarial texture.

Differentiable; drawn from the caller's generator. The reference features see views from the same distribution, or the
coverage term would not vanish at p_g = p_data.
"""

from collections.abc import Collection

import torch


def apply(images: torch.Tensor, parts: Collection[str], generator: torch.Generator) -> torch.Tensor:
    """Take a random view of each image [N, C, H, W]."""
    if not parts:
        return images
    N, _, height, width = images.shape
    draws = torch.rand([N, 4], generator=generator)
    scale = torch.ones([N])
    if "crop" in parts:
        scale = 1 - 0.125 * draws[:, 0]  # down to 7/8 of the side, enlarged to the full side again
    shift = torch.zeros([N, 2])
    if "shift" in parts:
        # Whole pixels: resampling between pixels would blur, and blur is a texture of its own.
        sizes = torch.tensor([width, height])
        shift = (draws[:, 1:3] * 2 - 1) / 8
        shift = (shift * sizes).round() / sizes * 2
    if "crop" in parts:
        shift = shift.clamp(-1, 1) + (draws[:, 1:3] * 2 - 1) * (1 - scale)[:, None]
    flip = torch.where(draws[:, 3] < 0.5, -1.0, 1.0) if "flip" in parts else torch.ones([N])
    transform = torch.zeros([N, 2, 3])
    transform[:, 0, 0], transform[:, 1, 1] = scale * flip, scale
    transform[:, :, 2] = shift
    grid = torch.nn.functional.affine_grid(transform.to(images.device), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images.to(torch.float32), grid, mode="bilinear", padding_mode="reflection", align_corners=False)
