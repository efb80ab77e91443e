"""conv2d_resample against its definition, and the switch for weight gradients."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings, strategies as st

from torch_utils.ops import conv2d_gradfix, upfirdn2d
from torch_utils.ops.conv2d_resample import conv2d_resample
from torch_utils.ops.fma import fma


def by_definition(x, w, f, up, down, padding, groups, flip_weight, flip_filter):
    """Enlarge with f, convolve with w, shrink with f, one after the other; the filter stays centred."""
    width, height = (1, 1) if f is None else (f.shape[-1], f.shape[0])
    left, right, top, bottom = padding
    if up > 1:
        left, right, top, bottom = left + (width + up - 1) // 2, right + (width - up) // 2, top + (height + up - 1) // 2, bottom + (height - up) // 2
    if down > 1:
        left, right, top, bottom = (
            left + (width - down + 1) // 2,
            right + (width - down) // 2,
            top + (height - down + 1) // 2,
            bottom + (height - down) // 2,
        )
    x = upfirdn2d.upfirdn2d(x, f if up > 1 else None, up=up, padding=[left, right, top, bottom], gain=up**2, flip_filter=flip_filter)
    x = F.conv2d(x, w if flip_weight else w.flip([2, 3]), groups=groups)
    return upfirdn2d.upfirdn2d(x, f, down=down, flip_filter=flip_filter) if down > 1 else x


@settings(max_examples=120, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    kernel=st.sampled_from([(1, 1), (3, 3), (5, 5), (2, 3), (1, 3)]),
    up=st.integers(1, 3),
    down=st.integers(1, 3),
    groups=st.integers(1, 3),
    flips=st.tuples(st.booleans(), st.booleans()),
    padding=st.tuples(*[st.integers(0, 3)] * 4),
    taps=st.sampled_from(["none", "smooth", "full", "long"]),
)
def test_equals_the_definition(seed, kernel, up, down, groups, flips, padding, taps):
    generator = torch.Generator().manual_seed(seed)
    randn = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator)
    f = {"none": None, "smooth": upfirdn2d.setup_filter([1, 3, 3, 1]).double(), "full": randn(3, 4), "long": randn(8)}[taps]
    x, w = randn(2, 2 * groups, 7, 8), randn(3 * groups, 2, *kernel)
    actual = conv2d_resample(x, w, f, up=up, down=down, padding=list(padding), groups=groups, flip_weight=flips[0], flip_filter=flips[1])
    expected = by_definition(x, w, f, up, down, padding, groups, *flips)
    assert actual.shape == expected.shape
    assert torch.allclose(actual, expected, atol=1e-9)


def test_ordinary_convolution_and_sizes():
    generator = torch.Generator().manual_seed(0)
    x, w = torch.randn(2, 3, 9, 8, generator=generator), torch.randn(4, 3, 3, 3, generator=generator)
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    assert torch.equal(conv2d_resample(x, w, padding=1), F.conv2d(x, w, padding=1))
    assert torch.equal(conv2d_resample(x, w, padding=1, flip_weight=False), F.conv2d(x, w.flip([2, 3]), padding=1))
    assert conv2d_resample(x, w, f, up=2, padding=1).shape == (2, 4, 18, 16)
    assert conv2d_resample(x[:, :, :8], w, f, down=2, padding=1).shape == (2, 4, 4, 4)
    assert conv2d_resample(x[:0], w, f, up=2, padding=1).shape == (0, 4, 18, 16)


@pytest.mark.parametrize("options", [dict(), dict(up=2), dict(down=2), dict(up=2, flip_weight=False, groups=2), dict(down=2, groups=2)], ids=str)
def test_derivatives_of_both_orders(options):
    generator = torch.Generator().manual_seed(0)
    f = upfirdn2d.setup_filter([1, 3, 3, 1]).double()
    for kernel in (1, 3):
        x = torch.randn(1, 2, 4, 4, dtype=torch.float64, generator=generator, requires_grad=True)
        w = torch.randn(2, 2 // options.get("groups", 1), kernel, kernel, dtype=torch.float64, generator=generator, requires_grad=True)
        function = lambda x, w: conv2d_resample(x, w, f, padding=kernel // 2, **options)
        assert torch.autograd.gradcheck(function, (x, w)) and torch.autograd.gradgradcheck(function, (x, w))


def test_derivatives_of_the_bare_convolutions_and_fma():
    generator = torch.Generator().manual_seed(0)
    randn = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()
    for function, arguments in [
        (lambda x, w, b: conv2d_gradfix.conv2d(x, w, b, stride=2, padding=1, dilation=1, groups=2), (randn(1, 4, 5, 4), randn(2, 2, 3, 3), randn(2))),
        (
            lambda x, w, b: conv2d_gradfix.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1),
            (randn(1, 2, 3, 2), randn(2, 3, 3, 3), randn(3)),
        ),
        (fma, (randn(2, 3, 1), randn(3, 4), randn(1, 4))),
        (fma, (randn(2, 1, 2), randn(()), randn(2, 3, 1))),
    ]:
        assert torch.autograd.gradcheck(function, arguments) and torch.autograd.gradgradcheck(function, arguments)
    a, b, c = randn(2, 3, 1), randn(3, 4), randn(1, 4)
    assert torch.allclose(fma(a, b, c), a * b + c)


def penalty_gradients(operator, x, w, outer, inside):
    """The gradients of |d sum(f(x; w)^2) / d x|^2, the first pass with or without weight gradients."""
    values = operator(x, w * outer).square().sum()
    if inside:
        with conv2d_gradfix.no_weight_gradients():
            (to_x,) = torch.autograd.grad([values], [x], create_graph=True)
    else:
        (to_x,) = torch.autograd.grad([values], [x], create_graph=True)
    return torch.autograd.grad(to_x.square().sum(), [x, w, outer])


@pytest.mark.parametrize(
    "operator",
    [
        lambda x, w: conv2d_gradfix.conv2d(conv2d_gradfix.conv2d(x, w, padding=1).tanh(), w),
        lambda x, w: conv2d_gradfix.conv_transpose2d(conv2d_gradfix.conv_transpose2d(x, w, stride=2).tanh(), w),
    ],
    ids=["conv", "transposed"],
)
def test_second_pass_is_whole_after_a_first_pass_without_weight_gradients(operator):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 6, 6, dtype=torch.float64, generator=generator).requires_grad_()
    w = torch.randn(3, 3, 3, 3, dtype=torch.float64, generator=generator).requires_grad_()
    outer = torch.tensor(0.5, dtype=torch.float64, requires_grad=True)
    for with_switch, without in zip(penalty_gradients(operator, x, w, outer, True), penalty_gradients(operator, x, w, outer, False)):
        assert with_switch.abs().max() > 0 and torch.equal(with_switch, without)


def test_weights_get_no_gradient_inside_the_context():
    x, w, b = torch.ones(1, 2, 4, 4, requires_grad=True), torch.ones(2, 2, 3, 3, requires_grad=True), torch.ones(2, requires_grad=True)
    for operator in (conv2d_gradfix.conv2d, conv2d_gradfix.conv_transpose2d):
        x.grad = b.grad = None
        result = operator(x, w, b).sum()
        with conv2d_gradfix.no_weight_gradients():
            assert conv2d_gradfix.weight_gradients_disabled
            with conv2d_gradfix.no_weight_gradients():
                pass
            result.backward(retain_graph=True)
        assert w.grad is None and x.grad is not None and b.grad is not None
        assert not conv2d_gradfix.weight_gradients_disabled
        result.backward()
        assert w.grad.abs().sum() > 0
        w.grad = None


def test_the_switch_is_restored_after_an_error():
    with pytest.raises(RuntimeError, match="planted"):
        with conv2d_gradfix.no_weight_gradients():
            raise RuntimeError("planted")
    assert not conv2d_gradfix.weight_gradients_disabled


def test_weight_gradients_are_not_even_computed_for_an_image_gradient():
    """As PyTorch dispatches it: the convolution's backward kernel is asked for the image part alone."""
    x, w = torch.randn(1, 2, 8, 8, requires_grad=True), torch.randn(2, 2, 3, 3, requires_grad=True)
    result = conv2d_gradfix.conv2d(x, w).sum()
    asked = []

    class Recorder(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if func is torch.ops.aten.convolution_backward.default:
                asked.append(list(args[-1]))
            return func(*args, **(kwargs or {}))

    with Recorder(), conv2d_gradfix.no_weight_gradients():
        torch.autograd.grad(outputs=[result], inputs=[x], create_graph=True)
    assert asked == [[True, False, False]]


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda x, w: conv2d_resample(x, w[:, :1]), "do not fit"),
        (lambda x, w: conv2d_resample(x[0], w), "do not fit"),
        (lambda x, w: conv2d_resample(x, w[:3], groups=2), "do not fit"),
        (lambda x, w: conv2d_resample(x, w, up=0), "up must be"),
        (lambda x, w: conv2d_resample(x, w, down=1.5), "down must be"),
        (lambda x, w: conv2d_resample(x, w, padding=[1, 2, 3]), "padding must be"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.zeros(1, 2, 6, 6), torch.zeros(4, 2, 3, 3))
