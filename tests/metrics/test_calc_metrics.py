"""calc_metrics.py as its users call it: on a pickle, in a run folder or not, and with everything that can be wrong."""

import json
import os
import pickle
import shutil

import pytest
import torch

import calc_metrics
import dnnlib
from dnnlib import cli
from training.networks import Discriminator, Generator

CONFIG = dict(z_dim=16, w_dim=16, mapping_kwargs=dict(num_layers=2))
SMALL = dict(channel_base=128, channel_max=8, num_fp16_res=0)


def write_pickle(path, dataset_kwargs, c_dim=0, resolution=16):
    torch.manual_seed(0)
    G = Generator(c_dim=c_dim, img_resolution=resolution, img_channels=3, synthesis_kwargs=dict(SMALL), **CONFIG)
    D = Discriminator(c_dim=c_dim, img_resolution=resolution, img_channels=3, **SMALL)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G.eval(), D=D.eval(), G_ema=G.eval(), augment_pipe=None, training_set_kwargs=dataset_kwargs), file)
    return str(path)


@pytest.fixture
def run_dir(tmp_path, tiny_zip):
    """A run folder with one snapshot of a network trained on the tiny data set."""
    folder = tmp_path / "00000-tiny"
    folder.mkdir()
    (folder / "training_options.json").write_text("{}")
    kwargs = dnnlib.EasyDict(
        class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30), use_labels=False, xflip=True, max_size=None
    )
    write_pickle(folder / "network-snapshot-000004.pkl", kwargs)
    return folder


