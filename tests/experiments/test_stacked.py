"""Runs on Stacked MNIST before a weak discriminator: the setting, the measures, every row, and going on after a stop."""

import json

import numpy as np
import pytest
import torch

from dnnlib import cli
from experiments import row_runs, stacked
from metrics import digit_network
from training.gan import methods


class Bright(torch.nn.Module):
    """Stands in for the classifier: a plane's digit is its mean brightness in tenths."""

    def __init__(self):
        super().__init__()
        self.sharpness = torch.nn.Parameter(torch.tensor(40.0), requires_grad=False)

    def forward(self, planes):
        return -(planes.mean([1, 2, 3])[:, None] * 10 - 0.5 - torch.arange(10)).square() * self.sharpness


@pytest.fixture
def bright(monkeypatch):
    classifier = digit_network.DigitClassifier(Bright(), 1.0, 1.0, 1, 1, "bright")
    monkeypatch.setattr("experiments.digit_bed.classifier_of", lambda digits, held_out: classifier)
    return classifier


@pytest.fixture(scope="module")
def data():
    return stacked.Triples("small")


def options_of(gan="non-saturating", method=(), share=0.25, **flags):
    return stacked.options_of(dict(share=share, digits="small", gan=gan, method=list(method), iterations=100, seed=0, **flags))


@pytest.mark.parametrize("share, widths", [(0.25, [2, 4, 8]), (0.5, [4, 8, 16])])
def test_the_setting_is_that_of_the_paper(data, share, widths):
    options = options_of(share=share)
    assert options.batch_size == 128 and options.G_opt_kwargs.lr == 1e-4 and options.D_opt_kwargs.lr == 2e-4
    assert options.G_opt_kwargs.betas == options.D_opt_kwargs.betas == [0.5, 0.99]
    run = row_runs.Run(options, data, stacked.IMAGE_SHAPE)
    shapes, hooks = {}, []
    for network, name in ((run.G.synthesis, "G"), (run.D, "D")):
        for part, module in network.named_modules():
            hooks.append(module.register_forward_hook(lambda _m, _i, out, key=f"{name}.{part}": shapes.__setitem__(key, tuple(out.shape[1:]))))
    run.D(run.sample(torch.randn([4, run.G.z_dim])), torch.zeros([4, 0]))
    assert run.G.z_dim == 256 and shapes["G.norm0"] == (64, 4, 4) and shapes["G.norm1"] == (32, 7, 7)
    assert shapes["G.norm2"] == (16, 14, 14) and shapes["G.norm3"] == (8, 28, 28) and shapes["G.conv3"] == (3, 28, 28)
    assert [shapes[f"D.norm{index}"] for index in range(3)] == list(zip(widths, (14, 7, 4), (14, 7, 4)))
    kernels = [
        module.weight.shape[2:] for module in [*run.G.modules(), *run.D.modules()] if getattr(module, "kind", "linear") in ("conv", "transposed")
    ]
    assert set(kernels) == {(3, 3)} and len(kernels) == 7 and run.D.slope == 0.3


def test_triples_are_independent_digits_of_the_set(data):
    drawn = data.draw(3000, torch.Generator().manual_seed(0))
    assert drawn.shape == (3000, 3, 28, 28) and float(drawn.min()) == -1 and float(drawn.max()) == 1
    planes = {plane.tobytes() for plane in data.digits.images}
    colours = ((drawn + 1) * 127.5).round().to(torch.uint8).numpy()
    assert all(plane.tobytes() in planes for plane in colours[:50].reshape(-1, 28, 28))
    image, label = data[7]
    assert image.shape == (3, 28, 28) and image.dtype == np.uint8 and label.shape == (0,)
    held_out = {plane.tobytes() for plane in stacked.load_digits("small", None, "test").images}
    assert not planes & held_out


