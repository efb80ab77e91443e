"""What every tool has in common at a terminal: sentences, streams, --quiet, home folders, interrupts, a quick start."""

import importlib
import io
import os
import shutil
import subprocess
import sys

import click
import pytest

from dnnlib import cli, console, util
from dnnlib.errors import UserError

TOOLS = ["train", "calc_metrics", "dataset_tool", "generate", "projector", "style_mixing", "report", "compare_runs", "export", "legacy", "doctor"]
LETTERS = "画像/\udcff.zip"  # CJK, and a byte of a file name that is no UTF-8


def command_of(function):
    @click.command()
    def main():
        function()

    return main


# --- sentences --------------------------------------------------------------------------------------------------------


def test_errors_warnings_and_notes_are_labelled_alike_on_stderr(capsys):
    def tell():
        console.warn("w")
        console.note("n")
        raise UserError("e")

    assert cli.call(command_of(tell), []) == cli.EXIT_ERROR
    assert capsys.readouterr() == ("", "Warning: w\nNote: n\nError: e\n")


def test_refused_flags_look_like_all_errors(capsys):
    assert cli.call(command_of(lambda: None), ["--no-such"]) == cli.EXIT_USAGE
    usage, _hint, _blank, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("Usage: ") and error.startswith("Error: ") and "--no-such" in error


@pytest.mark.parametrize(
    "args, words",
    [
        (["--madr", "--cond"], "--madr takes a value, but --cond follows; write --madr=1"),
        (["--cond", "--madr=1"], "--cond takes a value, but --madr=1 follows; write --cond=1"),
        (["--name", "--madr=1"], "--name takes a value, but --madr=1 follows; write --name=TEXT"),
        (["--yes", "--madr=1", "--name", "--other"], None),
        (["--", "--madr", "--cond"], None),
    ],
)
def test_an_option_that_would_swallow_the_next_is_refused(capsys, args, words):
    @click.command()
    @click.option("--madr", type=click.IntRange(0, 1))
    @click.option("--cond", type=bool)
    @click.option("--name")
    @click.option("--yes", is_flag=True)
    @click.argument("rest", nargs=-1)
    def main(**_options):
        pass

    assert cli.call(main, args) == (0 if words is None else cli.EXIT_USAGE)
    assert (words or "") in capsys.readouterr().err


def test_sentences_fit_the_terminal_and_are_whole_elsewhere(monkeypatch):
    long = "Error: " + "word " * 40 + "--a-flag-that-must-stay-whole=/and/its/path"
    table = "  " + "x" * 200
    assert console.fitted(f"{long}\n{table}") == f"{long}\n{table}"
    monkeypatch.setattr(console, "_is_terminal", lambda stream: True)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((60, 24)))
    *wrapped, last = console.fitted(f"{long}\n{table}").splitlines()
    assert len(wrapped) > 1 and max(map(len, wrapped)) < 60 and " ".join(wrapped) == long and last == table
    assert any("--a-flag-that-must-stay-whole=/and/its/path" in line for line in wrapped)


def test_interrupts_end_with_one_sentence(capsys):
    def interrupt():
        raise KeyboardInterrupt

    assert cli.call(command_of(interrupt), []) == cli.EXIT_INTERRUPTED == 130
    assert capsys.readouterr().err.strip() == f"Error: {cli.INTERRUPTED}"


def test_what_was_told_before_there_was_a_log_can_be_added_to_it():
    with console.one_command():
        console.warn("early")
        assert console.take_told() == ["Warning: early"] and console.take_told() == []


# --- encodings --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_letters_that_the_console_lacks_are_escaped(monkeypatch, encoding, tmp_path):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, errors="strict"))

    def tell():
        with util.Logger(str(tmp_path / "log.txt")):
            print(LETTERS, flush=True)

    assert cli.call(command_of(tell), []) == 0
    sys.stdout.flush()
    shown = "画像" if encoding == "utf-8" else "\\u753b\\u50cf"
    assert raw.getvalue().decode(encoding) == f"{shown}/\\udcff.zip\n"
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == "画像/\\udcff.zip\n"


def test_a_tool_on_a_windows_console_names_a_missing_folder(repo):
    environment = dict(os.environ, PYTHONIOENCODING="cp1252:strict")
    done = subprocess.run([sys.executable, "report.py", "画像"], cwd=repo, env=environment, capture_output=True)
    assert done.returncode == 1 and done.stderr.decode("cp1252").startswith("Error: \\u753b\\u50cf is not a folder")


# --- --quiet ----------------------------------------------------------------------------------------------------------


