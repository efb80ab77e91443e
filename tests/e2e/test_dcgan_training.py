"""DCGAN in the training loop, by the names of its classes: it learns, goes on bit for bit, and every tool takes its snapshots."""

import json
import os
import pickle

import numpy as np
import pytest
import torch

import calc_metrics
import export
import generate
import legacy
import projector
import style_mixing
from dnnlib.errors import UserError
from metrics import extractors
from tests.e2e.drawing_fixtures import assert_sentence, read_png
from tests.e2e.test_processes import train
from tests.e2e.test_resume import StopAfter, assert_same_state, run, same
from torch_utils import distributed
from training import state
from training.gan import backbones, networks

LOSS = dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=0, pl_weight=0, style_mixing_prob=0)
ADAM = dict(class_name="torch.optim.Adam", lr=2e-4, betas=[0.5, 0.999])
SMALL = dict(channel_base=128, channel_max=16)


@pytest.fixture
def dcgan_options(loop_options, tiny_zip):
    """dcgan_options(size, num_classes, D_kwargs, **overrides) -> keywords of training_loop."""

    def make(size=16, num_classes=2, D_kwargs=None, **overrides):
        options = loop_options(
            num_classes=num_classes,
            G_kwargs=dict(class_name="training.gan.networks.DCGANGenerator", z_dim=8, synthesis_kwargs=dict(SMALL)),
            D_kwargs=dict(class_name="training.gan.networks.DCGANDiscriminator", **SMALL, **(D_kwargs or {})),
            G_opt_kwargs=dict(ADAM),
            D_opt_kwargs=dict(ADAM),
            loss_kwargs=dict(LOSS),
            G_reg_interval=None,
            D_reg_interval=None,
            augment_kwargs=None,
            ada_target=None,
            augment_p=0,
            total_kimg=0.032,
            ema_kimg=0,
            network_snapshot_ticks=1,
        )
        path = tiny_zip(num_images=16, resolution=size, num_classes=num_classes)
        options["training_set_kwargs"].update(path=path, resolution=size)
        options.update(overrides)
        return options

    return make


def snapshot_of(folder):
    return os.path.join(folder, sorted(name for name in os.listdir(folder) if name.startswith("network-snapshot"))[-1])


STYLEGAN2_VARIANT = dict(
    G_kwargs=dict(class_name="training.networks.Generator", z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(SMALL)),
    D_kwargs=dict(
        class_name="training.gan.networks.StyleGAN2Discriminator",
        **SMALL,
        spectral_norm=True,
        minibatch_kernels=3,
        epilogue_kwargs=dict(mbstd_num_channels=0),
    ),
    D_reg_interval=2,
    loss_kwargs=dict(LOSS, r1_gamma=1, style_mixing_prob=0.9),
)


@pytest.mark.parametrize("size", [28, 32])
def test_it_learns_at(tmp_path, dcgan_options, size):
    """Every tensor of both networks moves, and the running averages become part of G_ema."""
    torch.manual_seed(0)
    run(tmp_path / "run", dcgan_options(size, total_kimg=0.024))
    with open(snapshot_of(tmp_path / "run"), "rb") as file:
        data = legacy.load_network_pkl(file)  # nothing of the file is executed
    assert type(data["G_ema"]) is networks.DCGANGenerator and type(data["D"]) is networks.DCGANDiscriminator
    assert data["G_ema"].w_dim == 8 + 64 and data["G_ema"].img_resolution == size
    assert same(dict(data["G"].state_dict()), dict(data["G_ema"].state_dict()))  # ema_kimg = 0: no average of weights
    for name, tensor in data["G"].state_dict().items():
        if "running_mean" in name:
            assert tensor.abs().max() > 0
    state_of_run = state.load_state(state.latest_state(tmp_path / "run"))["parts"]
    for letter in "GD":
        moments = state_of_run[f"{letter}_opt"]["state"].values()
        assert len(moments) == len(list(data[letter].parameters())) and all(moment["exp_avg"].abs().max() > 0 for moment in moments)


@pytest.mark.parametrize(
    "variant",
    [dict(D_kwargs=dict(norm="batch")), dict(D_kwargs=dict(norm="spectral", minibatch_kernels=3), num_classes=0), STYLEGAN2_VARIANT],
    ids=["batch", "spectral", "stylegan2"],
)
def test_resume_is_bitwise(tmp_path, dcgan_options, variant):
    """Running averages and singular vectors are part of the state: k steps, a stop and the rest are the whole."""
    variant = dict(variant)
    options = dcgan_options(num_classes=variant.pop("num_classes", 2), D_kwargs=variant["D_kwargs"] if "G_kwargs" not in variant else None)
    if "G_kwargs" in variant:
        options.update(variant)
    options.update(total_kimg=0.04, kimg_per_tick=0.016)
    run(tmp_path / "whole", options)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "parts", options, abort_fn=StopAfter(3))
    assert stopped.value.code == distributed.EXIT_STOPPED
    run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts"))
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    whole, parts = (pickle.load(open(snapshot_of(tmp_path / name), "rb")) for name in ("whole", "parts"))
    for key in ("G", "D", "G_ema"):
        assert same(dict(whole[key].state_dict()), dict(parts[key].state_dict()))


def test_sizes_are_those_of_the_networks():
    assert tuple(sorted(networks.FIRST_SIDES)) == backbones.SIZES["dcgan"]


@pytest.mark.parametrize("size, near", [(8, 14), (24, 28)])
def test_other_sizes_are_refused_in_a_sentence(tmp_path, dcgan_options, size, near):
    with pytest.raises(UserError, match=f"{size}x{size} pixels; --backbone=dcgan draws 14, .*--width={near}"):
        run(tmp_path / "run", dcgan_options(size))


