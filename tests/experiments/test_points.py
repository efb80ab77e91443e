"""Runs on PacGAN's ring and grid with the methods of train.py, and the study of methods."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from dnnlib import cli
from experiments import points, row_runs, stacked, study, toy_2d

methods = pytest.importorskip("training.gan.methods", reason="there is no table of methods")


def test_the_ring_is_pacgans():
    centres, masses, spread = toy_2d.mode_layout("small-ring")
    assert np.allclose(np.linalg.norm(centres, axis=1), 1) and len(centres) == 8 and spread == 0.01 and np.allclose(masses, 1 / 8)
    # What perfect samples get: 1 - exp(-9/2) of them within three standard deviations, and KL (K - 1) / 2N.
    real = toy_2d.PointSet("small-ring", count=100_000, seed=1).points
    found = [toy_2d.measure(part, "small-ring") for part in np.split(real, 40)]
    assert np.mean([entry["quality"] for entry in found]) == pytest.approx(1 - np.exp(-4.5), abs=2e-3)
    assert np.mean([entry["kl"] for entry in found]) == pytest.approx(7 / 5000, rel=0.3) and {entry["hit"] for entry in found} == {8}


@pytest.mark.parametrize(
    "flags",
    [
        ["--gan=non-saturating"],
        ["--gan=wgan-gp"],
        ["--method=pacgan:m=3"],
        ["--method=unrolled:k=1", "--method=gm-gan"],
        ["--madr=1"],
        ["--madr=1", "--madr-tilt=1"],
    ],
    ids=str,
)
def test_a_run_of_a_few_steps_is_written_and_repeats(flags, tmp_path, capsys):
    for name in ("one", "two"):
        assert cli.call(points.main, ["--layout=ring", "--kimg=1", "--seed=3", *flags, f"--outdir={tmp_path / name}"]) == 0, capsys.readouterr().err
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    timeless = lambda entry: {key: value for key, value in entry.items() if key not in ("seconds", "cpu_seconds", "curve")}
    assert timeless(one) == timeless(two) and one["kimg"] == 1 and len(one["curve"]) == 10  # ten steps
    assert 0 <= one["modes"] <= 8 and one["cpu_seconds"] > 0 and np.isfinite(one["kl"])


@pytest.mark.parametrize("flags", [["--madr=1"], ["--gan=wgan-gp", "--method=pacgan:m=2"]], ids=str)
def test_a_run_that_was_stopped_goes_on_as_the_run_in_one(flags, tmp_path, monkeypatch, capsys):
    typed = ["--layout=ring", "--kimg=2", "--seed=3", *flags]
    assert cli.call(points.main, [*typed, f"--outdir={tmp_path / 'one'}"]) == 0

    class StoppedAfterSeven(points.StopSignals):
        def __call__(self):
            self.asked = getattr(self, "asked", 0) + 1
            return self.asked > 7

    with monkeypatch.context() as patch:
        patch.setattr(points, "StopSignals", StoppedAfterSeven)
        assert cli.call(points.main, [*typed, f"--outdir={tmp_path / 'two'}"]) == 75
        assert "Stopped after 7 steps; the same command goes on" in capsys.readouterr().out
    assert cli.call(points.main, [*typed[: -len(flags)], "--gan=hinge", f"--outdir={tmp_path / 'two'}"]) == 1
    assert "is the state of a run with other methods" in capsys.readouterr().err
    assert cli.call(points.main, [*typed, f"--outdir={tmp_path / 'two'}"]) == 0
    one, two = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("one", "two"))
    for name in ("G", "D"):
        assert all(torch.equal(one["parts"][name][key], two["parts"][name][key]) for key in one["parts"][name])
    one, two = (json.loads((tmp_path / name / "result.json").read_text()) for name in ("one", "two"))
    assert [point["kimg"] for point in one["curve"]] == [point["kimg"] for point in two["curve"]] and len(two["curve"]) == 20
    assert [point["kl"] for point in one["curve"]] == [point["kl"] for point in two["curve"]]


def test_packs_are_as_many_as_points_would_be():
    options = points.options_of(dict(layout="grid", gan="non-saturating", method=["pacgan:m=4"], kimg=1, seed=0))
    assert options.batch_size == options.batch_gpu == 400 and options.D_kwargs.img_channels == 8
    _, run = points.built(options)
    assert run.D.hidden.in_features == 8 and [phase.name for phase in run.phases] == ["Gboth", "Dboth"] and run.G.z_dim == 2


@pytest.mark.parametrize("flags, words", [(["--gan=nosuch"], "nosuch"), (["--method=spectral-norm"], "spectral-norm")])
def test_refusals(flags, words, tmp_path, capsys):
    assert cli.call(points.main, [*flags, "--kimg=1", f"--outdir={tmp_path / 'x'}"]) == 1
    assert words in capsys.readouterr().err and not Path(tmp_path / "x").exists()


def test_the_study_names_rows_of_the_table():
    loaded = study.load("methods")
    assert (
        not set(methods.METHODS)
        - {"clip", "gradient-penalty", "pull-to-reals", "r2", "n-critic", "dia-gan", "no-minibatch-std", "icr"}
        - {flag.partition("=")[2].partition(":")[0] for flags in loaded.methods.values() for flag in flags if flag.startswith("--method=")}
    )
    for flags in loaded.methods.values():
        for flag in flags:
            name, _, value = flag.partition("=")
            if name in ("--gan", "--method"):
                assert value.split(":")[0] in (methods.RECIPES if name == "--gan" else methods.METHODS), flag
    assert set(loaded.bed("ring").measure("kl").row) == {"kl", "KL (nats)", 3, False}


@pytest.mark.parametrize("bed", ["ring", "stacked-quarter", "stacked-half"])
def test_every_method_of_the_study_runs_on_its_beds(bed, capsys):
    """A few steps of each, as the bed's script makes it: what a row refuses there is left out of the bed."""
    loaded, triples = study.load("methods"), stacked.Triples("small")
    chosen = loaded.bed(bed)
    for name in loaded.methods_of(chosen):
        flags = [flag.lstrip("-").split("=", 1) for flag in loaded.methods[name]]
        asked = dict(gan="non-saturating", method=[value for flag, value in flags if flag == "method"], kimg=10, iterations=100, seed=0)
        asked.update({flag.replace("-", "_"): value if flag in ("gan", "madr-preset") else 1 for flag, value in flags if flag != "method"})
        asked.update(dict(madr_reference_cap=512) if "madr" in asked else {})
        if chosen.script == "experiments.points":
            options = points.options_of(dict(asked, layout="ring"))
            data, run = points.built(options)
            draw = lambda count, generator: torch.from_numpy(data.points[:count])[:, :, None, None] / toy_2d.EXTENT
        else:
            share = float(next(flag for flag in chosen.flags if flag.startswith("--share=")).partition("=")[2])
            options = stacked.options_of(dict(asked, digits="small", share=share))
            assert options.D_kwargs.channels == [8 * share, 16 * share, 32 * share]
            options.batch_size = options.batch_gpu = options.batch_size // 16
            run, draw = row_runs.Run(options, triples, stacked.IMAGE_SHAPE), triples.draw
        for _ in range(2):
            run.step(draw)
        assert all(bool(parameter.isfinite().all()) for network in (run.G, run.D) for parameter in network.parameters()), name
        assert (options.loss_kwargs.class_name == "madr_plugin.loss.MADRLoss") == name.startswith("madr"), name
