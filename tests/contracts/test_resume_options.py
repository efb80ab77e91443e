"""--resume=latest and --resume=<run folder>: which run, and whether the flags of today agree with it."""

import json
import os
import pickle
import shutil

import pytest
import torch

import train
from dnnlib import cli
from dnnlib.errors import UserError
from torch_utils import devices
from training import flag_table, launch, resume_options


@pytest.fixture()
def place(tmp_path, monkeypatch, tiny_zip):
    monkeypatch.chdir(tmp_path)
    shutil.copy(tiny_zip(num_images=12, resolution=32, num_classes=3), "data32.zip")
    return tmp_path


def make_run(name, state=True, **flags):
    """A run folder as a run with these flags leaves it, weights aside."""
    folder = os.path.join("out", name)
    os.makedirs(folder)
    options = train.build(dict(data="data32.zip", **flags)).options
    options.run_dir = folder
    with open(os.path.join(folder, "training_options.json"), "w") as file:
        json.dump(options, file)
    if state:
        for kimg in (4, 12, 8):
            open(os.path.join(folder, f"training-state-{kimg:06d}.pt"), "wb").close()
    return folder


def resume(how="latest", **typed):
    """What the command line with these flags goes on with."""
    flags = dict(typed, resume=how, data=typed.get("data", "data32.zip"))
    given = {name for name, value in flags.items() if value is not None}
    return resume_options.continue_run(flags, given, "out", train.build, plugin_flags=["madr", "madr_capacity", "madr_preset"])[0]


def test_takes_the_newest_run_and_its_newest_state(place):
    make_run("00000-a", cfg="tiny")
    make_run("00002-b", cfg="tiny")
    make_run("00001-c", cfg="tiny")
    options = resume(cfg="tiny")
    assert options.run_dir == "out/00002-b"
    assert options.resume_state == "out/00002-b/training-state-000012.pt"


def test_a_file_of_torch_is_named_for_what_it_is(place):
    make_run("00000-a", cfg="tiny")
    torch.save(dict(g_ema=dict(w=torch.zeros(1)), latent_avg=torch.zeros(1)), "x.pt")
    with pytest.raises(UserError, match="--resume=x.pt: the file is .*rosinality's stylegan2-pytorch.*--resume=RUN_FOLDER"):
        resume("x.pt")
    assert resume("out/00000-a").run_dir == "out/00000-a"  # the remedy
    torch.save(dict(format=1, facts={}, parts={}, stats_of_ranks=[]), "training-state-000003.pt")
    with pytest.raises(UserError, match="a training state goes with its run.*put it back into its run folder"):
        resume("training-state-000003.pt")
    shutil.copy("training-state-000003.pt", "out/00000-a/mine.pt")  # by any name, in its run folder
    assert resume("out/00000-a/mine.pt").resume_state == "out/00000-a/mine.pt"
    with open("network.pt", "wb") as file:  # a network pickle by another ending starts a new run
        pickle.dump(dict(G=1), file)
    assert not resume_options.names_a_run("network.pt") and resume_options.names_a_run("x.pt") and resume_options.names_a_run("gone.pt")


def test_a_run_goes_on_in_its_own_precision_whatever_the_machine_would_choose(place, monkeypatch):
    multiplies = lambda instructions: monkeypatch.setattr(devices, "bf16_instructions", lambda _device: instructions)
    multiplies(None)
    make_run("00000-a", cfg="tiny")
    make_run("00001-b", cfg="tiny", half="fp16")
    multiplies("AMX")
    assert "half" not in resume("out/00000-a", cfg="tiny") and resume("out/00000-a", cfg="tiny").D_kwargs.num_fp16_res == 0
    assert "half" not in resume("out/00001-b", cfg="tiny") and resume("out/00001-b", cfg="tiny").D_kwargs.num_fp16_res == 4
    make_run("00002-c", cfg="tiny")
    multiplies(None)
    assert resume("out/00002-c", cfg="tiny").half == "bf16"
    with pytest.raises(UserError, match=r"--half.*  half +bf16 +(-|off)"):
        resume("out/00002-c", cfg="tiny", half="off")


