"""The diversity monitor inside training: told by train.py, resumable, and nothing to the networks."""

import io
import json
import os
import re
import shutil
import signal
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import train
from torch_utils import distributed
from training import loss, networks, state
from training.diversity import watch
from training.diversity.monitor import NAMES, PREFIX
from training.training_loop import training_loop

NUM_MODES, RESOLUTION = 10, 16
IMAGES = np.random.default_rng(0).integers(0, 256, [NUM_MODES, RESOLUTION, RESOLUTION, 3]).astype(np.uint8)


# ----------------------------------------------------------------------------------------------------------------
# A generator of ten planted images, of which a run can take some away.


class PlantedMapping(torch.nn.Module):
    def forward(self, z, c, **_kwargs):
        return z[:, None].repeat(1, 2, 1)


class PlantedSynthesis(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.gain = torch.nn.Parameter(torch.ones([]))
        self.register_buffer("images", torch.tensor(IMAGES.transpose(0, 3, 1, 2) / 127.5 - 1, dtype=torch.float32))
        self.register_buffer("missing", torch.zeros([NUM_MODES], dtype=torch.bool))

    def forward(self, ws, **_kwargs):
        mode = ws[:, 0, :NUM_MODES].masked_fill(self.missing, -100).argmax(1)
        return self.images[mode] + 1e-3 * self.gain


class PlantedGenerator(torch.nn.Module):
    def __init__(self, z_dim, c_dim, img_resolution, img_channels, **_kwargs):
        super().__init__()
        self.z_dim, self.c_dim, self.img_resolution, self.img_channels = z_dim, c_dim, img_resolution, img_channels
        self.mapping, self.synthesis = PlantedMapping(), PlantedSynthesis()

    def forward(self, z, c, **kwargs):
        return self.synthesis(self.mapping(z, c), **kwargs)


@pytest.fixture(scope="module")
def planted_zip(tmp_path_factory):
    path = tmp_path_factory.mktemp("planted") / "modes.zip"
    random = np.random.default_rng(1)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(8 * NUM_MODES):
            image = np.clip(IMAGES[index % NUM_MODES] + random.normal(0, 8, IMAGES.shape[1:]), 0, 255).astype(np.uint8)
            buffer = io.BytesIO()
            PIL.Image.fromarray(image).save(buffer, "PNG")
            archive.writestr(f"img{index:08d}.png", buffer.getvalue())
    return path


def missing_modes(kind, nimg):
    """Healthy up to kimg 3."""
    if kind == "healthy" or nimg < 3000:
        return []
    kept = 4 if kind == "collapse" else nimg // 1000 % NUM_MODES
    return [mode for mode in range(NUM_MODES) if mode != kept]


@pytest.mark.parametrize("kind", ["healthy", "collapse", "cycling"])
def test_train_tells_within_two_ticks_and_names_the_snapshot(tmp_path, monkeypatch, capsys, planted_zip, kind):
    def begin_phase(self, _name, nimg):
        self.G_synthesis.missing[:] = False
        self.G_synthesis.missing[missing_modes(kind, nimg)] = True

    monkeypatch.setattr(networks, "Generator", PlantedGenerator)
    monkeypatch.setattr(loss.StyleGAN2Loss, "begin_phase", begin_phase, raising=False)
    train.main(
        [
            f"--outdir={tmp_path}",
            f"--data={planted_zip}",
            "--cfg=tiny",
            "--kimg=6",
            "--tick=1",
            "--snap=1",
            "--batch=64",
            "--cbase=32",
            "--cmax=4",
            "--aug=noaug",
            "--snap-res=1080p",
            "--device=cpu",
            "--keep=1",
            "--diversity-monitor=1",
            "--threads=1",
        ],
        standalone_mode=False,
    )
    output, run_dir = capsys.readouterr().out, next(tmp_path.iterdir())
    alarms = [line for line in output.splitlines() if line.startswith("Diversity alarm")]
    # The tick that ends at kimg 3.136, after a step that began beyond 3, is the first sick one.
    ticks = [json.loads(line) for line in open(run_dir / "stats.jsonl")]
    assert [tick["Progress/kimg"]["mean"] for tick in ticks] == pytest.approx([0.064, 1.088, 2.112, 3.136, 4.16, 5.184, 6.016])
    told = [tick["MADR/alarm"]["mean"] for tick in ticks]
    kept = sorted(re.findall(r"network-snapshot-\d+\.pkl", " ".join(os.listdir(run_dir))))
    if kind == "healthy":
        assert alarms == [] and set(told) == {0} and kept == ["network-snapshot-000006.pkl"]
    else:
        assert told == [0] * 4 + [1 if kind == "collapse" else 2] * 3
        assert len(alarms) == 1 and {"collapse": "has collapsed", "cycling": "cycles through modes"}[kind] in alarms[0]
        assert alarms[0].endswith("; last healthy: network-snapshot-000002.pkl (kimg 2.112)")
        assert kept == ["network-snapshot-000002.pkl", "network-snapshot-000006.pkl"]  # --keep spares it
    assert re.search(
        r" augment 0\.000 diversity [\d.]+ spread [\d.]+ lost [\d.]+$", next(line for line in output.splitlines() if line.startswith("tick 2"))
    )


# ----------------------------------------------------------------------------------------------------------------
# What it does to a run: nothing.


def run(path, options, **more):
    os.makedirs(path, exist_ok=True)
    training_loop(run_dir=str(path), **{**options, **more})
    return parts_of(path)


def parts_of(path):
    parts = state.load_state(state.latest_state(path))["parts"]
    parts["progress"].pop("elapsed_sec")
    return parts


def numbers_of(path, keep=lambda name: True):
    """stats.jsonl without what depends on the clock or the machine."""
    lines = [json.loads(line) for line in open(path / "stats.jsonl")]
    return [
        {name: value for name, value in line.items() if name != "timestamp" and not name.startswith(("Timing/", "Resources/")) and keep(name)}
        for line in lines
    ]


def plain(value):
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.numpy().tobytes()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, (list, tuple)) else value


