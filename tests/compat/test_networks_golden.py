"""The networks against golden numbers: names, shapes and order of all tensors, outputs, first and second derivatives."""

import copy
import inspect

import numpy as np
import pytest
import torch

from torch_utils.ops import conv2d_gradfix
from training import networks

SMALL = ["r32_uncond", "r64_cond10", "r32_cifar", "r32_resnetg"]
LARGE = ["auto256", "cifar10_cond", "paper1024"]


def build(entry):
    """G, D of a golden entry. The large configurations leave out what the entry's tensors tell."""
    cfg = entry["config"]
    common = dict(channel_base=cfg["cb"], channel_max=cfg.get("cm", 512), num_fp16_res=cfg.get("fp16", 0))
    common.update(conv_clamp=entry.get("conv_clamp", 256))
    arch_d = cfg.get("arch_d") or ("resnet" if f"b{cfg['res']}.skip.weight" in entry["D_state"] else "orig")
    G = networks.Generator(
        z_dim=entry["z_dim"],
        c_dim=cfg["c"],
        w_dim=entry["w_dim"],
        img_resolution=cfg["res"],
        img_channels=3,
        mapping_kwargs=dict(num_layers=cfg["nmap"]),
        synthesis_kwargs=dict(architecture=cfg.get("arch_g", "skip"), **common),
    )
    D = networks.Discriminator(
        c_dim=cfg["c"],
        img_resolution=cfg["res"],
        img_channels=3,
        architecture=arch_d,
        epilogue_kwargs=dict(mbstd_group_size=cfg.get("mb", 4)),
        **common,
    )
    return G, D


@torch.no_grad()
def fill(module, rs):
    for name, tensor in [*module.named_parameters(), *module.named_buffers()]:
        if name.endswith("resample_filter"):
            continue
        value = rs(name).standard_normal(tensor.shape)
        if name.endswith(".bias"):
            value = 0.1 * value + (1 if ".affine." in name else 0)
        if name.endswith((".noise_strength", ".w_avg")):
            value = 0.1 * value
        tensor.copy_(torch.as_tensor(np.asarray(value, dtype=np.float32)))


@pytest.fixture(params=["plain PyTorch", "kernels"])
def case(request, filled):
    """The same under each implementation of the operators."""
    if request.param == "kernels":
        request.getfixturevalue("cpu_kernels")
    return filled


@pytest.fixture(scope="module", params=SMALL)
def filled(request, golden, rs):
    """(name, entry of the json, arrays, filled G, filled D), for each configuration that has numbers."""
    entry, arrays = golden("networks.json")[request.param], golden(f"network_{request.param}.npz")
    G, D = build(entry)
    fill(G, rs)
    fill(D, rs)
    return request.param, entry, {k: torch.from_numpy(np.asarray(v)) for k, v in arrays.items()}, G.eval(), D.eval()


def assert_near(got, wanted, tolerance):
    """Largest deviation, relative to the largest wanted value."""
    got, wanted = got.detach().double(), wanted.double()
    assert got.shape == wanted.shape
    error = (got - wanted).abs().max() / wanted.abs().max()
    assert error <= tolerance, f"deviates by {error:.2e} of the largest value"


@pytest.mark.parametrize("name", SMALL + LARGE)
def test_tensors_have_the_names_shapes_and_order(golden, name):
    entry = golden("networks.json")[name]
    for module, key in zip(build(entry), "GD"):
        state = [[n, list(t.shape)] for n, t in module.state_dict().items()]
        assert state == [[n, s] for n, s in entry[f"{key}_state"].items()]
        if f"{key}_params" in entry:
            assert [n for n, _p in module.named_parameters()] == entry[f"{key}_params"]
        if f"num_{key}" in entry:
            assert sum(p.numel() for p in module.parameters()) == entry[f"num_{key}"]


def test_signatures(golden):
    for name, wanted in golden("api.json")["training.networks"].items():
        obj = getattr(networks, name)
        if isinstance(wanted, str):
            assert str(inspect.signature(obj)) == wanted, name
            continue
        assert issubclass(obj, torch.nn.Module)
        for method, signature in wanted["methods"].items():
            assert str(inspect.signature(getattr(obj, method))) == signature, (name, method)


def test_mapping(case):
    _name, _entry, arrays, G, _D = case
    assert_near(G.mapping(arrays["z"], arrays["c"]), arrays["ws"], 1e-5)
    assert_near(G.mapping(arrays["z"], arrays["c"], truncation_psi=0.7, truncation_cutoff=4), arrays["ws_trunc"], 1e-5)