@pytest.mark.parametrize(
    "typed", [dict(half="auto"), dict(fp32=False), dict(backbone="stylegan2"), dict(backbone="dcgan"), dict(method=["no-minibatch-std"])], ids=str
)
@pytest.mark.parametrize("before, now", [("AMX", None), (None, "AMX")])
def test_the_line_that_began_a_run_goes_on_with_it_on_another_machine(place, monkeypatch, typed, before, now):
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: before)
    make_run("00000-a", cfg="tiny", **typed)
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: now)
    assert resume(cfg="tiny", **typed).get("half") == ("bf16" if before and typed.get("backbone") != "dcgan" else None)


def test_a_run_in_bfloat16_is_no_run_of_networks_without_it(place, monkeypatch):
    monkeypatch.setattr(devices, "bf16_instructions", lambda _device: "AMX")
    make_run("00000-a", cfg="tiny")
    with pytest.raises(UserError, match="was started with other options(.|\n)*DCGANGenerator"):
        resume(cfg="tiny", backbone="dcgan")
    with pytest.raises(UserError, match="was started with other options(.|\n)*num_fp16_res"):
        resume(cfg="tiny", fp32=True)


def test_a_trace_is_of_the_start_that_asks_for_it(place):
    make_run("00000-a", cfg="tiny", profile=5)
    assert "profile_steps" not in resume(cfg="tiny") and resume(cfg="tiny", profile=7).profile_steps == 7


def test_short_ticks_typed_at_a_resume_name_snapshots_apart(place):
    make_run("00000-a", cfg="tiny")
    assert "snapshots_apart" not in resume(tick=4) and resume(tick=0.25, snap=1).snapshots_apart is True
    make_run("00001-b", cfg="tiny", tick=0.25, snap=1)
    assert resume("out/00001-b").snapshots_apart is True and "snapshots_apart" not in resume("out/00001-b", snap=8)


def test_skips_runs_with_other_options_and_runs_without_state(place):
    make_run("00000-a", cfg="tiny")
    make_run("00001-b", cfg="tiny", gamma=3)
    make_run("00002-c", cfg="tiny", state=False)
    os.makedirs("out/00003-empty")
    assert resume(cfg="tiny", gamma=1.024).run_dir == "out/00000-a"
    assert resume(cfg="tiny", gamma=3).run_dir == "out/00001-b"


def test_flags_not_typed_take_the_saved_values(place):
    make_run("00000-a", cfg="paper256", gamma=3.5, batch=16, map_depth=3, seed=4, mirror=True, aug="fixed", p=0.4)
    options = resume("out/00000-a")
    saved = json.load(open("out/00000-a/training_options.json"))
    assert {key: options[key] for key in saved} == saved
    assert set(options) - set(saved) == {"resume_state"}


@pytest.mark.parametrize(
    "typed, saved, flag",
    [
        (dict(gamma=5), dict(), "--gamma"),
        (dict(cfg="cifar"), dict(cfg="tiny"), "--cfg"),
        (dict(batch=16), dict(), "--batch"),
        (dict(aug="noaug"), dict(), "--aug"),
        (dict(augpipe="blit"), dict(), "--augpipe"),
        (dict(target=0.5), dict(), "--target"),
        (dict(seed=1), dict(), "--seed"),
        (dict(mirror=False), dict(mirror=True), "--mirror"),
        (dict(cond=True), dict(), "--cond"),
        (dict(subset=5), dict(), "--subset"),
        (dict(glr=0.1), dict(), "--glr"),
        (dict(freezed=1), dict(), "--freezed"),
        (dict(fp32=True), dict(), "--fp32"),
        (dict(half="bf16"), dict(), "--half"),
        (dict(half="fp16"), dict(half="bf16"), "--half"),
        (dict(half="off"), dict(cfg="tiny", half="bf16"), "--half"),
        (dict(fp32=True), dict(cfg="tiny", half="bf16"), "--fp32"),
        (dict(desc="other"), dict(desc="one"), "--desc"),
        (dict(madr=1), dict(), "--madr"),
        (dict(madr=0), dict(madr=1), "--madr"),
        (dict(madr=1, madr_preset="replay", madr_capacity=64), dict(madr=1, madr_preset="replay"), "--madr-capacity"),
    ],
)
def test_a_typed_flag_that_disagrees_is_refused_by_name(place, typed, saved, flag):
    make_run("00000-a", **saved)
    with pytest.raises(UserError) as refusal:
        resume(**typed)
    text = str(refusal.value)
    assert flag in text and "out/00000-a" in text and "saved" in text and "Leave these flags out" in text


