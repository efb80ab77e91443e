"""--backbone=dcgan and the methods that change D's architecture: what they set, what they refuse, what the run then has."""

import copy
import os
import pickle
import shutil

import pytest
import torch

import legacy
import madr_plugin.options
import train
from dnnlib import cli
from training import networks as stylegan2, setup
from training.gan import methods, networks
from training.training_loop import training_loop


def trained(options, folder):
    """The snapshot of a run of these options, opened without trust."""
    os.makedirs(folder)
    training_loop(run_dir=str(folder), **options)
    newest = sorted(name for name in os.listdir(folder) if name.startswith("network-snapshot"))[-1]
    with open(os.path.join(folder, newest), "rb") as file:
        return legacy.load_network_pkl(file)


def test_dcgan_sets_its_papers_optimizers_and_no_styles(dry_run):
    options, out = dry_run("--backbone=dcgan")
    assert options["G_kwargs"]["class_name"] == "training.gan.networks.DCGANGenerator" and options["D_kwargs"]["norm"] == "batch"
    assert options["loss_kwargs"]["gan"] == "non-saturating" and options["loss_kwargs"]["methods"] == []
    assert options["loss_kwargs"]["pl_weight"] == options["loss_kwargs"]["style_mixing_prob"] == options["loss_kwargs"]["r1_gamma"] == 0
    for letter in "GD":
        assert options[f"{letter}_opt_kwargs"] == dict(class_name="torch.optim.Adam", lr=2e-4, betas=[0.5, 0.999], eps=1e-8)
        assert options[f"{letter}_reg_interval"] is None  # rates as they are
    assert options["ema_kimg"] == 0 and options["backbone"] == "dcgan:norm=batch,z_dim=100"
    assert "D normalises by batch: as in its paper" in out
    assert dry_run("--backbone=dcgan", "--ema-kimg=3", "--cmax=8", "--glr=0.001")[0]["ema_kimg"] == 3


@pytest.mark.parametrize(
    "flags, norm",
    [
        ([], "batch"),
        (["--gan=hinge"], "batch"),
        (["--gan=wgan-gp"], "layer"),
        (["--gamma=1"], "layer"),
        (["--method=r2"], "layer"),
        (["--method=spectral-norm"], "spectral"),
        (["--method=spectral-norm", "--gan=wgan-gp"], "spectral"),
    ],
)
def test_the_norm_follows_what_else_was_chosen(dry_run, flags, norm):
    options, _ = dry_run("--backbone=dcgan", *flags)
    assert options["D_kwargs"]["norm"] == norm and f"norm={norm}" in options["backbone"]


@pytest.mark.parametrize(
    "flags, words",
    [
        (["--backbone=dcgan:norm=batch", "--gan=wgan-gp"], ["--gan=wgan-gp", "--backbone=dcgan", "leave out norm=batch"]),
        (
            ["--backbone=dcgan:norm=batch", "--method=gradient-penalty"],
            ["--method=gradient-penalty penalises", "or leave out --method=gradient-penalty"],
        ),
        (["--backbone=dcgan:norm=batch", "--method=r1"], ["--method=r1 penalises", "leave out norm=batch, or leave out --method=r1"]),
        (["--backbone=dcgan:norm=batch", "--gamma=2"], ["--gamma=2 penalises", "or leave out --gamma=2"]),
        (["--backbone=dcgan:norm=batch", "--gan=rpgan+r1+r2"], ["--gan=rpgan+r1+r2 penalises", "or use --gan=lsgan"]),
        (["--backbone=dcgan:norm=layer", "--method=spectral-norm"], ["norm=layer", "--method=spectral-norm"]),
        (["--backbone=dcgan:norm=instance"], ["one of batch, layer, spectral, none", "instance"]),
        (["--backbone=dcgan", "--map-depth=4"], ["--map-depth=4", "--backbone=dcgan"]),
        (["--backbone=dcgan", "--mbstd-group=4"], ["--mbstd-group=4", "--backbone=dcgan"]),
        (["--backbone=dcgan", "--half=fp16"], ["--half=fp16 has no effect on --backbone=dcgan", "no half precision"]),
        (["--backbone=dcgan", "--pl-weight=2"], ["--pl-weight=2", "--backbone=dcgan"]),
        (["--backbone=dcgan", "--method=no-minibatch-std"], ["--method=no-minibatch-std", "--backbone=dcgan"]),
        (["--method=no-minibatch-std", "--mbstd-group=4"], ["--method=no-minibatch-std", "--mbstd-group=4"]),
        (["--method=minibatch-discrimination:kernels=0"], ["kernels", "from 1 to 256"]),
    ],
)
def test_contradictions_are_refused_in_a_sentence(refusal, flags, words):
    said = refusal(*flags)
    assert all(word in said for word in words), said


