"""The C++ kernel of upfirdn2d against plain PyTorch: all factors, paddings, sizes, layouts, types, and derivatives of both orders."""

import itertools

import pytest
import torch

from torch_utils.ops import fir_matrices, upfirdn2d as ops

TOLERANCES = {torch.float64: dict(rtol=1e-12, atol=1e-12), torch.float32: dict(rtol=1e-5, atol=1e-5), torch.bfloat16: dict(rtol=2e-2, atol=2e-2)}
LAYOUTS = (torch.contiguous_format, torch.channels_last)


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture
def only_kernels(cpu_kernels, monkeypatch):
    """The calls of the kernel, which does small images as well here, that a matrix product would do faster."""
    monkeypatch.setattr(fir_matrices, "is_one_small_product", lambda *_: False)
    calls = []
    resample = cpu_kernels.resample
    monkeypatch.setattr(cpu_kernels, "resample", lambda *arguments: calls.append(arguments) or resample(*arguments))
    return calls


@pytest.mark.parametrize("taps", [[1.0, 3.0, 3.0, 1.0], [2.0, -1.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]], ids=len)
@pytest.mark.parametrize("up", [1, 2, 3])
@pytest.mark.parametrize("down", [1, 2, 3])
def test_equals_plain_pytorch(only_kernels, taps, up, down):
    f = torch.tensor(taps, dtype=torch.float64)
    done = 0
    for (height, width), padding, separable in itertools.product(
        [(1, 1), (4, 4), (7, 9), (16, 33)], [[0] * 4, [2, 1, 2, 1], [5, 9, 0, 4], [-1, 3, 2, -2], [-2, -1, -1, -2], [12, 12, 12, 12]], [True, False]
    ):
        left, right, top, bottom = padding
        if min(width * up + left + right, height * up + top + bottom) < len(taps):
            continue
        for layout in LAYOUTS:
            x = numbers(2, 3, height, width).contiguous(memory_format=layout)
            filter_ = f if separable else f.outer(f.flip(0))
            options = dict(up=up, down=[down, 1] if separable else down, padding=padding, gain=1.7, flip_filter=separable)
            ours, plain = (ops.upfirdn2d(x, filter_, impl=impl, **options) for impl in ("cuda", "ref"))
            torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
            assert ours.is_contiguous(memory_format=layout) or height == width == 1
            done += 1
    assert len(only_kernels) == done > 20


@pytest.mark.parametrize("channels", [16, 35])
def test_channels_side_by_side(only_kernels, channels):
    """In blocks of 16 and what is left of them, at borders, and for cropped images."""
    x = numbers(2, channels, 5, 6).contiguous(memory_format=torch.channels_last)
    for taps, (up, down), padding in itertools.product(
        ([1.0, 3.0, 3.0, 1.0], [2.0, -1.0], [1.0, 2.0, 4.0, 8.0, 16.0]), ((1, 1), (2, 1), (1, 2), (3, 2)), ([0] * 4, [2, 1, 3, 2], [-1, 3, 2, -1])
    ):
        f = torch.tensor(taps, dtype=torch.float64)
        if min(6 * up + sum(padding[:2]), 5 * up + sum(padding[2:])) >= len(taps):
            ours, plain = (ops.upfirdn2d(x, f, up=up, down=down, padding=padding, impl=impl) for impl in ("cuda", "ref"))
            torch.testing.assert_close(ours, plain, rtol=1e-12, atol=1e-12)
    assert len(only_kernels) > 25


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_type_is_the_double_rounded_once(only_kernels, dtype):
    f = ops.setup_filter([1, 3, 3, 1])
    for layout, function in itertools.product(LAYOUTS, (ops.filter2d, ops.upsample2d, ops.downsample2d)):
        for size in (4, 8, 31, 64):
            x = numbers(2, 5, size, size).to(dtype).contiguous(memory_format=layout)
            ours = function(x, f)
            assert ours.dtype == dtype and ours.is_contiguous(memory_format=layout)
            torch.testing.assert_close(ours.double(), function(x.double(), f, impl="ref"), rtol=2**-8 if dtype == torch.bfloat16 else 1e-6, atol=1e-6)