@pytest.mark.parametrize(
    "saved, typed",
    [
        (dict(cfg="tiny"), dict(cfg="tiny")),
        (dict(half="bf16"), dict(half="bf16")),
        (dict(fp32=True), dict(half="off")),
        (dict(half="fp16"), dict()),
        (dict(madr=1, madr_preset="replay", madr_capacity=64), dict(madr=1)),
        (dict(madr=1, aug="noaug"), dict(aug="noaug")),
        (dict(resume="ffhq256"), dict(cfg="auto")),
        (dict(gpus=2), dict(cfg="auto", gpus=1)),
        (dict(batch=16, batch_gpu=4), dict(batch=16)),
        (dict(madr=1, augpipe="blit"), dict(augpipe="blit")),
    ],
)
def test_what_agrees_goes_on(place, saved, typed):
    make_run("00000-a", **saved)
    assert resume(**typed).run_dir == "out/00000-a"


@pytest.mark.parametrize(
    "saved, typed",
    [
        (dict(cfg="auto", gpus=3, batch=63, mbstd_group=3), dict()),
        (dict(cfg="auto", gpus=3, batch=63, mbstd_group=3), dict(cfg="auto", mbstd_group=3)),
        (dict(cfg="tiny", batch=6, mbstd_group=3), dict(batch=6)),
        (dict(cfg="tiny", batch=6, mbstd_group=3), dict(cfg="tiny")),
        (dict(cfg="tiny", batch=10, batch_gpu=2), dict(batch=10)),
        (dict(cfg="tiny", kimg=400, method=["dia-gan"]), dict(cfg="tiny")),
        (dict(cfg="tiny", kimg=400, method=["dia-gan"]), dict(method=["dia-gan"])),
        (dict(cfg="tiny", kimg=400, method=["dia-gan"]), dict(cfg="tiny", kimg=800, method=["dia-gan"])),
        (dict(aug="fixed", p=0.3), dict(p=0.3)),
        (dict(aug="fixed", p=0.3), dict(aug="fixed")),
        (dict(cfg="tiny", aug="fixed", p=0.3), dict(cfg="tiny")),
        (dict(cfg="tiny", target=0.5, augpipe="blit"), dict(aug="ada")),
        (dict(cfg="tiny", initstrength=0.5), dict(aug_max=0.4)),
        (dict(cfg="tiny", method=["diffaugment"]), dict(aug="noaug")),
        (dict(cfg="tiny", method=["diffaugment"]), dict(method=["diffaugment"])),
        (dict(cfg="tiny", method=["no-minibatch-std"]), dict(cfg="tiny")),
        (dict(cfg="tiny", backbone="dcgan"), dict(cfg="tiny", backbone="DCGAN")),
        (dict(cfg="tiny", method=["r1:gamma=0.1234567"]), dict(cfg="tiny")),
        (dict(cfg="tiny", method=["r1"]), dict(method=["R1"])),
        (dict(cfg="tiny", gan="hinge", method=["ttur:g=0.00012345678"]), dict(cfg="tiny")),
        (dict(cfg="tiny", method=["top-k", "mode-seeking"]), dict(cfg="tiny", method=["mode-seeking", "top-k"])),
        (dict(cfg="tiny", cond=True, method=["pacgan"]), dict(cfg="tiny")),
        (dict(cfg="tiny", subset=5, seed=3), dict()),
        (dict(cfg="tiny", subset=5, seed=3), dict(cfg="tiny", seed=3)),
    ],
)
def test_flags_that_are_checked_against_others_are_those_of_the_run(place, saved, typed):
    make_run("00000-a", **saved)
    options = resume(**typed)
    before = json.load(open("out/00000-a/training_options.json"))
    allowed = {"resume_state", "total_kimg", "ada_max_p"}
    assert {key: value for key, value in options.items() if key not in allowed} == {key: value for key, value in before.items() if key not in allowed}


