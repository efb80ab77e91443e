"""The networks beyond the golden numbers: options, gradients, precision, truncation, self-containment of the file."""

import ast
import copy
import io
import itertools
import pickle
import sys
import types

import numpy as np
import pytest
import torch

from training import networks

ARCHITECTURES = ["orig", "skip", "resnet"]


def make_G(res=16, channels=3, c_dim=0, mapping=None, **synthesis):
    torch.manual_seed(0)
    synthesis = dict(channel_base=128, channel_max=16, **synthesis)
    return networks.Generator(8, c_dim, 12, res, channels, mapping_kwargs=dict(num_layers=2, **(mapping or {})), synthesis_kwargs=synthesis)


def make_D(res=16, channels=3, c_dim=0, **kwargs):
    torch.manual_seed(0)
    return networks.Discriminator(c_dim, res, channels, channel_base=128, channel_max=16, **kwargs)


def latents(count=4, c_dim=0, seed=1):
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn([count, 8], generator=generator)
    return z, torch.eye(max(c_dim, 1))[torch.arange(count) % max(c_dim, 1)][:, :c_dim]


def max_error(got, wanted):
    got, wanted = got.detach().double(), wanted.detach().double()
    return float((got - wanted).abs().max() / wanted.abs().max())


# ---------------------------------------------------------------------------------------------------------------
# Architectures and gradients.


@pytest.mark.parametrize("architecture, c_dim, channels", [*zip(ARCHITECTURES, [0, 3, 0], [1, 3, 3]), ("skip", 0, 1), ("orig", 2, 3)])
def test_every_parameter_gets_a_gradient(architecture, c_dim, channels):
    G = make_G(architecture=architecture, c_dim=c_dim, channels=channels)
    D = make_D(architecture=architecture, c_dim=c_dim, channels=channels)
    z, c = latents(8, c_dim)
    img = G(z, c)
    assert img.shape == (8, channels, 16, 16) and img.dtype == torch.float32 and img.is_contiguous()
    logits = D(img, c)
    assert logits.shape == (8, 1)
    torch.nn.functional.softplus(-logits).mean().backward()
    for module in (G, D):
        for name, param in module.named_parameters():
            assert param.grad is not None and torch.isfinite(param.grad).all() and param.grad.abs().max() > 0, name


@pytest.mark.parametrize("arch_g, arch_d", [*itertools.product(ARCHITECTURES, ARCHITECTURES)])
def test_architectures_combine_and_train_twice_differentiably(arch_g, arch_d):
    G, D = make_G(res=8, architecture=arch_g), make_D(res=8, architecture=arch_d)
    z, c = latents()
    img = G(z, c)
    (gradient,) = torch.autograd.grad(D(img, c).sum(), img, create_graph=True)
    gradient.square().sum().backward()
    assert all(p.grad is not None for name, p in D.named_parameters() if name.endswith("conv.weight"))
    assert all(p.grad is not None for p in G.mapping.parameters())


@pytest.mark.parametrize("res", [4, 32])
def test_resolutions(res):
    G = make_G(res=res)
    z, c = latents(2)
    assert G(z, c).shape == (2, 3, res, res)
    assert G.num_ws == {4: 2, 32: 8}[res] and G.synthesis.block_resolutions == [2**i for i in range(2, res.bit_length())]


@pytest.mark.parametrize("make, res", [(make_G, 24), (make_G, 2), (make_D, 4), (make_D, 20)])
def test_wrong_resolution_is_refused(make, res):
    with pytest.raises(ValueError, match=f"img_resolution.*power of two.*{res}"):
        make(res=res)


def test_wrong_architecture_is_refused():
    for make in (make_G, make_D):
        with pytest.raises(ValueError, match="architecture.*skup"):
            make(architecture="skup")


def test_wrong_shapes_are_refused():
    G, D = make_G(c_dim=3), make_D(c_dim=3)
    z, c = latents(4, 3)
    for call in [
        lambda: G(z[:, :7], c),
        lambda: G(z, c[:, :2]),
        lambda: G.synthesis(torch.zeros(4, 3, 12)),
        lambda: D(torch.zeros(4, 3, 8, 8), c),
        lambda: D(torch.zeros(4, 1, 16, 16), c),
        lambda: D(torch.zeros(4, 3, 16, 16), c[:, :2]),
    ]:
        with pytest.raises(AssertionError, match="expected a tensor"):
            call()


