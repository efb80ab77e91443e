"""The C++ kernel of bias_act against plain PyTorch: values, first and second derivatives, in every type, layout and activation."""

import pytest
import torch

from torch_utils.ops import bias_act, bias_act_kernel
from torch_utils.ops.bias_act_kernel import Settings

TOLERANCES = {torch.float64: dict(rtol=1e-12, atol=1e-12), torch.float32: dict(rtol=2e-5, atol=2e-5), torch.bfloat16: dict(rtol=2e-2, atol=2e-2)}
SHAPES = [(2, 3, 5, 7), (3, 16, 4, 4), (2, 5, 33, 35), (1, 1, 1, 1), (4, 7), (6, 2, 3)]


def numbers(*shape, dtype=torch.float64, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def channels_last(x):
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def both(function, *tensors):
    """[results and gradients of every tensor by the kernel], [the same in plain PyTorch]."""
    results = []
    for impl in ("cuda", "ref"):
        inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        y = function(*inputs, impl)
        (first,) = torch.autograd.grad(y.double().sin().sum(), inputs[0], create_graph=True)
        penalty = first.double().square().sum() + y.double().square().mean()
        results.append([y, first, *torch.autograd.grad(penalty, inputs, allow_unused=True)])
    return results


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("act", list(bias_act.activation_funcs))
def test_equals_plain_pytorch(cpu_kernels, act, dtype):
    assert act in cpu_kernels.activations()
    for shape in SHAPES:
        for options in ({}, dict(clamp=0.7), dict(gain=0.5, alpha=0.1), dict(gain=3.0, clamp=0.4)):
            x, b = numbers(*shape, dtype=dtype), numbers(shape[1], dtype=dtype, seed=1)
            for layout in (x, channels_last(x)):
                ours, plain = both(lambda x, b, impl: bias_act.bias_act(x, b, act=act, impl=impl, **options), layout, b)
                assert ours[0].dtype == dtype and ours[0].stride() == layout.stride()
                for one, other in zip(ours, plain):
                    torch.testing.assert_close(one, other, **TOLERANCES[dtype])


@pytest.mark.parametrize("act", list(bias_act.activation_funcs))
@pytest.mark.parametrize("clamp", [None, 0.7])
def test_bfloat16_is_float32_rounded_once(cpu_kernels, act, clamp):
    """The clamp is no number of bfloat16: results that it clamps must pass no gradient nevertheless."""
    for layout in (lambda x: x, channels_last):
        x, b, gradient = layout(numbers(2, 5, 9, 9).bfloat16()), numbers(5, seed=1).bfloat16(), numbers(2, 5, 9, 9, seed=2).bfloat16()
        answers = []
        for dtype, impl in ((torch.bfloat16, "cuda"), (torch.float32, "ref")):
            inputs = [x.to(dtype).requires_grad_(), b.to(dtype).requires_grad_()]
            y = bias_act.bias_act(*inputs, act=act, gain=1.5, clamp=clamp, impl=impl)
            for create_graph in (False, True):
                answers.append([y, *torch.autograd.grad(y, inputs, gradient.to(dtype), create_graph=create_graph, retain_graph=True)])
        for ours, plain in zip(answers[:2], answers[2:]):
            assert ours[0].dtype == torch.bfloat16
            torch.testing.assert_close(ours[0].float(), plain[0], rtol=2**-8, atol=1e-6)
            near_limit = (
                torch.zeros_like(x, dtype=torch.bool) if clamp is None else ((plain[0].abs() - clamp).abs() < 0.01) & (plain[0].abs() < clamp)
            )
            torch.testing.assert_close(ours[1].float()[~near_limit], plain[1][~near_limit], rtol=2**-6, atol=5e-3)
            assert near_limit.float().mean() < 0.05
            if clamp is None:
                torch.testing.assert_close(ours[2].float(), plain[2], rtol=2e-2, atol=0.3)


def test_kernel_is_what_runs(cpu_kernels, monkeypatch):
    calls = []
    monkeypatch.setattr(cpu_kernels, "activate", lambda x, *_: calls.append(x) or x)
    bias_act.bias_act(torch.ones(2, 3), torch.ones(3))
    assert len(calls) == 1
    bias_act.bias_act(torch.ones(2, 3), torch.ones(3), impl="ref")
    bias_act.bias_act(torch.ones(2, 3).half(), torch.ones(3).half())
    monkeypatch.setenv("MADR_KERNELS", "off")
    bias_act.bias_act(torch.ones(2, 3), torch.ones(3))
    assert len(calls) == 1


@pytest.mark.parametrize("act", list(bias_act.activation_funcs))
@pytest.mark.parametrize("clamp", [None, 0.8])
def test_derivatives_by_finite_differences(cpu_kernels, act, clamp):
    for layout in (lambda x: x, channels_last):
        x, b = layout(numbers(2, 3, 2, 3)).requires_grad_(), numbers(3, seed=1).requires_grad_()
        function = lambda x, b: bias_act.bias_act(x, b, act=act, clamp=clamp)
        assert torch.autograd.gradcheck(function, (x, b))
        assert torch.autograd.gradgradcheck(function, (x, b))


@pytest.mark.parametrize("act", ["linear", "lrelu", "swish"])
def test_scale_and_noise_by_finite_differences(cpu_kernels, act):
    spec = bias_act.activation_funcs[act]
    settings = Settings(act, spec.def_alpha, spec.def_gain, 2.0)
    for layout in (lambda x: x, channels_last):
        tensors = [layout(numbers(2, 3, 3, 2)), numbers(3, seed=1), numbers(2, 3, seed=2), numbers(2, 1, 3, 2, seed=3)]
        tensors = [tensor.requires_grad_() for tensor in tensors]
        function = lambda x, b, scale, noise: bias_act_kernel.apply(cpu_kernels, x, b, 1, settings, scale, noise)
        assert torch.autograd.gradcheck(function, tensors)
        assert torch.autograd.gradgradcheck(function, tensors)


@pytest.mark.parametrize("dtype", list(TOLERANCES), ids=str)
@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "tanh"])
def test_scale_and_noise_equal_plain_pytorch(cpu_kernels, act, dtype):
    """Each of the two with and without, over several parts of 1024 pixels, and with one image."""
    clamp = None if dtype == torch.bfloat16 else 1.0  # of results near the limit, rounding would decide
    settings = Settings(act, 0.2, 1.5, clamp)
    for shape in [(2, 3, 40, 35), (1, 4, 4, 4), (3, 17, 5, 5)]:
        for layout in (lambda x: x, channels_last):
            for with_scale, with_noise in ((True, False), (False, True), (True, True)):
                tensors = [layout(numbers(*shape, dtype=dtype)), numbers(shape[1], dtype=dtype, seed=1)]
                tensors += [numbers(*shape[:2], dtype=dtype, seed=2)] if with_scale else []
                tensors += [numbers(shape[0], 1, *shape[2:], dtype=dtype, seed=3)] if with_noise else []

                def function(x, b, *rest):
                    impl, rest = rest[-1], list(rest[:-1])
                    scale = rest.pop(0) if with_scale else None
                    noise = rest.pop(0) if with_noise else None
                    if impl == "cuda":
                        return bias_act_kernel.apply(cpu_kernels, x, b, 1, settings, scale, noise)
                    if dtype == torch.bfloat16:  # as the kernel: rounded once, at the end
                        x, b, scale, noise = (None if t is None else t.float() for t in (x, b, scale, noise))
                    x = x if scale is None else x * scale[:, :, None, None]
                    x = x if noise is None else x + noise
                    return bias_act.bias_act(x, b, act=act, alpha=0.2, gain=1.5, clamp=clamp, impl="ref").to(dtype)

                for one, other in zip(*once(function, tensors)):
                    torch.testing.assert_close(one, other, **(TOLERANCES[dtype] if dtype != torch.bfloat16 else dict(rtol=3e-2, atol=0.3)))


