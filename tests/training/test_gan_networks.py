"""DCGAN and the additions to discriminators: shapes, hand-computed numbers, derivatives, PyTorch's own layers, pickles."""

import ast
import copy
import io
import pickle

import pytest
import torch
from torch.nn.utils import parametrizations

from dnnlib.errors import UserError
from torch_utils import safe_unpickle
from training import networks as stylegan2
from training.gan import networks
from training.gan.features import logits_and_features

SMALL = dict(channel_base=128, channel_max=16)


def generator(c_dim=0, img_resolution=16, img_channels=3, **synthesis_kwargs):
    return networks.DCGANGenerator(8, c_dim, None, img_resolution, img_channels, synthesis_kwargs={**SMALL, **synthesis_kwargs})


def discriminator(c_dim=0, img_resolution=16, img_channels=3, **kwargs):
    return networks.DCGANDiscriminator(c_dim, img_resolution, img_channels, **{**SMALL, **kwargs})


def stylegan2_discriminator(c_dim=0, **kwargs):
    return networks.StyleGAN2Discriminator(c_dim, 16, 3, **SMALL, **kwargs)


VARIANTS = {
    **{norm: lambda norm=norm: discriminator(norm=norm) for norm in networks.NORMS},
    "labels": lambda: discriminator(c_dim=3),
    "kernels": lambda: discriminator(minibatch_kernels=4),
    "stylegan2": lambda: stylegan2_discriminator(),
    "stylegan2 spectral": lambda: stylegan2_discriminator(spectral_norm=True),
    "stylegan2 labels": lambda: stylegan2_discriminator(c_dim=3, spectral_norm=True, minibatch_kernels=4),
    "stylegan2 kernels": lambda: stylegan2_discriminator(minibatch_kernels=4, epilogue_kwargs=dict(mbstd_num_channels=0)),
}


def judged(D, num=4):
    torch.manual_seed(1)
    return torch.rand(num, 3, 16, 16) * 2 - 1, torch.eye(3)[[0, 1, 2, 0][:num]] if D.c_dim else torch.zeros(num, 0)


# --- shapes and interface ---


