"""train.py as people start it: under torchrun, without a compiler, with a rank that dies, on another number of processes."""

import json
import os
import subprocess
import sys
import time

import psutil
import pytest

from torch_utils import distributed
from training import state
from training.training_loop import training_loop

SMALL = [
    "--cfg=tiny",
    "--aug=noaug",
    "--metrics=none",
    "--batch=8",
    "--cbase=64",
    "--cmax=8",
    "--device=cpu",
    "--threads=1",
    "--snap-res=1080p",
    "--tick=1",
]


def environment(tmp_path):
    """No compiler, no ninja, nothing but coreutils to be found."""
    (tmp_path / "bin").mkdir(exist_ok=True)
    return {**os.environ, "PATH": str(tmp_path / "bin"), "CC": "", "CXX": "", "CUDA_HOME": ""}


def test_torchrun_without_a_compiler(tmp_path, tiny_zip, repo):
    """Two processes under torchrun write one run folder; plain PyTorch does everything."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node=2",
        str(repo / "train.py"),
        f"--outdir={tmp_path / 'runs'}",
        f"--data={tiny_zip()}",
        "--kimg=1",
        *SMALL,
        "--batch=200",  # so that a kimg is five steps
        "--pl-weight=2",
    ]
    result = subprocess.run(command, capture_output=True, text=True, timeout=280, cwd=tmp_path, env=environment(tmp_path))
    assert result.returncode == 0, result.stderr[-2000:]
    [run_dir] = (tmp_path / "runs").iterdir()
    assert {"log.txt", "training_options.json", "stats.jsonl", "network-snapshot-000001.pkl", "reals.png", "report.html"} <= set(os.listdir(run_dir))
    assert any(name.startswith("events.out.tfevents") for name in os.listdir(run_dir))
    assert result.stdout.count("Training for 1 kimg...") == 1 and "Traceback" not in result.stderr
    assert json.loads((run_dir / "training_options.json").read_text())["num_gpus"] == 2


def test_a_rank_that_is_killed_ends_the_training_with_a_reason(tmp_path, tiny_zip, repo):
    command = [sys.executable, str(repo / "train.py"), f"--outdir={tmp_path / 'runs'}", f"--data={tiny_zip()}", "--gpus=2", "--kimg=1000", *SMALL]
    log = open(tmp_path / "log", "w")
    process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, cwd=tmp_path)
    deadline = time.monotonic() + 200
    while "\ntick 0" not in (tmp_path / "log").read_text() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.2)
    ranks = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(ranks) == 2, (tmp_path / "log").read_text()[-2000:]
    ranks[1].kill()
    killed_at = time.monotonic()
    assert process.wait(timeout=120) not in (0, distributed.EXIT_STOPPED)
    assert time.monotonic() - killed_at < 60
    assert "SIGKILL" in (tmp_path / "log").read_text()


def _train(rank, options):
    training_loop(rank=rank, **options)


def test_resuming_on_another_number_of_processes(tmp_path, loop_options, warm_processes):
    """The weights go on; only the running tick's statistics start afresh, and that is said."""
    options = loop_options(total_kimg=0.032, network_snapshot_ticks=1, run_dir=str(tmp_path))
    training_loop(**options)
    options.update(total_kimg=0.064, num_gpus=2, resume_state=state.latest_state(tmp_path))
    distributed.launch(_train, options, 2)
    parts = state.load_state(state.latest_state(tmp_path))["parts"]
    assert parts["progress"]["batch_idx"] == 8


@pytest.mark.parametrize("option, text", [("eval_at_start", "Evaluating metrics..."), ("ada_max_p", "has reached its cap --aug-max=0.21")])
def test_options_of_the_loop_have_their_effect(tmp_path, loop_options, capsys, monkeypatch, option, text):
    options = loop_options(total_kimg=0.064, network_snapshot_ticks=1000, ada_kimg=0.1)
    if option == "ada_max_p":
        options.update(ada_max_p=0.21, ada_target=-1.5)
    else:
        from metrics import metric_main

        monkeypatch.setattr(metric_main, "_metrics", dict(metric_main._metrics))  # other tests look at all that are registered
        metric_main.register_metric(_always_seven)
        options.update(metrics=["_always_seven"], eval_at_start=True, total_kimg=0.064)
    training_loop(run_dir=str(tmp_path), **options)
    captured = capsys.readouterr()
    assert text in (captured.err if option == "ada_max_p" else captured.out)  # warnings go to stderr
    if option == "eval_at_start":
        lines = [json.loads(line) for line in (tmp_path / "metric-_always_seven.jsonl").read_text().splitlines()]
        assert len(lines) == 2 and lines[0]["results"] == {"_always_seven": 7.0}  # tick 0 and the last


def _always_seven(opts):
    return dict(_always_seven=7.0)