@pytest.fixture
def call(capfd):
    """call(*arguments) -> (exit code, stdout, stderr)"""

    def run(*arguments):
        code = cli.call(calc_metrics.main, [str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def snapshot_of(run_dir):
    return run_dir / "network-snapshot-000004.pkl"


def test_flags_are_the_frozen_ones(golden):
    options = {option.opts[0]: option for option in calc_metrics.main.params}
    for expected in golden("cli.json")["calc_metrics"]:
        option = options[expected["flags"][0]]
        assert set(expected["flags"]) <= set(option.opts)
        assert (option.required, option.is_flag, option.type.name) == (expected["required"], expected["is_flag"], expected["type"])
        default = option.default
        assert (None if not isinstance(default, (str, int, bool)) else default) == expected["default"]


def test_result_is_printed_and_kept_in_the_run_folder(run_dir, call, detector_file):
    code, out, err = call(
        "--network",
        snapshot_of(run_dir),
        "--metrics=fid50k_full,fid50k",
        "--device=cpu",
        "--detector",
        f"inception={detector_file}",
        "--num-gen=20",
        "--seed=3",
    )
    assert code == 0, err
    lines = [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')]
    assert [line["metric"] for line in lines] == ["fid50k_full", "fid50k"]
    kept = (run_dir / "metric-fid50k_full.jsonl").read_text()
    assert json.loads(kept) == lines[0] and lines[0]["snapshot_pkl"] == "network-snapshot-000004.pkl"
    assert lines[0]["facts"]["seed"] == 3 and lines[0]["facts"]["counts_overridden"]
    assert [line["facts"]["num_real"] for line in lines] == [30, 60]  # the older one follows the training's mirror copies
    assert out.index("Loading network from") < out.index("Launching processes...") < out.index("Calculating fid50k_full...") < out.index("Exiting...")


def test_quiet_prints_the_line_alone_and_a_bare_pickle_leaves_no_file(run_dir, call, detector_file, tiny_zip, tmp_path):
    bare = tmp_path / "elsewhere" / "net.pkl"
    bare.parent.mkdir()
    shutil.copy(snapshot_of(run_dir), bare)
    code, out, err = call(
        "--network",
        bare,
        "--metrics=pr50k3_full",
        "--device=cpu",
        "--detector",
        f"vgg16={detector_file}",
        "--num-gen=20",
        "--num-real=10",
        "--verbose=0",
        "--data",
        tiny_zip(num_images=40),
        "--mirror=1",
        "--cache=off",
    )
    assert code == 0, err
    line = json.loads(out)
    assert set(line["results"]) == {"pr50k3_full_precision", "pr50k3_full_recall"} and line["snapshot_pkl"] == str(bare)
    assert line["facts"]["num_real"] == 10 and line["facts"]["data"]["num_images"] == 40 and line["facts"]["k"] == 3
    assert os.listdir(bare.parent) == ["net.pkl"] and not (tmp_path / "cache" / "gan-metrics").exists()


def test_two_processes_give_the_same_line(run_dir, call, detector_file):
    values = []
    for gpus in (1, 2):
        code, out, err = call(
            "--network",
            snapshot_of(run_dir),
            "--metrics=fid50k_full",
            "--device=cpu",
            "--detector",
            f"inception={detector_file}",
            "--num-gen=24",
            "--batch=4",
            "--verbose=0",
            f"--gpus={gpus}",
            "--cache=off",
        )
        assert code == 0, err
        line = json.loads(out)
        assert line["num_gpus"] == gpus
        values.append(line["results"]["fid50k_full"])
    assert values[0] == pytest.approx(values[1], rel=1e-6)


def hostile_dataset(tmp_path, class_name):
    return write_pickle(tmp_path / "hostile.pkl", dict(class_name=class_name, path=str(tmp_path / "trace")))


@pytest.mark.parametrize("name", ["os.mkdir", "training.dataset.os.mkdir", "training.dataset.dataset_io.open_files"])
def test_a_pickle_cannot_name_any_callable_as_its_data_set(name, call, tmp_path):
    code, _, err = call("--network", hostile_dataset(tmp_path, name), "--device=cpu")
    assert code == 1 and "refused" in err and "--data" in err and not (tmp_path / "trace").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--metrics=fid50k_ful"], ["--metrics", "fid50k_ful", "fid50k_full", "kid50k"]),
        (["--metrics=none"], ["--metrics", "at least one"]),
        (["--gpus=0"], ["--gpus", "at least 1", "got 0"]),
        (["--data=/nowhere/data.zip"], ["--data=/nowhere/data.zip", "does not exist"]),
        (["--detector", "inception=/nowhere.pt"], ["--detector", "/nowhere.pt", "no such file"]),
        (["--detector", "resnet=/nowhere.pt"], ["--detector", "resnet", "inception", "vgg16"]),
        (["--detector", "inception"], ["inception", "name=path"]),
        (["--device=tpu"], ["--device", "cpu"]),
        (["--num-gen=0"], ["--num-gen"]),
        (["--mirror=perhaps"], ["--mirror", "perhaps"]),
        (["--cache=maybe"], ["--cache", "on", "off"]),
        (["--seed=-1"], ["--seed"]),
        (["--network=/nowhere/net.pkl"], ["/nowhere/net.pkl"]),
        (["--metrics=madr_modes5k"], ["class labels", "--data"]),
    ],
)
def test_faults_are_sentences(arguments, words, run_dir, call):
    code, _, err = call("--network", snapshot_of(run_dir), "--device=cpu", *arguments)
    assert code != 0 and "Traceback" not in err
    assert all(word in err for word in words), err
    assert not list(run_dir.glob("*.jsonl"))


def test_the_run_folder_may_lie_in_the_home_folder(call, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "training_options.json").write_text("{}")
    code, _, err = call("--run=~/run", "--metrics=madr_cycling")
    assert code == 1 and f"--run={tmp_path / 'run'} holds no network-snapshot-*.pkl yet" in err


def test_missing_options_in_the_pickle_are_sentences(call, tmp_path, tiny_zip):
    nameless = write_pickle(tmp_path / "a.pkl", None)
    code, _, err = call("--network", nameless, "--device=cpu")
    assert code == 1 and "does not say which data" in err and "--data" in err
    moved = write_pickle(tmp_path / "b.pkl", dict(class_name="training.dataset.ImageFolderDataset", path="/old/place/data.zip"))
    code, _, err = call("--network", moved, "--device=cpu")
    assert code == 1 and "/old/place/data.zip" in err and "--data" in err
    code, _, err = call("--network", nameless, "--device=cpu", "--data", tiny_zip(num_images=24, resolution=32))
    assert code == 1 and "32" in err and "16" in err


def test_missing_detector_is_a_sentence_and_leaves_nothing(run_dir, call, monkeypatch):
    monkeypatch.setattr("metrics.frechet_inception_distance.INCEPTION_URL", "http://127.0.0.1:9/inception-2015-12-05.pt")
    code, _, err = call("--network", snapshot_of(run_dir), "--device=cpu")
    assert code == 1 and "inception-2015-12-05.pt" in err and "--detector inception=PATH" in err
    assert not list(run_dir.glob("*.jsonl"))


@pytest.mark.parametrize(
    "names, given, told",
    [
        (["fid10k_full"], {"--mirror": 1}, ["--mirror=1 changes nothing of fid10k_full", "fid50k"]),
        (["fid10k_full"], {"--metric-space": "pca"}, ["--metric-space=pca changes nothing of fid10k_full", "madr_precision"]),
        (["fid10k_full", "madr_vendi"], {"--madr-ties": "ignore"}, ["--madr-ties=ignore changes nothing of fid10k_full, madr_vendi"]),
        (["is50k"], {"--num-real": 7}, ["--num-real=7 changes nothing of is50k"]),
        (["fid50k"], {"--mirror": 1}, []),
        (["fid10k_full", "madr_prdc"], {"--metric-space": "pca", "--madr-ties": "ignore", "--num-real": 7}, []),
        (["fid10k_full"], {"--mirror": None, "--madr-ties": None}, []),
    ],
)
def test_flags_without_effect_are_named(names, given, told):
    from metrics import requested

    sentences = requested.without_effect(given, names)
    assert bool(sentences) == bool(told) and all(word in sentences[0] for word in told)


@pytest.mark.parametrize("name", ["fid10k_full", "madr_precision", "madr_vendi_10k", "madr_ndb", "kid50k", "pr50k3"])
@pytest.mark.parametrize("flag", ["--mirror", "--metric-space", "--madr-ties", "--num-real"])
def test_a_flag_that_a_row_does_not_heed_changes_no_number(name, flag, options):
    """By computing: the rows tell the truth."""
    from metrics import metric_main

    changes = {"--mirror": {}, "--metric-space": dict(space="random-conv"), "--madr-ties": dict(strict_ties=True), "--num-real": dict(num_real=20)}

    def number(changed):
        opts = options()
        data = dict(opts.dataset_kwargs, xflip=changed and flag == "--mirror")
        how = dict(G=opts.G, dataset_kwargs=data, detectors=opts.detectors, num_gen=40, device="cpu", space="pixels")
        return metric_main.calc_metric(name, **{**how, **(changes[flag] if changed else {})}).results

    if not metric_main.row_of(name).heeds(flag):
        assert number(False) == number(True)
    elif flag != "--madr-ties":  # no distance of these images lies on a rim
        assert number(False) != number(True)