@pytest.mark.parametrize("side, first_side", networks.FIRST_SIDES.items())
@pytest.mark.parametrize("channels", [1, 6])
def test_every_size(side, first_side, channels):
    G, D = generator(3, side, channels), discriminator(3, side, channels)
    c = torch.eye(3)[:2]
    ws = G.mapping(torch.randn(2, 8), c)
    img = G.synthesis(ws)
    assert ws.shape == (2, G.num_ws, G.w_dim) and G.num_ws == 1
    assert img.shape == (2, channels, side, side) and img.abs().max() <= 1
    logits, features = logits_and_features(D.eval(), img, c)
    assert logits.shape == (2, 1)
    assert features.shape == (2, min(128 // first_side, 16) * first_side**2)
    assert torch.equal(features, D.features(img, c)) and torch.equal(logits, D(img, c))


@pytest.mark.parametrize("side", [8, 24, 100, 256])
def test_other_sizes_are_refused(side):
    for make in (generator, discriminator):
        with pytest.raises(ValueError, match="14, 16, 28, 32, 64, 128 pixels"):
            make(0, side)


def test_widths_of_the_paper():
    """Radford 2015, figure 1 at half its width, as in the usual implementations: 64 maps at half the resolution, 512 at 4x4."""
    G, D = networks.DCGANGenerator(100, 0), networks.DCGANDiscriminator(0, 64, 3)
    assert [getattr(G.synthesis, f"conv{i}").weight.shape[0] for i in range(4)] == [512, 256, 128, 64]
    assert [getattr(D, f"conv{i}").weight.shape[0] for i in range(4)] == [64, 128, 256, 512]
    assert hasattr(D, "norm1") and not hasattr(D, "norm0")
    weights = torch.cat([parameter.flatten() for name, parameter in G.named_parameters() if name.endswith("weight") and "conv" in name])
    assert abs(weights.std() - 0.02) < 1e-3 and abs(weights.mean()) < 1e-3


def test_the_mapping_is_the_latent_beside_the_label():
    z, c = torch.randn(2, 8), torch.eye(3)[:2]
    assert torch.equal(generator().mapping(z, torch.zeros(2, 0))[:, 0], z)
    mapping = generator(3).mapping
    ws = mapping(z, c, truncation_psi=0.5)
    assert torch.equal(ws[:, 0, :8], z / 2)
    assert torch.allclose(ws[:, 0, 8:], mapping.embed.weight.t()[:2] + mapping.embed.bias)
    assert torch.equal(mapping(z, c, truncation_psi=0.5, truncation_cutoff=0, skip_w_avg_update=True), mapping(z, c))


def test_keywords_of_the_family_change_nothing():
    G = generator().eval()
    z = torch.randn(2, 8)
    plain = G(z, None)
    assert torch.equal(plain, G(z, torch.zeros(2, 0), truncation_psi=1, noise_mode="random", force_fp32=True, fused_modconv=False))
    with pytest.raises(TypeError):
        G(z, None, noise="const")


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="w_dim must be 8"):
        networks.DCGANGenerator(8, 0, 16, 16, 3)
    with pytest.raises(ValueError, match="channels must hold 2 or 3 numbers"):
        generator(channels=[4])
    with pytest.raises(ValueError, match="norm must be one of batch, none, layer, spectral"):
        discriminator(norm="instance")
    with pytest.raises(ValueError, match="cannot be halved"):
        discriminator(channels=[4] * 5)
    with pytest.raises(UserError, match="no last layer"):
        logits_and_features(torch.nn.Linear(1, 1), torch.ones(1, 1), None)


# --- the same as other people's layers ---


def test_a_dcgan_of_pytorchs_layers_is_the_same():
    """With the same seed, weights, images, logits and running averages are those of torch.nn's layers in the same order."""
    torch.manual_seed(0)
    G = networks.DCGANGenerator(64, 0, None, 28, 3, synthesis_kwargs=dict(channels=[32, 16, 8], init_std=None))
    D = networks.DCGANDiscriminator(0, 28, 3, channels=[4, 8, 16], norm="none", init_std=None)
    torch.manual_seed(0)
    nn = torch.nn
    start = nn.Sequential(nn.Linear(64, 32 * 49), nn.Unflatten(1, (32, 7, 7)), nn.BatchNorm2d(32), nn.ReLU())
    enlarge = [
        layer
        for inputs, outputs in [(32, 16), (16, 8)]
        for layer in (nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU())
    ]
    theirs_G = nn.Sequential(start, *enlarge, nn.Conv2d(8, 3, 3, padding=1), nn.Tanh())
    shrink = [
        layer for inputs, outputs in [(3, 4), (4, 8), (8, 16)] for layer in (nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2))
    ]
    theirs_D = nn.Sequential(*shrink, nn.Flatten(), nn.Linear(16 * 9, 1))
    z = torch.randn(6, 64)
    for train in (True, True, False):
        for module in (G, D, theirs_G, theirs_D):
            module.train(train)
        img = G(z, None)
        assert torch.equal(img, theirs_G(z))
        assert torch.equal(D(img), theirs_D(img))


def test_spectral_norm_is_pytorchs():
    torch.manual_seed(0)
    layer = networks.DCGANLayer("conv", 3, 5, spectral_norm=True)
    theirs = torch.nn.Conv2d(3, 5, 4, stride=2, padding=1)
    theirs.weight.data.copy_(layer.weight.data), theirs.bias.data.copy_(layer.bias.data)
    theirs = parametrizations.spectral_norm(theirs)
    theirs.parametrizations.weight[0]._u.copy_(layer.spectral_norm.u), theirs.parametrizations.weight[0]._v.copy_(layer.spectral_norm.v)
    optimizers = [torch.optim.SGD(module.parameters(), 0.1) for module in (layer, theirs)]
    for step in range(4):
        x = torch.randn(2, 3, 8, 8)
        if step == 3:
            layer.eval(), theirs.eval()
        else:
            networks.follow_weights(layer)
        outputs = [module(x) for module in (layer, theirs)]
        assert torch.allclose(*outputs, atol=1e-6)
        for output, optimizer in zip(outputs, optimizers):
            optimizer.zero_grad(), output.square().sum().backward(), optimizer.step()
        assert torch.allclose(layer.weight, theirs.parametrizations.weight.original, atol=1e-6)
        assert torch.allclose(layer.spectral_norm.u, theirs.parametrizations.weight[0]._u, atol=1e-6)