@torch.no_grad()
def test_weights_start_with_unit_variance_and_outputs_too():
    torch.manual_seed(0)
    layer = networks.FullyConnectedLayer(400, 300, lr_multiplier=0.01)
    assert float(layer.weight.std()) == pytest.approx(100, rel=0.02)
    assert float(layer(torch.randn(64, 400)).std()) == pytest.approx(1, rel=0.05)
    conv = networks.Conv2dLayer(32, 32, kernel_size=3)
    assert float(conv.weight.std()) == pytest.approx(1, rel=0.05)
    assert float(conv(torch.randn(8, 32, 16, 16))[:, :, 1:-1, 1:-1].std()) == pytest.approx(1, rel=0.1)


def test_a_seed_gives_the_same_network_as_ever(monkeypatch):
    """Constructors draw weights, constants and noise pictures in a fixed order: runs that name their seed rely on it."""
    drawn, draw = [], torch.randn

    def recording_draw(*shape):
        tensor = draw(*shape)
        drawn.append(list(tensor.shape))
        return tensor

    monkeypatch.setattr(torch, "randn", recording_draw)
    make_G(res=8, architecture="resnet", c_dim=3)
    first_block = [[16, 4, 4], [16, 16, 3, 3], [4, 4], [16, 12]]  # const, conv1: weight, noise_const, affine
    convolution, to_image, shortcut = [[16, 16, 3, 3], [8, 8], [16, 12]], [[3, 16, 1, 1], [16, 12]], [16, 16, 1, 1]
    mapping = [[12, 3], [12, 20], [12, 12]]  # embed, fc0, fc1
    assert drawn == [*first_block, *convolution, *convolution, *to_image, shortcut, *mapping]
    drawn.clear()
    make_D(res=8, architecture="resnet", c_dim=3)
    block = [[16, 3, 1, 1], [16, 16, 3, 3], [16, 16, 3, 3], [16, 16, 1, 1]]  # fromrgb, conv0, conv1, skip
    assert drawn[:5] == [*block, [16, 3]] and drawn[-3:] == [[16, 17, 3, 3], [16, 256], [16, 16]]  # then the mapping; conv, fc, out


def test_learning_rate_multiplier_scales_the_update():
    torch.manual_seed(0)
    fast = networks.FullyConnectedLayer(5, 4, bias_init=2)
    slow = networks.FullyConnectedLayer(5, 4, lr_multiplier=0.1, bias_init=20)
    with torch.no_grad():
        slow.weight.copy_(fast.weight * 10)
    x = torch.randn(3, 5)
    assert torch.allclose(fast(x), slow(x), atol=1e-6)
    for layer in (fast, slow):
        layer(x).sum().backward()
    assert torch.allclose(slow.weight.grad, 0.1 * fast.weight.grad) and torch.allclose(slow.bias.grad, 0.1 * fast.bias.grad)


# ---------------------------------------------------------------------------------------------------------------
# Modulated convolution.


def reference_modulated_conv2d(x, weight, styles, noise, demodulate, padding):
    """Equations 1 to 3 of StyleGAN2, image by image."""
    outputs = []
    for image, style in zip(x, styles):
        kernel = weight * style[None, :, None, None]
        if demodulate:
            kernel = kernel / (kernel.square().sum(dim=[1, 2, 3], keepdim=True) + 1e-8).sqrt()
        outputs.append(torch.nn.functional.conv2d(image[None], kernel, padding=padding))
    return torch.cat(outputs) + (0 if noise is None else noise)


