"""MADR around the assembled loss: its tap and its tilt under packs, a penalty between reals and fakes, relativistic pairs, other latents."""

import os

import pytest
import torch

from madr_plugin.tilt.tilted_logits import RealLogitWeights
from training import state
from training.training_loop import training_loop

SMALL = dict(madr=1, madr_deficit_window=64, madr_reals=16, madr_width=8, madr_shrink=0.0)
COMBINED = [dict(gan="wgan-gp", method=["pacgan:m=2", "n-critic:n=2"]), dict(gan="rpgan", method=["gm-gan:kind=uniform", "mode-seeking", "bcr"])]


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return state.load_state(state.latest_state(str(path)))["parts"]


def same_tensors(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("flags", COMBINED, ids=lambda flags: flags["gan"])
def test_the_tap_watches_and_acts(flags, options_of, data16):
    """Watching it leaves every bit; acting it moves G; the state has both parts; a resumed run is the same."""
    plain = run("plain", options_of(steps=6, **flags))
    watching = run("watching", options_of(steps=6, **flags, **SMALL, madr_weight=0, madr_replay_weight=0, madr_tilt=0))
    options = options_of(steps=6, **flags, **SMALL)
    acting = run("acting", options)
    for network in ("G", "D", "G_ema"):
        assert same_tensors(plain[network], watching[network])
    assert not same_tensors(plain["G"], acting["G"]) and acting["progress"]["nonfinite_steps"] == 0
    steps_of_G = 3 if flags["gan"] == "wgan-gp" else 6
    assert int(acting["loss"]["madr"]["step"]) == steps_of_G and set(acting["loss"]["base"]) == {"pl_mean", "methods"}
    run("parts", options, total_kimg=2 * options["batch_size"] / 1000)
    again = run("parts", options, resume_state=state.latest_state("parts"))
    assert same_tensors(acting["G"], again["G"]) and same_tensors(acting["D"], again["D"])


def test_remembered_latents_make_the_images_again_under_another_distribution(options_of, data16):
    """The memory keeps the normal latents, which the generator itself maps."""
    from madr_plugin.host.generator_access import GeneratorAccess
    from training import setup

    options = options_of(method=["gm-gan"])
    training_set, _ = setup.build_training_set(options.training_set_kwargs, torch.device("cpu"))
    G, _ = setup.build_networks(options.G_kwargs, options.D_kwargs, training_set, torch.device("cpu"), 0)
    G.requires_grad_(True)
    access, seen = GeneratorAccess(G.mapping, G.synthesis), []
    z, c = torch.randn([4, 8]), torch.zeros([4, 0])
    with access.first_image(lambda image, latents: seen.append((image, latents))):
        G.synthesis(G.mapping(z, c))
    [(image, latents)] = seen
    assert torch.equal(latents["latents"][:, 0], z)
    torch.testing.assert_close(access.remake(latents["latents"], latents["layers"], latents["labels"]), image)


@pytest.mark.parametrize("penalised", [False, True])
def test_weighted_logits_under_a_critic(toy, batch, penalised):
    """Each real's term counts with its weight; fakes and the penalty between them and reals with 1."""
    made, D, synthesis = toy("wgan-gp", [("gradient-penalty", dict(weight=10.0))] if penalised else [])
    reals, none, z, c = batch()
    weight = torch.tensor([2.0, 0.5, 1.0, 0.5], dtype=torch.float64)

    def gradient(weighted):
        D.zero_grad(set_to_none=True)
        torch.manual_seed(0)
        if weighted:
            with RealLogitWeights(D, None).weighting(weight, "Dboth", reals):
                made.accumulate_gradients("Dboth", reals, none, z, c, True, 1)
        else:
            made.accumulate_gradients("Dboth", reals, none, z, c, True, 1)
        return D.weight.grad.clone()

    [extra] = torch.autograd.grad(-((weight - 1)[:, None] * D(reals, none)).mean(), [D.weight])
    torch.testing.assert_close(gradient(True), gradient(False) + extra)


@pytest.mark.parametrize("flag, reason", [
    ("--method=pacgan", "--method=pacgan D judges packs of images"),
    ("--method=diffaugment", "--method=diffaugment D sees no image as it came"),
    ("--gan=rpgan", "--gan=rpgan each real is judged against a fake"),
])  # fmt: skip
def test_weighted_logits_need_logits_of_single_reals(refusal, flag, reason):
    said = refusal(flag, "--madr=1", "--madr-tilt=1", "--madr-tilt-form=weight")
    assert reason in said and "use --madr-tilt-form=draw" in said
