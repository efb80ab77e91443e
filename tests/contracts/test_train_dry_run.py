"""Flags to options: three whole command lines against golden numbers, then rules one by one."""

import json
import os
import shutil

import pytest

import train
from dnnlib import cli
from torch_utils import devices
from training import config, launch, presets


@pytest.fixture()
def data32(tmp_path, monkeypatch, tiny_zip):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_zip(num_images=12, resolution=32, num_classes=3), "data32.zip")
    return tmp_path


@pytest.fixture()
def data16(tmp_path, tiny_zip):
    shutil.copy(tiny_zip(num_images=12, resolution=16, num_classes=3), tmp_path / "data16.zip")
    return tmp_path


def dry_run(capsys, *args):
    """(options, lines after them) of a dry run."""
    assert cli.call(train.main, [*args, "--dry-run"]) == 0, capsys.readouterr().err
    text = capsys.readouterr().out
    head, _, rest = text.partition("Training options:\n")
    options, length = json.JSONDecoder().raw_decode(rest)
    return options, rest[length:].splitlines()


def as_text(value):
    """With the order of keys and int told from float."""
    return json.dumps(value)


@pytest.mark.parametrize("number", range(3))
def test_golden_command_lines(number, golden, data32, capsys):
    case = golden("dry_run.json")[number]
    options, lines = dry_run(capsys, *case["args"])
    assert as_text(options) == as_text(case["training_options"])
    first = lines.index(case["printed"][0])
    assert lines[first : first + len(case["printed"])] == case["printed"]
    assert lines[first - 1] == ""
    assert os.listdir(data32) == ["data32.zip"]  # a dry run creates nothing


def test_augmentation_presets(golden):
    assert presets.AUGMENTATIONS == golden("augment_presets.json")


def test_the_device_does_not_change_the_options(data32, capsys, monkeypatch):
    options, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out")
    monkeypatch.setattr(devices, "mps_available", lambda: True)
    again, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--device=auto")
    assert options == again


