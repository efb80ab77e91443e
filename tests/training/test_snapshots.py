"""Sample grids, which snapshots stay, starting from another run's networks, non-finite gradients, ticks."""

import json
import os

import numpy as np
import PIL.Image
import pytest
import torch

import dnnlib
from dnnlib.errors import UserError
from training import monitor, setup, snapshots, state
from training.training_loop import training_loop


def build(loop_options, **changes):
    options = loop_options(**changes)
    training_set, _ = setup.build_training_set(options["training_set_kwargs"], torch.device("cpu"))
    return setup.build_networks(options["G_kwargs"], options["D_kwargs"], training_set, torch.device("cpu"), 0), training_set


def test_grid_has_upstreams_size_and_one_row_per_class(tiny_zip):
    plain = dnnlib.util.construct_class_by_name(class_name="training.dataset.ImageFolderDataset", path=tiny_zip())
    assert [snapshots.setup_snapshot_image_grid(plain)[0]] == [(32, 32)]
    labelled = dnnlib.util.construct_class_by_name(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_classes=3), use_labels=True)
    size, images, labels = snapshots.setup_snapshot_image_grid(labelled)
    assert size == (32, 32) and images.shape == (1024, 3, 16, 16)
    assert (labels.reshape(32, 32, 3).argmax(-1) == np.arange(32)[:, None] % 3).all()
    again = snapshots.setup_snapshot_image_grid(labelled)
    assert np.array_equal(images, again[1])


def test_saved_grid_puts_images_where_they_belong(tmp_path):
    images = np.zeros([6, 3, 4, 4], np.float32) - 1
    images[4] = 1  # second row, second column of three
    snapshots.save_image_grid(images, tmp_path / "grid.png", drange=[-1, 1], grid_size=(3, 2))
    pixels = np.asarray(PIL.Image.open(tmp_path / "grid.png"))
    expected = np.zeros([8, 12, 3], np.uint8)
    expected[4:, 4:8] = 255
    assert np.array_equal(pixels, expected)


@pytest.mark.parametrize(
    "text, expected", [(None, (None, False)), ("all", (None, False)), ("3", (3, False)), ("3,best", (3, True)), ("best", (1, True))]
)
def test_keep(text, expected):
    assert snapshots.parse_keep(text) == expected


@pytest.mark.parametrize("text", ["0", "-1", "two", "3,worst", "1,2", ""])
def test_keep_refuses(text):
    with pytest.raises(UserError, match="--keep"):
        snapshots.parse_keep(text)


def test_the_best_snapshot_survives(tmp_path):
    for kimg, value in [(0, 9.0), (4, 2.0), (8, 5.0), (12, 7.0)]:
        name = f"network-snapshot-{kimg:06d}.pkl"
        (tmp_path / name).write_bytes(b"x")
        with open(tmp_path / "metric-fid50k_full.jsonl", "a") as f:
            f.write(json.dumps(dict(results=dict(fid50k_full=value), snapshot_pkl=name)) + "\n")
    with open(tmp_path / "metric-fid50k_full.jsonl", "a") as f:
        f.write('{"results": {"fid50')  # cut off by a kill
    assert snapshots.best_snapshot(tmp_path, "fid50k_full", False) == "network-snapshot-000004.pkl"
    assert snapshots.best_snapshot(tmp_path, "fid50k_full", True) == "network-snapshot-000000.pkl"
    snapshots.prune_network_snapshots(tmp_path, 1, ["network-snapshot-000004.pkl"])
    assert [name for _, name in snapshots.list_network_snapshots(tmp_path)] == ["network-snapshot-000004.pkl", "network-snapshot-000012.pkl"]


def test_networks_that_do_not_fit_are_refused_with_a_table_and_nothing_is_copied(loop_options):
    (G, D), _ = build(loop_options)
    wider = loop_options()
    wider["G_kwargs"]["synthesis_kwargs"]["channel_max"] = 8
    training_set, _ = setup.build_training_set(wider["training_set_kwargs"], torch.device("cpu"))
    other, _ = setup.build_networks(wider["G_kwargs"], wider["D_kwargs"], training_set, torch.device("cpu"), 1)
    before = {name: value.clone() for name, value in other.state_dict().items()}
    sources, targets = dict(G=G, D=D, G_ema=G), dict(G=other, D=D, G_ema=other)
    with pytest.raises(UserError) as refused:
        snapshots.load_matching(sources, targets, "x.pkl", partial=False)
    text = str(refused.value)
    assert "differs" in text and "G.synthesis.b4.const" in text and "--resume-partial" in text and "--cmax=16" in text
    assert all(torch.equal(before[name], value) for name, value in other.state_dict().items())
    line = snapshots.load_matching(sources, targets, "x.pkl", partial=True)
    assert "left at their initial values" in line and torch.equal(other.mapping.fc0.weight, G.mapping.fc0.weight)
    assert torch.equal(other.synthesis.b4.const, before["synthesis.b4.const"])


