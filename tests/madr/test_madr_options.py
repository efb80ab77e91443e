"""Flags, presets, ranges, and what apply() does to a run's options."""

import copy
import dataclasses
import json
import re

import click
import pytest
from click.testing import CliRunner

from madr_plugin import config, options
from madr_spaces.errors import MADRError

TRAINING_OPTIONS = dict(
    random_seed=4,
    training_set_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path="x.zip"),
    loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=0.5),
    augment_kwargs=dict(class_name="training.augment.AugmentPipe", xflip=1),
)


def run_cli(*args):
    """(exit code, output) of a command with the MADR flags; on success the output is the edited options as JSON."""

    @click.command()
    @options.madr_options
    def command(**flags):
        edited = copy.deepcopy(TRAINING_OPTIONS)
        try:
            options.apply(edited, flags)
        except MADRError as error:
            raise click.ClickException(str(error))
        print(json.dumps(edited))

    result = CliRunner().invoke(command, list(args))
    return result.exit_code, result.output


@pytest.mark.parametrize("args", [[], ["--madr=0"]])
def test_off_touches_nothing(args):
    code, output = run_cli(*args)
    assert code == 0 and json.loads(output) == TRAINING_OPTIONS


def test_on_wraps_loss_and_pipe_and_records_every_knob():
    code, output = run_cli("--madr=1", "--madr-reals=99", "--madr-preset=witness")
    edited = json.loads(output)
    assert code == 0
    loss = edited["loss_kwargs"]
    assert (loss["class_name"], loss["base_class_name"], loss["r1_gamma"]) == (options.LOSS_CLASS, "training.loss.StyleGAN2Loss", 0.5)
    recorded = loss["madr"]
    assert {field.name for field in dataclasses.fields(config.MADRConfig)} <= set(recorded)
    assert (recorded["reals"], recorded["replay_weight"], recorded["random_seed"]) == (99, 0.0, 4)
    assert recorded["training_set_kwargs"] == TRAINING_OPTIONS["training_set_kwargs"]
    assert edited["augment_kwargs"] == dict(class_name=options.PIPE_CLASS, base_kwargs=TRAINING_OPTIONS["augment_kwargs"])


def test_without_augmentation_the_pipe_carries_none():
    edited = copy.deepcopy(TRAINING_OPTIONS)
    del edited["augment_kwargs"]
    options.apply(edited, dict(madr=1))
    assert edited["augment_kwargs"] == dict(class_name=options.PIPE_CLASS, base_kwargs=None)


def test_what_is_recorded_resolves_to_itself():
    for preset in config.PRESETS:
        resolved = config.resolve(dict(preset=preset, reals=100))
        assert config.resolve(resolved.as_dict()) == resolved


def test_flags_beat_the_preset():
    assert config.resolve(dict(preset="paper")).update_interval == 100
    assert config.resolve(dict(preset="paper", update_interval=7)).update_interval == 7


@pytest.mark.parametrize(
    "args, words",
    [
        (["--madr=2"], "--madr"),
        (["--madr=1", "--madr-preset=best"], "--madr-preset"),
        (["--madr=1", "--madr-capacity=1"], "--madr-capacity"),
        (["--madr=1", "--madr-interval=0"], "--madr-interval"),
        (["--madr=1", "--madr-weight=-1"], "--madr-weight"),
        (["--madr=1", "--madr-weight=nan"], "--madr-weight"),
        (["--madr=1", "--madr-memory=lifo"], "--madr-memory"),
        (["--madr-weight=2"], "--madr=1"),
        (["--madr=0", "--madr-capacity=8"], "--madr=1"),
        (["--madr=1", "--madr-term=none", "--madr-replay-weight=0"], "--madr=0"),
        (["--madr=1", "--madr-controller=sigmoid"], "--madr-controller"),
        (["--madr=1", "--madr-estimator=faiss"], "--madr-estimator"),
        (["--madr=1", "--madr-extractor=vgg"], "--madr-extractor"),
        (["--madr=1", "--madr-extractor=ensemble:pca+vgg"], "--madr-extractor"),
        (["--madr=1", "--madr-view=spin"], "--madr-view"),
    ],
)
def test_bad_flags_are_answered_with_the_flag_named(args, words):
    code, output = run_cli(*args)
    assert code != 0 and words in output and "Traceback" not in output


def test_unknown_recorded_option_is_refused():
    with pytest.raises(MADRError, match="--madr-colour"):
        config.resolve(dict(colour=3))


def test_every_flag_has_a_one_line_meaning():
    for field in dataclasses.fields(config.MADRConfig):
        assert 10 < len(field.metadata["meaning"]) < 200 and "\n" not in field.metadata["meaning"]


# What each ablation of the README changes against the preset `paper`.
ABLATIONS = {
    "A2": dict(controller="none", weight=0.1),
    "A3": dict(controller="none", weight=1.0),
    "A4": dict(extractor="dino"),
    "A5": dict(extractor="inception"),
    "A6": dict(extractor="random", width=384),
    "A7": dict(memory="fifo"),
    "A8": dict(capacity=512),
    "A9": dict(capacity=1024),
    "A10": dict(capacity=2048),
    "A11": dict(capacity=4096),
    "A12": dict(beta=0.1),
    "A13": dict(beta=5.0),
}


def test_ablations_of_the_readme_parse_to_what_they_say(repo):
    lines = re.findall(r"^    (A\d+) +(--madr=.*)$", (repo / "madr_plugin" / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert [name for name, _ in lines] == [f"A{number}" for number in range(1, 14)]
    for name, flags in lines:
        code, output = run_cli(*flags.split())
        assert code == 0, output
        if name == "A1":
            assert json.loads(output) == TRAINING_OPTIONS
        else:
            recorded = json.loads(output)["loss_kwargs"]["madr"]
            expected = dict(config.resolve(dict(preset="paper")).as_dict(), **ABLATIONS[name])
            assert {key: recorded[key] for key in expected} == expected
