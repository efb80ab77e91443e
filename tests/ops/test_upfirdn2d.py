"""upfirdn2d against its definition, spelled out in numpy, and against the golden numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torch_utils.ops import fir_matrices, upfirdn2d as ops


def brute_force(x, f, up=(1, 1), down=(1, 1), padding=(0, 0, 0, 0), flip_filter=False, gain=1.0):
    """The definition, pixel by pixel: insert zeros, pad or crop, convolve, keep every down-th pixel. f is [rows, columns]."""
    images, channels, height, width = x.shape
    spread = np.zeros([images, channels, height * up[1], width * up[0]])
    spread[:, :, :: up[1], :: up[0]] = x
    left, right, top, bottom = padding
    grown = np.pad(spread, [(0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))])
    grown = grown[:, :, max(-top, 0) : grown.shape[2] - max(-bottom, 0), max(-left, 0) : grown.shape[3] - max(-right, 0)]
    taps = f if flip_filter else f[::-1, ::-1]
    rows = range(0, grown.shape[2] - taps.shape[0] + 1, down[1])
    columns = range(0, grown.shape[3] - taps.shape[1] + 1, down[0])
    result = np.zeros([images, channels, len(rows), len(columns)])
    for i, row in enumerate(rows):
        for j, column in enumerate(columns):
            window = grown[:, :, row : row + taps.shape[0], column : column + taps.shape[1]]
            result[:, :, i, j] = (window * taps).sum(axis=(2, 3)) * gain
    return result


@st.composite
def problems(draw):
    numbers = np.random.RandomState(draw(st.integers(0, 2**31 - 1)))
    kind = draw(st.sampled_from(["none", "separable", "outer", "full"]))
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    f = {
        "none": None,
        "separable": numbers.randn(columns),
        "outer": np.outer(numbers.randn(rows), numbers.randn(columns)),
        "full": numbers.randn(rows, columns),
    }[kind]
    height, width = draw(st.integers(5, 20)), draw(st.integers(5, 20))
    options = dict(
        up=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        down=(draw(st.integers(1, 3)), draw(st.integers(1, 3))),
        padding=tuple(draw(st.integers(-2, 4)) for _ in range(4)),
        flip_filter=draw(st.booleans()),
        gain=draw(st.sampled_from([1, 4, 0.7])),
    )
    left, right, top, bottom = options["padding"]
    covered = (1, 1) if f is None else (f.shape[-1], f.shape[0])
    fits = width * options["up"][0] + left + right >= covered[0] and height * options["up"][1] + top + bottom >= covered[1]
    return numbers.randn(2, draw(st.integers(1, 3)), height, width), f, options, fits


@settings(max_examples=120, deadline=None, derandomize=True)
@given(problems())
def test_equals_the_definition(problem):
    x, f, options, fits = problem
    filter_tensor = None if f is None else torch.tensor(f)
    if not fits:
        with pytest.raises(ValueError, match="less than"):
            ops.upfirdn2d(torch.tensor(x), filter_tensor, **options)
        return
    f_2d = np.ones([1, 1]) if f is None else np.outer(f, f) if f.ndim == 1 else f
    expected = brute_force(x, f_2d, **options)
    actual = ops.upfirdn2d(torch.tensor(x), filter_tensor, **options)
    np.testing.assert_allclose(actual, expected, atol=1e-12)
    last = ops.upfirdn2d(torch.tensor(x).contiguous(memory_format=torch.channels_last), filter_tensor, **options)
    np.testing.assert_allclose(last, expected, atol=1e-12)
    in_float32 = ops.upfirdn2d(torch.tensor(x).float(), None if f is None else filter_tensor.float(), **options)
    np.testing.assert_allclose(in_float32, expected, atol=1e-4 * (1 + np.abs(expected).max()))
    if f is not None:
        by_convolution = ops.upfirdn2d(torch.tensor(x), filter_tensor.clone().requires_grad_(), **options)
        np.testing.assert_allclose(by_convolution.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("f", [None, np.random.RandomState(0).randn(2, 3), np.ones([2, 3]) / 6], ids=["none", "full", "outer"])
def test_more_is_cropped_on_a_side_than_there_is(f):
    """What is left is of the other side's padding."""
    x, options = np.random.RandomState(1).randn(1, 2, 5, 3), dict(up=(1, 2), padding=(-5, 9, 13, -12))
    expected = brute_force(x, np.ones([1, 1]) if f is None else f, **options)
    np.testing.assert_allclose(ops.upfirdn2d(torch.tensor(x), None if f is None else torch.tensor(f), **options), expected, atol=1e-12)