def test_modes_are_counted_by_brightness(bright, data):
    judge = stacked.Judge(bright, data.digits, num_samples=1100)
    levels = torch.tensor([0.05, 0.95])

    def two_modes(z):
        colours = levels[(z[:, 0] > 0).long()]
        return (colours[:, None, None, None] * 2 - 1).expand(-1, 3, 28, 28)

    found = judge(two_modes, 4)
    assert found["modes"] == found["modes_5hits"] == 2 and found["confidence"] == pytest.approx(1, abs=1e-3)
    assert found["kl"] == pytest.approx(np.log(1000) - np.log(2), abs=0.01)
    assert 0.4 < judge.floor_kl < 0.7 and 500 < judge.floor_modes < 800  # 1,100 samples over 1000 modes: 999/2200 and 667 if all were equal


# What a row cannot have here, with a word of the refusal.
REFUSED = {"dia-gan": "drawn at random", "no-minibatch-std": "do not have"}
ROWS = [dict(gan=name) for name in methods.RECIPES] + [dict(method=[name]) for name in methods.METHODS if name not in REFUSED]


@pytest.mark.parametrize("flags", ROWS, ids=lambda flags: str(flags.get("gan") or flags["method"][0]))
def test_every_row_trains(data, flags):
    options = options_of(**flags)
    if "pacgan" not in str(flags):
        options.batch_size = options.batch_gpu = 8
    run = row_runs.Run(options, data, stacked.IMAGE_SHAPE)
    before = [parameter.clone() for parameter in run.D.parameters()]
    run.step(data.draw)
    after = [parameter for network in (run.D, run.G) for parameter in network.parameters()]
    assert all(bool(parameter.isfinite().all()) for parameter in after) and any(not torch.equal(a, b) for a, b in zip(before, after))


@pytest.mark.parametrize("name", ["dia-gan", "no-minibatch-std"])
def test_rows_that_need_what_is_not_here_are_refused(name, tmp_path, capsys):
    assert cli.call(stacked.main, ["--digits=small", f"--method={name}", f"--outdir={tmp_path / 'x'}"]) == 1
    assert REFUSED[name] in capsys.readouterr().err and not (tmp_path / "x").exists()


FEW = "--madr-reference-cap=512"  # reals that MADR looks at


@pytest.mark.parametrize("flags", [["--madr=1", FEW], ["--madr=1", "--madr-tilt=0", FEW], ["--gan=wgan-gp", "--method=image-pool:size=64"]], ids=str)
def test_a_run_in_two_parts_is_the_run_in_one(bright, flags, tmp_path, capsys):
    typed = ["--digits=small", "--samples=64", "--every=3", "--seed=1", *flags]
    run = lambda folder, iterations: cli.call(stacked.main, [*typed, f"--iterations={iterations}", f"--outdir={tmp_path / folder}"])
    assert run("one", 8) == run("two", 5) == run("two", 8) == 0, capsys.readouterr().err
    one, two = (torch.load(tmp_path / folder / "state.pt", weights_only=True) for folder in ("one", "two"))
    for name in ("G", "D"):
        assert all(torch.equal(one["parts"][name][key], two["parts"][name][key]) for key in one["parts"][name])
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    assert [point["iterations"] for point in result["curve"]] == [3, 5, 6, 8] and result["kl"] == result["curve"][-1]["kl"]
    assert result["kimg"] == 8 * 128 / 1000 and result["cpu_seconds"] > 0


def test_a_state_of_another_run_is_refused(bright, tmp_path, capsys):
    typed = ["--digits=small", "--samples=64", "--iterations=1", f"--outdir={tmp_path}"]
    assert cli.call(stacked.main, typed) == 0
    assert cli.call(stacked.main, [*typed, "--gan=hinge"]) == 1
    assert "other methods" in capsys.readouterr().err


def test_two_lengths_are_refused(tmp_path, capsys):
    assert cli.call(stacked.main, ["--iterations=5", "--kimg=1", f"--outdir={tmp_path}"]) == 1
    assert "--kimg=1" in capsys.readouterr().err