# What each flag of the common interface adds to the name and sets in the options.
FLAGS = [
    (["--gamma=10"], "-gamma10", {"loss_kwargs.r1_gamma": 10}),
    (["--gamma=0.05"], "-gamma0.05", {"loss_kwargs.r1_gamma": 0.05}),
    (["--kimg=7"], "-kimg7", {"total_kimg": 7}),
    (["--batch=16"], "-batch16", {"batch_size": 16, "batch_gpu": 16, "loss_kwargs.r1_gamma": 0.0064}),
    (["--aug=ada"], "-ada", {"ada_target": 0.6}),
    (["--aug=noaug"], "-noaug", {"augment_kwargs": None, "ada_target": None}),
    (["--aug=fixed", "--p=0.25"], "-fixed-p0.25", {"augment_p": 0.25, "ada_target": None}),
    (["--target=0.7"], "-target0.7", {"ada_target": 0.7}),
    (["--augpipe=blit"], "-blit", {"augment_kwargs.scale": None, "augment_kwargs.xint": 1}),
    (["--resume=noresume"], "-noresume", {"resume_pkl": None, "ada_kimg": None}),
    (["--resume=mine.pkl"], "-resumecustom", {"resume_pkl": "mine.pkl", "ada_kimg": 100, "ema_rampup": None}),
    (["--resume=ffhq256"], "-resumeffhq256", {"resume_pkl": presets.RESUME_URLS["ffhq256"], "ada_kimg": 100, "ema_rampup": None}),
    (["--freezed=3"], "-freezed3", {"D_kwargs.block_kwargs.freeze_layers": 3}),
    (["--fp32=1"], "", {"G_kwargs.synthesis_kwargs.num_fp16_res": 0, "D_kwargs.num_fp16_res": 0, "D_kwargs.conv_clamp": None}),
    (["--nhwc=1"], "", {"G_kwargs.synthesis_kwargs.fp16_channels_last": True, "D_kwargs.block_kwargs.fp16_channels_last": True}),
    (["--nobench=1"], "", {"cudnn_benchmark": False}),
    (["--allow-tf32=1"], "", {"allow_tf32": True}),
    (["--metrics=none"], "", {"metrics": []}),
    (["--metrics=fid50k_full,is50k"], "", {"metrics": ["fid50k_full", "is50k"]}),
    (["--workers=2"], "", {"data_loader_kwargs.num_workers": 2}),
    # Further flags.
    (["--batch=16", "--batch-gpu=4"], "-batch16", {"batch_size": 16, "batch_gpu": 4}),
    (["--cbase=4096", "--cmax=64"], "-cbase4096-cmax64", {"G_kwargs.synthesis_kwargs.channel_base": 4096, "D_kwargs.channel_max": 64}),
    (["--glr=0.001", "--dlr=0.004"], "-glr0.001-dlr0.004", {"G_opt_kwargs.lr": 0.001, "D_opt_kwargs.lr": 0.004}),
    (["--lr-tail=0.25"], "-tail0.25", {"lr_tail": 0.25}),
    (["--noise-inputs=0"], "-noise0", {"G_kwargs.synthesis_kwargs.use_noise": False}),
    (["--map-depth=5"], "-map5", {"G_kwargs.mapping_kwargs.num_layers": 5}),
    (["--mbstd-group=2"], "-mbstd2", {"D_kwargs.epilogue_kwargs.mbstd_group_size": 2}),
    (["--ema-kimg=3"], "-ema3", {"ema_kimg": 3}),
    (["--pl-weight=0"], "-pl0", {"loss_kwargs.pl_weight": 0}),
    (["--desc=second-try"], "-second-try", {"desc": "second-try"}),
    (["--tick=1"], "", {"kimg_per_tick": 1, "snapshots_apart": None}),
    (["--tick=0.25", "--snap=1"], "", {"snapshots_apart": True}),
    (["--tick=0.25", "--snap=4", "--img-snap=3"], "", {"snapshots_apart": True}),
    (["--tick=0.25", "--snap=4"], "", {"snapshots_apart": None}),
    (["--cache=off"], "", {"cache": "off"}),
    (["--half=bf16"], "-bf16", {"half": "bf16", "D_kwargs.num_fp16_res": 4, "D_kwargs.block_kwargs.fp16_channels_last": True}),
    (["--half=bf16", "--nhwc=0"], "-bf16", {"half": "bf16", "D_kwargs.block_kwargs.fp16_channels_last": None}),
    (["--half=fp16"], "-fp16", {"half": None, "G_kwargs.synthesis_kwargs.num_fp16_res": 4, "D_kwargs.conv_clamp": 256}),
    (["--half=off"], "", {"half": None, "G_kwargs.synthesis_kwargs.num_fp16_res": 0, "D_kwargs.conv_clamp": None}),
    (["--half=auto"], "", {"half": None, "D_kwargs.num_fp16_res": 4}),
    (["--snap=5", "--img-snap=2"], "", {"network_snapshot_ticks": 5, "image_snapshot_ticks": 2}),
    (["--snap-res=1080p"], "", {"snap_res": 1920}),
    (["--keep=3,best"], "", {"keep": "3,best"}),
    (["--aug-max=0"], "", {"ada_max_p": 0}),
    (["--initstrength=0.3"], "", {"augment_p": 0.3, "ada_target": 0.6}),
    (["--nan-streak=5"], "", {"nan_streak": 5}),
    (["--eval-at-start"], "", {"eval_at_start": True}),
    (["--device=cpu"], "", {"device": "cpu"}),
    (["--threads=2"], "", {"threads": 2}),
    (["--kernels=off"], "", {"kernels": "off"}),
    (["--kernels=auto"], "", {"kernels": None}),
    (["--profile=3"], "", {"profile_steps": 3}),
    (["--wandb=faces"], "", {"wandb_project": "faces"}),
    (
        ["--resume=mine.pkl", "--resume-kimg=400", "--resume-partial", "--trust-pickle"],
        "-resumecustom",
        {"resume_kimg": 400, "resume_partial": True, "trust_pickle": True},
    ),
    (["--resume=mine.pkl", "--nkimg=0"], "-resumecustom", {"resume_kimg": 0}),
]