def test_golden_numbers(golden):
    arrays, settings_of = golden("ops.npz"), golden("ops.json")
    assert len(settings_of) >= 6
    for name, options in settings_of.items():
        options = dict(options)
        filter_name = options.pop("filter")
        f = None if filter_name is None else torch.tensor(arrays[filter_name])
        actual = ops.upfirdn2d(torch.tensor(arrays["x"]), f, **options)
        np.testing.assert_allclose(actual, arrays[name], atol=1e-12, err_msg=name)


def test_setup_filter(golden):
    smooth = ops.setup_filter([1, 3, 3, 1])
    assert torch.equal(smooth, torch.tensor(golden("ops.npz")["filter_1331"]))
    assert ops.setup_filter(None).tolist() == ops.setup_filter(5).tolist() == [[1.0]]
    long = ops.setup_filter([1, 2, 3, 4, 5, 6, 7, 8])
    assert long.shape == (8,) and long.sum() == pytest.approx(1)
    assert ops.setup_filter([1, 2, 3, 4, 5, 6, 7, 8], separable=False).shape == (8, 8)
    assert ops.setup_filter([1, 2], separable=True).shape == (2,)
    assert ops.setup_filter([1, 2], normalize=False, flip_filter=True).tolist() == [[4, 2], [2, 1]]
    assert ops.setup_filter([[1, 2], [3, 4]], normalize=False, gain=3).tolist() == [[3, 6], [9, 12]]
    assert ops.setup_filter([1, 1], separable=True, gain=4).tolist() == [1, 1]
    assert smooth.dtype == torch.float32


def test_size_helpers_keep_brightness_and_size():
    x = torch.full([1, 2, 12, 10], 3.0)
    f = ops.setup_filter([1, 3, 3, 1])
    same, larger, smaller = ops.filter2d(x, f), ops.upsample2d(x, f), ops.downsample2d(x, f)
    assert same.shape == x.shape and larger.shape == (1, 2, 24, 20) and smaller.shape == (1, 2, 6, 5)
    for result in (same, larger, smaller):
        assert torch.allclose(result[:, :, 3:-3, 2:-2] if result is not smaller else result[:, :, 1:-1, 1:-1], torch.tensor(3.0))
    assert ops.upsample2d(x, f, up=[1, 3], padding=[1, 0]).shape == (1, 2, 36, 12)
    # A symmetric even filter must not shift the picture.
    mirrored = x.clone().normal_(generator=torch.Generator().manual_seed(0))
    assert torch.allclose(ops.upsample2d(mirrored.flip(3), f), ops.upsample2d(mirrored, f).flip(3), atol=1e-6)
    assert torch.allclose(ops.downsample2d(mirrored.flip(2), f), ops.downsample2d(mirrored, f).flip(2), atol=1e-6)


@pytest.mark.parametrize("f", [[1.0, 3.0, 3.0, 1.0], [[1.0, 2.0, 0.0], [0.0, 1.0, 5.0], [2.0, 2.0, 1.0]]])
@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
def test_derivatives_of_both_orders(f, up, down):
    f = ops.setup_filter(f).double()
    for size in (5, 30) if f.shape[0] == 4 and up == 1 else (5,):
        x = torch.randn(1, 1, size, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
        function = lambda x: ops.upfirdn2d(x, f, up=up, down=down, padding=[2, 1, 1, 2]).square()
        assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)
    taps = f.clone().requires_grad_()
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    function = lambda x, taps: ops.upfirdn2d(x, taps, up=up, down=down, padding=1)
    assert torch.autograd.gradcheck(function, (x, taps)) and torch.autograd.gradgradcheck(function, (x, taps))