def test_quiet_leaves_results_warnings_and_errors(capsys, tmp_path):
    def work():
        with util.Logger(str(tmp_path / "log.txt")):
            print("chatter")
            console.warn("w")
            console.note("n")
            console.result('{"fid": 1}')
            assert console.is_quiet() and list(console.progress([1, 2], 2, "Looking")) == [1, 2]

    assert cli.call(command_of(work), ["--quiet"]) == 0
    assert capsys.readouterr() == ('{"fid": 1}\n', "Warning: w\n")
    assert (tmp_path / "log.txt").read_text() == 'chatter\nWarning: w\nNote: n\n{"fid": 1}\n'  # the log of a run keeps everything
    print("aloud")
    assert capsys.readouterr().out == "aloud\n" and not console.is_quiet()


def test_progress_is_a_line_now_and_then_where_there_is_no_terminal(monkeypatch, capsys):
    assert list(console.progress(range(3), 3, "Reading")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")
    monkeypatch.setattr(console, "LINE_INTERVAL_SEC", 0.0)
    list(console.progress(range(3), 4, "Reading"))
    assert capsys.readouterr().err.splitlines()[1:] == ["Reading: 1 of 4 (25%), 0s left", "Reading: 2 of 4 (50%), 0s left"]


# --- the home folder --------------------------------------------------------------------------------------------------


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    return str(tmp_path)


@pytest.mark.parametrize("tool", TOOLS)
def test_every_path_of_every_tool_may_begin_with_the_home_folder(tool, home):
    main = importlib.import_module(tool).main
    context = click.Context(main)
    for param in cli.prepared(main).params:
        if param.type.name in ("text", "path", "file", "filename", "directory"):
            assert param.type.convert("~/x", param, context) == os.path.join(home, "x"), param.name
            assert param.type.convert("name", param, context) == "name" and param.type.convert("a~b", param, context) == "a~b"
        elif param.type.name == "name=path":
            assert param.type.convert("inception=~/x.pt", param, context) == ("inception", os.path.join(home, "x.pt"))


def test_home_folder_behind_a_prefix(home):
    assert cli.expand_home("file:~/a.pt") == f"file:{home}/a.pt" and cli.expand_home("weights=~/a.pt") == f"weights={home}/a.pt"
    assert cli.expand_home("https://host/~user/a.pkl") == "https://host/~user/a.pkl"


def test_cache_folder_in_the_home_folder(home, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", "~/cache")
    from madr_spaces import files

    assert util.make_cache_dir_path("downloads") == os.path.join(home, "cache", "downloads")
    assert str(files.cache_folder()) == os.path.join(home, "cache", "madr-features")


def test_training_in_the_home_folder(home, tiny_zip, capsys):
    shutil.copy(tiny_zip(), os.path.join(home, "x.zip"))
    train = importlib.import_module("train").main
    assert cli.call(train, ["--outdir=~/runs", "--data=~/x.zip", "--cfg=tiny", "--dry-run"]) == 0, capsys.readouterr().err
    out = capsys.readouterr().out
    assert f"Output directory:   {home}/runs/00000-x-tiny" in out and not os.path.exists("~")


# --- a quick start ----------------------------------------------------------------------------------------------------

QUICK = {
    "train": ["--outdir=out", "--data=gone.zip"],
    "report": ["gone"],
    "compare_runs": [],
    "legacy": ["--source=gone.pkl", "--dest=new.pkl"],
    "calc_metrics": ["--network=gone.pkl"],
    "export": ["--source=gone.pkl", "--dest=new"],
    "doctor": ["--no-such"],
    "metrics.photo_export": ["--model=resnet18"],
    "metrics.digit_classifier": ["--cache=on"],
    "madr_plugin.check_extractor": ["--images=3"],
    "madr_plugin.check_sensor": ["--images=3"],
    "madr_plugin.own_extractor": ["--data=gone.zip"],
}


@pytest.mark.parametrize("tool", QUICK)
def test_help_and_slips_of_the_hand_are_answered_without_torch(repo, tool, tmp_path):
    code = f"""
import sys
sys.path.insert(0, {str(repo)!r})
import {tool}
from dnnlib import cli
assert cli.call({tool}.main, ["--help"]) == 0
assert cli.call({tool}.main, {QUICK[tool]!r}) in (1, 2)
assert "torch" not in sys.modules, "torch was imported"
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "Usage: " in done.stdout and "Error: " in done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="the documented line is for bash")
def test_the_documented_line_completes_flags(repo):
    [line] = [line for line in (repo / "docs" / "commands.md").read_text(encoding="utf-8").splitlines() if "bash_source" in line]
    line = line.replace(line[line.index("for t in ") : line.index("; do")], "for t in train")
    environment = dict(os.environ, PATH=os.path.dirname(sys.executable) + os.pathsep + os.environ["PATH"])
    script = f"{line}\nCOMP_WORDS=(train.py --metr); COMP_CWORD=1; _trainpy_completion train.py; echo ${{COMPREPLY[@]}}; complete -p train.py"
    done = subprocess.run(["bash", "-c", script], cwd=repo, env=environment, capture_output=True, text=True)
    found, registered = done.stdout.splitlines()
    assert found.split() == ["--metrics", "--metric-space"] and "_trainpy_completion" in registered, done.stderr
