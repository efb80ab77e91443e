"""What the drawing tools say: of pictures replaced, classes called by numbers, the snapshot taken, targets of many bits, Ctrl-C."""

import contextlib
import os
import re
import shlex
import shutil

import numpy as np
import PIL.Image
import pytest

import calc_metrics
import dataset_tool
import generate
import projector
import style_mixing
from dnnlib import cli, console
from dnnlib.errors import UserError
from metrics import detectors
from tests.e2e.drawing_fixtures import ANIMALS, assert_sentence, save_snapshot, tiny_generator
from training.drawing import draw, video

NUMBERS = ["2", "10", "0"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("told")


@pytest.fixture(scope="module")
def animals(folder):
    return save_snapshot(tiny_generator(3), folder / "animals.pkl", [0, 1, 2], ANIMALS)


@pytest.fixture(scope="module")
def numbers(folder):
    return save_snapshot(tiny_generator(3), folder / "numbers.pkl", [0, 1, 2], NUMBERS)


@pytest.fixture(scope="module")
def plain(folder):
    return save_snapshot(tiny_generator(), folder / "plain.pkl")


def test_pictures_of_another_class_are_not_replaced_without_a_word(call, animals, tmp_path):
    shared = [generate.main, "--network", animals, "--seeds=0,1", "--outdir", tmp_path]
    assert call(*shared, "--class=cat")[2] == ""
    assert call(*shared, "--class=cat")[2] == ""  # the same pictures again
    code, _, err = call(*shared, "--class=dog")
    assert code == 0 and err.startswith("Warning: 2 pictures") and "replaced" in err and "--outdir" in err
    sheet = [generate.main, "--network", animals, "--seeds=0", "--sheet", "--outdir", tmp_path]
    assert call(*sheet, "--class=cat")[2] == "" and "Warning: 1 picture of" in call(*sheet, "--class=dog")[2]
    mixing = [style_mixing.main, "--network", animals, "--rows=1", "--cols=1", "--outdir", tmp_path]
    assert call(*mixing, "--class=cat")[2] == "" and "Warning: 1 picture of" in call(*mixing, "--class=dog")[2]


def test_a_seed_given_twice_replaces_nothing(call, plain, tmp_path):
    assert call(generate.main, "--network", plain, "--seeds=0,0", "--noise-mode=random", "--outdir", tmp_path)[2] == ""


def test_one_picture_is_no_plural(call, plain, tmp_path):
    assert "\n1 picture in " in call(generate.main, "--network", plain, "--seeds=0", "--outdir", tmp_path)[1]
    assert "\n1 picture and grid.png" in call(style_mixing.main, "--network", plain, "--rows=1", "--cols=1", "--outdir", tmp_path)[1]


def test_a_number_that_is_no_place_is_the_class_called_so(call, numbers, tmp_path):
    code, out, err = call(generate.main, "--network", numbers, "--seeds=0", "--class=10", "--outdir", tmp_path)
    assert (code, err) == (0, "") and "class 1 (10)" in out


def test_a_number_that_is_place_and_name_brings_a_warning(call, numbers, tmp_path):
    shared = [generate.main, "--network", numbers, "--seeds=0", "--outdir"]
    code, out, err = call(*shared, tmp_path / "a", "--class=2")
    assert code == 0 and "class 2 (0)" in out and err.startswith("Warning: ") and "the one called 2 is --class=0" in err
    assert "class 0 (2)" in call(*shared, tmp_path / "b", "--class=0")[1]  # the remedy, followed
    code, _, err = call(*shared, tmp_path / "c", "--sheet", "--class=0-1")
    assert code == 0 and err.startswith("Warning: ") and "0 is --class=2" in err


def test_classes_called_by_numbers_are_offered_by_what_to_type(call, numbers, tmp_path):
    shared = [generate.main, "--network", numbers, "--seeds=0", "--outdir", tmp_path]
    for wrong in ([], ["--class=7"], ["--class=x"]):
        assert_sentence(call(*shared, *wrong), "--class=0 (called 2), --class=1 (called 10)")
    assert_sentence(call(*shared, "--class=0-10"), "the one called 10 is --class=1")


@pytest.mark.parametrize("num, example", [(3, "1,0,0"), (5, "1,0,0,0,0")])
def test_the_example_of_a_label_has_its_width(call, tmp_path, num, example):
    network = save_snapshot(tiny_generator(num), tmp_path / "net.pkl")
    shared = [generate.main, "--network", network, "--seeds=0", "--outdir", tmp_path]
    assert_sentence(call(*shared, "--label=1,0"), f"write {num} numbers, as in --label={example}\n")
    assert call(*shared, f"--label={example}")[0] == 0


def test_the_snapshot_taken_of_a_run_folder_is_said(call, plain, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for kimg in (1, 2):
        shutil.copy(plain, run / f"network-snapshot-{kimg:06d}.pkl")
    out = call(generate.main, "--network", run, "--seeds=0", "--outdir", tmp_path / "out")[1]
    assert "taking its newest snapshot, network-snapshot-000002.pkl" in out
    out = call(calc_metrics.main, "--network", run, "--data", tmp_path / "gone", "--metrics=fid50k_full")[1]
    assert f'Loading network from "{run / "network-snapshot-000002.pkl"}"' in out
    assert "newest snapshot" not in call(generate.main, "--network", plain, "--seeds=0", "--outdir", tmp_path / "out")[1]


def test_a_target_of_many_bits_names_its_remedy(call, plain, tmp_path):
    (tmp_path / "scans").mkdir()
    target = tmp_path / "scans" / "a.png"
    PIL.Image.fromarray(np.random.RandomState(0).randint(0, 4096, [20, 30]).astype(np.uint16)).save(target)
    rest = ["--network", plain, "--distance=pixel", "--num-steps=1", "--save-video=false", "--outdir", tmp_path / "out"]
    result = call(projector.main, "--target", target, *rest)
    assert_sentence(result, "--target=", "8 bits")
    assert not (tmp_path / "out").exists()
    remedy = re.search(r"dataset_tool\.py (--source.*?--height=N)", result[2])[1]
    remedy = remedy.replace("PICTURES", str(tmp_path / "eight")).replace("LOW,HIGH", "0,4095").replace("=N", "=16")
    assert cli.call(dataset_tool.main, shlex.split(remedy)) == 0
    [mended] = (tmp_path / "eight").rglob("*.png")
    assert call(projector.main, "--target", mended, *rest)[0] == 0


def test_a_projector_without_vgg16_names_the_distance_that_needs_none(monkeypatch):
    def unreachable(*_args, **_kwargs):
        raise UserError("no way there.")

    monkeypatch.setattr(detectors, "open_url", unreachable)
    with pytest.raises(UserError, match="or --distance=pixel, which needs no file$") as raised:
        projector.vgg16_features()
    assert "result line" not in str(raised.value)
    with pytest.raises(UserError, match="result line"):
        detectors.find_detector(detectors.VGG16_URL)


def test_an_interrupted_video_claims_nothing(call, plain, tmp_path, monkeypatch):
    class Interrupted:
        def add(self, _frame):
            raise KeyboardInterrupt

    monkeypatch.setattr(video, "missing_packages", list)
    monkeypatch.setattr(video, "open_mp4", lambda *_args: contextlib.nullcontext(Interrupted()))
    code, _, err = call(generate.main, "--network", plain, "--seeds=0,1", "--video", "--outdir", tmp_path)
    assert code == cli.EXIT_INTERRUPTED and os.listdir(tmp_path) == []
    assert "is kept" in err and "nothing of it is kept" in err and cli.INTERRUPTED not in err


def test_frames_tell_a_log_how_far_they_are(call, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(draw, "_LINE_INTERVAL_SEC", 0)
    err = call(generate.main, "--network", plain, "--seeds=0,1", "--frames=4", "--outdir", tmp_path)[2]
    assert "Drawing: 2 of 5 (40%)" in err
    assert draw._LINE_INTERVAL_SEC < console.LINE_INTERVAL_SEC


@pytest.mark.parametrize("tool", [generate, projector, style_mixing])
def test_help_says_what_a_network_may_be(call, tool):
    out = " ".join(call(tool.main, "--help")[1].split())
    assert ".safetensors" in out and "run folder" in out