@pytest.mark.parametrize("layout", LAYOUTS, ids=str)
def test_derivatives_by_finite_differences(only_kernels, layout):
    for up, down, padding in ((1, 1, [2, 1, 2, 1]), (2, 1, [2, 1, -1, 3]), (1, 2, [1, 1, 1, 1]), (2, 3, [4, 0, 1, 2]), (3, 2, [-2, 1, 0, 0])):
        x = numbers(1, 2, 5, 4).contiguous(memory_format=layout).requires_grad_()
        f = torch.tensor([1.0, -3.0, 2.0], dtype=torch.float64)
        function = lambda x: ops.upfirdn2d(x, f, up=up, down=down, padding=padding, gain=2)
        assert torch.autograd.gradcheck(function, x)
        assert torch.autograd.gradgradcheck(lambda x: function(x).square(), x)


def test_transposed_plan_is_the_transposed_matrix():
    for up, down, before, after, size, taps in itertools.product(
        (1, 2, 3), (1, 2, 3), (-2, 0, 5), (-1, 0, 4), (4, 7), ((1.0,), (1.0, 2.0, 5.0, 7.0))
    ):
        plan = fir_matrices.AxisPlan(taps, up, down, before, after)
        if size * up + before + after < len(taps):
            continue
        matrix = fir_matrices.axis_matrix(plan, size, torch.float64)
        back = plan.transposed(size)
        assert back.size_out(matrix.shape[0]) == size
        assert torch.equal(fir_matrices.axis_matrix(back, matrix.shape[0], torch.float64), matrix.t())


def test_what_the_kernel_does_not_serve_is_as_before(only_kernels):
    x, full = numbers(1, 2, 6, 6), numbers(3, 3, seed=1)
    learned = torch.ones(2, dtype=torch.float64, requires_grad=True)
    for f in (full, None, torch.ones(1, dtype=torch.float64), learned):
        assert torch.equal(ops.upfirdn2d(x, f, padding=1), ops.upfirdn2d(x, f, padding=1, impl="ref"))
    assert torch.equal(ops.upsample2d(x.half(), ops.setup_filter([1, 3, 3, 1])), ops.upsample2d(x.half(), ops.setup_filter([1, 3, 3, 1]), impl="ref"))
    assert not only_kernels


def test_any_strides_and_no_images(only_kernels):
    f = ops.setup_filter([1, 3, 3, 1])
    x = numbers(3, 8, 9, 4).permute(0, 3, 1, 2)[:, 1:, ::2]
    torch.testing.assert_close(ops.upsample2d(x, f), ops.upsample2d(x, f, impl="ref"), rtol=1e-12, atol=1e-12)
    for shape in ((0, 3, 8, 8), (2, 0, 8, 8)):
        x = torch.zeros(shape, requires_grad=True)
        y = ops.downsample2d(x, f)
        y.sum().backward()
        assert y.shape == (*shape[:2], 4, 4) and x.grad.shape == shape


def test_small_images_are_one_product(cpu_kernels, monkeypatch):
    monkeypatch.setattr(cpu_kernels, "resample", lambda *_: pytest.fail("the kernel was called"))
    f, x = ops.setup_filter([1, 3, 3, 1]), numbers(2, 3, 4, 4)
    assert torch.equal(ops.upsample2d(x, f), ops.upsample2d(x, f, impl="ref"))


def test_same_bits_for_any_number_of_threads(cpu_kernels):
    before, results = torch.get_num_threads(), []
    f = ops.setup_filter([1, 3, 3, 1])
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            for layout in LAYOUTS:
                x = numbers(4, 16, 32, 32).float().contiguous(memory_format=layout).requires_grad_()
                y = ops.upsample2d(x, f)
                results.append((y, *torch.autograd.grad(y.square().sum(), x)))
    finally:
        torch.set_num_threads(before)
    for later in (results[2:4], results[4:6]):
        assert all(torch.equal(a, b) for now, first in zip(later, results[:2]) for a, b in zip(now, first))


def test_networks_are_recorded_without_kernels(cpu_kernels):
    """A trace holds PyTorch's operators, which another machine has too."""
    f = ops.setup_filter([1, 3, 3, 1])
    traced = torch.jit.trace(lambda x: ops.upsample2d(x, f), torch.zeros(1, 2, 8, 8))
    x = torch.randn(1, 2, 8, 8)
    torch.testing.assert_close(traced(x), ops.upsample2d(x, f))