@pytest.fixture
def options(loop_options):
    return loop_options(total_kimg=0.08, kimg_per_tick=0.024, network_snapshot_ticks=1)


def test_the_networks_do_not_notice(tmp_path, options):
    without, within = run(tmp_path / "without", options), run(tmp_path / "with", options, diversity_monitor=1)
    assert "diversity" not in without and within.pop("diversity")
    assert plain(without) == plain(within)
    monitored = {PREFIX + name for name in NAMES}
    assert numbers_of(tmp_path / "without") == numbers_of(tmp_path / "with", lambda name: name not in monitored)
    assert all(monitored <= set(line) for line in numbers_of(tmp_path / "with"))
    assert len({line["MADR/spread"]["mean"] for line in numbers_of(tmp_path / "with")}) > 2  # it looks at what trains


def test_resume_is_bitwise(tmp_path, options):
    """Stopped in the middle of a tick."""
    steps = iter(range(1, 100))

    def stop():
        if next(steps) == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    whole = run(tmp_path / "whole", options, diversity_monitor=1)
    with pytest.raises(SystemExit):
        run(tmp_path / "parts", options, diversity_monitor=1, abort_fn=lambda: bool(stop()))
    parts = run(tmp_path / "parts", options, diversity_monitor=1, resume_state=state.latest_state(tmp_path / "parts"))
    assert plain(whole) == plain(parts) and len(whole["diversity"]["alarm"]["diversities"]) > 3
    assert numbers_of(tmp_path / "whole") == numbers_of(tmp_path / "parts")


def test_a_stop_leaves_the_healthy_snapshot_as_it_was(tmp_path, options, monkeypatch):
    """The signal comes within the kimg of the snapshot that an alarm would name."""
    monkeypatch.setattr(watch.DiversityWatch, "healthy_snapshot", lambda self: "network-snapshot-000000.pkl")
    contents = []

    def stop():
        contents.append((tmp_path / "network-snapshot-000000.pkl").read_bytes() if len(contents) else None)
        if len(contents) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(SystemExit):
        run(tmp_path, {**options, "network_snapshot_ticks": 100}, diversity_monitor=1, abort_fn=lambda: bool(stop()))
    assert contents[1] == contents[2] == (tmp_path / "network-snapshot-000000.pkl").read_bytes()
    assert parts_of(tmp_path)["progress"]["batch_idx"] == 4  # the state holds the newer networks


@pytest.mark.parametrize("before, after", [(False, True), (True, False)])
def test_it_can_come_and_go_with_a_resume(tmp_path, options, before, after):
    run(tmp_path, {**options, "total_kimg": 0.032}, diversity_monitor=before)
    parts = run(tmp_path, options, diversity_monitor=after, resume_state=state.latest_state(tmp_path))
    assert ("diversity" in parts) is after
    assert ["MADR/diversity" in line for line in numbers_of(tmp_path)][:: len(numbers_of(tmp_path)) - 1] == [before, after]


def _train(rank, options):
    torch.set_num_threads(1)
    training_loop(rank=rank, **options)


def test_two_processes_see_what_one_sees(tmp_path, options, warm_processes):
    values = []
    for num_gpus in (1, 2):
        path = tmp_path / str(num_gpus)
        path.mkdir()
        distributed.launch(_train, {**options, "total_kimg": 0.032, "run_dir": str(path), "num_gpus": num_gpus, "diversity_monitor": 1}, num_gpus)
        values.append([[line[PREFIX + name]["mean"] for name in NAMES] + [line["MADR/spread"]["num"]] for line in numbers_of(path)])
    assert np.allclose(*values, atol=5e-3) and np.shape(values[0]) == (2, len(NAMES) + 1)


# ----------------------------------------------------------------------------------------------------------------
# The flag.


def test_on_with_madr_and_otherwise_when_asked_for(tmp_path, monkeypatch, tiny_zip):
    def option(**flags):
        return train.build(dict(data=tiny_zip(), cfg="tiny", **flags)).options.get("diversity_monitor")

    assert [option(), option(madr=0), option(madr=1)] == [None, None, 1]
    assert [option(diversity_monitor=1), option(madr=1, diversity_monitor=0)] == [1, 0]


def test_the_flag_may_change_when_a_run_goes_on(tmp_path, monkeypatch, tiny_zip):
    from training import resume_options

    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_zip(), "data.zip")
    options = train.build(dict(data="data.zip", cfg="tiny", diversity_monitor=1)).options
    os.makedirs("out/00000-a")
    with open("out/00000-a/training_options.json", "w") as file:
        json.dump(options, file)
    open("out/00000-a/training-state-000004.pt", "wb").close()

    def continued(**typed):
        flags = dict(data="data.zip", resume="latest", **typed)
        return resume_options.continue_run(flags, set(flags), "out", train.build, ["madr"])[0].diversity_monitor

    assert [continued(), continued(diversity_monitor=0)] == [1, 0]
