"""Stops and resumes at awkward moments: at the last step, from an older state, with foreign losses, with poisoned terms."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

import madr_plugin.options
from dnnlib.errors import UserError
from metrics import requirements
from training import evaluation, monitor, state
from training.loss import StyleGAN2Loss
from training.training_loop import Trainer, training_loop


class LossWithoutState:
    """A loss as other code bases write them: accumulate_gradients and nothing else."""

    def __init__(self, **kwargs):
        self._loss = StyleGAN2Loss(**kwargs)

    def accumulate_gradients(self, **kwargs):
        self._loss.accumulate_gradients(**kwargs)


class LossWithPoisonedRegulariser(StyleGAN2Loss):
    """Every path-length term is NaN, every other gradient is sound."""

    def path_length_penalty(self, gen_img, gen_ws):
        return super().path_length_penalty(gen_img, gen_ws) * float("nan")


pages = []  # run folders for which note_page() was called


def note_page(run_dir, say):
    pages.append(run_dir)


@pytest.fixture(autouse=True)
def losses_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "losses_of_this_test", sys.modules[__name__])


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})


def test_the_page_is_written_by_what_the_options_name(tmp_path, loop_options):
    options = dict(loop_options(), total_kimg=0.016, image_snapshot_ticks=1, network_snapshot_ticks=1)
    run(tmp_path / "none", options, page_fn=None)
    assert not os.path.exists(tmp_path / "none" / "report.html")
    run(tmp_path / "other", options, page_fn="losses_of_this_test.note_page")
    assert pages and set(pages) == {str(tmp_path / "other")}


def stop_after(steps):
    """abort_fn that sends this process SIGTERM after some steps."""

    def count():
        count.left -= 1
        if count.left == 0:
            os.kill(os.getpid(), signal.SIGTERM)
        return False

    count.left = steps
    return count


def ticks(run_dir):
    return [json.loads(line)["Progress/kimg"]["mean"] for line in open(os.path.join(run_dir, "stats.jsonl"))]


def test_stopped_at_the_last_step_the_run_is_still_finished(tmp_path, loop_options, capsys):
    """The signal comes when all images were seen but the last tick was not yet told: its line, pictures and metrics follow."""
    options = loop_options(total_kimg=0.032, kimg_per_tick=0.024, network_snapshot_ticks=1, image_snapshot_ticks=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", options, abort_fn=stop_after(3))
    assert ticks(tmp_path / "run") == [0.008]
    run(tmp_path / "run", options, resume_state=state.latest_state(tmp_path / "run"))
    assert ticks(tmp_path / "run") == [0.008, 0.032]
    assert "already" not in capsys.readouterr().err
    run(tmp_path / "run", options, resume_state=state.latest_state(tmp_path / "run"))
    assert ticks(tmp_path / "run") == [0.008, 0.032]  # finished is finished
    assert "Note: the run is at kimg 0.032 of 0.032 already; give a larger --kimg to go on" in capsys.readouterr().err


@pytest.fixture
def hand_clock(monkeypatch):
    """The wall clock of the monitor, which stands still unless it is moved: hand_clock.now."""

    class HandClock:
        now = 1000.0

        def time(self):
            return self.now

        def __getattr__(self, name):
            return getattr(time, name)

    clock = HandClock()
    monkeypatch.setattr(monitor, "time", clock)
    return clock


def seconds(run_dir, name):
    return [json.loads(line)[f"Timing/{name}"]["mean"] for line in open(os.path.join(run_dir, "stats.jsonl"))]


def test_maintenance_is_told_once_however_often_a_run_is_stopped(tmp_path, loop_options, monkeypatch, hand_clock):
    """A step takes 1 s, an evaluation 100 s: total time less all maintenance is the time of the steps."""
    step = Trainer.train_step

    def slow_step(self):
        hand_clock.now += 1
        step(self)

    def slow_evaluation(options, metrics, G_ema, device, snapshot_pkl):
        hand_clock.now += 100
        return iter([])

    monkeypatch.setattr(Trainer, "train_step", slow_step)
    monkeypatch.setattr(evaluation, "evaluate", slow_evaluation)
    monkeypatch.setattr(requirements, "check", lambda *_args: None)
    options = loop_options(total_kimg=0.104, kimg_per_tick=0.032, network_snapshot_ticks=1, metrics=["fid50k_full"])
    training_seconds = lambda: [total - sum(seconds(tmp_path, "maintenance_sec")[: i + 1]) for i, total in enumerate(seconds(tmp_path, "total_sec"))]
    resumed = lambda **more: run(tmp_path, options, resume_state=state.latest_state(tmp_path), **more)
    with pytest.raises(SystemExit):  # in mid-tick, after the evaluation
        run(tmp_path, options, abort_fn=stop_after(5))
    assert seconds(tmp_path, "total_sec") == [1, 5]
    with pytest.raises(SystemExit):  # again, before the tick is told
        resumed(abort_fn=stop_after(1))
    resumed()
    assert seconds(tmp_path, "total_sec") == [1, 5, 109, 213] and training_seconds() == [1, 5, 9, 13]
    # As if killed during the last evaluation, by an early version: what is made up for at the start is maintenance, too.
    saved = state.load_state(state.latest_state(tmp_path))
    assert saved["facts"].pop("maintenance_sec") == 0
    torch.save(saved, state.latest_state(tmp_path))
    options["total_kimg"] = 0.136
    resumed()
    assert training_seconds() == [1, 5, 9, 13, 17]


def test_states_of_an_abandoned_continuation_do_not_come_back(tmp_path):
    """Going back to an older state by name: what was saved after it belongs to another history, 'latest' must not find it."""
    tmp_path.joinpath("training-state-000030.pt").touch()
    for kimg in (10, 12):
        state.save_state(str(tmp_path), kimg, dict(format=state.FORMAT))
    assert [kimg for kimg, _ in state.list_states(tmp_path)] == [10, 12]


def test_half_written_files_of_a_killed_run_are_swept_up(tmp_path, loop_options):
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1)
    run(tmp_path / "run", options)
    code = (
        f"import sys, os; sys.path.insert(0, {os.getcwd()!r})\nfrom dnnlib import files\n"
        f"with files.atomic_open({str(tmp_path / 'run' / 'network-snapshot-000009.pkl')!r}) as f:\n    f.write(b'half'); f.flush(); os.kill(os.getpid(), 9)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=False)
    hidden = [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]
    assert len(hidden) == 1
    run(tmp_path / "run", options, resume_state=state.latest_state(tmp_path / "run"))
    assert not [name for name in os.listdir(tmp_path / "run") if name.startswith(".")]


def test_a_loss_that_keeps_no_state(tmp_path, loop_options):
    options = loop_options(
        total_kimg=0.016, network_snapshot_ticks=1, loss_kwargs=dict(class_name="losses_of_this_test.LossWithoutState", r1_gamma=1)
    )
    run(tmp_path / "run", options)
    run(tmp_path / "run", {**options, "total_kimg": 0.024}, resume_state=state.latest_state(tmp_path / "run"))
    assert ticks(tmp_path / "run")[-1] == 0.024


def test_a_loss_that_keeps_no_state_goes_on_from_an_older_state_with_an_empty_place_for_it(tmp_path, loop_options):
    options = loop_options(
        total_kimg=0.016, network_snapshot_ticks=1, loss_kwargs=dict(class_name="losses_of_this_test.LossWithoutState", r1_gamma=1)
    )
    run(tmp_path / "run", options)
    saved = state.load_state(state.latest_state(tmp_path / "run"))
    assert "loss" not in saved["parts"]
    saved["parts"]["loss"] = {}
    torch.save(saved, state.latest_state(tmp_path / "run"))
    run(tmp_path / "run", {**options, "total_kimg": 0.024}, resume_state=state.latest_state(tmp_path / "run"))
    assert ticks(tmp_path / "run")[-1] == 0.024


class LossThatNotes(LossWithoutState):
    """A foreign loss with a part of the protocol; notes what is called."""

    calls = []

    def attach(self, context):
        self.calls.append(("attach", sorted(context), context["keeps_state"], len(context["training_set"])))

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        self._loss.accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)

    def begin_phase(self, phase, cur_nimg):
        self.calls.append(("begin", phase, cur_nimg))

    def end_phase(self, phase):
        self.calls.append(("end", phase))

    def telemetry(self):
        return dict(own=2.5)

    def close(self):
        self.calls.append(("close",))


@pytest.mark.parametrize("with_madr", [False, True])
def test_what_a_foreign_loss_has_of_the_protocol_is_called(tmp_path, loop_options, capsys, with_madr):
    """Also around a failure: the run ends in the second tick, and the loss is closed."""

    def fail():
        if len([call for call in LossThatNotes.calls if call[0] == "end"]) > 6:
            raise RuntimeError("in mid-run")

    LossThatNotes.calls.clear()
    options = loop_options(total_kimg=0.1, kimg_per_tick=0.008, loss_kwargs=dict(class_name="losses_of_this_test.LossThatNotes", r1_gamma=1))
    if with_madr:
        madr_plugin.options.apply(options, dict(madr=1, madr_deficit_window=16, madr_reals=8, madr_width=8))
    with pytest.raises(RuntimeError, match="in mid-run"):
        run(tmp_path, options, abort_fn=fail)
    attached, *phases, closed = LossThatNotes.calls
    assert attached[0] == "attach" and attached[2:] == (True, 24) and closed == ("close",)
    assert attached[1] == sorted(CONTEXT)
    first = [("Gmain", 0), ("Greg", 0), ("Dmain", 0), ("Dreg", 0), ("Gmain", 8), ("Dmain", 8)]
    assert phases[:12] == [call for name, nimg in first for call in (("begin", name, nimg), ("end", name))]
    assert " own 2.500" in capsys.readouterr().out


CONTEXT = (
    (
        "G D G_ema rank num_gpus device run_dir training_set training_set_kwargs random_seed batch_size batch_gpu keeps_state optimizers"  # as Loss.attach tells
    ).split()
)


class ForeignImages(torch.utils.data.Dataset):
    """A data set as other forks write them: no fingerprint, no look at all images before training, no cache."""

    name, resolution, num_channels, image_shape, label_shape, label_dim, has_labels = "foreign", 16, 3, [3, 16, 16], [0], 0, False

    def __init__(self, seed):
        self.images = np.random.RandomState(seed).randint(0, 256, [24, 3, 16, 16]).astype(np.uint8)

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], np.zeros([0], np.float32)


def test_a_data_set_of_another_code_base(tmp_path, loop_options):
    """It trains, goes on, and is refused when its images have changed."""
    options = loop_options(total_kimg=0.016, network_snapshot_ticks=1)
    options["training_set_kwargs"] = dict(class_name="losses_of_this_test.ForeignImages", seed=0)
    run(tmp_path, options)
    options["total_kimg"] = 0.024
    with pytest.raises(UserError, match="has changed"):
        run(tmp_path, {**options, "training_set_kwargs": dict(options["training_set_kwargs"], seed=1)}, resume_state=state.latest_state(tmp_path))
    run(tmp_path, options, resume_state=state.latest_state(tmp_path))
    assert ticks(tmp_path)[-1] == 0.024


def test_a_regulariser_that_is_never_finite_stops_the_run(tmp_path, loop_options):
    """It acts in every second step only, so bad steps do not follow one another directly; the streak must count all the same."""
    options = loop_options(total_kimg=1, nan_streak=3, loss_kwargs=dict(class_name="losses_of_this_test.LossWithPoisonedRegulariser", r1_gamma=1))
    with pytest.raises(Exception, match="3 .* non-finite gradients"):
        run(tmp_path / "run", options)


def test_one_broken_image_does_not_poison_the_path_length_mean():
    loss = StyleGAN2Loss(device="cpu", G_mapping=None, G_synthesis=None, D=None)
    for length in (1.0, float("nan"), float("inf"), 1.0):
        loss._pl_means_of_step.append(torch.tensor(length))
        loss.finish_phase()
    assert float(loss.pl_mean) == pytest.approx(1 - 0.99**2)


def test_no_claim_of_a_saved_state_that_was_not_saved(tmp_path, loop_options, capsys):
    options = loop_options(total_kimg=1, loss_kwargs=dict(class_name="losses_of_this_test.LossWithPoisonedRegulariser", r1_gamma=1), G_reg_interval=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "run", options, abort_fn=stop_after(12))
    text = capsys.readouterr().out
    assert state.latest_state(tmp_path / "run") is None
    assert "Nothing is saved" in text and "Saved at kimg" not in text


INTERRUPTED = """
import json, sys
sys.path.insert(0, {repo!r})
import torch
from torch_utils import distributed
from training.training_loop import training_loop