@pytest.mark.parametrize("args, name, expected", FLAGS, ids=lambda value: " ".join(value) if isinstance(value, list) else "")
def test_each_flag(args, name, expected, data32, capsys, monkeypatch):
    monkeypatch.setattr(launch, "costs_and_doubts", lambda *_: ("", []))  # two passes through G and D; tests/training/test_estimate.py has it
    options, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", *args)
    assert options["run_dir"] == f"out/00000-data32-auto1{name}"
    for place, value in expected.items():
        found = options
        for key in place.split("."):
            found = found.get(key) if found is not None else None
        assert found == value, place


def test_half_precision_of_a_configuration_without(data32, capsys, monkeypatch):
    """--half brings the resolutions and the bound that `tiny` lacks; without it, on a CPU without bfloat16, nothing of the kind is said."""
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: None)
    options, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--cfg=tiny", "--half=bf16")
    assert options["half"] == "bf16" and options["D_kwargs"]["num_fp16_res"] == 4 and options["G_kwargs"]["synthesis_kwargs"]["conv_clamp"] == 256
    plain, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--cfg=tiny")
    for off in ("--fp32=1", "--half=off", "--half=auto"):
        assert dry_run(capsys, "--data=data32.zip", "--outdir=out", "--cfg=tiny", off)[0] == plain
    assert "half" not in plain and plain["D_kwargs"]["num_fp16_res"] == 0


@pytest.mark.parametrize("instructions, device, half", [("AMX", "cpu", "bf16"), ("AMX", "cuda", None), (None, "cpu", None)])
def test_half_precision_by_itself(data32, capsys, monkeypatch, instructions, device, half):
    """`tiny` takes bfloat16 wherever the CPU multiplies it; --fp32=1 and --half=off turn it off there, too."""
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: instructions)
    flags = ["--data=data32.zip", "--outdir=out", "--cfg=tiny", f"--device={device}"]
    options, lines = dry_run(capsys, *flags)
    assert (options.get("half"), options["D_kwargs"]["num_fp16_res"]) == (half, 4 if half else 0)
    assert options["G_kwargs"]["synthesis_kwargs"].get("conv_clamp") == (256 if half else None)
    assert any("bfloat16 in the 4 highest resolutions: --cfg=tiny" in line for line in lines) == bool(half)
    assert options["run_dir"] == "out/00000-data32-tiny"
    for off in ("--fp32=1", "--half=off"):
        options, _ = dry_run(capsys, *flags, off)
        assert "half" not in options and options["D_kwargs"]["num_fp16_res"] == 0 and options["D_kwargs"]["conv_clamp"] is None


def test_small_images_and_other_configurations_stay_in_float32_by_themselves(data32, data16, capsys, monkeypatch):
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: "AMX")
    for flags in (["--data=data16.zip", "--cfg=tiny"], ["--data=data32.zip", "--cfg=auto"]):
        options, _ = dry_run(capsys, *flags, "--outdir=out", "--device=cpu")
        assert "half" not in options


@pytest.mark.parametrize("typed", ["dcgan", "DCGAN:norm=layer"])
def test_networks_without_half_precision_take_none_by_themselves(typed, data32, capsys, monkeypatch):
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: "AMX")
    options, lines = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--device=cpu", "--cfg=tiny", f"--backbone={typed}")
    assert "half" not in options and not any("bfloat16" in line for line in lines)


@pytest.mark.parametrize("half", ["fp16", "bf16"])
def test_half_precision_and_none_contradict(data32, capsys, half):
    assert cli.call(train.main, ["--data=data32.zip", "--outdir=out", "--fp32=1", f"--half={half}", "-n"]) != 0
    text = capsys.readouterr().err
    assert "--fp32=1" in text and f"--half={half}" in text and "leave out one" in text


def test_a_cpu_without_bfloat16_is_named(data32, capsys, monkeypatch):
    for instructions, expected in ((None, 1), ("AVX512-BF16", 0)):
        monkeypatch.setattr(devices, "bf16_instructions", lambda _device, instructions=instructions: instructions)
        _, lines = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--cfg=tiny", "--half=bf16", "--device=cpu")
        assert sum("bfloat16 is left out, this cpu has no instructions" in line and "--half=off" in line for line in lines) == expected
        assert not any("float16 is left out on" in line for line in lines)