@pytest.mark.parametrize(
    "saved, typed, words",
    [
        (dict(cfg="tiny"), dict(batch=6), ["--batch", "batch_size", "16", "6"]),
        (dict(cfg="tiny"), dict(mbstd_group=3), ["--mbstd-group", "4", "3"]),
        (dict(cfg="tiny"), dict(aug="fixed"), ["--aug", "ada", "fixed"]),
        (dict(cfg="tiny"), dict(aug="fixed", p=0.3), ["--aug", "ada", "fixed"]),
        (dict(cfg="tiny", aug="fixed", p=0.3), dict(p=0.4), ["--p", "0.3", "0.4"]),
        (dict(cfg="tiny", aug="fixed", p=0.3), dict(aug="ada"), ["--aug", "fixed", "ada"]),
        (dict(cfg="tiny"), dict(method=["diffaugment"]), ["--method", "diffaugment"]),
        (dict(cfg="tiny"), dict(backbone="dcgan"), ["--backbone", "dcgan"]),
        (dict(cfg="tiny", method=["r1:gamma=0.5"]), dict(method=["r1:gamma=0.25"]), ["--method"]),
        (dict(cfg="tiny", method=["clip", "historical-averaging"]), dict(method=["historical-averaging", "clip"]), ["--method"]),
    ],
)
def test_what_disagrees_is_shown_as_typed(place, saved, typed, words):
    make_run("00000-a", **saved)
    with pytest.raises(UserError, match="was started with other options") as refusal:
        resume(**typed)
    assert all(word in str(refusal.value) for word in words)


def test_an_older_run_is_tried_where_the_flags_make_nothing_with_the_newest(place):
    make_run("00000-a", cfg="tiny", aug="fixed", p=0.3)
    make_run("00001-b", cfg="tiny")
    assert resume(p=0.3).run_dir == "out/00000-a"
    make_run("00002-c", cfg="tiny", kimg=400, method=["dia-gan"])
    with pytest.raises(UserError, match="use record < start < 200"):
        resume("out/00002-c", kimg=200)


def test_flags_that_may_change(place):
    make_run("00000-a", cfg="tiny", kimg=10, keep="2", gpus=2)
    options = resume(
        cfg="tiny", kimg=20, metrics=["is50k"], snap=3, workers=1, keep="5,best", gpus=1, device="cpu", nan_streak=7, kernels="off", profile=2
    )
    assert (options.total_kimg, options.metrics, options.network_snapshot_ticks, options.keep) == (20, ["is50k"], 3, "5,best")
    assert (options.data_loader_kwargs.num_workers, options.device, options.nan_streak, options.kernels, options.profile_steps) == (
        1,
        "cpu",
        7,
        "off",
        2,
    )
    assert (options.num_gpus, options.batch_size, options.batch_gpu) == (1, 16, 8)  # as before, so that each microbatch stays the same


def test_microbatches_shrink_only_when_they_must(place):
    make_run("00000-a", cfg="tiny")
    assert resume(gpus=4).batch_gpu == 4
    with pytest.raises(UserError, match="16 does not divide into 3"):
        resume(gpus=3)


def test_data_that_moved(place):
    make_run("00000-a", cfg="tiny", madr=1)
    os.makedirs("elsewhere")
    os.rename("data32.zip", "elsewhere/data32.zip")
    options = resume(data="elsewhere/data32.zip")
    assert options.training_set_kwargs.path == "elsewhere/data32.zip"
    assert options.loss_kwargs.madr.training_set_kwargs.path == "elsewhere/data32.zip"


def test_other_data_is_refused(place):
    make_run("00000-a", cfg="tiny")
    shutil.copy("data32.zip", "other.zip")
    with pytest.raises(UserError, match="--data"):
        resume(data="other.zip")


def test_a_state_file_by_name(place):
    make_run("00000-a", cfg="tiny")
    assert resume("out/00000-a/training-state-000008.pt").resume_state == "out/00000-a/training-state-000008.pt"


@pytest.mark.parametrize(
    "how, sentence",
    [("latest", "no run in --outdir=out yet"), ("data-folder", "is no run folder"), ("gone/training-state-000001.pt", "no such file")],
)
def test_nothing_to_go_on_with(place, how, sentence):
    os.makedirs("data-folder")
    with pytest.raises(UserError, match=sentence):
        resume(how)