def train(rank, options):
    torch.set_num_threads(1)
    training_loop(rank=rank, **options)

if __name__ == "__main__":
    distributed.launch(train, json.load(open({options!r})), 2)
"""


def test_sigint_to_the_launcher_alone_reaches_the_ranks(tmp_path, loop_options, repo):
    """A scheduler signals one process, a terminal the whole group; both must save and end with the same code."""
    (tmp_path / "run").mkdir()
    options = loop_options(total_kimg=1000, kimg_per_tick=0.008, network_snapshot_ticks=None, run_dir=str(tmp_path / "run"), num_gpus=2)
    (tmp_path / "options.json").write_text(json.dumps(options))
    (tmp_path / "two.py").write_text(INTERRUPTED.format(repo=str(repo), options=str(tmp_path / "options.json")))
    process = subprocess.Popen([sys.executable, str(tmp_path / "two.py")], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    stats, deadline = tmp_path / "run" / "stats.jsonl", time.monotonic() + 120
    while not (stats.exists() and stats.stat().st_size) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    try:
        code = process.wait(timeout=60)
    finally:
        process.kill()
    assert code == 75, process.stderr.read().decode()[-2000:]
    assert state.latest_state(tmp_path / "run") is not None


class LossWithOneOverflow(StyleGAN2Loss):
    """The gradient of the third step alone is infinite."""

    def generator_term(self, fake_logits):
        self.calls = getattr(self, "calls", 0) + 1
        return super().generator_term(fake_logits) * (float("inf") if self.calls == 3 else 1)


def test_a_single_overflow_in_the_last_step_costs_no_state(tmp_path, loop_options):
    """It was kept off the weights; not saving would lose everything since the snapshot before."""
    options = loop_options(
        total_kimg=0.024,
        batch_gpu=8,
        network_snapshot_ticks=1,
        kimg_per_tick=1,
        loss_kwargs=dict(class_name="losses_of_this_test.LossWithOneOverflow", r1_gamma=1),
    )
    run(tmp_path / "run", options)
    progress = state.load_state(state.latest_state(tmp_path / "run"))["parts"]["progress"]
    assert (progress["cur_nimg"], progress["nonfinite_steps"], progress["nonfinite_streak"]) == (24, 1, 1)