def once(function, tensors):
    """First derivatives alone, the way of a training step: no graph of the backward pass."""
    results = []
    for impl in ("cuda", "ref"):
        inputs = [tensor.detach().clone().requires_grad_() for tensor in tensors]
        y = function(*inputs, impl)
        results.append([y, *torch.autograd.grad(y.double().sin().sum(), inputs)])
    return results


def test_second_derivative_of_the_bias_is_zero_not_absent(cpu_kernels):
    for act, expected in (("lrelu", True), ("relu", True), ("linear", False)):
        answers = []
        for impl in ("cuda", "ref"):
            x, b = numbers(2, 3, 4, 4).requires_grad_(), numbers(3).requires_grad_()
            y = bias_act.bias_act(x, b, act=act, clamp=1.0, impl=impl)
            (first,) = torch.autograd.grad(y.sum(), x, create_graph=True)
            answers.append(torch.autograd.grad(first.sum(), b, allow_unused=True)[0] if first.requires_grad else None)
        for answer in answers:
            assert (answer is not None) == expected and (answer is None or torch.equal(answer, torch.zeros(3, dtype=torch.float64)))


def test_third_derivatives_are_refused_not_wrong(cpu_kernels):
    x = numbers(5, 1).requires_grad_()
    y = bias_act.bias_act(x, act="swish").sum()
    (first,) = torch.autograd.grad(y, x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivative of swish; use impl='ref'"):
        torch.autograd.grad(first.sum(), x, create_graph=True)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1])