def test_a_run_without_state_says_so(place):
    make_run("00000-a", state=False)
    with pytest.raises(UserError, match=r"holds no training-state"):
        resume()


@pytest.mark.parametrize("content", ["{", "[]", '{"num_gpus": 1}'])
def test_damaged_options_file(place, content):
    folder = make_run("00000-a")
    with open(os.path.join(folder, "training_options.json"), "w") as file:
        file.write(content)
    with pytest.raises(UserError, match="not the options file"):
        resume()


def test_flags_of_a_new_run_do_not_mix_with_continuing(place):
    make_run("00000-a")
    with pytest.raises(UserError, match="--resume-kimg"):
        resume(resume_kimg=5)


def test_every_option_is_decided_by_a_flag_or_may_change(place):
    """A new option must be put into one of the two tables, or a clash would pass in silence."""
    options = train.build(dict(data="data32.zip", cfg="cifar", freezed=1, nhwc=True, desc="x", cond=True, subset=4)).options
    settled = {"training_set_kwargs.class_name"}
    may_change = {name for names in resume_options.MAY_CHANGE.values() for name in names}
    for place_ in resume_options._leaves(options):
        assert place_ in settled or place_.split(".")[0] in may_change or resume_options._deciding_flags(place_), place_
    passed_on = set(flag_table.passed_on().values()) - {"resume_kimg", "resume_partial"}
    assert passed_on <= may_change | set(resume_options.DECIDED_BY)


def test_train_and_go_on_from_the_command_line(tmp_path, monkeypatch, tiny_zip, capsys):
    """train.py to the end of kimg 1, then the same command with more kimg: one folder, no second start."""
    monkeypatch.chdir(tmp_path)
    command = [
        "--outdir=out",
        f"--data={tiny_zip(num_images=12, resolution=16)}",
        "--cfg=tiny",
        "--cbase=64",
        "--cmax=4",
        "--snap-res=1080p",
        "--tick=0.5",
        "--snap=1",
        "--aug=noaug",
        "--device=cpu",
        "--batch=500",  # so that a kimg is two steps
    ]
    assert cli.call(train.main, [*command, "--kimg=1"]) == 0
    text = capsys.readouterr().out
    order = [
        "Training options:",
        "Output directory:",
        "Creating output directory...",
        "Launching processes...",
        "Loading training set...",
        "Constructing networks...",
        "Setting up augmentation...",
        "Setting up training phases...",
        "Exporting sample images...",
        "Initializing logs...",
        "Training for 1 kimg...",
        "tick 0 ",
        "Exiting...",
    ]
    positions = [text.index(part) for part in order]
    assert positions == sorted(positions)
    [name] = os.listdir("out")
    folder = os.path.join("out", name)
    assert name == "00000-tiny12-16-0-0-tiny-kimg1-batch500-noaug-cbase64-cmax4"

    assert cli.call(train.main, [*command, "--kimg=2", "--resume=latest"]) == 0, capsys.readouterr().err
    assert os.listdir("out") == [name]
    assert json.load(open(os.path.join(folder, "training_options.json")))["total_kimg"] == 2
    assert {"network-snapshot-000001.pkl", "network-snapshot-000002.pkl"} <= set(os.listdir(folder))
    kimgs = [json.loads(line)["Progress/kimg"]["mean"] for line in open(os.path.join(folder, "stats.jsonl"))]
    assert kimgs == sorted(set(kimgs)) and kimgs[-1] >= 2
    log = open(os.path.join(folder, "log.txt")).read()
    assert log.count("Loading training set...") == 2 and "Resuming from" in log


@pytest.mark.parametrize("started", [dict(resume="ffhq256"), dict(resume="old.pkl", resume_kimg=100)])
def test_a_run_that_began_from_a_pickle_goes_on_any_number_of_times(place, started):
    """Each time its options are saved again; what it began from must not get lost, or the next --cfg would seem to clash."""
    folder = make_run("00000-a", **started)
    for _ in range(3):
        options = resume(cfg="auto")
        assert options.resume_pkl and options.ada_kimg == 100
        launch.save_options(options)
    assert json.load(open(os.path.join(folder, "training_options.json")))["resume_pkl"].endswith(".pkl")