@pytest.mark.parametrize("name", ["spectral", "stylegan2 spectral"])
def test_passes_leave_spectral_norms_as_they_are(name):
    """Else they would depend on how many passes a step is made of, and so on the number of processes."""
    torch.manual_seed(0)
    D = VARIANTS[name]().train()
    before = {key: buffer.clone() for key, buffer in D.named_buffers() if key.endswith((".u", ".v"))}
    D(*judged(D, 2)).sum().backward()
    after = {key: buffer for key, buffer in D.named_buffers() if key in before}
    assert len(before) > 4 and all(torch.equal(before[key], after[key]) for key in before)
    networks.follow_weights(D)
    moved = [key for key in before if not torch.equal(before[key], after[key])]
    assert len(moved) >= len(before) - 2  # u and v of a last layer of one output have nowhere to go


@pytest.mark.parametrize("name", ["spectral", "stylegan2 spectral"])
def test_spectral_norm_bounds_every_layer(name):
    """After some power iterations of weights that rest, the largest singular value of what a layer multiplies by is 1."""
    torch.manual_seed(0)
    D = VARIANTS[name]()
    for _ in range(100):
        networks.follow_weights(D)
    layers = [layer for layer in D.modules() if isinstance(getattr(layer, "spectral_norm", None), networks.SpectralNorm)]
    matrices = [parameter for key, parameter in D.named_parameters() if key.endswith("weight") and parameter.ndim > 1]
    assert len(layers) == len(matrices) > 2
    for layer in layers:
        assert abs(torch.linalg.matrix_norm(layer.spectral_norm(layer.weight).flatten(1), 2) - 1) < 1e-2


def test_no_addition_is_stylegan2s_own_discriminator():
    torch.manual_seed(0)
    theirs = stylegan2.Discriminator(3, 16, 3, **SMALL)
    torch.manual_seed(0)
    D = stylegan2_discriminator(c_dim=3)
    img, c = judged(D)
    assert [name for name, _ in D.named_parameters()] == [name for name, _ in theirs.named_parameters()]
    assert torch.equal(D(img, c), theirs(img, c))
    logits, features = logits_and_features(theirs, img, c)
    assert torch.equal(logits, theirs(img, c)) and features.shape == (4, 16)


# --- minibatch discrimination ---


def test_minibatch_discrimination_by_hand():
    """Two features, one kernel of two dimensions, T the identity: M_i = f_i; distances 3 and 1 and 4."""
    layer = networks.MinibatchDiscrimination(2, 1, 2)
    layer.T.data = torch.eye(2)[:, None, :]
    close = layer(torch.tensor([[0.0, 0.0], [1.0, 2.0], [0.0, -1.0]]))
    e = torch.exp(-torch.tensor([0.0, 3.0, 1.0, 4.0]))
    assert torch.allclose(close[:, 0], torch.stack([e[0] + e[1] + e[2], e[0] + e[1] + e[3], e[0] + e[2] + e[3]]))


def test_minibatch_discrimination_by_loops():
    torch.manual_seed(0)
    layer = networks.MinibatchDiscrimination(6, 3, 4).double()
    f = torch.randn(5, 6, dtype=torch.float64)
    expected = torch.zeros(5, 3, dtype=torch.float64)
    for i in range(5):
        for j in range(5):
            for b in range(3):
                expected[i, b] += torch.exp(-(f[i] @ layer.T[:, b] - f[j] @ layer.T[:, b]).abs().sum())
    assert torch.allclose(layer(f), expected)
    collapsed = layer(f[:1].repeat(5, 1))
    assert torch.allclose(collapsed, torch.full_like(collapsed, 5)) and (layer(f) < 5).all()