# --- the tools ---


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A snapshot of DCGAN with labels, 16 pixels."""
    torch.manual_seed(0)
    G = networks.DCGANGenerator(8, 2, img_resolution=16, synthesis_kwargs=SMALL)
    D = networks.DCGANDiscriminator(2, 16, 3, **SMALL)
    for _ in range(5):
        D(G(torch.randn(8, 8), torch.eye(2)[torch.arange(8) % 2]), torch.eye(2)[torch.arange(8) % 2])
    path = tmp_path_factory.mktemp("dcgan") / "network-snapshot-000001.pkl"
    with open(path, "wb") as file:
        pickle.dump(dict(G=G.eval(), D=D.eval(), G_ema=G, augment_pipe=None, training_set_kwargs=None), file)
    return str(path)


def test_generate_draws_from_it(call, network, tmp_path):
    code, out, err = call(generate.main, "--network", network, "--seeds=0-3", "--class=1", "--trunc=0.5", "--outdir", tmp_path)
    assert code == 0, err
    z = torch.from_numpy(np.random.RandomState(2).randn(1, 8).astype(np.float32))
    with open(network, "rb") as file, torch.no_grad():
        image = legacy.load_network_pkl(file)["G_ema"](z * 0.5, torch.tensor([[0.0, 1.0]]))
    expected = (image.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8)[0].numpy()
    assert np.array_equal(read_png(tmp_path / "seed0002.png"), expected)
    code, _, err = call(generate.main, "--network", network, "--seeds=0-1", "--class=0", "--frames=3", "--outdir", tmp_path / "frames")
    assert code == 0, err
    code, out, err = call(generate.main, "--network", network, "--seeds=0-3", "--class=1", "--drs", "--drs-burn-in=128", "--outdir", tmp_path / "drs")
    assert code == 0 and "Discriminator rejection sampling accepted" in out, err


def test_style_mixing_is_refused(call, network, tmp_path):
    flags = ["--network", network, "--rows=0", "--cols=1", "--class=0", "--outdir", tmp_path]
    for styles in ([], ["--styles=0"]):
        assert_sentence(call(style_mixing.main, *flags, *styles), "nothing to mix", "generate.py")


def test_the_projector_finds_latents(call, network, tmp_path):
    assert call(generate.main, "--network", network, "--seeds=0", "--class=1", "--outdir", tmp_path)[0] == 0
    flags = ["--distance=pixel", "--num-steps=3", "--save-video=false", "--class=1", "--outdir", tmp_path / "proj"]
    code, _, err = call(projector.main, "--network", network, "--target", tmp_path / "seed0000.png", *flags)
    assert code == 0, err
    found = tmp_path / "proj" / "projected_w.npz"
    assert np.load(found)["w"].shape == (1, 1, 8 + 64)
    assert call(generate.main, "--network", network, "--projected-w", found, "--outdir", tmp_path / "again")[0] == 0


def test_it_is_exported_and_turned_back(network, tmp_path):
    assert export.export_drawing(network, str(tmp_path / "net.pt"), "torchscript") < 1e-4
    export.export_snapshot(network, str(tmp_path / "pair"))
    back = export.import_snapshot(str(tmp_path / "pair"))
    with open(network, "rb") as file:
        data = legacy.load_network_pkl(file)
    for key in ("G", "D", "G_ema"):
        assert same(dict(data[key].state_dict()), dict(back[key].state_dict()))
    with open(network, "rb") as file, pytest.raises(UserError, match="force_fp16 does not fit"):
        legacy.load_network_pkl(file, force_fp16=True)


def test_metrics_take_it(call, network, tmp_path, tiny_zip):
    detector = tmp_path / "detector.pt"
    extractors.save_torchscript("random-conv", detector)
    flags = [f"--data={tiny_zip(num_images=30, num_classes=2)}", f"--detector=inception={detector}", f"--detector=vgg16={detector}", "--num-gen=20"]
    code, out, err = call(calc_metrics.main, "--network", network, "--metrics=fid50k_full,ppl2_wend,ppl_zfull", *flags)
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')]
    assert len(lines) == 3 and all(np.isfinite(list(line["results"].values())).all() for line in lines)


# --- several processes ---


@pytest.mark.slow
def test_two_processes_train_as_one(tmp_path, dcgan_options, warm_processes):
    """Batch normalisation is over the microbatch of one process. With microbatches of one size weights are those of one process; the
    running averages are not: one process moves them once for each microbatch, several move them in parallel and take the mean."""
    options = dcgan_options(total_kimg=0.16)
    one, two = train(tmp_path / "one", options, 1), train(tmp_path / "two", options, 2)
    for letter in "GD":
        for name, value in one[letter].items():
            difference, scale = float((value - two[letter][name]).abs().max()), max(float(value.abs().max()), 1e-3)
            if "running" in name:  # what they began with counts 0.9^80 in one process, 0.9^40 in two
                assert 0 < difference <= 0.1 * scale + 0.9**40, (letter, name)
            else:
                assert difference <= 1e-3 * scale, (letter, name)


@pytest.mark.slow
def test_two_processes_keep_the_same_singular_vectors(tmp_path, dcgan_options, warm_processes):
    """Each moves its own u and v; the loop compares them when it saves. They have made half as many iterations as one process's."""
    parts = train(tmp_path / "two", dcgan_options(D_kwargs=dict(norm="spectral")), 2)
    assert any(name.endswith("spectral_norm.u") for name in parts["D"]) and parts["progress"]["batch_idx"] == 4
