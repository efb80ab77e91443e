"""Sample grids, which snapshots stay, starting from another run's networks, non-finite gradients, ticks."""

import json
import os

import numpy as np
import PIL.Image
import pytest
import torch

import dnnlib
import legacy
from dnnlib.errors import UserError
from training import monitor, networks, setup, snapshots, state
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


@pytest.mark.parametrize(
    "theirs, ours, words",
    [
        (dict(img_channels=3), dict(img_channels=1), ["use data of RGB images (3 channels)", "--data holds grey images (1 channel)"]),
        (dict(img_channels=1), dict(img_channels=3), ["use data of grey images (1 channel)"]),
        (dict(c_dim=0), dict(c_dim=2), ["leave out --cond"]),
        (dict(c_dim=2), dict(c_dim=0), ["add --cond=1", "2 values"]),
        (dict(c_dim=2), dict(c_dim=3), ["labels have 2 values", "here 3"]),
        (dict(img_resolution=16), dict(img_resolution=8), ["data of 16x16 pixels", "--width=16 --height=16"]),
        (dict(z_dim=8), dict(z_dim=16), ["another --cfg", "8 values, here 16"]),
        (dict(channel_base=32), dict(channel_base=64), ["--cbase=32 (here 64)"]),
    ],
)
def test_a_refused_pickle_names_what_differs_and_nothing_else(theirs, ours, words):
    def made(channel_base=64, **changes):
        shape = dict(dict(c_dim=0, img_resolution=8, img_channels=3), **{key: value for key, value in changes.items() if key != "z_dim"})
        widths = dict(channel_base=channel_base, channel_max=8)
        G = networks.Generator(z_dim=changes.get("z_dim", 8), w_dim=8, mapping_kwargs=dict(num_layers=1), synthesis_kwargs=widths, **shape)
        return dict(G=G, D=networks.Discriminator(**widths, **shape), G_ema=G)

    with pytest.raises(UserError) as refused:
        snapshots.load_matching(made(**theirs), made(**ours), "x.pkl", partial=False)
    remedy = str(refused.value).split("To make them agree: ")[1]
    assert all(word in remedy for word in words) and remedy.count(";") == 0 and "--resume-partial" in remedy
    assert snapshots.load_matching(made(**theirs), made(**theirs), "x.pkl", partial=False).startswith("Copied")  # the remedy, followed


def test_each_cell_of_the_samples_is_drawn_again_from_its_seed_and_label(tmp_path, loop_options):
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1, image_snapshot_ticks=1)
    training_loop(run_dir=str(tmp_path), **options)
    with open(tmp_path / snapshots.CELLS_FILE) as file:
        stated = json.load(file)
    sheet = np.asarray(PIL.Image.open(tmp_path / "fakes000000.png"))
    assert sheet.shape[:2] == (16 * stated["rows"], 16 * stated["columns"]) and len(stated["cells"]) == stated["rows"] * stated["columns"]
    G = legacy.open_network(tmp_path / "network-snapshot-000000.pkl")["G_ema"]
    for cell in stated["cells"][:: len(stated["cells"]) // 5]:
        z = torch.from_numpy(np.random.RandomState(cell["seed"]).randn(1, G.z_dim).astype(np.float32))
        image = G(z, torch.eye(2)[[cell["class"]]], noise_mode="const")[0].permute(1, 2, 0).numpy()
        there = sheet[16 * cell["row"] : 16 * (cell["row"] + 1), 16 * cell["column"] : 16 * (cell["column"] + 1)]
        assert np.abs(there - (image * 127.5 + 127.5).clip(0, 255)).max() < 1.1


def test_labels_of_cells_are_classes_or_vectors():
    cells = lambda labels: json.loads(snapshots.describe_cells((2, 1), labels))["cells"]
    assert cells(np.eye(2)) == [dict(row=0, column=0, seed=0, **{"class": 0}), dict(row=0, column=1, seed=1, **{"class": 1})]
    assert [cell["label"] for cell in cells([[5.0, 90.0], [1.0, 0.0]])] == [[5.0, 90.0], [1.0, 0.0]]
    assert all("label" not in cell and "class" not in cell for cell in cells(np.zeros([2, 0])))


def test_runs_of_earlier_versions_keep_the_latents_of_their_samples(tmp_path, loop_options):
    (tmp_path / "a").mkdir(), (tmp_path / "b").mkdir()
    options = loop_options(total_kimg=0.008, network_snapshot_ticks=1)
    training_loop(run_dir=str(tmp_path / "a"), **options)
    old = state.load_state(state.latest_state(tmp_path / "a"))
    assert old["facts"].pop("grid_is_of_seeds") is True
    state.save_state(str(tmp_path / "b"), 0, old)
    options.update(total_kimg=0.016, resume_state=state.latest_state(tmp_path / "b"))
    training_loop(run_dir=str(tmp_path / "b"), **options)
    assert not (tmp_path / "b" / snapshots.CELLS_FILE).exists()
    assert state.load_state(state.latest_state(tmp_path / "b"))["facts"]["grid_is_of_seeds"] is False


def test_snapshots_of_one_kimg_are_named_apart_and_so_after_a_resume(tmp_path, loop_options):
    options = loop_options(kimg_per_tick=0.008, network_snapshot_ticks=1, image_snapshot_ticks=1, snapshots_apart=True)
    training_loop(run_dir=str(tmp_path), **dict(options, total_kimg=0.016))
    training_loop(run_dir=str(tmp_path), **dict(options, total_kimg=0.024, resume_state=state.latest_state(tmp_path)))
    found = [(0, "network-snapshot-000000.pkl"), (0.016, "network-snapshot-000000-016.pkl"), (0.024, "network-snapshot-000000-024.pkl")]
    assert snapshots.list_network_snapshots(tmp_path) == found
    networks_G = [legacy.open_network(tmp_path / name)["G"] for _kimg, name in found]
    assert not torch.equal(networks_G[0].mapping.fc0.weight, networks_G[1].mapping.fc0.weight)
    assert {"fakes000000.png", "fakes000000-016.png", "fakes000000-024.png"} <= set(os.listdir(tmp_path))


def test_progress_is_told_at_the_start_and_after_every_tick(tmp_path, loop_options):
    told = []
    options = loop_options(total_kimg=1.2, kimg_per_tick=0.6, batch_size=200, batch_gpu=200, progress_fn=lambda *args: told.append(args))
    training_loop(run_dir=str(tmp_path), **options)
    assert told == [(0, 1.2), (0, 1.2), (0, 1.2), (1, 1.2)]


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


def test_a_run_folder_may_have_any_name(tmp_path, loop_options, capsys):
    run_dir = os.path.join(tmp_path, os.fsdecode("画像".encode() + b"\xff"))
    os.mkdir(run_dir)
    training_loop(run_dir=run_dir, **loop_options(total_kimg=0.008, network_snapshot_ticks=1, image_snapshot_ticks=1))
    assert {"network-snapshot-000000.pkl", "report.html", "stats.jsonl"} <= set(os.listdir(run_dir))
    assert "Note: no TensorBoard events" in capsys.readouterr().err


def test_switches_of_the_process_come_back(tmp_path, loop_options):
    from torch_utils.ops import conv2d_gradfix

    before = torch.backends.cudnn.benchmark, conv2d_gradfix.enabled
    training_loop(run_dir=str(tmp_path), **loop_options(total_kimg=0.008))
    assert (torch.backends.cudnn.benchmark, conv2d_gradfix.enabled) == before