def test_closeness_does_not_depend_on_how_many_are_judged_at_once():
    """Half of a batch with as many alike: the sum over others is scaled to those that D learnt with, and is exact where each image comes twice."""
    torch.manual_seed(0)
    layer, f = networks.MinibatchDiscrimination(6, 3, 4, num_images=7), torch.randn(4, 6)
    free = networks.MinibatchDiscrimination(6, 3, 4)
    free.load_state_dict(layer.state_dict())
    for other in (f, f.repeat(5, 1)):
        assert torch.allclose((layer(other) - 1) / 6, (free(other) - 1) / (len(other) - 1))
    assert torch.equal(layer(f[:1]), torch.ones(1, 3))  # one alone has nobody to be compared with
    seven = torch.randn(7, 6)
    assert torch.equal(layer(seven), free(seven))


def test_derivatives_of_the_additions():
    torch.manual_seed(0)
    kernels = networks.MinibatchDiscrimination(3, 2, 2).double()
    spectral = networks.SpectralNorm(3, 4).double().eval()  # u and v rest: they are no part of the gradient
    f, weight = (torch.randn(3, size, dtype=torch.float64, requires_grad=True) for size in (3, 4))
    for check in (torch.autograd.gradcheck, torch.autograd.gradgradcheck):
        assert check(lambda f, T: torch.func.functional_call(kernels, dict(T=T), f), (f, kernels.T))
        assert check(spectral, (weight,))


# --- every variant ---


@pytest.mark.parametrize("name", VARIANTS)
def test_gradients_reach_every_parameter_also_of_a_penalty(name):
    torch.manual_seed(0)
    D = VARIANTS[name]()
    img, c = judged(D)
    logits = D(img.requires_grad_(), c)
    [gradient] = torch.autograd.grad(logits.sum(), img, create_graph=True)
    (logits.mean() + gradient.square().sum()).backward()
    for key, parameter in D.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all() and parameter.grad.abs().max() > 0, key


@pytest.mark.parametrize("name", VARIANTS)
def test_features_are_what_the_last_layer_reads(name):
    torch.manual_seed(0)
    D = VARIANTS[name]().eval()
    img, c = judged(D)
    logits, features = logits_and_features(D, img, c)
    assert torch.equal(logits, D(img, c)) and features.shape == (4, 256 if not name.startswith("stylegan2") else 16)
    features.square().sum().backward()  # feature matching learns through them
    assert next(D.parameters()).grad.abs().max() > 0


@pytest.mark.parametrize("name", VARIANTS)
def test_pickles_open_without_trust_and_go_on_the_same(name):
    torch.manual_seed(0)
    D = VARIANTS[name]()
    img, c = judged(D)
    D(img, c)  # running averages and singular vectors have moved
    G = generator(D.c_dim)
    pickled = pickle.dumps(dict(D=D, G=G))
    for loaded in (safe_unpickle.load(io.BytesIO(pickled)), pickle.loads(pickled), copy.deepcopy(dict(D=D, G=G))):
        assert loaded["D"].state_dict().keys() == D.state_dict().keys()
        again = copy.deepcopy(D)
        for _ in range(2):  # the second pass depends on what the first one left in the buffers
            assert torch.equal(loaded["D"](img, c), again(img, c))
        z = torch.randn(4, 8)
        assert torch.equal(loaded["G"](z, c), copy.deepcopy(G)(z, c))


def test_the_embedded_source_stands_alone(repo):
    """At import it needs torch and what every code base of the family has; StyleGAN2's networks only where one is constructed."""
    tree = ast.parse((repo / "training" / "gan" / "networks.py").read_text())
    at_import = [ast.unparse(node) for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
    everywhere = [ast.unparse(node) for node in ast.walk(tree) if isinstance(node, (ast.Import, ast.ImportFrom))]
    assert at_import == ["import torch", "import torch.nn.functional as F", "from torch_utils import misc, persistence"]
    assert sorted(set(everywhere) - set(at_import)) == ["from training import networks"]
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("misc", "persistence")
    }
    assert used == {("misc", "assert_shape"), ("persistence", "persistent_class")}