def test_run_number_is_the_highest_plus_one(data32, capsys):
    for name in ["out/00003-x", "out/00011-y", "out/notes", "out/7z"]:
        os.makedirs(name)
    open("out/00099-file", "w").close()
    options, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out")
    assert options["run_dir"] == "out/00012-data32-auto1"


@pytest.mark.parametrize(
    "gpus, resolution, batch, batch_gpu",
    [
        (1, 32, 32, 32),
        (2, 32, 64, 32),
        (3, 32, 60, 20),
        (5, 32, 60, 12),
        (12, 32, 48, 4),
        (20, 32, 60, 3),
        (4, 256, 64, 16),
        (8, 1024, 32, 4),
        (1, 1024, 4, 4),
        (1, 4096 * 2, 1, 1),
        (128, 32, 128, 1),
    ],
)
def test_auto_rules(gpus, resolution, batch, batch_gpu):
    row = presets.base_config("auto", resolution, gpus)
    assert (row.batch_size, row.batch_size // row.ref_gpus) == (batch, batch_gpu)
    assert row.gamma == 0.0002 * resolution**2 / batch
    assert row.ema_kimg == batch * 10 / 32
    assert row.mbstd_group == min(batch_gpu, 4)
    assert row.lr == (0.002 if resolution >= 1024 else 0.0025)
    assert row.channel_base == (32768 if resolution >= 512 else 16384)


# --cfg: kimg, batch, microbatch on 8 GPUs, mbstd, channel base, lr, gamma, ema, ramp, mapping layers.
TABLE = {
    "stylegan2": (25000, 32, 4, 4, 32768, 0.002, 10, 10, None, 8),
    "paper256": (25000, 64, 8, 8, 16384, 0.0025, 1, 20, None, 8),
    "paper512": (25000, 64, 8, 8, 32768, 0.0025, 0.5, 20, None, 8),
    "paper1024": (25000, 32, 4, 4, 32768, 0.002, 2, 10, None, 8),
    "cifar": (100000, 64, 32, 32, 32768, 0.0025, 0.01, 500, 0.05, 2),
}


@pytest.mark.parametrize("cfg", TABLE)
def test_base_configurations(cfg, data32):
    options = config.resolve(dict(data="data32.zip", cfg=cfg)).options
    found = (
        options.total_kimg,
        options.batch_size,
        options.batch_gpu,
        options.D_kwargs.epilogue_kwargs.mbstd_group_size,
        options.D_kwargs.channel_base,
        options.G_opt_kwargs.lr,
        options.loss_kwargs.r1_gamma,
        options.ema_kimg,
        options.ema_rampup,
        options.G_kwargs.mapping_kwargs.num_layers,
    )
    assert found == TABLE[cfg]


def test_more_gpus_than_the_base_configuration_has_pieces(data32):
    options = config.resolve(dict(data="data32.zip", cfg="stylegan2", gpus=16)).options
    assert options.batch_size % (options.batch_gpu * 16) == 0


def test_tiny_is_small_and_says_so(data32, capsys):
    options, lines = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--cfg=tiny", "--device=cpu")
    assert options["run_dir"] == "out/00000-data32-tiny"
    assert options["metrics"] == [] and options["loss_kwargs"]["pl_weight"] == 0
    assert options["lr_tail"] == 0.5
    constant = config.resolve(dict(data="data32.zip", cfg="tiny", lr_tail=0))
    assert "-tail0" in constant.name and constant.options.lr_tail == 0
    memory = next(line for line in lines if "memory:" in line)
    assert "MB per process" in memory


def test_madr_enters_through_the_two_seams(data32, tiny_zip, capsys):
    shutil.copy(tiny_zip(num_images=16, resolution=32, num_classes=3), "data32.zip")
    plain, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out")
    off, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--madr=0")
    on, _ = dry_run(capsys, "--data=data32.zip", "--outdir=out", "--madr=1")
    assert off == plain
    assert on["loss_kwargs"]["base_class_name"] == plain["loss_kwargs"]["class_name"]
    assert on["augment_kwargs"]["base_kwargs"] == plain["augment_kwargs"]
    differing = {key for key in on if on[key] != plain.get(key)}
    assert differing == {"loss_kwargs", "augment_kwargs", "run_dir", "diversity_monitor"}  # the last is the loop's own, not the plugin's
    assert on["run_dir"].endswith("-madr")
