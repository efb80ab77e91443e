"""The CUDA kernel of upfirdn2d on a card, against plain PyTorch in float64."""

import pytest
import torch

from torch_utils.ops import plugins, upfirdn2d as ops

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
FILTERS = {
    "1331": [1.0, 3.0, 3.0, 1.0],
    "not separable": [[1.0, 2.0, 0.0], [0.0, 1.0, 5.0]],
    "along each axis": [1.0, 2.0, 0.0, -1.0, 3.0, 1.0, 1.0, 2.0, 5.0],
}


def randn(card, *shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype).to(card)


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype and actual.is_cuda
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=TOLERANCE[dtype] * scale)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", FILTERS)
def test_numbers_and_gradients(kernels, card, name, layout, dtype):
    f = ops.setup_filter(FILTERS[name], device=card)
    for index, (up, down) in enumerate([(2, 1), (1, 2), (1, 1), ([3, 1], [2, 2])]):
        for shape in ((2, 16, 33, 70), (3, 5, 8, 12)):
            x = randn(card, *shape, seed=index, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
            exact = x.detach().double().requires_grad_()
            options = dict(up=up, down=down, padding=[4, 3, 5, 4], gain=2, flip_filter=index % 2 == 1)
            assert plugins.find("upfirdn2d", "cuda", x) is kernels
            actual, expected = ops.upfirdn2d(x, f, **options), ops.upfirdn2d(exact, f.double(), **options, impl="ref")
            assert actual.is_contiguous(memory_format=layout)
            assert_near(actual.detach(), expected.detach(), dtype)
            gradient = randn(card, *actual.shape, seed=9, dtype=dtype)
            (mine,), (theirs,) = torch.autograd.grad(actual, x, gradient), torch.autograd.grad(expected, exact, gradient.double())
            assert_near(mine, theirs, dtype)


@pytest.mark.parametrize("name", FILTERS)
@pytest.mark.parametrize("up, down", [(2, 1), (1, 2), (1, 1)])
def test_derivatives_of_both_orders(kernels, card, name, up, down):
    f = ops.setup_filter(FILTERS[name], device=card).double()
    x = randn(card, 1, 2, 8, 5).requires_grad_()
    function = lambda x: ops.upfirdn2d(x, f, up=up, down=down, padding=[4, 3, 2, 4]).square()
    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


def test_a_filter_that_learns_has_its_gradient(kernels, card):
    x, f = randn(card, 1, 2, 6, 6), ops.setup_filter(FILTERS["1331"], device=card).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda f: ops.upfirdn2d(x, f, up=2, padding=2), f)


def test_views_and_empty_batches(kernels, card):
    f = ops.setup_filter(FILTERS["1331"], device=card)
    base = randn(card, 2, 8, 20, 22, dtype=torch.float32)
    for view in (base[:, :, ::2, 1::3], base[:, ::2], base.transpose(2, 3), base[:1].expand(3, -1, -1, -1), base[:, :, 2:9, 3:10]):
        assert_near(ops.upsample2d(view, f), ops.upsample2d(view.double(), f.double(), impl="ref"), torch.float32)
    assert ops.downsample2d(torch.zeros(0, 3, 8, 8, device=card), f).shape == (0, 3, 4, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_two_to_the_31_elements(kernels, card, room, layout):
    """The last image lies beyond 32 bits; it must come out as it does alone."""
    images, channels, side = 132, 4, 2048
    count = images * channels * side**2
    assert count > 2**31
    room(2 * (count + count // 4) + 2**31)
    x = torch.zeros(images, channels, side, side, dtype=torch.float16, device=card).contiguous(memory_format=layout)
    x[-1] = randn(card, channels, side, side, dtype=torch.float16)
    f = ops.setup_filter(FILTERS["1331"], device=card)
    y = ops.downsample2d(x, f)
    alone = ops.downsample2d(x[-1:].contiguous(memory_format=layout), f)
    torch.testing.assert_close(y[-1:], alone, rtol=0, atol=2e-3)
    assert not y[:-1].any()


def test_the_current_stream_is_used(kernels, card):
    f = ops.setup_filter(FILTERS["1331"], device=card)
    x = randn(card, 2, 8, 16, 16, dtype=torch.float32)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        ops.upsample2d(x, f)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        result = ops.upsample2d(x, f)
    x.copy_(randn(card, 2, 8, 16, 16, seed=5, dtype=torch.float32))
    graph.replay()
    assert_near(result, ops.upsample2d(x.double(), f.double(), impl="ref"), torch.float32)


def test_images_on_another_card_than_the_current_one(kernels, several):
    x, f = torch.linspace(-1, 1, 96, device="cuda:1").view(2, 3, 4, 4), ops.setup_filter(FILTERS["1331"], device="cuda:1")
    with torch.cuda.device(0):
        y = ops.upsample2d(x, f)
        assert y.device == x.device and torch.cuda.current_device() == 0
    torch.testing.assert_close(y, ops.upsample2d(x, f, impl="ref"))


def test_the_same_bits_every_time(kernels, card):
    f = ops.setup_filter(FILTERS["1331"], device=card)
    x = randn(card, 8, 32, 64, 64, dtype=torch.float16)
    results = [ops.downsample2d(x, f) for _ in range(3)]
    assert torch.equal(results[0], results[1]) and torch.equal(results[0], results[2])
