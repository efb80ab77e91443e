"""The CUDA kernels without a GPU: their sources run on the CPU, thread after thread, against the definitions.

What this cannot show is what only a card has: launches, streams, memory that is far away. That is tests/gpu.
"""

import ctypes
import mmap
import shutil

import numpy as np
import pytest
import torch

from tests.ops.cuda_on_host.emulated import FORMATS, Emulated, build, cuda_headers
from torch_utils.ops import bias_act, cuda_kernels, plugins, upfirdn2d as ops
from training import networks

if shutil.which("c++") is None or cuda_headers() is None:
    pytest.skip("no C++ compiler, or no headers of the CUDA toolkit, on this machine", allow_module_level=True)

KINDS = tuple(cuda_kernels.bind(None).activations())
# Relative to the largest number.
TOLERANCE = {torch.float64: 1e-13, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return build(tmp_path_factory.mktemp("cuda_on_host"))


@pytest.fixture(scope="module")
def kernel(library):
    """The functions of the CUDA kernels, with the emulated module as what was compiled."""
    return cuda_kernels.bind(Emulated(library))


def randn(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(dtype)


def assert_near(actual, expected, dtype):
    assert actual.dtype == dtype and not actual.isnan().any()
    scale = max(1.0, expected.abs().max().item()) if expected.numel() else 1.0
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=TOLERANCE[dtype] * scale)


# ------------------------------------------------------------------------------------------
# Index arithmetic.


def window(library, axis, output, narrow):
    result = (ctypes.c_int64 * 3)()
    library.window((ctypes.c_int64 * 6)(*axis), ctypes.c_int64(output), int(narrow), result)
    return tuple(result)


def pairs_by_definition(size_in, taps, up, down, before, output):
    """(input, tap) that meet, found by looking at every tap."""
    positions = [(output * down + tap - before, tap) for tap in range(taps)]
    return [(position // up, tap) for position, tap in positions if position >= 0 and position % up == 0 and position // up < size_in]


def test_an_output_sums_the_pairs_of_the_definition(library):
    checked = 0
    for size_in, taps, up, down in [(1, 1, 1, 1), (5, 4, 2, 1), (5, 4, 1, 2), (7, 3, 3, 2), (4, 6, 2, 3), (3, 12, 1, 1), (6, 1, 2, 1), (2, 5, 4, 4)]:
        for before in range(-6, 14):
            for output in range((size_in * up + before + 8) // down):
                expected = pairs_by_definition(size_in, taps, up, down, before, output)
                for narrow in (True, False):
                    first_input, first_tap, count = window(library, (size_in, 0, taps, up, down, before), output, narrow)
                    assert [(first_input + k, first_tap + k * up) for k in range(count)] == expected
                    checked += 1
    assert checked > 1000


def test_windows_of_sizes_beyond_32_bits(library):
    size, far = 2**40, 2**40 - 5
    for up, down in ((2, 1), (1, 2), (3, 2)):
        output = far * up // down
        expected = pairs_by_definition(size, 4, up, down, 3, output)
        first_input, first_tap, count = window(library, (size, 0, 4, up, down, 3), output, False)
        assert expected and [(first_input + k, first_tap + k * up) for k in range(count)] == expected


@pytest.mark.parametrize("middle, inner", [(3, 5), (1, 7), (7, 1), (1, 1), (512, 4), (3, 2**33), (2**33, 3)])
@pytest.mark.parametrize("channel_is_inner", [0, 1])
def test_a_walk_through_memory_finds_every_entry(library, middle, inner, channel_is_inner):
    channels, pixels = (inner, middle) if channel_is_inner else (middle, inner)

    def expected(offset):
        image, rest = divmod(offset, middle * inner)
        channel, pixel = (rest % inner, rest // inner) if channel_is_inner else divmod(rest, inner)
        return [channel, image * channels + channel, image * pixels + pixel]

    for offset in (0, 1, 13, 2**32 + 11, 2**35 - 1):
        for distance in (1, 4, 8192, 2**31 + 8):
            steps = 50
            result = (ctypes.c_int64 * (6 * steps))()
            numbers = [ctypes.c_int64(number) for number in (middle, inner)]
            library.walk_along(*numbers, channel_is_inner, ctypes.c_int64(offset), ctypes.c_int64(distance), ctypes.c_int64(steps), result)
            places = [place for step in range(steps) for place in (offset + step * distance, offset + step * distance + 1)]
            assert list(result) == [number for place in places for number in expected(place)]


def test_wide_indices_from_the_size_on_that_needs_them(library, kernel):
    def wide(x, out):
        problem = kernel.compiled.problem(x, (4, 4), (1, 1), (1, 1), (2, 2), (out.shape[3], out.shape[2]), False, out)
        return bool(library.needs_wide_index(problem))

    on_meta = lambda *shape: torch.empty(shape, device="meta")
    assert not wide(on_meta(32, 512, 128, 128), on_meta(32, 512, 128, 128))
    assert wide(on_meta(64, 512, 256, 256), on_meta(64, 512, 256, 256))
    assert wide(on_meta(16, 512, 256, 256), on_meta(16, 512, 512, 512))  # the result alone
    assert wide(on_meta(1, 1, 2**31, 1), on_meta(1, 1, 1, 1))
    # A view whose few pixels lie far apart.
    assert wide(torch.empty_strided((2, 1, 4, 4), (2**31, 16, 4, 1), device="meta"), on_meta(2, 1, 4, 4))


# ------------------------------------------------------------------------------------------
# upfirdn2d.


def resample(kernel, x, f, up=1, down=1, padding=0, flip_filter=False, gain=1.0):
    return kernel.upfirdn2d(x, f, ops.parse_factors(up), ops.parse_factors(down), ops.parse_padding(padding), flip_filter, gain)


def reference(x, f, **options):
    return ops.upfirdn2d(x.double().contiguous(), f.double(), impl="ref", **options)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_upfirdn2d_equals_the_definition(kernel, dtype, layout):
    """Filters, factors and paddings of all kinds, those with tiles of their own among them."""
    numbers = np.random.RandomState(3)
    for case in range(60):
        f = randn(*([4, 4] if case % 3 == 0 else numbers.randint(1, 6, [2])) if case % 3 else [4, 4], seed=case).float()
        if case % 5 == 4:
            f = randn(int(numbers.randint(1, 13)), seed=case).float()
        up, down = ([int(factor) for factor in numbers.randint(1, 4, [2])] for _ in range(2))
        if case % 3 == 0:
            up, down = ((2, 1), (1, 2), (1, 1))[case // 3 % 3]
        size = numbers.randint(5, 20, [2])
        x = randn(2, int(numbers.choice([1, 3, 4, 8, 16])), *map(int, size), seed=case, dtype=dtype).contiguous(memory_format=layout)
        options = dict(up=up, down=down, padding=[int(pad) for pad in numbers.randint(-3, 6, [4])], flip_filter=bool(case % 2), gain=0.7)
        try:
            expected = reference(x, f, **options)
        except ValueError:
            continue  # cropped to less than the filter
        actual = resample(kernel, x, f, **options)
        assert_near(actual, expected, dtype)
        assert actual.is_contiguous(memory_format=torch.channels_last if ops_layout(x) else torch.contiguous_format)


def ops_layout(x):
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("up, down", [(2, 1), (1, 2), (1, 1)])
def test_every_tile_is_whole_whatever_padding_and_size(kernel, dtype, layout, up, down):
    """A filter that tells every tap, so that a shifted phase or a lost border cannot hide; all paddings against small sizes."""
    f = torch.arange(1.0, 17).reshape(4, 4) / 16
    for height, width, channels in ((4, 7, 8), (5, 1, 16), (1, 6, 8), (3, 3, 24)):
        x = randn(2, channels, height, width, seed=height, dtype=dtype).contiguous(memory_format=layout)
        for before in range(-min(2, width), 6):
            options = dict(up=up, down=down, padding=[before, 5 - before, 4, abs(before)], flip_filter=bool(before % 2))
            assert_near(resample(kernel, x, f, **options), reference(x, f, **options), dtype)


def test_images_that_are_views(kernel):
    f = ops.setup_filter([1, 3, 3, 1])
    base = randn(2, 8, 12, 14, dtype=torch.float32)
    unaligned = torch.empty(2 * 8 * 5 * 6 + 1)[1:].view(2, 8, 5, 6).copy_(base[:, :, :5, :6])
    views = [base[:, :, ::2, 1::3], base[:, ::2], base.transpose(2, 3), base[:1].expand(3, -1, -1, -1), base[:, :, 2:9, 3:10], unaligned]
    views += [base.contiguous(memory_format=torch.channels_last)[:, 1:5], torch.zeros(0, 3, 8, 8)]
    for view in views:
        for up, down in ((2, 1), (1, 2), (1, 1), (3, 2)):
            assert_near(resample(kernel, view, f, up=up, down=down, padding=2), reference(view, f, up=up, down=down, padding=2), torch.float32)


def test_pixels_beyond_32_bits(kernel):
    """Two images 2^31 elements apart in a map of memory of which a few pages are touched."""
    apart = 2**31 + 8
    memory = mmap.mmap(-1, 2 * (apart + 64), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | getattr(mmap, "MAP_NORESERVE", 0x4000))
    x = torch.frombuffer(memory, dtype=torch.float16).as_strided((2, 1, 8, 8), (apart, 64, 8, 1))
    x.copy_(randn(2, 1, 8, 8))
    f = ops.setup_filter([1, 3, 3, 1])
    for up, down in ((2, 1), (1, 2)):
        assert_near(resample(kernel, x, f, up=up, down=down, padding=2), reference(x, f, up=up, down=down, padding=2), torch.float16)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("f", [[1.0, 3.0, 3.0, 1.0], [[1.0, 2.0, 0.0], [0.0, 1.0, 5.0]], [1.0, 2.0, 0.0, -1.0, 3.0, 1.0, 1.0, 2.0]])
@pytest.mark.parametrize("up, down", [(2, 1), ([3, 1], [2, 2])])
def test_derivatives_of_upfirdn2d(kernel, f, up, down, layout):
    f = ops.setup_filter(f).double()
    x = randn(1, 2, 6, 3).contiguous(memory_format=layout).requires_grad_()
    function = lambda x: resample(kernel, x, f, up=up, down=down, padding=[2, 3, -1, 4], flip_filter=f.ndim == 1, gain=1.5).square()
    assert torch.autograd.gradcheck(function, x) and torch.autograd.gradgradcheck(function, x)


@pytest.mark.parametrize("up, down", [(2, 1), (1, 2), (1, 1)])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_through_tiles(kernel, up, down, layout):
    """float32 has tiles where float64 of the checks above has none: <g, A x> = <A' g, x> with PyTorch's own A'."""
    f = torch.arange(1.0, 17).reshape(4, 4) / 16
    x = randn(2, 8, 9, 7, dtype=torch.float32).contiguous(memory_format=layout).requires_grad_()
    options = dict(up=up, down=down, padding=[3, 1, 0, 2])
    result = resample(kernel, x, f, **options)
    gradient = randn(*result.shape, seed=5, dtype=torch.float32)
    (actual,) = torch.autograd.grad(result, x, gradient)
    exact = x.detach().double().contiguous().requires_grad_()
    (expected,) = torch.autograd.grad(reference(exact, f, **options), exact, gradient.double())
    assert_near(actual, expected, torch.float32)


# ------------------------------------------------------------------------------------------
# bias_act.


def composed(x, b, scale, noise, dim, act, alpha, gain, clamp):
    x = x.double().contiguous()
    if scale is not None:
        x = x * scale.double()[:, :, None, None]
    if noise is not None:
        x = x + noise.double()
    if b is not None:
        x = x + b.double().reshape([-1 if axis == dim % x.ndim else 1 for axis in range(x.ndim)])
    y = bias_act.activation_funcs[act].func(x, alpha=alpha) * gain
    return x, y if clamp is None else y.clamp(-clamp, clamp)


def test_kinds_are_numbered_as_in_the_header():
    assert list(KINDS) == list(bias_act.activation_funcs)
    words = (
        (cuda_kernels.sources()[0].parent / "activations.h").read_text().split("enum Kind")[1].split("{")[1].split("}")[0].replace(",", " ").split()
    )
    assert [word.lower() for word in words] == [*("k" + name for name in KINDS), "knumkinds"]


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("act", KINDS)
def test_activate_equals_the_formula(kernel, act, dtype):
    cases = [((2, 8, 4, 4), 1, True), ((3, 5, 3, 7), 1, True), ((70, 48), 1, False), ((5, 3), -1, False), ((4, 2, 3), 0, False), ((9,), 0, False)]
    cases += [((2, 16, 40, 32), 1, True), ((1, 1, 1, 1), 1, True), ((0, 4, 2, 2), 1, True)]
    for index, (shape, dim, is_image) in enumerate(cases):
        for layout in LAYOUTS if is_image else LAYOUTS[:1]:
            x = (2 * randn(*shape, seed=index, dtype=dtype)).contiguous(memory_format=layout)
            b = randn(shape[dim], seed=1, dtype=dtype) if index % 4 != 3 else None
            scale = randn(*shape[:2], seed=2, dtype=dtype) if is_image and index % 2 == 0 else None
            noise = randn(shape[0], 1, *shape[2:], seed=3, dtype=dtype) if is_image and index % 3 != 2 else None
            clamp = 1.5 if index % 2 else None
            z, expected = composed(x, b, scale, noise, dim, act, 0.2, 1.3, clamp)
            actual = kernel.activate(x, b, scale, noise, dim, act, 0.2, 1.3, clamp)
            assert actual.stride() == x.stride()
            assert_near(actual, expected, dtype)


@pytest.mark.parametrize("dtype", FORMATS)
@pytest.mark.parametrize("act", KINDS)
def test_derivatives_equal_those_of_the_formula(kernel, act, dtype):
    func = bias_act.activation_funcs[act].func
    for shape, layout in (((3, 8, 6, 4), torch.channels_last), ((3, 8, 6, 4), torch.contiguous_format), ((5, 7), torch.contiguous_format)):
        reference = (2 * randn(*shape, dtype=dtype)).contiguous(memory_format=layout)
        gradient = randn(*shape, seed=1, dtype=dtype)  # in another layout than the channels-last reference
        z = reference.double().contiguous().requires_grad_()
        y = (func(z, alpha=0.2) * 1.3).clamp(-1.5, 1.5)
        (first,) = torch.autograd.grad(y.sum(), z, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), z, allow_unused=True) if first.requires_grad else [None]
        orders = {1: first.detach(), 2: torch.zeros_like(first) if second is None else second}
        for order, factor in orders.items():
            actual = kernel.derivative(gradient, reference, order, False, act, 0.2, 1.3, 1.5)
            assert actual.stride() == reference.stride()
            assert_near(actual, gradient.double() * factor, dtype)
        if act in ("linear", "relu", "lrelu"):
            from_result = kernel.derivative(
                gradient.contiguous(memory_format=layout), y.detach().to(dtype).contiguous(memory_format=layout), 1, True, act, 0.2, 1.3, 1.5
            )
            assert_near(from_result, gradient.double() * orders[1], dtype)
            assert not kernel.derivative(gradient, reference, 2, True, act, 0.2, 1.3, 1.5).any()


@pytest.mark.parametrize("dtype", FORMATS)
def test_what_is_clamped_passes_no_gradient_whatever_the_limit_rounds_to(kernel, dtype):
    for clamp in (0.1, 0.3, 1 / 3, 2.7):
        y = kernel.activate(torch.full([64], 5.0, dtype=dtype), None, None, None, 0, "lrelu", 0.2, 1.0, clamp)
        assert y[0].item() == torch.tensor(clamp, dtype=dtype).item()
        assert not kernel.derivative(torch.ones(64, dtype=dtype), y, 1, True, "lrelu", 0.2, 1.0, clamp).any()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_of_all_that_a_layer_adds(kernel, layout):
    x, b, scale, noise = randn(2, 3, 4, 5), randn(3, seed=1), randn(2, 3, seed=2), randn(2, 1, 4, 5, seed=3)
    x = x.contiguous(memory_format=layout)
    gradient = randn(2, 3, 4, 5, seed=4)
    y = kernel.activate(x, b, scale, noise, 1, "lrelu", 0.2, 1.4, 1.5)
    actual = kernel.backward(gradient, y, x, scale, 1, "lrelu", 0.2, 1.4, 1.5, ("b", "scale", "noise"))
    leaves = [tensor.clone().requires_grad_() for tensor in (x, b, scale, noise)]
    _z, expected = composed(leaves[0], leaves[1], leaves[2], leaves[3], 1, "lrelu", 0.2, 1.4, 1.5)
    for mine, theirs in zip(actual, torch.autograd.grad(expected, leaves, gradient)):
        assert_near(mine, theirs, torch.float64)
    assert kernel.backward(gradient, y, x, None, 1, "lrelu", 0.2, 1.4, 1.5, ())[1:] == (None, None, None)


def test_numbers_that_are_none_stay_none(kernel):
    x = torch.tensor([[float("nan"), float("inf"), -float("inf"), 1.0]])
    for act in ("linear", "relu", "lrelu", "softplus"):
        actual = kernel.activate(x, None, None, None, 1, act, 0.2, 1.0, 2.0)
        assert actual[0, 0].isnan() and actual[0, 1] == 2


# ------------------------------------------------------------------------------------------
# Through the front door.


@pytest.fixture
def chosen(kernel, monkeypatch):
    """bias_act() and upfirdn2d() take the emulated kernels for tensors on the CPU. Gives the number of kernels that ran."""
    module = "torch_utils.ops.cuda_kernels"
    monkeypatch.setenv(plugins.VARIABLE, "auto")
    monkeypatch.setattr(plugins, "_wanted", True)
    monkeypatch.setattr(plugins, "ROWS", {(name, "cpu"): module for name in plugins.OPERATORS})
    monkeypatch.setattr(plugins, "_bound", {module: kernel})
    return lambda: kernel.compiled.calls


@pytest.mark.parametrize("act", KINDS)
def test_derivatives_of_both_orders(chosen, act):
    x, b = randn(1, 3, 2, 2).requires_grad_(), randn(3, seed=1).requires_grad_()
    function = lambda x, b: bias_act.bias_act(x, b, act=act, clamp=1.0)
    before = chosen()
    assert torch.autograd.gradcheck(function, (x, b)) and torch.autograd.gradgradcheck(function, (x, b))
    assert torch.autograd.gradgradcheck(lambda x, b: function(x, b).square(), (x, b))
    assert chosen() > before


def test_which_calls_reach_a_kernel(chosen):
    x, f = randn(1, 2, 6, 6, dtype=torch.float32), ops.setup_filter([1, 3, 3, 1])
    before = chosen()
    ops.upsample2d(x, f)
    ops.downsample2d(x, ops.setup_filter([1, 2, 3, 4, 4, 3, 2, 1]), padding=1)  # two passes
    assert chosen() - before == 3
    ops.upsample2d(x, f, impl="ref")
    ops.upsample2d(x, f.clone().requires_grad_())  # only plain PyTorch has the filter's gradient
    ops.upfirdn2d(x, None, padding=1)
    assert chosen() - before == 3


def test_a_training_step_is_that_of_plain_pytorch(chosen, monkeypatch):
    """Every parameter's gradient, through R1 and path length, which differentiate both operators twice."""
    common = dict(img_resolution=16, img_channels=3, c_dim=0)
    channels = dict(channel_base=128, channel_max=8, conv_clamp=256)
    torch.manual_seed(0)
    G = networks.Generator(z_dim=8, w_dim=8, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=channels, **common)
    D = networks.Discriminator(**common, **channels, epilogue_kwargs=dict(mbstd_group_size=2))
    z, noise = randn(2, 8, seed=1, dtype=torch.float32), randn(2, 3, 16, 16, seed=2, dtype=torch.float32)

    def gradients(kernels):
        monkeypatch.setattr(plugins, "_wanted", kernels)
        ws = G.mapping(z, None)
        images = G.synthesis(ws, noise_mode="const")
        (path,) = torch.autograd.grad((images * noise).sum(), ws, create_graph=True)
        real = noise.clone().requires_grad_()
        (slope,) = torch.autograd.grad(D(real, None).sum(), real, create_graph=True)
        loss = D(images, None).square().mean() + path.square().mean() + slope.square().mean()
        return torch.autograd.grad(loss, [*G.parameters(), *D.parameters()], allow_unused=True)

    before = chosen()
    expected = gradients(kernels=False)
    assert chosen() == before
    actual = gradients(kernels=True)
    assert chosen() > before + 50
    for mine, theirs in zip(actual, expected):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            torch.testing.assert_close(mine, theirs, rtol=1e-3, atol=1e-4 * max(1.0, theirs.abs().max().item()))
