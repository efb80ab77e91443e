"""The CUDA kernel of bias_act on a card, against its formula in float64."""

import pytest
import torch

from torch_utils.ops import bias_act, plugins

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
# Of the largest number: a few roundings of the type.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
LAYOUTS = [torch.contiguous_format, torch.channels_last]
ACTS = list(bias_act.activation_funcs)


def randn(card, *shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype).to(card)


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype and actual.is_cuda
    scale = max(1.0, expected.abs().max().item())
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=TOLERANCE[dtype] * scale)


def test_tensors_on_the_card_reach_the_kernel(kernels, card):
    for dtype in DTYPES:
        assert plugins.find("bias_act", "cuda", torch.zeros(1, dtype=dtype, device=card)) is kernels
    assert plugins.find("bias_act", "ref", torch.zeros(1, device=card)) is None
    assert plugins.describe("bias_act", "cuda") == plugins.describe("upfirdn2d", "cuda") == "compiled kernel"


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("act", ACTS)
def test_numbers_and_gradients(kernels, card, act, layout, dtype):
    for shape in ((4, 32, 17, 19), (3, 5, 7, 9), (16, 64, 64, 64)):
        x = randn(card, *shape, dtype=dtype).contiguous(memory_format=layout).requires_grad_()
        b = randn(card, shape[1], seed=1, dtype=dtype).requires_grad_()
        gradient = randn(card, *shape, seed=2, dtype=dtype)
        exact_x, exact_b = (tensor.detach().double().requires_grad_() for tensor in (x, b))
        actual = bias_act.bias_act(x, b, act=act, clamp=2)
        expected = bias_act.bias_act(exact_x, exact_b, act=act, clamp=2, impl="ref")
        assert actual.is_contiguous(memory_format=layout)
        assert_near(actual.detach(), expected.detach(), dtype)
        to_x, to_b = torch.autograd.grad(actual, [x, b], gradient)
        exact_to_x, exact_to_b = torch.autograd.grad(expected, [exact_x, exact_b], gradient.double())
        # At the limits and kinks a rounded z may lie on the other side: those elements have another gradient in any implementation.
        margin = 4 * TOLERANCE[dtype] * 2
        sure = ((expected.abs() - 2).abs() > margin) & (expected.abs() > margin)
        assert_near(to_x * sure, exact_to_x * sure, dtype)
        if dtype in (torch.float64, torch.float32):
            assert_near(to_b, exact_to_b, dtype)


@pytest.mark.parametrize("act", ACTS)
def test_derivatives_of_both_orders(kernels, card, act):
    x, b = randn(card, 2, 3, 2, 2).requires_grad_(), randn(card, 3, seed=1).requires_grad_()
    function = lambda x, b: bias_act.bias_act(x, b, act=act, clamp=1.0)
    # Sums of gradients over several threads' elements come in one order here, so that nothing but rounding differs.
    assert torch.autograd.gradcheck(function, (x, b)) and torch.autograd.gradgradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(lambda x, b: function(x, b).square(), (x, b))


@pytest.mark.parametrize("dtype", DTYPES)
def test_noise_and_demodulation_in_the_same_pass(kernels, card, dtype):
    for layout in LAYOUTS:
        x = randn(card, 3, 8, 6, 10, dtype=dtype).contiguous(memory_format=layout)
        b, scale, noise = (randn(card, *shape, seed=seed, dtype=dtype) for seed, shape in enumerate(([8], [3, 8], [3, 1, 6, 10]), 1))
        actual = kernels.activate(x, b, scale, noise, 1, "lrelu", 0.2, 1.4, 1.5)
        z = x.double() * scale.double()[:, :, None, None] + noise.double() + b.double()[:, None, None]
        assert_near(actual, (torch.nn.functional.leaky_relu(z, 0.2) * 1.4).clamp(-1.5, 1.5), dtype)


def test_odd_shapes_addresses_and_empty_tensors(kernels, card):
    unaligned = torch.empty(1 + 3 * 8, device=card)[1:].view(3, 8).copy_(randn(card, 3, 8))
    for x, dim in ((unaligned, 1), (randn(card, 7, dtype=torch.float32), 0), (randn(card, 5, 3, dtype=torch.float32), -1), (unaligned[:, ::2], 1)):
        b = randn(card, x.shape[dim], seed=3, dtype=torch.float32)
        assert_near(
            bias_act.bias_act(x, b, dim=dim, act="swish"), bias_act.bias_act(x.double(), b.double(), dim=dim, act="swish", impl="ref"), torch.float32
        )
    assert bias_act.bias_act(torch.zeros(0, 3, 4, 4, device=card), torch.zeros(3, device=card), act="lrelu").shape == (0, 3, 4, 4)


def test_more_than_two_to_the_31_elements(kernels, card, room):
    """The last elements lie beyond 32 bits; forward and derivative."""
    images, channels, side = 2, 8, 11600
    count = images * channels * side**2
    assert count > 2**31
    room(4 * count * 2 + 2**30)
    x = torch.zeros(images, channels, side, side, dtype=torch.float16, device=card)
    x[-1, -1, -1] = torch.linspace(-3, 3, side, device=card)
    b = torch.arange(channels, dtype=torch.float16, device=card) / 8
    y = bias_act.bias_act(x.requires_grad_(), b, act="lrelu")
    expected = bias_act.bias_act(x.detach()[-1:, :, -1:].double(), b.double(), act="lrelu", impl="ref")
    assert_near(y.detach()[-1:, :, -1:], expected, torch.float16)
    assert_near(
        y.detach()[:1, :, :1, :64],
        bias_act.bias_act(torch.zeros(1, 8, 1, 64, device=card).double(), b.double(), act="lrelu", impl="ref"),
        torch.float16,
    )
    (to_x,) = torch.autograd.grad(y, x, torch.ones((), dtype=torch.float16, device=card).expand_as(y))
    assert torch.equal(to_x[-1, -1, -1] > 1, y.detach()[-1, -1, -1] > 0)


def test_the_current_stream_is_used(kernels, card):
    """A kernel on another stream would break the recording of a graph, which replays with new numbers otherwise."""
    x, b = randn(card, 2, 8, 16, 16, dtype=torch.float32), randn(card, 8, seed=1, dtype=torch.float32)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        bias_act.bias_act(x, b, act="lrelu")
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.no_grad(), torch.cuda.graph(graph):
        result = bias_act.bias_act(x, b, act="lrelu")
    x.copy_(randn(card, 2, 8, 16, 16, seed=5, dtype=torch.float32))
    graph.replay()
    assert_near(result, bias_act.bias_act(x.double(), b.double(), act="lrelu", impl="ref"), torch.float32)


def test_tensors_on_another_card_than_the_current_one(kernels, several):
    x = torch.linspace(-1, 1, 96, device="cuda:1").view(2, 3, 4, 4)
    with torch.cuda.device(0):
        y = bias_act.bias_act(x, torch.ones(3, device="cuda:1"), act="lrelu")
        assert y.device == x.device and torch.cuda.current_device() == 0
    torch.testing.assert_close(y, bias_act.bias_act(x, torch.ones(3, device="cuda:1"), act="lrelu", impl="ref"))
    with pytest.raises(RuntimeError, match="the bias must be .* on cuda:1"):
        bias_act.bias_act(x, torch.ones(3, device="cuda:0"), act="lrelu")
