"""A run that stops and goes on is the same, bit for bit, as one that never stopped."""

import json
import os
import pickle
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from torch_utils import distributed
from training import state
from training.training_loop import training_loop

NOT_REPRODUCIBLE = ("Timing/", "Resources/")


def stats_lines(run_dir):
    """stats.jsonl without what depends on the clock or the machine."""
    lines = [json.loads(line) for line in open(os.path.join(run_dir, "stats.jsonl"))]
    return [{k: v for k, v in line.items() if k != "timestamp" and not k.startswith(NOT_REPRODUCIBLE)} for line in lines]


def same(a, b):
    """Equal to the last bit, however deep."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(torch.nan_to_num(a), torch.nan_to_num(b))
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return a == b or (a != a and b != b)


def assert_same_state(run_a, run_b):
    a, b = (state.load_state(state.latest_state(run)) for run in (run_a, run_b))
    for part in a["parts"]:
        if part == "progress":
            a["parts"][part].pop("elapsed_sec"), b["parts"][part].pop("elapsed_sec")
        assert same(a["parts"][part], b["parts"][part]), part
    assert same(
        *[[{k: v for k, v in r["module"]["cumulative"].items() if not k.startswith(NOT_REPRODUCIBLE)} for r in s["stats_of_ranks"]] for s in (a, b)]
    )


class StopAfter:
    """abort_fn that sends this process a signal after some steps, as a scheduler would."""

    def __init__(self, steps, signum=signal.SIGTERM):
        self.steps, self.signum = steps, signum

    def __call__(self):
        self.steps -= 1
        if self.steps == 0:
            os.kill(os.getpid(), self.signum)
        return False


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})


@pytest.mark.parametrize("stop_after, aug", [(2, True), (5, False)])
def test_resume_is_bitwise(tmp_path, loop_options, stop_after, aug):
    """10 steps = k + SIGTERM + the rest: networks, optimizers, EMA, p, path-length mean, statistics; also in mid-tick."""
    options = loop_options(total_kimg=0.08, kimg_per_tick=0.024, network_snapshot_ticks=1)
    if not aug:
        options.update(augment_kwargs=None, ada_target=None, augment_p=0)
    run(tmp_path / "whole", options)
    with pytest.raises(SystemExit) as stopped:
        run(tmp_path / "parts", options, abort_fn=StopAfter(stop_after))
    assert stopped.value.code == distributed.EXIT_STOPPED
    latest = state.latest_state(tmp_path / "parts")
    assert state.load_state(latest)["parts"]["progress"]["batch_idx"] == stop_after + 1
    run(tmp_path / "parts", options, resume_state=latest)
    assert_same_state(tmp_path / "whole", tmp_path / "parts")
    assert stats_lines(tmp_path / "whole") == stats_lines(tmp_path / "parts")
    whole, parts = (pickle.load(open(tmp_path / name / "network-snapshot-000000.pkl", "rb")) for name in ("whole", "parts"))
    for key in ("G", "D", "G_ema"):
        assert same(dict(whole[key].state_dict()), dict(parts[key].state_dict()))


def test_a_second_run_in_the_process_is_the_same(tmp_path, loop_options):
    options = loop_options(total_kimg=0.032, kimg_per_tick=0.016, network_snapshot_ticks=1)
    torch.manual_seed(1)
    run(tmp_path / "a", options)
    torch.manual_seed(2)
    np.random.rand(5)
    run(tmp_path / "b", options)
    assert_same_state(tmp_path / "a", tmp_path / "b")
    assert stats_lines(tmp_path / "a") == stats_lines(tmp_path / "b")


def test_lines_after_the_resumed_state_are_written_anew(tmp_path, loop_options):
    """A crash may come after a tick was logged and before its state was saved."""
    options = loop_options(total_kimg=0.048, kimg_per_tick=0.016, network_snapshot_ticks=1)
    run(tmp_path / "whole", options)
    run(tmp_path / "cut", {**options, "total_kimg": 0.032})
    with open(tmp_path / "cut" / "stats.jsonl", "a") as f:
        f.write('{"a line": "of a tick that is forgotten"}\n{"half a')
    run(tmp_path / "cut", options, resume_state=state.latest_state(tmp_path / "cut"))
    assert stats_lines(tmp_path / "whole")[:2] == stats_lines(tmp_path / "cut")[:2] and len(stats_lines(tmp_path / "cut")) == 4


KILLED_RUN = """
import sys, json
sys.path.insert(0, {repo!r})
import torch; torch.set_num_threads(1)
from training.training_loop import training_loop
from training import state
options = json.load(open({options!r}))
training_loop(run_dir={run_dir!r}, resume_state=state.latest_state({run_dir!r}), **options)
"""


def test_kill_9_and_resume(tmp_path, loop_options, repo):
    """kill -9 at any moment: the newest state loads, and the resumed run ends where the uninterrupted one does."""
    options = loop_options(total_kimg=0.08, kimg_per_tick=0.016, network_snapshot_ticks=1)
    run(tmp_path / "whole", options)
    run_dir = tmp_path / "killed"
    run_dir.mkdir()
    (tmp_path / "options.json").write_text(json.dumps(options))
    code = KILLED_RUN.format(repo=str(repo), options=str(tmp_path / "options.json"), run_dir=str(run_dir))
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while state.latest_state(run_dir) is None and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.kill()
    process.wait()
    assert state.latest_state(run_dir) is not None, process.stderr.read().decode()
    run(run_dir, options, resume_state=state.latest_state(run_dir))
    assert_same_state(tmp_path / "whole", run_dir)
    assert stats_lines(tmp_path / "whole") == stats_lines(run_dir)


def test_fifty_kills_while_saving_leave_a_loadable_state(tmp_path, repo):
    """A process that does nothing but save is killed 50 times; every time the newest state and pickle are whole."""
    prelude = (
        "import os, signal, sys, time\n"
        f"sys.path.insert(0, {str(repo)!r})\n"
        "import torch\n"
        "from training import snapshots, state\n"
        "payload = {'format': 1, 'facts': {}, 'parts': {'x': torch.arange(200000)}, 'stats_of_ranks': []}\n"
    )
    random = np.random.RandomState(0)
    # fork is cheap, importing torch is not: one server process forks the victims.
    server = (
        prelude + "print('ready', flush=True)\n"
        "for delay in sys.argv[2].split(','):\n"
        "    pid = os.fork()\n"
        "    if pid == 0:\n"
        "        number = 0\n"
        "        while True:\n"
        "            number += 1\n"
        "            state.save_state(sys.argv[1], number % 7, payload)\n"
        "            snapshots.save_network_snapshot(os.path.join(sys.argv[1], 'network-snapshot-000001.pkl'), {'G_ema': number, 'x': list(range(20000))})\n"
        "    time.sleep(float(delay)); os.kill(pid, signal.SIGKILL); os.waitpid(pid, 0)\n"
        "    print('killed', flush=True); sys.stdin.readline()\n"
    )
    delays = ",".join(f"{d:.4f}" for d in random.uniform(0.03, 0.12, size=50))
    process = subprocess.Popen([sys.executable, "-c", server, str(tmp_path), delays], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline().strip() == "ready"
    checked = 0
    for _ in range(50):
        assert process.stdout.readline().strip() == "killed"
        newest = state.latest_state(tmp_path)
        if newest is not None:
            assert torch.equal(state.load_state(newest)["parts"]["x"], torch.arange(200000))
            checked += 1
        pickle_path = tmp_path / "network-snapshot-000001.pkl"
        if pickle_path.exists():
            assert pickle.load(open(pickle_path, "rb"))["x"] == list(range(20000))
        process.stdin.write("go\n")
        process.stdin.flush()
    assert process.wait(timeout=20) == 0 and checked >= 45


def test_changed_data_is_noticed(tmp_path, loop_options, tiny_zip):
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1)
    run(tmp_path / "run", options)
    options["training_set_kwargs"]["path"] = tiny_zip(num_classes=2, seed=1)
    with pytest.raises(UserError, match="training set has changed"):
        run(tmp_path / "run", options, resume_state=state.latest_state(tmp_path / "run"))


@pytest.mark.parametrize("content", [b"", b"not a state at all", None])
def test_spoilt_states_are_refused_with_a_sentence(tmp_path, loop_options, content):
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1)
    run(tmp_path / "run", options)
    path = state.latest_state(tmp_path / "run")
    data = open(path, "rb").read()
    open(path, "wb").write(data[: len(data) // 2] if content is None else content)
    with pytest.raises(UserError, match="cannot be read as a training state"):
        run(tmp_path / "run", options, resume_state=path)


def test_states_and_snapshots_are_pruned(tmp_path, loop_options):
    run(
        tmp_path / "run",
        loop_options(
            total_kimg=4,
            batch_size=1000,
            batch_gpu=500,
            augment_kwargs=None,
            ada_target=None,
            augment_p=0,
            loss_kwargs=dict(class_name="training.loss.StyleGAN2Loss", r1_gamma=0, pl_weight=0, style_mixing_prob=0),
            network_snapshot_ticks=1,
            kimg_per_tick=1,
            keep="2",
        ),
    )
    names = sorted(os.listdir(tmp_path / "run"))
    assert [n for n in names if n.endswith(".pkl")] == ["network-snapshot-000003.pkl", "network-snapshot-000004.pkl"]
    assert [n for n in names if n.endswith(".pt")] == ["training-state-000003.pt", "training-state-000004.pt"]