def test_synthesis(case):
    _name, _entry, arrays, G, _D = case
    with torch.no_grad():
        assert_near(G.synthesis(arrays["ws"], noise_mode="const"), arrays["img"], 1e-5)
        assert_near(G.synthesis(arrays["ws"], noise_mode="const", fused_modconv=True), arrays["img"], 1e-5)
        assert_near(G.synthesis(arrays["ws"], noise_mode="const", fused_modconv=False), arrays["img_fused"], 1e-5)
        assert_near(G.synthesis(arrays["ws_trunc"], noise_mode="none"), arrays["img_none"], 1e-5)
        assert_near(G(arrays["z"], arrays["c"], truncation_psi=0.7, truncation_cutoff=4, noise_mode="none"), arrays["img_none"], 1e-5)


def assert_same_norms(norms, wanted, rel):
    """Norms of gradients (None: there is none). Those below 1e-6 of the largest are rounding noise."""
    assert norms.keys() == wanted.keys()
    noise = 1e-6 * max(value for value in wanted.values() if value is not None)
    for name, value in wanted.items():
        assert norms[name] == (None if value is None else pytest.approx(value, rel=rel, abs=noise)), name


def gradient_norms(scalar, module):
    names, params = zip(*module.named_parameters())
    grads = torch.autograd.grad(scalar, params, allow_unused=True)
    return {name: None if grad is None else grad.norm().item() for name, grad in zip(names, grads)}


def discriminator_and_r1(D, arrays):
    """logits, their gradient on the images, the R1 penalty."""
    dtype = D.b4.conv.weight.dtype
    img = arrays["img"].to(dtype).requires_grad_()
    logits = D(img, arrays["c"])
    with conv2d_gradfix.no_weight_gradients():
        (dlogits_dimg,) = torch.autograd.grad(logits.sum(), img, create_graph=True)
    return logits, dlogits_dimg, dlogits_dimg.square().sum(dim=[1, 2, 3]).mean()


def test_discriminator_and_r1(case):
    _name, entry, arrays, _G, D = case
    logits, dlogits_dimg, r1 = discriminator_and_r1(D, arrays)
    assert_near(logits, arrays["logits"], 1e-5)
    # An activation that rounding lifts over a kink changes one image's gradient visibly; the other images must agree.
    errors = (dlogits_dimg - arrays["dlogits_dimg"]).abs().amax(dim=[1, 2, 3]) / arrays["dlogits_dimg"].abs().max()
    assert errors.sort().values[:-1].max() < 1e-4 and errors.max() < 0.1
    assert_near(r1, arrays["r1"], 1e-3)
    assert_same_norms(gradient_norms(r1, D), entry["r1_param_grad_norms"], rel=0.05)


def test_discriminator_and_r1_in_float64(case):
    """No kink is near enough to a float64 value: everything agrees to the golden file's own precision."""
    _name, entry, arrays, _G, D = case
    D = copy.deepcopy(D).double()
    logits, dlogits_dimg, r1 = discriminator_and_r1(D, arrays)
    assert_near(logits, arrays["logits"], 1e-5)
    assert_near(dlogits_dimg, arrays["dlogits_dimg"], 1e-4)
    assert_near(r1, arrays["r1"], 1e-5)
    assert_same_norms(gradient_norms(r1, D), entry["r1_param_grad_norms"], rel=1e-4)


@pytest.mark.parametrize("weight_gradients", [True, False])
def test_path_length(case, rs, weight_gradients):
    name, entry, arrays, G, _D = case
    ws = arrays["ws"][:4].clone().requires_grad_()
    img = G.synthesis(ws, noise_mode="const", fused_modconv=False)
    noise = torch.from_numpy(rs("pl:" + name).standard_normal(img.shape).astype(np.float32)) / np.sqrt(img.shape[2] * img.shape[3])
    if weight_gradients:
        (dimg_dws,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
    else:
        with conv2d_gradfix.no_weight_gradients():
            (dimg_dws,) = torch.autograd.grad((img * noise).sum(), ws, create_graph=True)
    lengths = dimg_dws.square().sum(dim=2).mean(dim=1).sqrt()
    assert_near(lengths, arrays["pl_lengths"], 1e-4)
    assert_same_norms(gradient_norms(lengths.square().mean(), G.synthesis), entry["pl_param_grad_norms"], rel=1e-3)