def test_bias_along_any_axis_of_any_strides(cpu_kernels, dim):
    x = numbers(3, 4, 5, 6).permute(0, 2, 3, 1)[:, ::2, :, 1:]
    for one, other in zip(*both(lambda x, b, impl: bias_act.bias_act(x, b, dim=dim, act="lrelu", impl=impl), x, numbers(x.shape[dim]))):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    x = channels_last(numbers(2, 3, 4, 5))
    for one, other in zip(*both(lambda x, b, impl: bias_act.bias_act(x, b, dim=dim, act="lrelu", impl=impl), x, numbers(x.shape[dim]))):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)
    assert bias_act.bias_act(x, numbers(x.shape[dim]), dim=dim).stride() == x.stride()
    expanded = numbers(2, 3, 1, 1).expand(2, 3, 4, 4)
    torch.testing.assert_close(bias_act.bias_act(expanded, act="lrelu"), bias_act.bias_act(expanded, act="lrelu", impl="ref"), rtol=1e-12, atol=1e-12)


def test_empty_and_non_finite(cpu_kernels):
    for shape in ((0, 3, 4, 4), (2, 0, 4, 4), (2, 3, 0, 4)):
        x, b = torch.zeros(shape, requires_grad=True), torch.zeros(shape[1], requires_grad=True)
        y = bias_act.bias_act(x, b, act="lrelu")
        y.sum().backward()
        assert y.shape == shape and torch.equal(b.grad, torch.zeros(shape[1]))
    x = torch.tensor([[float("nan")], [float("inf")], [-float("inf")]])
    for act in ("linear", "lrelu", "tanh", "sigmoid", "elu", "selu", "softplus"):
        for clamp in (None, 2.0):
            ours, plain = (bias_act.bias_act(x, act=act, clamp=clamp, impl=impl) for impl in ("cuda", "ref"))
            torch.testing.assert_close(ours, plain, equal_nan=True)
    for halves in (x.bfloat16(), torch.full((1, 1), torch.finfo(torch.float32).max).bfloat16()):
        assert torch.equal(bias_act.bias_act(halves, gain=2.0).isnan(), halves.isnan())


def test_same_bits_for_any_number_of_threads(cpu_kernels):
    before = torch.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            tensors = [numbers(4, 16, 48, 48), numbers(16, seed=1), numbers(4, 16, seed=2), numbers(4, 1, 48, 48, seed=3)]
            tensors = [tensor.float().requires_grad_() for tensor in tensors]
            for layout in (lambda x: x, channels_last):
                x, b, scale, noise = tensors
                y = bias_act_kernel.apply(cpu_kernels, layout(x), b, 1, Settings("lrelu", 0.2, 1.4, 2.0), scale, noise)
                results.append([y, *torch.autograd.grad(y.square().sum(), tensors)])
    finally:
        torch.set_num_threads(before)
    for later in (results[2:4], results[4:6]):
        for now, first in zip(later, results[:2]):
            assert all(torch.equal(a, b) for a, b in zip(now, first))


def test_one_channel_lies_the_same_in_both_memory_formats(cpu_kernels):
    """Such an image is contiguous and channels-last at once, and its strides may tell either."""
    x = torch.randn([4, 1, 4, 4])
    other = x.as_strided(x.shape, (16, 1, 4, 1))
    assert x.stride() != other.stride() and other.is_contiguous()
    for a, b in ((x, other), (other, x)):
        assert torch.equal(
            cpu_kernels.derivative(a, b, 1, True, "lrelu", 0.2, 1.0, None), cpu_kernels.derivative(x, x, 1, True, "lrelu", 0.2, 1.0, None)
        )
    with pytest.raises(ValueError, match="kernel"):
        cpu_kernels.derivative(torch.randn([4, 2, 4, 4]), channels_last(torch.randn([4, 2, 4, 4])), 1, True, "lrelu", 0.2, 1.0, None)


def test_wrong_memory_is_refused(cpu_kernels):
    x, settings = torch.ones(2, 3, 4, 4), ("linear", 0.0, 1.0, None)
    for bad in (
        dict(b=torch.ones(2)),
        dict(b=torch.ones(3).double()),
        dict(b=torch.ones(6)[::2]),
        dict(scale=torch.ones(2, 2)),
        dict(noise=torch.ones(1, 1, 4, 4)),
        dict(x=x.half()),
        dict(x=x[:, :, ::2]),
    ):
        given = {**dict(x=x, b=None, scale=None, noise=None), **bad}
        with pytest.raises(ValueError, match="kernel"):
            cpu_kernels.activate(given["x"], given["b"], given["scale"], given["noise"], 1, *settings)
    with pytest.raises(ValueError, match="kernel"):
        cpu_kernels.derivative(x, torch.ones(2, 3, 4, 5), 1, True, *settings)
    with pytest.raises(ValueError, match="kernel"):
        cpu_kernels.backward(x, channels_last(x), None, None, 1, *settings, [])
