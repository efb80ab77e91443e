"""Our snapshots in another code base of the family: they load by executing the embedded source and draw the same image."""

import ast
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import dnnlib
from madr_plugin import augment_pipe as pipes
from training import augment, networks
from training.gan import networks as gan_networks

CHECKOUT = Path(__file__).parent / "family_checkout"

READER = """
import os, pickle, sys
import numpy as np, torch
folder, checkout = sys.argv[1:]
inputs = np.load(os.path.join(folder, 'inputs.npz'))
z, c, images = (torch.from_numpy(inputs[key]) for key in ('z', 'c', 'images'))
for name in sorted(os.listdir(folder)):
    if not name.endswith('.pkl'):
        continue
    with open(os.path.join(folder, name), 'rb') as f:
        snapshot = pickle.load(f)
    G_ema, D, pipe = snapshot['G_ema'], snapshot['D'], snapshot['augment_pipe']
    with torch.no_grad():
        image = G_ema(z, c, truncation_psi=0.7, noise_mode='const')
        fused = G_ema.synthesis(G_ema.mapping(z, c), noise_mode='const', fused_modconv=False)
        logits = D(images, c)
        augmented = pipe(images, debug_percentile=0.3)
    np.savez(os.path.join(folder, name + '.npz'), image=image, fused=fused, logits=logits, augmented=augmented)
    assert not G_ema.training and G_ema.init_kwargs['c_dim'] == 2 and snapshot['training_set_kwargs']['path'] == 'x.zip'
    fresh = type(G_ema)(*G_ema._init_args, **G_ema._init_kwargs)  # the classes construct there, too
    fresh.load_state_dict(G_ema.state_dict())
assert not [name for name in sys.modules if name.split('.')[0] in ('training', 'madr_plugin', 'metrics')]
import dnnlib, torch_utils
assert dnnlib.__file__.startswith(checkout) and torch_utils.__file__.startswith(checkout)
"""


def make_snapshot(in_G, in_D):
    G = networks.Generator(
        z_dim=8,
        c_dim=2,
        w_dim=8,
        img_resolution=16,
        img_channels=3,
        mapping_kwargs=dnnlib.EasyDict(num_layers=2),
        synthesis_kwargs=dnnlib.EasyDict(channel_base=256, channel_max=16, num_fp16_res=2, conv_clamp=256, architecture=in_G),
    )
    D = networks.Discriminator(
        c_dim=2,
        img_resolution=16,
        img_channels=3,
        channel_base=256,
        channel_max=16,
        architecture=in_D,
        epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=2),
    )
    for parameter in G.parameters():  # noise strengths begin at zero, which would hide the noise
        parameter.data.add_(torch.randn_like(parameter) * 0.1)
    G, D = G.eval().requires_grad_(False), D.eval().requires_grad_(False)
    pipe = augment.AugmentPipe(xflip=1, rotate=1, scale=1, brightness=1, imgfilter=1, cutout=1)
    return dict(G=G, D=D, G_ema=G, augment_pipe=pipe, training_set_kwargs=dnnlib.EasyDict(path="x.zip"))


def make_other_snapshots(pipe):
    """Of DCGAN, and of StyleGAN2's discriminator with its additions."""
    G = (
        gan_networks.DCGANGenerator(z_dim=8, c_dim=2, img_resolution=16, img_channels=3, synthesis_kwargs=dnnlib.EasyDict(channel_base=128))
        .eval()
        .requires_grad_(False)
    )
    made = {}
    for norm in gan_networks.NORMS:
        made[norm] = gan_networks.DCGANDiscriminator(2, 16, 3, channel_base=128, norm=norm, minibatch_kernels=3)
    made["additions"] = gan_networks.StyleGAN2Discriminator(
        2, 16, 3, spectral_norm=True, minibatch_kernels=3, channel_base=256, channel_max=16, epilogue_kwargs=dnnlib.EasyDict(mbstd_num_channels=0)
    )
    training_set_kwargs = dnnlib.EasyDict(path="x.zip")
    return {
        f"dcgan-{name}.pkl": dict(G=G, D=D.eval().requires_grad_(False), G_ema=G, augment_pipe=pipe, training_set_kwargs=training_set_kwargs)
        for name, D in made.items()
    }


def test_snapshots_draw_the_same_image_elsewhere(tmp_path):
    torch.manual_seed(0)
    snapshots = {f"{in_G}-{in_D}.pkl": make_snapshot(in_G, in_D) for in_G, in_D in [("skip", "resnet"), ("resnet", "skip"), ("orig", "orig")]}
    snapshots.update(make_other_snapshots(snapshots["orig-orig.pkl"]["augment_pipe"]))
    carrier = pipes.MADRAugmentPipe(base=snapshots["orig-orig.pkl"]["augment_pipe"]).eval().requires_grad_(False)
    carrier.carry(pipes.flatten(dict(step=7, memory=dict(features=torch.ones(3, 2)))))
    snapshots["madr.pkl"] = dict(snapshots["orig-orig.pkl"], augment_pipe=carrier)
    for name, snapshot in snapshots.items():
        (tmp_path / name).write_bytes(pickle.dumps(snapshot))
    z, c, images = torch.randn(2, 8), torch.eye(2), torch.randn(2, 3, 16, 16)
    np.savez(tmp_path / "inputs.npz", z=z.numpy(), c=c.numpy(), images=images.numpy())

    done = subprocess.run(
        [sys.executable, "-c", READER, str(tmp_path), str(CHECKOUT)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        env={"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    for name, snapshot in snapshots.items():
        G, D, pipe = snapshot["G_ema"], snapshot["D"], snapshot["augment_pipe"]
        expected = dict(
            image=G(z, c, truncation_psi=0.7, noise_mode="const"),
            fused=G.synthesis(G.mapping(z, c), noise_mode="const", fused_modconv=False),
            logits=D(images, c),
            augmented=pipe(images, debug_percentile=0.3),
        )
        with np.load(tmp_path / f"{name}.npz") as found:
            for key, value in expected.items():
                np.testing.assert_allclose(found[key], value.numpy(), rtol=1e-3, atol=1e-4, err_msg=f"{name} {key}")


ALLOWED = {
    "networks": {
        "misc": {"assert_shape", "profiled_function", "suppress_tracer_warnings"},
        "persistence": {"persistent_class"},
        "conv2d_resample": {"conv2d_resample"},
        "upfirdn2d": {"setup_filter", "upsample2d", "downsample2d"},
        "bias_act": {"bias_act", "activation_funcs"},
        "fma": {"fma"},
    },
    "augment": {
        "misc": {"constant"},
        "persistence": {"persistent_class"},
        "upfirdn2d": {"setup_filter", "upsample2d", "downsample2d"},
        "grid_sample_gradfix": {"grid_sample"},
        "conv2d_gradfix": {"conv2d"},
    },
}


@pytest.mark.parametrize("name", sorted(ALLOWED))
def test_embedded_sources_are_self_contained(name, repo):
    """They import, and use of what they import, only what every code base of the family has."""
    tree = ast.parse((repo / "training" / f"{name}.py").read_text())
    helpers, libraries = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.module in ("torch_utils", "torch_utils.ops") and node.level == 0, ast.dump(node)
            helpers.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.Import):
            libraries.update(alias.name.split(".")[0] for alias in node.names)
    assert libraries <= {"torch", "numpy", "scipy", "math"} and helpers <= ALLOWED[name].keys()
    used = {
        (node.value.id, node.attr)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in helpers
    }
    assert used and all(attribute in ALLOWED[name][helper] for helper, attribute in used)