@pytest.mark.parametrize("kernel, demodulate, with_noise, fused", [*itertools.product([1, 3], [False, True], [False, True], [False, True])])
def test_modulated_conv2d_is_the_papers(kernel, demodulate, with_noise, fused):
    generator = torch.Generator().manual_seed(5)
    x, weight, styles, noise = (
        torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True)
        for shape in ([3, 4, 6, 6], [5, 4, kernel, kernel], [3, 4], [3, 1, 6, 6])
    )
    noise = noise if with_noise else None
    inputs = [t for t in (x, weight, styles, noise) if t is not None]
    got = networks.modulated_conv2d(x, weight, styles, noise=noise, padding=kernel // 2, demodulate=demodulate, fused_modconv=fused)
    wanted = reference_modulated_conv2d(x, weight, styles, noise, demodulate, kernel // 2)
    assert torch.allclose(got, wanted, atol=1e-12)
    for a, b in zip(torch.autograd.grad(got.sin().sum(), inputs), torch.autograd.grad(wanted.sin().sum(), inputs)):
        assert torch.allclose(a, b, atol=1e-11)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_fused_equals_unfused_with_gradients(architecture):
    G = make_G(architecture=architecture).double()
    z, c = latents()
    results = []
    for fused in (False, True):
        img = G(z, c, noise_mode="const", fused_modconv=fused)
        results.append([img, *torch.autograd.grad(img.sin().sum(), [p for p in G.parameters()])])
    assert all(torch.allclose(a, b, atol=1e-9, rtol=1e-7) for a, b in zip(*results))


def test_path_length_gradient_survives_switched_off_weight_gradients():
    from torch_utils.ops import conv2d_gradfix

    G = make_G().train().double()
    ws = torch.randn([4, G.num_ws, 12], dtype=torch.float64, requires_grad=True)
    img = G.synthesis(ws, noise_mode="const")
    (wanted,) = torch.autograd.grad(img.sin().sum(), ws, retain_graph=True)
    with conv2d_gradfix.no_weight_gradients():
        (got,) = torch.autograd.grad(img.sin().sum(), ws)
    assert torch.allclose(got, wanted, atol=1e-12)


# ---------------------------------------------------------------------------------------------------------------
# Mapping and truncation.


def test_mapping_ignores_the_length_of_z():
    G = make_G()
    z, c = latents()
    assert max_error(G.mapping(10 * z, c), G.mapping(z, c)) < 1e-5
    assert G.mapping(z, c).shape == (4, G.num_ws, 12)


def test_truncation():
    G = make_G(c_dim=3).eval()
    torch.nn.init.normal_(G.mapping.w_avg)
    z, c = latents(4, 3)
    ws, centre = G.mapping(z, c), G.mapping.w_avg
    assert torch.equal(G.mapping(z, c, truncation_psi=1, truncation_cutoff=2), ws)
    assert torch.allclose(G.mapping(z, c, truncation_psi=0), centre.expand_as(ws))
    assert torch.allclose(G.mapping(z, c, truncation_psi=0.3), centre + 0.3 * (ws - centre), atol=1e-6)
    assert torch.allclose(G.mapping(z, c, truncation_psi=-0.5), centre - 0.5 * (ws - centre), atol=1e-6)
    partly = G.mapping(z, c, truncation_psi=0.3, truncation_cutoff=2)
    assert torch.allclose(partly[:, :2], centre + 0.3 * (ws - centre)[:, :2], atol=1e-6) and torch.equal(partly[:, 2:], ws[:, 2:])
    assert torch.equal(G.mapping(z, c, truncation_psi=0.3, truncation_cutoff=0), ws)


def test_average_latent_moves_in_training_only():
    G = make_G(mapping=dict(w_avg_beta=0.9))
    z, c = latents(64)
    G.eval()
    mean = G.mapping(z, c)[:, 0].mean(dim=0)
    assert not G.mapping.w_avg.any()
    G.train()
    G.mapping(z, c, skip_w_avg_update=True)
    assert not G.mapping.w_avg.any()
    G.mapping(z, c)
    assert torch.allclose(G.mapping.w_avg, 0.1 * mean, atol=1e-6)
    G(z, c)
    assert torch.allclose(G.mapping.w_avg, 0.19 * mean, atol=1e-6) and not G.mapping.w_avg.requires_grad


def test_truncation_without_an_average_is_refused():
    G = make_G(mapping=dict(w_avg_beta=None))
    z, c = latents()
    assert G(z, c).shape == (4, 3, 16, 16)
    with pytest.raises(ValueError, match="w_avg"):
        G(z, c, truncation_psi=0.5)


def test_labels_matter():
    z, _c = latents(1)
    c = torch.eye(3)
    G, D = make_G(c_dim=3), make_D(c_dim=3)
    images = G(z.repeat(3, 1), c, noise_mode="const")
    assert max_error(images[0], images[1]) > 0.01
    logits = D(images[:1].repeat(3, 1, 1, 1), c)
    assert logits.unique().numel() == 3


# ---------------------------------------------------------------------------------------------------------------
# Noise, clamp, precision, freezing.


def test_noise_modes():
    G = make_G()
    for name, param in G.named_parameters():
        if name.endswith("noise_strength"):
            torch.nn.init.constant_(param, 0.5)
    z, c = latents()
    draw = {mode: [G(z, c, noise_mode=mode) for _ in range(2)] for mode in ("random", "const", "none")}
    assert not torch.equal(*draw["random"]) and torch.equal(*draw["const"]) and torch.equal(*draw["none"])
    assert not torch.equal(draw["const"][0], draw["none"][0])
    torch.manual_seed(3)
    first = G(z, c)
    torch.manual_seed(3)
    assert torch.equal(first, G(z, c))
    with pytest.raises(ValueError, match="noise_mode.*constant"):
        G(z, c, noise_mode="constant")


def test_without_noise_there_is_nothing_to_draw():
    G = make_G(use_noise=False)
    assert not any("noise" in name for name in G.state_dict())
    z, c = latents()
    assert torch.equal(G(z, c), G(z, c))


def test_clamp_bounds_the_features():
    layer = networks.Conv2dLayer(3, 4, kernel_size=3, activation="lrelu", conv_clamp=0.25)
    x = layer(100 * torch.randn(2, 3, 8, 8), gain=0.5)
    assert x.max() == 0.125 and x.min() == -0.125


def test_half_precision_stays_off_the_cpu():
    with_fp16, without = make_G(res=32, num_fp16_res=4, conv_clamp=256), make_G(res=32, conv_clamp=256)
    assert [getattr(with_fp16.synthesis, f"b{r}").use_fp16 for r in with_fp16.synthesis.block_resolutions] == [False, True, True, True]
    z, c = latents()
    assert torch.equal(with_fp16(z, c, noise_mode="const"), without(z, c, noise_mode="const"))
    img = torch.randn(4, 3, 32, 32)
    D = make_D(res=32, num_fp16_res=2, conv_clamp=256)
    assert [getattr(D, f"b{r}").use_fp16 for r in D.block_resolutions] == [True, True, False]
    assert torch.equal(D(img, c), D(img, c, force_fp32=True)) and D(img, c).dtype == torch.float32


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_agrees_with_float64(architecture):
    G, D = make_G(architecture=architecture), make_D(architecture=architecture)
    G64, D64 = copy.deepcopy(G).double(), copy.deepcopy(D).double()
    z, c = latents()
    img, img64 = G(z, c, noise_mode="const"), G64(z.double(), c.double(), noise_mode="const")
    assert img64.dtype == torch.float64 and max_error(img, img64) < 1e-5
    assert max_error(D(img, c), D64(img64, c)) < 1e-4


def test_latents_of_any_float_type_are_taken():
    G = make_G().eval()
    z, c = latents()
    assert torch.equal(G(z.double(), c, noise_mode="const"), G(z, c, noise_mode="const"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="half precision exists on CUDA only")
@pytest.mark.parametrize("channels_last, train", [*itertools.product([False, True], [False, True])])
def test_half_precision_on_cuda(channels_last, train):
    G = make_G(res=32, num_fp16_res=4, conv_clamp=256, fp16_channels_last=channels_last).cuda().train(train)
    D = make_D(res=32, num_fp16_res=4, conv_clamp=256, block_kwargs=dict(fp16_channels_last=channels_last)).cuda().train(train)
    z, c = (t.cuda() for t in latents())
    full = G(z, c, noise_mode="const", force_fp32=True)
    half = G(z, c, noise_mode="const")
    assert half.dtype == torch.float32 and 0 < max_error(half, full) < 0.02
    assert 0 < max_error(D(full, c), D(full, c, force_fp32=True)) < 0.05
    D(half, c).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in G.parameters())


@pytest.mark.parametrize(
    "architecture, fused, channels_last", [("skip", False, False), ("resnet", True, False), ("orig", False, True), ("skip", True, True)]
)
def test_half_precision_plumbing(monkeypatch, architecture, fused, channels_last):
    """The blocks that would run in half precision on CUDA do so on the CPU here: types fit everywhere, results agree."""
    options = dict(res=32, architecture=architecture, num_fp16_res=2, conv_clamp=256)
    G = make_G(**options, fp16_channels_last=channels_last)
    D = make_D(**options, block_kwargs=dict(fp16_channels_last=channels_last))
    z, c = latents()
    real = networks._block_precision
    monkeypatch.setattr(
        networks, "_block_precision", lambda block, weight, force_fp32, _device: real(block, weight, force_fp32, torch.device("cuda"))
    )
    full = G(z, c, noise_mode="const", fused_modconv=fused, force_fp32=True)
    half = G(z, c, noise_mode="const", fused_modconv=fused)
    assert half.dtype == torch.float32 and half.is_contiguous() and 0 < max_error(half, full) < 0.02
    logits = D(half, c)
    assert logits.dtype == torch.float32 and 0 < max_error(logits, D(half, c, force_fp32=True)) < 0.05
    logits.sum().backward()
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in [*G.parameters(), *D.parameters()])
    assert G.synthesis.b32.conv1.weight.grad.abs().max() > 0 and D.b32.fromrgb.weight.grad.abs().max() > 0


def test_large_styles_do_not_overflow_half_precision():
    """The scaling that precedes demodulation in half precision changes nothing, and bounds what is multiplied."""
    generator = torch.Generator().manual_seed(2)
    weight, styles = 100 * torch.randn([5, 16, 3, 3], generator=generator), 1e4 * torch.randn([3, 16], generator=generator)
    bounded_weight, bounded_styles = networks._bounded_for_fp16(weight, styles)
    assert bounded_styles.abs().max() <= 1 and bounded_weight.abs().max() <= 1 / np.sqrt(16 * 9) + 1e-6
    x = torch.randn([3, 16, 4, 4], generator=generator)
    wanted = networks.modulated_conv2d(x, weight, styles, padding=1)
    assert max_error(networks.modulated_conv2d(x, bounded_weight, bounded_styles, padding=1), wanted) < 1e-5


def test_frozen_layers_keep_their_names_but_leave_the_parameters():
    free, frozen = make_D(architecture="resnet"), make_D(architecture="resnet", block_kwargs=dict(freeze_layers=5))
    assert set(free.state_dict()) == set(frozen.state_dict())
    gone = {n for n, _p in free.named_parameters()} - {n for n, _p in frozen.named_parameters()}
    assert gone == {
        f"b16.{n}" for n in ("fromrgb.weight", "fromrgb.bias", "conv0.weight", "conv0.bias", "conv1.weight", "conv1.bias", "skip.weight")
    } | {"b8.conv0.weight", "b8.conv0.bias"}
    x = torch.randn(4, 3, 16, 16)
    assert torch.equal(free(x, None), frozen(x, None))


# ---------------------------------------------------------------------------------------------------------------
# Minibatch standard deviation.


@pytest.mark.parametrize("count, group_size, num_channels", [(8, 4, 1), (8, 4, 2), (3, 4, 1), (6, None, 3), (1, 4, 1)])
def test_minibatch_std_by_hand(count, group_size, num_channels):
    x = torch.randn([count, 6, 2, 2], dtype=torch.float64)
    y = networks.MinibatchStdLayer(group_size, num_channels)(x)
    assert y.shape == (count, 6 + num_channels, 2, 2) and torch.equal(y[:, :6], x)
    group = min(group_size or count, count)
    stride = count // group
    for n in range(count):
        members = x[n % stride :: stride]
        deviation = (members.var(dim=0, unbiased=False) + 1e-8).sqrt()
        for f, part in enumerate(deviation.chunk(num_channels)):
            assert torch.allclose(y[n, 6 + f], part.mean().expand(2, 2))


@pytest.mark.parametrize("c_dim, num_channels, group_size", [(0, 1, 4), (3, 2, 2), (0, 0, 4)])
def test_two_batches_in_one_pass(c_dim, num_channels, group_size):
    """Each image is compared with those of its own batch alone, in the groups that the batch has alone."""
    D = make_D(c_dim=c_dim, epilogue_kwargs=dict(mbstd_group_size=group_size, mbstd_num_channels=num_channels)).double()
    batches = [(scale * torch.randn(8, 3, 16, 16, dtype=torch.float64), torch.randn(8, c_dim, dtype=torch.float64)) for scale in (1, 5)]
    together = D.judge_together(*batches[0], *batches[1])
    for logits, batch in zip(together, batches):
        torch.testing.assert_close(logits, D(*batch), rtol=1e-10, atol=1e-10)
    if num_channels:
        neighbours = D(torch.cat([batch[0] for batch in batches]), torch.cat([batch[1] for batch in batches]))
        assert not torch.allclose(neighbours, torch.cat(together)), "the groups did not matter here"


def test_which_batches_go_in_one_pass():
    can = {size: make_D(epilogue_kwargs=dict(mbstd_group_size=size)).can_judge_together for size in (4, None)}
    assert can[4](4) and can[4](8) and not can[4](2) and not can[4](6) and not can[None](8)


def test_minibatch_that_cannot_be_grouped_is_refused():
    with pytest.raises(ValueError, match="6 images.*groups of 4"):
        networks.MinibatchStdLayer(4)(torch.zeros(6, 2, 4, 4))


def test_no_minibatch_std():
    D = make_D(epilogue_kwargs=dict(mbstd_num_channels=0))
    assert D.b4.mbstd is None and D.b4.conv.weight.shape == (16, 16, 3, 3)
    x = torch.randn(3, 3, 16, 16)
    assert torch.allclose(D(x, None)[:1], D(x[:1], None), atol=1e-5)


# ---------------------------------------------------------------------------------------------------------------
# What other programs do with the file and its objects.

ALLOWED = {
    "misc": {"assert_shape", "profiled_function", "suppress_tracer_warnings"},
    "persistence": {"persistent_class"},
    "conv2d_resample": {"conv2d_resample"},
    "upfirdn2d": {"setup_filter", "upsample2d", "downsample2d"},
    "bias_act": {"bias_act", "activation_funcs"},
    "fma": {"fma"},
}
PACKAGE_OF = {name: "torch_utils" if name in ("misc", "persistence") else "torch_utils.ops" for name in ALLOWED}


def imported_names(tree):
    """{local name: (module, name in it or None)} of every import statement anywhere in the file."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found.update({alias.asname or alias.name: (alias.name, None) for alias in node.names})
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative imports do not work in embedded source"
            found.update({alias.asname or alias.name: (node.module, alias.name) for alias in node.names})
    return found


def test_source_imports_only_what_all_forks_have(repo):
    tree = ast.parse((repo / "training" / "networks.py").read_text())
    helpers = {}
    for local, (module, name) in imported_names(tree).items():
        if module.split(".")[0] in ("torch", "numpy"):
            continue
        assert PACKAGE_OF.get(name) == module, f"import of {module}.{name}"
        helpers[local] = name
    used = {
        (helpers[node.value.id], node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in helpers
    }
    assert used <= {(module, name) for module, names in ALLOWED.items() for name in names}
    assert {module for module, _name in used} == set(ALLOWED)


def test_source_runs_where_only_those_helpers_exist(repo, monkeypatch):
    for package in ("torch_utils", "torch_utils.ops"):
        monkeypatch.setitem(sys.modules, package, types.ModuleType(package))
    for name, functions in ALLOWED.items():
        full_name = f"{PACKAGE_OF[name]}.{name}"
        real, stub = sys.modules[full_name], types.ModuleType(full_name)
        for function in functions:
            setattr(stub, function, getattr(real, function))
        if name == "persistence":
            stub.persistent_class = lambda cls: cls
        monkeypatch.setitem(sys.modules, full_name, stub)
        setattr(sys.modules[PACKAGE_OF[name]], name, stub)

    elsewhere = types.ModuleType("elsewhere")
    exec((repo / "training" / "networks.py").read_text(), elsewhere.__dict__)
    z, c = latents()
    torch.manual_seed(0)
    G = elsewhere.Generator(8, 0, 12, 16, 3, dict(num_layers=2), dict(channel_base=128, channel_max=16))
    D = elsewhere.Discriminator(0, 16, 3, channel_base=128, channel_max=16)
    img = G(z, c, noise_mode="const")
    assert torch.equal(img, make_G()(z, c, noise_mode="const"))
    assert torch.isfinite(D(img, c)).all()


def test_pickle_round_trip():
    G, D = make_G(c_dim=3).eval(), make_D(c_dim=3).eval()
    z, c = latents(4, 3)
    data = pickle.dumps(dict(G=G, D=D))
    again = pickle.load(io.BytesIO(data))
    img = G(z, c, noise_mode="const")
    assert torch.equal(again["G"](z, c, noise_mode="const"), img) and torch.equal(again["D"](img, c), D(img, c))
    assert again["G"].init_kwargs == G.init_kwargs and again["G"].z_dim == 8 and again["G"].num_ws == G.num_ws
    assert b"SynthesisNetwork" in data and again["G"] is not G


def test_deep_copies_are_independent():
    G = make_G().eval()
    twin = copy.deepcopy(G).requires_grad_(False)
    torch.nn.init.zeros_(twin.synthesis.b16.torgb.weight)
    z, c = latents()
    assert not torch.equal(twin(z, c, noise_mode="const"), G(z, c, noise_mode="const")) and next(G.parameters()).requires_grad