@pytest.mark.parametrize("up, down", [(1, 1), (2, 1), (1, 2)])
@pytest.mark.parametrize("size", [5, 30])
def test_derivatives_of_images_with_channels_last(up, down, size):
    """By the Kronecker matrix and by two products, either order; gradients keep the layout, so that nothing is copied."""
    f = ops.setup_filter([1, 3, 3, 1]).double()
    x = torch.randn(1, 2, size, 5 if size == 5 else 20, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = x.contiguous(memory_format=torch.channels_last).requires_grad_()
    function = lambda x: ops.upfirdn2d(x, f, up=up, down=down, padding=[2, 1, 1, 2]).square()
    small = size == 5
    assert torch.autograd.gradcheck(function, x, fast_mode=not small) and torch.autograd.gradgradcheck(function, x, fast_mode=not small)
    result = function(x)
    (gradient,) = torch.autograd.grad(result.sum(), x)
    for tensor in (result, gradient):
        assert tensor.is_contiguous(memory_format=torch.channels_last) and not tensor.is_contiguous()


def test_memory_layout_and_empty_batches():
    f = ops.setup_filter([1, 3, 3, 1])
    x = torch.randn(2, 3, 8, 8)
    last = x.contiguous(memory_format=torch.channels_last)
    result = ops.upsample2d(last, f)
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert torch.allclose(result, ops.upsample2d(x, f), atol=1e-6) and ops.upsample2d(x, f).is_contiguous()
    for size in (8, 64):
        for layout in (torch.contiguous_format, torch.channels_last):
            empty = torch.zeros(0, 3, size, size).contiguous(memory_format=layout)
            assert ops.downsample2d(empty, f).shape == (0, 3, size // 2, size // 2)
        assert ops.downsample2d(torch.zeros(2, 0, size, size), f).shape == (2, 0, size // 2, size // 2)
    assert ops.upfirdn2d(x, f, padding=[-2, -2, -2, -2]).shape == (2, 3, 1, 1)


def test_matrices_made_without_gradients_serve_training():
    fir_matrices.axis_matrix.cache_clear()
    fir_matrices.image_matrix.cache_clear()
    f = ops.setup_filter([1, 3, 3, 1])
    with torch.inference_mode():
        ops.upsample2d(torch.zeros(1, 1, 6, 6), f)
        ops.upsample2d(torch.zeros(1, 1, 40, 40), f)
    for size in (6, 40):
        x = torch.zeros(1, 1, size, size, requires_grad=True)
        ops.upsample2d(x, f).sum().backward()
        assert x.grad.sum() > 0


def test_a_filter_is_taken_apart_only_when_that_is_exact():
    outer = torch.tensor([1.0, 2.0, 3.0]).outer(torch.tensor([4.0, 5.0])).double()
    rows, columns = fir_matrices.separate(tuple(map(tuple, outer.tolist())), tolerance=1e-15)
    assert torch.allclose(torch.tensor(rows).outer(torch.tensor(columns)).double(), outer)
    bent = outer.clone()
    bent[0, 0] += 1e-9
    assert fir_matrices.separate(tuple(map(tuple, bent.tolist())), tolerance=1e-15) is None
    assert fir_matrices.separate(((0.0, 0.0),), tolerance=1e-15) == ((0.0,), (0.0, 0.0))


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, f: ops.upfirdn2d(x[0], f), "N, C, H, W"),
        (lambda x, f: ops.upfirdn2d(x.long(), f), "floating-point"),
        (lambda x, f: ops.upfirdn2d(x, f[None]), "one or two dimensions"),
        (lambda x, f: ops.upfirdn2d(x, f, up=0), "up must be"),
        (lambda x, f: ops.upfirdn2d(x, f, down=[1, 1.5]), "down must be"),
        (lambda x, f: ops.upfirdn2d(x, f, up=[1, 2, 3]), "up must be"),
        (lambda x, f: ops.upfirdn2d(x, f, padding=[1, 2, 3]), "padding must be"),
        (lambda x, f: ops.upfirdn2d(x, f, padding=-3), "less than"),
        (lambda x, f: ops.upfirdn2d(x, f, impl="fast"), "impl must be"),
        (lambda x, f: ops.setup_filter([]), "at least one tap"),
        (lambda x, f: ops.setup_filter([[1, 2]], separable=True), "one row"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 1, 6, 6), torch.ones(4, 4))
