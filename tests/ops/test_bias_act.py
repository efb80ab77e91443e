"""bias_act against its formula and the golden numbers."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from torch_utils.ops.bias_act import activation_funcs, bias_act

FORMULAS = {
    "linear": lambda z, alpha: z,
    "relu": lambda z, alpha: np.maximum(z, 0),
    "lrelu": lambda z, alpha: np.where(z > 0, z, alpha * z),
    "tanh": lambda z, alpha: np.tanh(z),
    "sigmoid": lambda z, alpha: 1 / (1 + np.exp(-z)),
    "elu": lambda z, alpha: np.where(z > 0, z, np.expm1(z)),
    "selu": lambda z, alpha: 1.0507009873554804934193349852946 * np.where(z > 0, z, 1.6732632423543772848170429916717 * np.expm1(z)),
    "softplus": lambda z, alpha: np.log1p(np.exp(z)),
    "swish": lambda z, alpha: z / (1 + np.exp(-z)),
}


def test_the_table_of_activations():
    assert set(activation_funcs) == set(FORMULAS)
    for name, spec in activation_funcs.items():
        assert spec.def_gain == (math.sqrt(2) if name in ("relu", "lrelu", "swish") else 1)
        assert spec.def_alpha == (0.2 if name == "lrelu" else 0)
        z = torch.linspace(-3, 3, 13, dtype=torch.float64)
        np.testing.assert_allclose(spec.func(z, alpha=0.3), FORMULAS[name](z.numpy(), 0.3), atol=1e-12)


@pytest.mark.parametrize("act", list(FORMULAS))
def test_golden_numbers(golden, act):
    arrays = golden("ops.npz")
    actual = bias_act(torch.tensor(arrays["x"]), torch.tensor(arrays["b"]), act=act, clamp=1.5)
    np.testing.assert_allclose(actual, arrays[f"bias_act_{act}"], atol=1e-12)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**31 - 1),
    act=st.sampled_from(list(FORMULAS)),
    shape=st.lists(st.integers(1, 4), min_size=1, max_size=4),
    which=st.integers(-4, 3),
    with_bias=st.booleans(),
    alpha=st.sampled_from([None, 0, 0.1, 0.2, 1, 1.5, -0.3]),
    gain=st.sampled_from([None, 1, 0.5, 3, 0, -2]),
    clamp=st.sampled_from([None, 0, 0.4, 256]),
    gradients=st.booleans(),
)
def test_equals_the_formula(seed, act, shape, which, with_bias, alpha, gain, clamp, gradients):
    numbers = np.random.RandomState(seed)
    dim = which % len(shape) - (len(shape) if which < 0 else 0)
    x, b = numbers.randn(*shape) * 2, numbers.randn(shape[dim]) if with_bias else None
    z = x if b is None else x + b.reshape([-1 if axis == dim % len(shape) else 1 for axis in range(len(shape))])
    spec = activation_funcs[act]
    expected = FORMULAS[act](z, spec.def_alpha if alpha is None else alpha) * (spec.def_gain if gain is None else gain)
    expected = expected if clamp is None else expected.clip(-clamp, clamp)
    for dtype, tolerance in ((torch.float64, 1e-12), (torch.float32, 2e-5)):
        actual = bias_act(
            torch.tensor(x, dtype=dtype, requires_grad=gradients),
            None if b is None else torch.tensor(b, dtype=dtype),
            dim=dim,
            act=act,
            alpha=alpha,
            gain=gain,
            clamp=clamp,
        )
        assert actual.dtype == dtype
        np.testing.assert_allclose(actual.detach(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("clamp", [None, 1.0])
@pytest.mark.parametrize("act", list(FORMULAS))
def test_derivatives_of_both_orders(act, clamp):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 2, 2, dtype=torch.float64, generator=generator).requires_grad_()
    b = torch.randn(3, dtype=torch.float64, generator=generator).requires_grad_()
    function = lambda x, b: bias_act(x, b, act=act, clamp=clamp)
    # Nothing lies so near to a kink that the finite differences could step over it.
    with torch.no_grad():
        z, y = x + b[:, None, None], function(x, b).abs()
        assert z.abs().min() > 1e-4 and (clamp is None or (y == clamp).logical_or((y - clamp).abs() > 1e-4).all())
    assert torch.autograd.gradcheck(function, (x, b)) and torch.autograd.gradgradcheck(function, (x, b))
    squared = lambda x, b: function(x, b).square()
    assert torch.autograd.gradgradcheck(squared, (x, b))
    alone = lambda x: bias_act(x, act=act, clamp=clamp)
    assert torch.autograd.gradcheck(alone, x) and torch.autograd.gradgradcheck(alone, x)


def test_second_derivative_of_a_bias_is_zero_rather_than_absent():
    x, b = torch.randn(4, 3, requires_grad=True), torch.zeros(3, requires_grad=True)
    weight = torch.ones(3, requires_grad=True)
    (first,) = torch.autograd.grad((bias_act(x, b, act="lrelu") * weight).sum(), x, create_graph=True)
    to_b, to_x = torch.autograd.grad(first.square().sum(), [b, x], allow_unused=True)
    assert torch.equal(to_b, torch.zeros(3)) and to_x is None


def test_inputs_stay_as_they_were_and_layout_is_kept():
    x = torch.randn(2, 4, 5, 3)
    b, before = torch.randn(4), x.clone()
    for act in FORMULAS:
        for layout in (torch.contiguous_format, torch.channels_last):
            for gradients in (False, True):
                given_x = x.clone(memory_format=layout).requires_grad_(gradients)
                result = bias_act(given_x, b, act=act, clamp=0.5)
                assert result.is_contiguous(memory_format=layout), (act, layout)
                assert torch.equal(given_x.detach(), before)
    assert bias_act(x) is x


def test_empty_tensors():
    assert bias_act(torch.zeros(0, 3, 4, 4), torch.zeros(3), act="lrelu").shape == (0, 3, 4, 4)
    assert bias_act(torch.zeros(2, 0, requires_grad=True), torch.zeros(0), act="lrelu", clamp=1).shape == (2, 0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("clamp", [181.0193, 0.7])
def test_what_was_clamped_passes_no_gradient_in_any_type(dtype, clamp):
    """The bound of a residual block, 256 sqrt(1/2), is no number of float16: it lies a little above the one that clamped results hold."""
    x = torch.tensor([[500.0, -5000.0, 0.5]], dtype=dtype, requires_grad=True)
    y = bias_act(x, torch.zeros(3, dtype=dtype), act="lrelu", gain=1, clamp=clamp, impl="ref")
    assert torch.autograd.grad(y.sum(), x)[0].tolist() == [[0, 0, 1]]


def test_half_precision_keeps_its_type():
    result = bias_act(torch.ones(2, 3, dtype=torch.bfloat16), torch.ones(3, dtype=torch.bfloat16), act="lrelu")
    assert result.dtype == torch.bfloat16 and result[0, 0].item() == pytest.approx(2 * math.sqrt(2), rel=1e-2)


@pytest.mark.parametrize(
    "options, message",
    [
        (dict(act="leaky"), "act must be one of linear"),
        (dict(clamp=-1), "clamp must be"),
        (dict(clamp=float("nan")), "clamp must be"),
        (dict(b=torch.zeros(4)), "the bias must be"),
        (dict(b=torch.zeros(3, 1)), "the bias must be"),
        (dict(b=torch.zeros(3).double()), "the bias must be"),
        (dict(b=torch.zeros(3), dim=2), "dim must name"),
        (dict(impl="fast"), "impl must be"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(ValueError, match=message):
        bias_act(torch.zeros(2, 3), **options)
