"""The study on the StyleGAN2 backbone: which saved network is a method's, and what is typed for it."""

import json
import subprocess

import pytest

from dnnlib import cli
from experiments import backbone
from madr_plugin import config


def make_run(outdir, method, kimg, **loss):
    folder = backbone.folder_of(outdir, "emoji", method) / "00000-emoji"
    folder.mkdir(parents=True)
    (folder / f"network-snapshot-{kimg:06d}.pkl").touch()
    options = dict(random_seed=0, total_kimg=kimg, loss_kwargs=loss)
    (folder / "training_options.json").write_text(json.dumps(options))
    return folder / f"network-snapshot-{kimg:06d}.pkl"


def test_a_network_of_photographs_is_the_methods_wherever_its_file_lies(tmp_path):
    stated = config.resolve(dict(preset="moments", extractor="file:/elsewhere/lite0.pt")).as_dict()
    network = make_run(tmp_path, "witness+moments-photo", 4, madr=stated)
    assert backbone.snapshot_of(tmp_path, "emoji", "witness+moments-photo", 0, 4) == network
    assert backbone.snapshot_of(tmp_path, "emoji", "witness+moments-photo", 1, 4) is None
    make_run(tmp_path, "witness+moments", 4, madr=stated)  # another space than that method's
    assert backbone.snapshot_of(tmp_path, "emoji", "witness+moments", 0, 4) is None


def test_what_is_typed_names_the_precision_and_the_file(tmp_path, monkeypatch):
    typed = []
    monkeypatch.setattr(subprocess, "run", lambda command, **_: typed.append(command))
    backbone.train(tmp_path, "emoji", "e.zip", "witness+moments-photo", 0, 4, "/here/lite0.pt")
    backbone.train(tmp_path, "emoji", "e.zip", "plain-bf16", 0, 4)
    assert "--madr-extractor=file:/here/lite0.pt" in typed[0] and "--half=off" in typed[0]
    assert "--half=bf16" in typed[1] and "--half=off" not in typed[1]


def test_a_method_without_its_file_is_refused(capsys):
    assert cli.call(backbone.main, ["--data=emoji=e.zip", "--methods=plain,witness+moments-photo"]) != 0
    assert "--photo=FILE" in capsys.readouterr().err


@pytest.mark.parametrize("method", backbone.METHODS)
def test_every_method_is_one_that_train_takes(method):
    assert isinstance(backbone.madr_of(method), dict)
