"""Shared by the tests of the methods: networks of a few weights, runs of a few steps, command lines."""

import json
import os
import shutil

import pytest
import torch

import train
from dnnlib import cli
from training.gan import choosing


class Linear(torch.nn.Module):
    """D: logits = weight . pixels + bias, one per image or pack; its gradient on the image is `weight`."""

    def __init__(self, shape, seed=0, dtype=torch.float64):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn(shape, generator=generator, dtype=dtype))
        self.bias = torch.nn.Parameter(torch.zeros([], dtype=dtype))

    def forward(self, img, c):
        return (img * self.weight).flatten(1).sum(1, keepdim=True) + self.bias


class Curved(Linear):
    """D with a second derivative."""

    def forward(self, img, c):
        return (img * self.weight + img.square() * 0.3).tanh().flatten(1).sum(1, keepdim=True) + self.bias


class Mapping(torch.nn.Module):
    """z [N, Z] -> ws [N, 1, Z]: one latent for the whole image."""

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        return z[:, None, :]


class Synthesis(torch.nn.Module):
    """ws [N, 1, Z] -> images [N, *shape]."""

    def __init__(self, z_dim, shape, seed=1, dtype=torch.float64):
        super().__init__()
        self.shape = shape
        generator = torch.Generator().manual_seed(seed)
        self.weight = torch.nn.Parameter(torch.randn([z_dim, *shape], generator=generator, dtype=dtype) / 2)

    def forward(self, ws):
        return torch.einsum("nz,zchw->nchw", ws[:, 0], self.weight).tanh()


@pytest.fixture
def toy():
    """toy(gan, [(method, values)], D=None) -> (GANLoss, D, synthesis) in float64, images [1, 2, 2] of latents of 3 numbers."""
    from training.gan import loss, methods

    def make(gan="non-saturating", chosen=(), D=None, shape=(1, 2, 2), **kwargs):
        pack = dict(chosen).get("pacgan", {}).get("m", 1)
        D = D if D is not None else Curved([shape[0] * pack, *shape[1:]])
        synthesis = Synthesis(3, shape)
        entries = [dict({p.name: p.default for p in methods.METHODS[name].parameters}, name=name, **values) for name, values in chosen]
        made = loss.GANLoss("cpu", Mapping(), synthesis, D, gan=gan, methods=entries, pl_weight=0, **kwargs)
        return made, D, synthesis

    return make


@pytest.fixture
def batch():
    """batch(N) -> (reals, real labels, latents, labels of the fakes) in float64, images [N, 1, 2, 2]."""

    def make(count=4, shape=(1, 2, 2), seed=5):
        generator = torch.Generator().manual_seed(seed)
        none = torch.zeros([count, 0], dtype=torch.float64)
        reals = torch.randn([count, *shape], generator=generator, dtype=torch.float64)
        return reals, none, torch.randn([count, 3], generator=generator, dtype=torch.float64), none

    return make


@pytest.fixture()
def data16(tmp_path, monkeypatch, tiny_zip):
    """The current folder is an empty one with data16.zip."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_zip(num_images=24, resolution=16, num_classes=2), "data16.zip")
    return tmp_path


@pytest.fixture
def dry_run(data16, capsys):
    """dry_run(*flags) -> (options, all that was printed)."""

    def run(*flags):
        code = cli.call(train.main, ["--data=data16.zip", "--outdir=out", "--cfg=tiny", *flags, "--dry-run"])
        captured = capsys.readouterr()
        assert code == 0, captured.err
        options, _ = json.JSONDecoder().raw_decode(captured.out.partition("Training options:\n")[2])
        return options, captured.out

    return run


@pytest.fixture
def refusal(data16, capsys):
    """refusal(*flags) -> the sentence; nothing is left behind."""

    def run(*flags):
        code = cli.call(train.main, ["--data=data16.zip", "--outdir=out", "--cfg=tiny", *flags])
        captured = capsys.readouterr()
        assert code in (1, 2) and "Traceback" not in captured.err and not os.path.exists("out")
        return captured.err

    return run


@pytest.fixture
def options_of(data16):
    """options_of(**flags) -> keyword arguments of training_loop for a run of a few steps with these flags."""

    def make(steps=3, **flags):
        options = train.build(
            dict(dict(data="data16.zip", cfg="tiny", cbase=128, cmax=8, batch=8, workers=0, tick=1, snap=1, snap_res=128), **flags)
        ).options
        options.update(total_kimg=steps * options.batch_size / 1000, device="cpu", metrics=[])
        if "veegan" in [entry.name for entry in options.loss_kwargs.get("methods", ())]:  # D is told latents
            options.D_kwargs.c_dim -= choosing.pack_of(options) * (options.G_kwargs.z_dim - 8)
        options.G_kwargs.update(z_dim=8, **({"w_dim": 8} if "w_dim" in options.G_kwargs else {}))
        return options

    return make
