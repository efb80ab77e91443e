"""Bilinear sampling: values as PyTorch's, derivatives of both orders in image and places."""

import pytest
import torch
import torch.nn.functional as F

from torch_utils.ops.grid_sample_gradfix import grid_sample


def image_and_grid(seed, batch=2, size=(3, 4), places=(2, 3), spread=1.3):
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(batch, 2, *size, dtype=torch.float64, generator=generator)
    grid = (torch.rand(batch, *places, 2, dtype=torch.float64, generator=generator) * 2 - 1) * spread
    # Keep off the kinks, which lie on whole pixels, so that finite differences mean something.
    pixels = ((grid + 1) * torch.tensor([size[1], size[0]]) - 1) / 2
    fraction = pixels - pixels.floor()
    pixels = pixels.floor() + fraction.clamp(0.05, 0.95)
    return image, (pixels * 2 + 1) / torch.tensor([size[1], size[0]]) - 1


def test_values_and_first_derivatives_are_pytorchs():
    image, grid = image_and_grid(0, size=(7, 5), places=(9, 8))
    results = []
    for function in (grid_sample, lambda i, g: F.grid_sample(i, g, mode="bilinear", padding_mode="zeros", align_corners=False)):
        i, g = image.clone().requires_grad_(), grid.clone().requires_grad_()
        values = function(i, g)
        results.append((values, *torch.autograd.grad(values.square().sum(), [i, g])))
    for ours, theirs in zip(*results):
        assert torch.allclose(ours, theirs, atol=1e-12)
    assert torch.equal(grid_sample(image, grid), results[1][0])


@pytest.mark.parametrize("seed", range(3))
def test_derivatives_of_both_orders_in_image_and_grid(seed):
    image, grid = (tensor.requires_grad_() for tensor in image_and_grid(seed))
    assert torch.autograd.gradcheck(grid_sample, (image, grid))
    assert torch.autograd.gradgradcheck(grid_sample, (image, grid))
    squared = lambda i, g: grid_sample(i, g).square()
    assert torch.autograd.gradgradcheck(squared, (image, grid))


def test_derivatives_with_a_fixed_grid_or_a_fixed_image():
    image, grid = image_and_grid(5)
    assert torch.autograd.gradgradcheck(lambda i: grid_sample(i, grid).pow(3), image.clone().requires_grad_())
    assert torch.autograd.gradgradcheck(lambda g: grid_sample(image, g).pow(3), grid.clone().requires_grad_())


def test_penalty_on_the_image_gradient_trains_what_made_the_image():
    image, grid = image_and_grid(6)
    scale = torch.ones(1, 2, 1, 1, dtype=torch.float64, requires_grad=True)
    image.requires_grad_()
    (first,) = torch.autograd.grad((grid_sample(image * scale, grid) ** 2).sum(), image, create_graph=True)
    (to_scale,) = torch.autograd.grad(first.square().sum(), scale)
    assert to_scale.abs().min() > 0
    # first = scale^2 * const, so d |first|^2 / d scale = 4 |first|^2 / scale per channel.
    assert torch.allclose(to_scale.flatten(), 4 * first.detach().square().sum(dim=[0, 2, 3]))


def test_outside_is_zero_and_empty_is_empty():
    image = torch.ones(1, 1, 4, 4)
    far = torch.full([1, 2, 2, 2], 5.0)
    assert torch.equal(grid_sample(image.requires_grad_(), far), torch.zeros(1, 1, 2, 2))
    assert grid_sample(torch.zeros(0, 3, 4, 4), torch.zeros(0, 2, 2, 2)).shape == (0, 3, 2, 2)


def test_bad_arguments():
    with pytest.raises(ValueError, match="images .N,C,H,W. and places"):
        grid_sample(torch.zeros(1, 1, 4, 4), torch.zeros(1, 2, 2, 3))
    with pytest.raises(ValueError, match="images"):
        grid_sample(torch.zeros(2, 1, 4, 4), torch.zeros(1, 2, 2, 2))