def test_the_weak_dcgan_sets_the_unrolled_papers_networks(data16, tiny_zip, capsys):
    shutil.copy(tiny_zip(num_images=8, resolution=28), "digits28.zip")
    assert cli.call(train.main, ["--data=digits28.zip", "--outdir=out", "--backbone=weak-dcgan:share=0.5", "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "D has 4, 8, 16 channels, 0.5 times those of G" in out and "D normalises by batch" in out
    assert cli.call(train.main, ["--data=digits28.zip", "--outdir=out", "--backbone=weak-dcgan:norm=batch", "--gan=wgan-gp", "--dry-run"]) == 1
    assert "leave out norm=batch" in capsys.readouterr().err
    for flag in ("--cbase=64", "--cmax=4"):
        assert cli.call(train.main, ["--data=digits28.zip", "--outdir=out", "--backbone=weak-dcgan", flag, "--dry-run"]) == 1
        assert f"{flag} has no effect on --backbone=weak-dcgan" in capsys.readouterr().err
    assert cli.call(train.main, ["--data=digits28.zip", "--outdir=out", "--backbone=weak-dcgan", "--half=off", "--dry-run"]) == 0
    capsys.readouterr()
    assert cli.call(train.main, ["--data=data16.zip", "--outdir=out", "--backbone=weak-dcgan", "--dry-run"]) == 1
    assert "16x16 pixels; --backbone=weak-dcgan draws 28" in capsys.readouterr().err


@pytest.mark.parametrize("spelt", ["DCGAN", "weak_dcgan", "Weak-DCGAN:share=0.5"])
def test_a_name_may_be_spelt_otherwise_at_any_size(data16, tiny_zip, capsys, spelt):
    shutil.copy(tiny_zip(num_images=8, resolution=28), "digits28.zip")
    assert cli.call(train.main, ["--data=digits28.zip", "--outdir=out", "--cfg=tiny", f"--backbone={spelt}", "--dry-run"]) == 0, (
        capsys.readouterr().err
    )


def test_sizes_of_dcgan_are_not_those_of_stylegan2(data16, tiny_zip, capsys):
    for size, flags, code in ((28, ["--backbone=dcgan"], 0), (28, [], 1), (8, ["--backbone=dcgan"], 1), (8, [], 0)):
        shutil.copy(tiny_zip(num_images=8, resolution=size), "other.zip")
        assert cli.call(train.main, ["--data=other.zip", "--outdir=out", "--cfg=tiny", "--dry-run", *flags]) == code
        err = capsys.readouterr().err
        assert code == 0 or ("draws 14, 16, 28, 32, 64, 128" in err if flags else "8, 16, 32" in err)


ADDITIONS = ["spectral-norm", "minibatch-discrimination:kernels=3,dim=2"]


@pytest.mark.parametrize("backbone", ["dcgan", "stylegan2"])
@pytest.mark.parametrize("chosen", [ADDITIONS[:1], ADDITIONS[1:], ADDITIONS], ids=["spectral", "kernels", "both"])
def test_architectures_train(options_of, data16, backbone, chosen):
    data = trained(options_of(backbone=backbone, method=chosen, cond=True), data16 / "run")
    kind = networks.DCGANDiscriminator if backbone == "dcgan" else networks.StyleGAN2Discriminator
    assert type(data["D"]) is kind
    spectral = [module for module in data["D"].modules() if isinstance(module, networks.SpectralNorm)]
    kernels = [module for module in data["D"].modules() if isinstance(module, networks.MinibatchDiscrimination)]
    assert bool(spectral) == ("spectral-norm" in chosen) and len(kernels) == len(chosen) - bool(spectral)
    assert all(module.T.shape[1:] == (3, 2) for module in kernels)


ROWS = [dict(gan=name) for name in methods.RECIPES] + [dict(method=[name]) for name in methods.METHODS if name != "no-minibatch-std"]


@pytest.mark.parametrize("flags", ROWS, ids=lambda flags: str(flags.get("gan") or flags["method"][0]))
def test_every_row_trains_on_dcgan(options_of, data16, flags):
    data = trained(options_of(backbone="dcgan", steps=2, **flags), data16 / "run")
    assert all(bool(tensor.isfinite().all()) for letter in "GD" for tensor in data[letter].state_dict().values())


def test_other_rows_join_dcgan(options_of, data16):
    """Packs before D, a mixture of latents before G, with labels."""
    data = trained(options_of(backbone="dcgan", gan="wgan-gp", method=["pacgan:m=2", "gm-gan"], cond=True, steps=6), data16 / "run")
    assert data["D"].img_channels == 6 and data["D"].conv0.weight.shape[1] == 7  # three channels each, and one of the labels
    assert [module for module in data["G_ema"].modules() if isinstance(module, networks.DCGANSynthesis)]


def test_weights_of_a_plain_D_are_divided_by_their_own_singular_values(tmp_path):
    """--resume=PLAIN.pkl --resume-partial with spectral normalisation: weights are the pickle's, and singular vectors are in none."""
    torch.manual_seed(0)
    small = dict(channel_base=128, channel_max=16)
    G = stylegan2.Generator(8, 0, 8, 16, 3, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=small)
    with open(tmp_path / "plain.pkl", "wb") as file:
        pickle.dump(dict(G=G, D=stylegan2.Discriminator(0, 16, 3, **small), G_ema=G), file)
    D = networks.StyleGAN2Discriminator(0, 16, 3, spectral_norm=True, **small)
    setup.load_pretrained(str(tmp_path / "plain.pkl"), dict(G=copy.deepcopy(G), D=D, G_ema=copy.deepcopy(G)), partial=True, trust=False)
    for layer in [layer for layer in D.modules() if hasattr(layer, "spectral_norm") and hasattr(layer, "weight_gain")]:
        found = layer.weight.flatten(1) / layer.spectral_norm(layer.weight).flatten(1)
        assert float(found.detach().median()) == pytest.approx(float(torch.linalg.matrix_norm(layer.weight.detach().flatten(1), 2)), rel=0.1)


def test_without_minibatch_std(options_of, data16):
    data = trained(options_of(method=["no-minibatch-std"]), data16 / "run")
    assert type(data["D"]) is stylegan2.Discriminator and data["D"].b4.mbstd is None


@pytest.mark.parametrize("gan", ["wgan-gp", "rpgan", "non-saturating"])
def test_madr_joins_dcgan(options_of, data16, gan):
    """With MADR's term G learns otherwise, and the snapshots are as without."""
    plain = options_of(backbone="dcgan", gan=gan, steps=6)
    led = copy.deepcopy(plain)
    madr_plugin.options.apply(led, dict(madr=1, madr_deficit_window=64, madr_reals=16, madr_width=8))
    snapshots = [trained(options, data16 / name) for name, options in (("plain", plain), ("led", led))]
    assert type(snapshots[1]["G_ema"]) is networks.DCGANGenerator and type(snapshots[1]["D"]) is networks.DCGANDiscriminator
    weights = [data["G"].synthesis.start.weight for data in snapshots]
    assert not torch.equal(*weights) and all(weight.isfinite().all() for weight in weights)


def test_the_weak_dcgan_trains(options_of, data16, tiny_zip):
    shutil.copy(tiny_zip(num_images=8, resolution=28), "digits28.zip")
    data = trained(options_of(data="digits28.zip", backbone="weak-dcgan", cbase=None, cmax=None, steps=2), data16 / "run")
    assert data["D"].slope == 0.3 and data["D"].conv0.weight.shape == (2, 3, 3, 3) and data["G_ema"].synthesis.side == 4
