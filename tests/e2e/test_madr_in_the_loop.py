"""MADR inside the training loop: off is the baseline, on is resumable, independent of processes, and leaves plain snapshots."""

import copy
import json
import os
import pickle

import pytest
import torch

import madr_plugin.options
from madr_plugin import augment_pipe
from torch_utils import distributed
from training import state
from training.training_loop import training_loop

SMALL = dict(madr=1, madr_deficit_window=64, madr_reals=16, madr_width=8)


def with_madr(options, **flags):
    options = copy.deepcopy(options)
    madr_plugin.options.apply(options, flags)
    return options


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return state.load_state(state.latest_state(path))["parts"]


def same_tensors(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_off_is_the_baseline(loop_options):
    """--madr=0, and no flag at all, leave the options as they were."""
    options = loop_options()
    assert with_madr(options, madr=0) == options == with_madr(options)


def test_the_loop_runs_without_the_plugin_on_the_machine(tmp_path, loop_options, repo, runner):
    """...and its result is the same as with the plugin present and --madr=0."""
    options = loop_options(total_kimg=0.024, network_snapshot_ticks=1)
    here = run(tmp_path / "with", with_madr(options, madr=0))
    code = (
        f"import sys\nsys.path.insert(0, {str(repo)!r})\nsys.modules['madr_plugin'] = None  # importing it now fails\n"
        f"import torch\ntorch.set_num_threads({torch.get_num_threads()})\n"
        f"from training.training_loop import training_loop\ntraining_loop(run_dir={str(tmp_path / 'without')!r}, **{options!r})\n"
    )
    (tmp_path / "without").mkdir()
    done = runner.run(["-c", code], tmp_path, repo)
    assert done.returncode == 0, done.stderr
    there = state.load_state(state.latest_state(tmp_path / "without"))["parts"]
    for network in ("G", "D", "G_ema"):
        assert same_tensors(here[network], there[network])


def test_madr_watching_only_changes_nothing_and_madr_acting_does(tmp_path, loop_options):
    """With both weights 0 the plugin hooks, extracts and remembers; the networks stay bit-equal to the baseline's."""
    options = loop_options(total_kimg=0.032, network_snapshot_ticks=1)
    plain = run(tmp_path / "plain", options)
    watching = run(tmp_path / "watching", with_madr(options, **SMALL, madr_weight=0, madr_replay_weight=0))
    acting = run(tmp_path / "acting", with_madr(options, **SMALL))
    for network in ("G", "D", "G_ema"):
        assert same_tensors(plain[network], watching[network])
    assert not same_tensors(plain["G"], acting["G"])
    assert watching["loss"]["madr"]["nimg"] == 32 and int(watching["loss"]["madr"]["step"]) == 4


TOLD = ("coverage", "inside", "memory", "lambda", "gratio", "signal")
OF_PRESET = {"default": {}, "replay": dict(madr_capacity=64)}
TOLD_BY = {"default": ("frechet", "signal_moments"), "replay": ("ess", "lambda_replay", "gratio_replay")}


@pytest.mark.parametrize("preset", list(TOLD_BY))
def test_every_tick_tells_of_madr(tmp_path, loop_options, preset):
    """One as long as MADR's longest interval between two reports, 32 steps."""
    options = loop_options(total_kimg=0.512, kimg_per_tick=0.256, network_snapshot_ticks=1, batch_gpu=8)
    run(tmp_path, with_madr(options, **SMALL, **OF_PRESET[preset], madr_preset=preset))
    ticks = [json.loads(line) for line in (tmp_path / "stats.jsonl").read_text().splitlines()]
    assert len(ticks) == 3 and all(f"MADR/{name}" in tick for name in TOLD for tick in ticks)
    last = {name: ticks[-1][f"MADR/{name}"]["mean"] for name in (*TOLD, *TOLD_BY[preset], "age_kimg")}  # nothing is old before the first step
    assert 0 < last["coverage"] <= 1.5 and (last["memory"] == 1 if preset == "replay" else 0 < last["memory"] < 1) and 0 < last["age_kimg"] <= 0.512
    assert 0 < last["ess"] <= 1 if preset == "replay" else last["frechet"] > 0


TILT = dict(madr_tilt=1, madr_tilt_guard=0, madr_cells=4)


PRESETS = {
    "default": {},
    "paper": dict(madr_capacity=64, madr_reals=None, madr_update_interval=1, madr_start_fill=0.1, madr_extractor="pca"),
    "witness": TILT,
    "moments": dict(TILT, madr_tilt_sensor="logits", madr_moments_horizon="0.03"),
}


@pytest.mark.parametrize("preset", list(PRESETS))
def test_resume_is_bitwise_with_madr(tmp_path, loop_options, preset):
    options = with_madr(
        loop_options(total_kimg=0.08, kimg_per_tick=0.024, network_snapshot_ticks=1), madr_preset=preset, **{**SMALL, **PRESETS[preset]}
    )
    whole = run(tmp_path / "whole", options)
    run(tmp_path / "parts", {**options, "total_kimg": 0.032})
    parts = run(tmp_path / "parts", options, resume_state=state.latest_state(tmp_path / "parts"))
    # A run of .032 kimg ends in a tick of its own; everything but the statistics' ticks is the same.
    for part in whole:
        if part != "progress":
            assert _plain(whole[part]) == _plain(parts[part]), part


def _plain(value):
    """Nested containers with tensors as (dtype, bytes)."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _train(rank, options):
    torch.set_num_threads(1)
    training_loop(rank=rank, **options)


def test_two_processes_equal_one_with_madr(tmp_path, loop_options, warm_processes):
    # On one seed in six a gradient comes near zero, and Adam, which divides by it, makes half a per cent of rounding: not on this one.
    options = with_madr(loop_options(total_kimg=0.16, network_snapshot_ticks=1, random_seed=4), **SMALL, **TILT)
    parts = []
    for num_gpus in (1, 2):
        path = tmp_path / str(num_gpus)
        path.mkdir()
        distributed.launch(_train, {**options, "run_dir": str(path), "num_gpus": num_gpus}, num_gpus)
        parts.append(state.load_state(state.latest_state(path))["parts"])
    one, two = parts
    for network in ("G", "D"):
        for name, value in one[network].items():
            if not name.endswith("w_avg"):
                # Twice the rounding that the witness alone leaves: moments pass it on from step to step.
                assert float((value - two[network][name]).abs().max()) <= 2e-3 * max(float(value.abs().max()), 1e-3), (network, name)
    memory_one, memory_two = (p["loss"]["madr"]["memory"] for p in parts)
    assert memory_one["offered"] == memory_two["offered"] == 160
    for name in memory_one["tensors"]:
        assert torch.allclose(memory_one["tensors"][name].to(torch.float64), memory_two["tensors"][name].to(torch.float64), atol=1e-3), name


OPEN_IN_ANOTHER_FOLDER = """
import sys
sys.path.insert(0, {repo!r})
sys.modules['madr_plugin'] = None
import pickle, torch
with open({path!r}, 'rb') as f:
    data = pickle.load(f)
print(sorted(data), type(data['augment_pipe']).__name__)
torch.save(data['G_ema'](z=torch.ones([1, 16]), c=torch.eye(2)[:1], noise_mode='const'), {image!r})
"""


def test_snapshots_of_madr_runs_open_without_it(tmp_path, loop_options, repo, runner):
    run(tmp_path / "run", with_madr(loop_options(total_kimg=0.016, network_snapshot_ticks=1), **SMALL))
    path = tmp_path / "run" / "network-snapshot-000000.pkl"
    code = OPEN_IN_ANOTHER_FOLDER.format(repo=str(repo), path=str(path), image=str(tmp_path / "image.pt"))
    result = runner.run(["-c", code], tmp_path, repo)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == "['D', 'G', 'G_ema', 'augment_pipe', 'training_set_kwargs'] AugmentPipe".split()
    with open(path, "rb") as f:
        G_ema = pickle.load(f)["G_ema"]
    assert torch.equal(torch.load(tmp_path / "image.pt"), G_ema(z=torch.ones([1, 16]), c=torch.eye(2)[:1], noise_mode="const"))


SNAPSHOT = "network-snapshot-000000.pkl"


def test_a_snapshot_is_as_large_as_one_without_madr(tmp_path, loop_options):
    """The training state has the memory; with the default's capacity it would outweigh such small networks."""
    options = loop_options(total_kimg=0.016, network_snapshot_ticks=1)
    run(tmp_path / "plain", options)
    parts = run(tmp_path / "madr", with_madr(options, madr=1))
    plain, ours = (os.path.getsize(tmp_path / name / SNAPSHOT) for name in ("plain", "madr"))
    assert ours <= 1.05 * plain
    assert sum(tensor.numel() * 4 for tensor in parts["loss"]["madr"]["memory"]["tensors"].values()) > plain
    assert list(parts["augment_pipe"]) == [f"base.{name}" for name in run(tmp_path / "again", options)["augment_pipe"]]


def test_states_and_snapshots_of_former_versions_still_serve(tmp_path, loop_options):
    """Their augmentation pipes carry a second copy of the memory: a continued run drops it, a started one passes over it."""
    options = with_madr(loop_options(total_kimg=0.032, kimg_per_tick=0.016, network_snapshot_ticks=1), **SMALL)
    whole = run(tmp_path / "whole", options)
    run(tmp_path / "parts", {**options, "total_kimg": 0.016})
    path, snapshot = state.latest_state(tmp_path / "parts"), tmp_path / "parts" / SNAPSHOT
    saved, data = state.load_state(path), pickle.loads(snapshot.read_bytes())
    carried = augment_pipe.flatten(saved["parts"]["loss"]["madr"])
    saved["parts"]["augment_pipe"].update({"madr__" + name: value for name, value in carried.items()})
    torch.save(saved, path)
    former = augment_pipe.MADRAugmentPipe(base=data["augment_pipe"])
    former.carry(carried)
    (tmp_path / "former.pkl").write_bytes(pickle.dumps(dict(data, augment_pipe=former)))

    parts = run(tmp_path / "parts", options, resume_state=path)
    for part in whole:
        if part != "progress":
            assert _plain(whole[part]) == _plain(parts[part]), part
    assert not hasattr(pickle.loads(snapshot.read_bytes())["augment_pipe"], augment_pipe.CARRIED)
    started = run(tmp_path / "started", {**options, "total_kimg": 0.008}, resume_pkl=str(tmp_path / "former.pkl"))
    assert int(started["loss"]["madr"]["step"]) == 1