def test_transfer_starts_from_the_pickles_weights(tmp_path, loop_options):
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1)
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    training_loop(run_dir=str(tmp_path / "a"), **options)
    options.update(resume_pkl=str(tmp_path / "a" / "network-snapshot-000000.pkl"), random_seed=77)
    options["G_opt_kwargs"]["lr"] = options["D_opt_kwargs"]["lr"] = 0.0
    training_loop(run_dir=str(tmp_path / "b"), **options)
    a, b = (state.load_state(state.latest_state(tmp_path / name))["parts"] for name in "ab")
    for network in ("G", "D"):
        assert all(torch.equal(a[network][name], b[network][name]) for name in a[network] if not name.endswith("w_avg"))


def test_a_streak_of_nonfinite_gradients_stops_the_run_and_keeps_the_last_good_state(tmp_path, loop_options):
    options = loop_options(total_kimg=0.024, network_snapshot_ticks=1, augment_kwargs=None, ada_target=None, augment_p=0)
    training_loop(run_dir=str(tmp_path), **options)
    good = state.latest_state(tmp_path)
    content = open(good, "rb").read()
    options["loss_kwargs"]["r1_gamma"] = float("nan")
    options.update(total_kimg=8, D_reg_interval=None, nan_streak=5, resume_state=good)
    with pytest.raises(UserError, match="5 steps in a row had non-finite gradients") as stopped:
        training_loop(run_dir=str(tmp_path), **options)
    assert good in str(stopped.value) and open(good, "rb").read() == content


def test_a_single_overflow_is_counted_and_survived(tmp_path, loop_options, monkeypatch):
    from training import loss

    calls = []

    class Overflow(loss.StyleGAN2Loss):
        def generator_term(self, fake_logits):
            calls.append(1)
            return super().generator_term(fake_logits) * (float("inf") if len(calls) == 3 else 1)

    monkeypatch.setattr(loss, "OverflowLoss", Overflow, raising=False)
    options = loop_options(total_kimg=0.04, kimg_per_tick=0.04, network_snapshot_ticks=1, nan_streak=2)
    options["loss_kwargs"]["class_name"] = "training.loss.OverflowLoss"
    training_loop(run_dir=str(tmp_path), **options)
    progress = state.load_state(state.latest_state(tmp_path))["parts"]["progress"]
    assert progress["nonfinite_steps"] == 1 and progress["nonfinite_streak"] == 0
    assert all(torch.isfinite(value).all() for value in state.load_state(state.latest_state(tmp_path))["parts"]["G"].values())


def test_tick_line_is_what_scripts_parse():
    line = monitor.tick_line(0, 0.0, 11, 4.1, 128.25, 7.4, 4.41, 9.85, 0, [("coverage", 0.5)])
    assert line == (
        "tick 0     kimg 0.0      time 11s          sec/tick 4.1     sec/kimg 128.25  maintenance 7.4    cpumem 4.41   "
        "gpumem 9.85   augment 0.000 coverage 0.500"
    )


def test_log_text_comes_in_upstreams_order(tmp_path, loop_options, capsys):
    training_loop(run_dir=str(tmp_path), **loop_options(total_kimg=0.016, network_snapshot_ticks=1, image_snapshot_ticks=1))
    text = capsys.readouterr().out
    marks = [
        "Loading training set...",
        "Num images:  24",
        "Image shape: [3, 16, 16]",
        "Label shape: [2]",
        "Constructing networks...",
        "Setting up augmentation...",
        "Distributing across 1",
        "Setting up training phases...",
        "Exporting sample images...",
        "Initializing logs...",
        "Training for 0.016 kimg...",
        "tick 0     kimg 0.0",
        "tick 1     kimg 0.0",
        "Exiting...",
    ]
    positions = [text.index(mark) for mark in marks]
    assert positions == sorted(positions)
    names = set(os.listdir(tmp_path))
    assert {"reals.png", "fakes_init.png", "fakes000000.png", "network-snapshot-000000.pkl", "stats.jsonl"} <= names
    line = json.loads(open(tmp_path / "stats.jsonl").readline())
    for name in (
        "Loss/scores/fake",
        "Loss/scores/real",
        "Loss/signs/fake",
        "Loss/signs/real",
        "Loss/G/loss",
        "Loss/D/loss",
        "Loss/r1_penalty",
        "Loss/D/reg",
        "Loss/pl_penalty",
        "Loss/G/reg",
        "Progress/tick",
        "Progress/kimg",
        "Progress/augment",
        "Timing/total_sec",
        "Timing/sec_per_tick",
        "Timing/sec_per_kimg",
        "Timing/maintenance_sec",
        "Timing/Gmain",
        "Timing/Greg",
        "Timing/Dmain",
        "Timing/Dreg",
        "Timing/total_hours",
        "Timing/total_days",
        "Resources/cpu_mem_gb",
        "Resources/peak_gpu_mem_gb",
    ):
        assert set(line[name]) == {"num", "mean", "std"}, name
    assert isinstance(line["timestamp"], float)


def test_switches_of_the_process_come_back(tmp_path, loop_options):
    from torch_utils.ops import conv2d_gradfix

    before = torch.backends.cudnn.benchmark, conv2d_gradfix.enabled
    training_loop(run_dir=str(tmp_path), **loop_options(total_kimg=0.008))
    assert (torch.backends.cudnn.benchmark, conv2d_gradfix.enabled) == before
