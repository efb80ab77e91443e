"""The demo: what is done is not done again, what was stopped goes on, what fails is told."""

import json
import sys

import pytest

from dnnlib.errors import UserError
from experiments import demo


@pytest.fixture
def commands(monkeypatch):
    """Commands that the demo starts; each makes what the real one leaves behind, unless named in .fails."""
    import subprocess

    class Commands(list):
        fails = ""

    started = Commands()

    def start(log, script, *words):
        words = [str(word) for word in words]
        started.append(demo.command_line(script, *words))
        code = "print('tick 3     kimg 4.0      time 1s'); "
        if script == "train.py" and started.fails not in words[0].split("/"):
            flags = dict(word.removeprefix("--").split("=", 1) for word in words)
            run = f"{flags['outdir']}/00000-run"
            options = json.dumps(dict(random_seed=int(flags["seed"]), total_kimg=int(flags["kimg"])))
            code += (
                f"import os, pathlib; os.makedirs({run!r}, exist_ok=True); pathlib.Path({run!r}, 'training_options.json').write_text({options!r}); "
            )
            code += f"pathlib.Path({run!r}, 'network-snapshot-%06d.pkl' % {int(flags['kimg'])}).write_text('')"
        elif script == "dataset_tool.py" and not started.fails:
            code += f"import pathlib; pathlib.Path({words[-1].partition('=')[2]!r}).write_text('')"
        elif started.fails and started.fails in words[0].split("/"):
            code += "raise SystemExit('no space left')"
        with open(log, "w") as out:
            return subprocess.Popen([sys.executable, "-u", "-c", code], stdout=out, stderr=subprocess.STDOUT)

    monkeypatch.setattr(demo, "start", start)
    monkeypatch.setattr(demo, "SAY_SEC", 0)
    monkeypatch.setattr(demo, "POLL_SEC", 0.02)
    return started


def test_data_are_built_once(commands, tmp_path):
    data = demo.build_data(tmp_path)
    assert data == tmp_path / "digits16.zip" and data.exists() and len(commands) == 2
    assert "--build=stacked-digits" in commands[0] and "--width=16 --height=16" in commands[1] and commands[1].endswith(f"--dest={data}")
    (tmp_path / "digits32.zip").unlink()  # served its purpose
    assert demo.build_data(tmp_path) == data and len(commands) == 2
    data.unlink()
    demo.build_data(tmp_path)
    assert len(commands) == 4


def test_both_are_trained_alike_but_for_madr(commands, tmp_path):
    runs = demo.train_both(tmp_path, "digits.zip", 4, 7)
    assert [command.replace(f"{tmp_path}/plain", "X") for command in commands if "--madr=0" in command] == [
        command.replace(f"{tmp_path}/madr", "X").replace("--madr=1", "--madr=0") for command in commands if "--madr=1" in command
    ]
    assert {method: run.parent.name for method, run in runs.items()} == dict(plain="plain", madr="madr")


def test_what_is_trained_is_left_and_what_was_stopped_goes_on(commands, tmp_path):
    demo.train_both(tmp_path, "digits.zip", 4, 7)
    (tmp_path / "madr" / "00000-run" / "network-snapshot-000004.pkl").unlink()
    (tmp_path / "madr" / "00000-run" / "training-state-000002.pt").write_text("")
    commands.clear()
    demo.train_both(tmp_path, "digits.zip", 4, 7)
    assert len(commands) == 1 and "--madr=1" in commands[0] and commands[0].endswith("--resume=latest")
    commands.clear()
    demo.train_both(tmp_path, "digits.zip", 4, 7)
    assert commands == []
    demo.train_both(tmp_path, "digits.zip", 5, 7)  # a longer one is another run
    assert len(commands) == 2 and "--resume" not in "".join(commands)


def test_a_failure_tells_whose_it_is_and_its_last_words(commands, tmp_path):
    commands.fails = "madr"
    with pytest.raises(UserError, match="The same with MADR ended with exit code 1(.|\n)*no space left\nStart the demo again to go on"):
        demo.train_both(tmp_path, "digits.zip", 4, 7)


def test_one_core_takes_turns(commands, tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    order = []
    finish = demo.finish
    monkeypatch.setattr(demo, "finish", lambda processes, *rest: order.append(list(processes)) or finish(processes, *rest))
    demo.train_both(tmp_path, "digits.zip", 4, 7)
    assert order == [["plain"], ["madr"]]


def test_how_far_a_log_is(tmp_path):
    assert demo.reached(tmp_path / "gone.log") == 0
    (tmp_path / "a.log").write_text("Constructing networks...\ntick 0     kimg 0.0  time\ntick 12    kimg 11.5  time\nExiting...\n")
    assert demo.reached(tmp_path / "a.log") == 11.5
