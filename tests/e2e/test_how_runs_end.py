"""Why a run ended stands in its log.txt, too; and what was said before the log was there."""

import os

import pytest

import train
from dnnlib import cli
from dnnlib.errors import UserError
from training.training_loop import Trainer


def command(tiny_zip, *more):
    data = f"--data={tiny_zip(num_images=12, resolution=16)}"
    return ["--outdir=out", data, "--cfg=tiny", "--cbase=64", "--cmax=4", "--snap-res=1080p", "--kimg=1", "--aug=noaug", "--device=cpu", *more]


def log_of_the_run():
    [name] = os.listdir("out")
    with open(os.path.join("out", name, "log.txt"), encoding="utf-8") as file:
        return file.read()


@pytest.mark.parametrize(
    "error, code, words",
    [
        (UserError("the disk is full; free some space"), cli.EXIT_ERROR, "\nError: the disk is full; free some space\n"),
        (KeyboardInterrupt(), cli.EXIT_INTERRUPTED, f"\nError: {cli.INTERRUPTED}\n"),
        (ZeroDivisionError("a fault"), None, "\nZeroDivisionError: a fault\n"),
    ],
)
def test_the_end_of_a_run_is_in_its_log(tmp_path, monkeypatch, tiny_zip, capsys, error, code, words):
    monkeypatch.chdir(tmp_path)

    def fail(_self):
        raise error

    monkeypatch.setattr(Trainer, "train_step", fail)
    if code is None:
        with pytest.raises(ZeroDivisionError):
            cli.call(train.main, command(tiny_zip))
    else:
        assert cli.call(train.main, command(tiny_zip)) == code
        assert words.strip() in capsys.readouterr().err
    log = log_of_the_run()
    assert log.endswith(words) and "Training for 1 kimg..." in log
    warnings = [line for line in log.splitlines() if line.startswith("Warning: ")]
    assert warnings and log.index(warnings[0]) < log.index("Loading training set...")  # of the time before there was a log


def test_a_quiet_run_keeps_its_log(tmp_path, monkeypatch, tiny_zip, capsys):
    monkeypatch.chdir(tmp_path)

    def stop(_self):
        raise UserError("enough")

    monkeypatch.setattr(Trainer, "train_step", stop)
    assert cli.call(train.main, command(tiny_zip, "--quiet")) == cli.EXIT_ERROR
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.endswith("Error: enough\n") and "Loading training set..." in log_of_the_run()


def test_a_cache_that_cannot_be_written_is_said_before_training(tmp_path, monkeypatch, tiny_zip, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr("metrics.requirements.check", lambda *_args: None)

    def stop(_self):
        raise UserError("enough")

    monkeypatch.setattr(Trainer, "train_step", stop)
    assert cli.call(train.main, command(tiny_zip, "--metrics=fid50k_full")) == cli.EXIT_ERROR
    assert capsys.readouterr().err.count("Warning: the cache") == 1
    log = log_of_the_run()
    assert log.index("Warning: the cache") < log.index("Loading training set...")
    assert cli.call(train.main, command(tiny_zip, "--metrics=fid50k_full", "--cache=off")) == cli.EXIT_ERROR  # the remedy
    assert "the cache" not in capsys.readouterr().err
