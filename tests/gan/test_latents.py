"""Snapshots of a generator with a mixture of latents: read without running their code, and by code bases that lack these files."""

import copy
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import legacy
from dnnlib.errors import UserError
from tests.compat.test_other_checkouts import CHECKOUT
from training import setup
from training.gan.latents import MixtureGenerator
from training.networks import Discriminator

READER = """
import pickle, sys
import numpy as np, torch
G = pickle.load(open(sys.argv[1], 'rb'))['G_ema']
z = torch.from_numpy(np.load(sys.argv[2]))
with torch.no_grad():
    np.save(sys.argv[3], G(z, torch.zeros([len(z), 0]), truncation_psi=0.7, noise_mode='const').numpy())
assert not [name for name in sys.modules if name.split('.')[0] == 'training']
"""


def generator(kind="circle"):
    torch.manual_seed(0)
    synthesis = dict(channel_base=64, channel_max=8, num_fp16_res=0, conv_clamp=None)
    kwargs = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=synthesis)
    G = MixtureGenerator("training.networks.Generator", kind, 5, 2.0, 0.5, **kwargs)
    return G.eval().requires_grad_(False)


def test_means():
    circle, uniform = generator().mapping.means, generator("uniform").mapping.means
    assert torch.allclose(circle[:, :2].norm(dim=1), torch.full([5], 2.0)) and bool((circle[:, 2:] == 0).all())
    assert torch.allclose(circle[0, :2], torch.tensor([2.0, 0])) and float(torch.pdist(circle).min()) == pytest.approx(
        4 * np.sin(np.pi / 5), rel=1e-5
    )
    assert float(uniform.abs().max()) <= 2 and float(uniform.std()) == pytest.approx(2 / 3**0.5, rel=0.2)


def test_a_snapshot_is_read_without_running_its_code_and_elsewhere(tmp_path):
    G, z = generator(), torch.randn(6, 8)
    image = G(z, torch.zeros([6, 0]), truncation_psi=0.7, noise_mode="const")
    D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=64, channel_max=8)
    path = tmp_path / "network-snapshot-000000.pkl"
    path.write_bytes(pickle.dumps(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs={})))
    read = legacy.open_network(str(path), trust=False)["G_ema"]
    torch.testing.assert_close(read(z, torch.zeros([6, 0]), truncation_psi=0.7, noise_mode="const"), image)
    np.save(tmp_path / "z.npy", z.numpy())
    arguments = [str(path), str(tmp_path / "z.npy"), str(tmp_path / "image.npy")]
    env = {"PYTHONPATH": str(CHECKOUT), "PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", READER, *arguments], cwd=CHECKOUT, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(np.load(tmp_path / "image.npy"), image.numpy(), rtol=1e-3, atol=1e-4)


def test_latents_of_a_pickle_take_the_place_of_no_others(tmp_path):
    """--resume=PICKLE copies the mixture with the weights: where the options say another one, they would be wrong ever after."""
    D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, channel_base=64, channel_max=8)

    def made(kind="circle", std=0.5):
        synthesis = dict(channel_base=64, channel_max=8)
        base = dict(z_dim=8, c_dim=0, w_dim=8, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=synthesis)
        return MixtureGenerator(base_class_name="training.networks.Generator", kind=kind, num_means=5, radius=2.0, std=std, **base)

    path = str(tmp_path / "begun.pkl")
    with open(path, "wb") as file:
        pickle.dump(dict(G=made("uniform"), D=D, G_ema=made("uniform")), file)
    for kind, std, typed in (("circle", 0.5, "kind=uniform"), ("uniform", 0.25, "std=0.5"), ("circle", 0.25, "kind=uniform,std=0.5")):
        G = made(kind, std)
        targets = dict(G=G, D=D, G_ema=copy.deepcopy(G))
        with pytest.raises(UserError, match=f"--method=gm-gan:{typed} to go on"):
            setup.load_pretrained(path, targets, partial=False, trust=False)
        own, weight = G.mapping.means.clone(), G.mapping.fc0.weight.detach().clone()
        setup.load_pretrained(path, targets, partial=True, trust=False)
        for key in ("G", "G_ema"):
            mapping = targets[key].mapping
            assert torch.equal(mapping.means, own) and float(mapping.std) == std and not torch.equal(mapping.fc0.weight, weight)
    targets = dict(G=made("uniform"), D=D, G_ema=made("uniform"))
    setup.load_pretrained(path, targets, partial=False, trust=False)
    assert torch.equal(targets["G"].mapping.means, legacy.open_network(path)["G"].mapping.means)  # those that its weights know


def test_a_snapshot_cannot_name_any_class():
    with pytest.raises(ValueError, match="base_class_name must be one of training.networks.Generator"):
        MixtureGenerator("os.system", "circle", 5, 2.0, 0.5)


def test_the_file_imports_what_the_whole_family_has():
    source = (Path(__file__).resolve().parents[2] / "training" / "gan" / "latents.py").read_text()
    lines = [line.split("#")[0].strip() for line in source.splitlines() if line.strip().startswith(("import ", "from "))]
    assert lines == ["import math", "import torch", "from torch_utils import persistence", "import dnnlib"]
