"""Every mistake at the command line ends with a sentence that names flag or file and the remedy; nothing is left behind.

Each row of a table: what is wrong, the command line, and words that its sentence must hold (flag or file, then remedy).
"""

import errno
import importlib.util
import io
import json
import os
import pickle
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import calc_metrics
import dataset_tool
import export
import generate
import legacy
import projector
import style_mixing
import train
from dnnlib import cli
from training import networks, state

TRAIN = ["--outdir=out", "--cfg=tiny", "--device=cpu", "--snap-res=1080p", "--cbase=64", "--cmax=4", "--kimg=1"]
GOOD, MANY = [*TRAIN, "--data=good.zip"], [*TRAIN, "--data=many.zip"]


# ------------------------------------------------------------------------------------------
# A room full of broken things.


def png(*size, mode="RGB", seed=0):
    shape = [size[1], size[0], len(mode)] if len(mode) > 1 else [size[1], size[0]]
    buffer = io.BytesIO()
    PIL.Image.fromarray(np.random.RandomState(seed).randint(0, 256, shape, dtype=np.uint8)).save(buffer, format="PNG")
    return buffer.getvalue()


def write_zip(path, images, labels=None):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in images.items():
            archive.writestr(name, data)
        if labels is not None:
            archive.writestr("dataset.json", labels if isinstance(labels, str) else json.dumps({"labels": labels}))


def write_network(path, channel_base=256, img_channels=3, c_dim=0, **extra):
    torch.manual_seed(0)
    common = dict(c_dim=c_dim, img_resolution=16, img_channels=img_channels)
    G = networks.Generator(
        z_dim=64, w_dim=64, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(channel_base=channel_base, channel_max=16), **common
    )
    D = networks.Discriminator(channel_base=channel_base, channel_max=16, **common)
    with open(path, "wb") as file:
        pickle.dump(dict(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=None), **extra), file)


class Hostile:
    """Unpickled by plain pickle, it would create the file 'owned'."""

    def __reduce__(self):
        return os.mkdir, ("owned",)


def tensorflow_pickle():
    """As the TensorFlow code wrote them: an object of a class that exists nowhere here."""
    return b"\x80\x03cdnnlib.tflib.network\nNetwork\nq\x00)\x81q\x01}q\x02X\x07\x00\x00\x00versionq\x03K\x04sb."


def write_pictures(folder):
    square = {f"00000/img{i:08d}.png": png(16, 16, seed=i) for i in range(8)}
    names = list(square)
    os.chdir(folder)
    write_zip("good.zip", square)
    write_zip("many.zip", {f"00000/img{i:08d}.png": png(16, 16, seed=i) for i in range(16)})
    write_zip("labelled.zip", square, [[name, i % 2] for i, name in enumerate(names)])
    write_zip("some-labels.zip", square, [[name, 0] for name in names[:5]])
    write_zip("null-labels.zip", square, '{"labels": null}')
    write_zip("bad-json.zip", square, "{not json")
    write_zip("no-images.zip", {"readme.txt": b"hello"})
    write_zip("wide.zip", {name: png(32, 16) for name in names})
    write_zip("tiny.zip", {name: png(4, 4) for name in names})
    write_zip("classes-with-gaps.zip", square, [[name, 10**9 * (i % 2)] for i, name in enumerate(names)])
    write_zip("odd.zip", {name: png(24, 24) for name in names})
    write_zip("mixed.zip", dict(square, **{names[3]: png(32, 32)}))
    write_zip("broken-image.zip", dict(square, **{names[0]: square[names[0]][:60]}))
    write_zip("late-broken-image.zip", dict(square, **{names[5]: square[names[5]][:60]}))
    whole = open("good.zip", "rb").read()
    open("truncated.zip", "wb").write(whole[: len(whole) // 2])
    open("text.zip", "w").write("this is not an archive")
    open("file", "w").write("a file, not a folder")
    open("picture.png", "wb").write(png(16, 16))
    open("text.png", "w").write("not a picture")
    os.makedirs("empty-folder")
    os.makedirs("pictures")
    for name, data in {
        "a.png": png(16, 16, seed=1),
        "b.png": png(20, 16, seed=2),
        "c.png": b"nothing",
        "d.png": png(16, 16, mode="RGBA", seed=3),
    }.items():
        open(os.path.join("pictures", name), "wb").write(data)


def write_pickles():
    write_network("net.pkl")
    write_network("wider.pkl", channel_base=512)
    write_network("grey.pkl", img_channels=1)
    write_network("classes.pkl", c_dim=2)
    write_network("lost-data.pkl", training_set_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path="gone.zip"))
    whole = open("net.pkl", "rb").read()
    open("truncated.pkl", "wb").write(whole[: len(whole) // 3])
    open("text.pkl", "w").write("not a pickle")
    open("other-protocol.pkl", "wb").write(whole[:1] + b"\x90" + whole[2:])
    open("empty.pkl", "wb").close()
    pickle.dump({"weights": [1, 2]}, open("other.pkl", "wb"))
    pickle.dump(dict(G_ema=Hostile()), open("hostile.pkl", "wb"))
    open("tensorflow.pkl", "wb").write(tensorflow_pickle())
    np.savez("w.npz", w=np.zeros([1, 6, 64], np.float32))
    np.savez("wrong-name.npz", x=np.zeros([1, 6, 64], np.float32))
    np.savez("wrong-shape.npz", w=np.zeros([1, 14, 512], np.float32))


def write_runs():
    """A run with a damaged state, one with a state of another kind of file, one whose data has changed since."""
    for name, content in {"damaged": b"not a state", "foreign": None, "changed-data": None}.items():
        folder = os.path.join("runs-" + name, "00000-good-tiny")
        os.makedirs(folder)
        options = train.build(dict(data="good.zip", cfg="tiny", cbase=64, cmax=4, kimg=1)).options
        json.dump(dict(options, run_dir=folder), open(os.path.join(folder, "training_options.json"), "w"))
        path = os.path.join(folder, "training-state-000000.pt")
        if content is not None:
            open(path, "wb").write(content)
        else:
            torch.save({"weights": 1} if name == "foreign" else dict(format=state.FORMAT, facts=dict(data_fingerprint="0" * 64)), path)


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    folder, before = tmp_path_factory.mktemp("room"), os.getcwd()
    try:
        write_pictures(folder)
        write_pickles()
        write_runs()
    finally:
        os.chdir(before)
    return folder


def contents(folder):
    """{path: bytes} of all files. The log of a run that exists may grow by the attempt to continue it."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not (path.name == "log.txt" and path.relative_to(folder).parts[0].startswith("runs-"))
    }


def assert_refused(room, command, args, words, capsys):
    before = contents(room)
    code = cli.call(command, args)
    captured = capsys.readouterr()
    assert code in (cli.EXIT_ERROR, cli.EXIT_USAGE), captured.out[-2000:] + captured.err
    assert "Traceback" not in captured.out + captured.err
    sentence = captured.err[captured.err.index("Error: ") :]
    for word in words:
        assert word in sentence, sentence
    assert contents(room) == before
    assert not (room / "owned").exists()
    leftovers = [path.name for path in (room / "out").iterdir()] if (room / "out").is_dir() else []
    assert leftovers == []


# ------------------------------------------------------------------------------------------
# Command lines: (what is wrong, arguments, words of the sentence).

TRAIN_CASES = [
    ("no data", ["--outdir=out"], ["--data"]),
    ("no outdir", ["--data=good.zip"], ["--outdir"]),
    ("unknown flag", [*GOOD, "--gama=1"], ["--gama", "--gamma"]),
    ("data missing", [*TRAIN, "--data=gone.zip"], ["gone.zip"]),
    ("data is text", [*TRAIN, "--data=text.zip"], ["text.zip"]),
    ("data truncated", [*TRAIN, "--data=truncated.zip"], ["truncated.zip"]),
    ("zip without images", [*TRAIN, "--data=no-images.zip"], ["no-images.zip", "no images", "dataset_tool.py"]),
    ("empty folder", [*TRAIN, "--data=empty-folder"], ["empty-folder", "no images"]),
    ("not square", [*TRAIN, "--data=wide.zip"], ["wide.zip", "32x16", "--transform=center-crop"]),
    ("no power of two", [*TRAIN, "--data=odd.zip"], ["odd.zip", "24x24", "--width=16"]),
    ("first image broken", [*TRAIN, "--data=broken-image.zip"], ["broken-image.zip", "img00000000.png"]),
    ("a later image broken", [*TRAIN, "--data=late-broken-image.zip"], ["late-broken-image.zip", "img00000005.png"]),
    ("images of several sizes", [*TRAIN, "--data=mixed.zip"], ["img00000003.png", "32x32", "dataset_tool.py"]),
    ("labels file broken", [*TRAIN, "--data=bad-json.zip"], ["dataset.json"]),
    ("labels missing", [*GOOD, "--cond=1"], ["--cond", "good.zip", "dataset.json"]),
    ("labels null", [*TRAIN, "--data=null-labels.zip", "--cond=1"], ["--cond", "null-labels.zip", "dataset.json"]),
    ("some labels missing", [*TRAIN, "--data=some-labels.zip", "--cond=1"], ["some-labels.zip", "img0000000"]),
    ("images of 4 pixels", [*TRAIN, "--data=tiny.zip"], ["4x4", "8, 16, 32", "--width=8 --height=8"]),
    ("class numbers with gaps", [*TRAIN, "--data=classes-with-gaps.zip", "--cond=1"], ["1,000,000,001", "--labels=renumber", "--cond=0"]),
    ("data from a device", [*TRAIN, "--data=/dev/zero"], ["/dev/zero", "no end"]),
    ("outdir is a file", ["--outdir=file", "--data=good.zip"], ["--outdir", "is a file", "name a folder"]),
    ("outdir below a file", ["--outdir=file/runs", "--data=good.zip"], ["--outdir", "is a file"]),
    ("gpus 0", [*GOOD, "--gpus=0"], ["--gpus", "1<=x<=1024"]),
    ("snap 0", [*GOOD, "--snap=0"], ["--snap", "x>=1"]),
    ("kimg 0", [*GOOD, "--kimg=0"], ["--kimg", "x>=1"]),
    ("gamma negative", [*GOOD, "--gamma=-1"], ["--gamma", "x>=0"]),
    ("gamma nan", [*GOOD, "--gamma=nan"], ["--gamma", "finite"]),
    ("batch 0", [*GOOD, "--batch=0"], ["--batch", "1<=x"]),
    ("batch not divisible", [*GOOD, "--batch=9", "--gpus=2"], ["a batch of 9", "2 GPU(s)", "--batch=8 --batch-gpu=4", "--batch=16"]),
    ("more gpus than images of a step", [*GOOD, "--gpus=32"], ["--gpus=32", "16 images of a step", "--batch=128 --batch-gpu=4", "--gpus=4"]),
    (
        "a batch smaller than the gpus",
        [*GOOD, "--batch=16", "--gpus=32"],
        ["--gpus=32", "16 images of a step", "--batch=128 --batch-gpu=4", "--gpus=4"],
    ),
    ("empty gan", [*GOOD, "--gan="], ["--gan is empty", "--list-methods"]),
    ("microbatch not divisible", [*GOOD, "--batch=32", "--batch-gpu=5"], ["--batch-gpu=5", "4 or 8 or 16 or 32"]),
    ("group not divisible", [*GOOD, "--batch=6"], ["--mbstd-group=2 or 3 or 6"]),
    ("subset 0", [*GOOD, "--subset=0"], ["--subset"]),
    ("subset too large", [*GOOD, "--subset=9"], ["--subset", "between 1 and 8", "got 9"]),
    ("freezed negative", [*GOOD, "--freezed=-1"], ["--freezed", "x>=0"]),
    ("workers 0", [*GOOD, "--workers=0"], ["--workers", "1<=x"]),
    *[
        (f"{flag} beyond any machine", [*GOOD, f"{flag}=100000"], [flag, "100000 is not in the range 1<=x<="])
        for flag in ("--map-depth", "--threads", "--workers", "--gpus", "--batch", "--batch-gpu", "--mbstd-group", "--cmax")
    ],
    ("seed negative", [*GOOD, "--seed=-1"], ["--seed"]),
    ("p without fixed", [*GOOD, "--p=0.5"], ["--p=0.5", "--aug=fixed"]),
    ("fixed without p", [*GOOD, "--aug=fixed"], ["--aug=fixed", "--p=0.3"]),
    ("p above 1", [*GOOD, "--aug=fixed", "--p=1.5"], ["--p", "0<=x<=1"]),
    ("target without ada", [*GOOD, "--aug=noaug", "--target=0.5"], ["--target=0.5", "--aug", "leave out"]),
    ("target above 1", [*GOOD, "--target=2"], ["--target", "0<=x<=1"]),
    ("augpipe without augmentation", [*GOOD, "--aug=noaug", "--augpipe=bg"], ["--augpipe=bg", "--aug=noaug", "leave out"]),
    ("unknown augpipe", [*GOOD, "--augpipe=bgx"], ["--augpipe", "bgcfnc"]),
    ("unknown cfg", [*GOOD, "--cfg=paper128"], ["--cfg", "paper256"]),
    ("unknown aug", [*GOOD, "--aug=yes"], ["--aug", "noaug"]),
    ("unknown metric", [*GOOD, "--metrics=fid50k_ful"], ["--metrics", "fid50k_ful", "fid50k_full", "none"]),
    ("empty metric", [*GOOD, "--metrics=is50k,"], ["--metrics", "empty entry"]),
    ("keep 0", [*GOOD, "--keep=0"], ["--keep", "--keep=3,best"]),
    ("keep nonsense", [*GOOD, "--keep=worst"], ["--keep", "worst", "--keep=3,best"]),
    ("desc with a slash", [*GOOD, "--desc=a/b"], ["--desc", "a/b", "letters"]),
    ("initial strength above its cap", [*GOOD, "--initstrength=0.9", "--aug-max=0.5"], ["--initstrength=0.9", "--aug-max=0.5"]),
    ("detector file missing", [*GOOD, "--detector", "inception=gone.pt"], ["--detector", "gone.pt"]),
    ("detector without name", [*GOOD, "--detector", "gone.pt"], ["--detector", "name=path"]),
    ("unknown detector", [*GOOD, "--detector", "resnet=net.pkl"], ["--detector", "resnet", "inception"]),
    ("unknown device", [*GOOD, "--device=tpu"], ["--device", "cpu"]),
    ("madr knob without madr", [*GOOD, "--madr-capacity=64"], ["--madr-capacity", "--madr=1"]),
    ("madr memory that nothing reads", [*GOOD, "--madr=1", "--madr-capacity=64"], ["--madr-capacity=64", "no effect", "--madr-replay-weight"]),
    ("madr extractor that is none", [*MANY, "--madr=1", "--madr-extractor=file:text.zip", "--dry-run"], ["file:text.zip", "TorchScript"]),
    ("madr weights that are none", [*MANY, "--madr=1", "--madr-extractor=own", "--madr-weights=text.zip", "--dry-run"], ["text.zip", "encoder"]),
    ("madr on 8 images", [*GOOD, "--madr=1", "--dry-run"], ["at least 16 training images", "got 8"]),
    ("madr capacity 1", [*GOOD, "--madr=1", "--madr-capacity=1"], ["--madr-capacity", "2<=x"]),
    ("unknown madr setting", [*GOOD, "--madr=1", "--madr-set", "dead_zon=1"], ["--madr-set", "dead_zon", "perhaps dead_zone", "anchors, attraction"]),
    ("madr knob set twice", [*GOOD, "--madr=1", "--madr-set", "cells=3", "--madr-cells=4"], ["--madr-set", "cells=3", "--madr-cells=4"]),
    ("unknown madr preset", [*GOOD, "--madr=1", "--madr-preset=best"], ["--madr-preset", "paper"]),
    ("pickle missing", [*GOOD, "--resume=gone.pkl"], ["--resume=gone.pkl", "no such file", "latest"]),
    ("pickle truncated", [*GOOD, "--resume=truncated.pkl"], ["truncated.pkl"]),
    ("pickle is text", [*GOOD, "--resume=text.pkl"], ["text.pkl"]),
    ("pickle empty", [*GOOD, "--resume=empty.pkl"], ["empty.pkl"]),
    ("pickle of something else", [*GOOD, "--resume=other.pkl"], ["other.pkl"]),
    ("hostile pickle", [*GOOD, "--resume=hostile.pkl"], ["hostile.pkl", "refused", "--trust-pickle"]),
    ("TensorFlow pickle", [*GOOD, "--resume=tensorflow.pkl"], ["tensorflow.pkl", "TensorFlow", "Convert"]),
    ("pickle of other networks", [*GOOD, "--resume=wider.pkl"], ["wider.pkl", "does not fit", "--cbase=512", "--resume-partial"]),
    ("resume-kimg without resume", [*GOOD, "--resume-kimg=5"], ["--resume-kimg", "--resume=<pkl>"]),
    ("resume-partial without resume", [*GOOD, "--resume-partial"], ["--resume-partial", "--resume=<pkl>"]),
    ("nothing to continue", [*GOOD, "--resume=latest"], ["--resume=latest", "--outdir=out"]),
    ("continue what is no run", [*GOOD, "--resume=pictures"], ["--resume=pictures", "no run folder"]),
    ("state missing", [*GOOD, "--resume=runs-damaged/training-state-000009.pt"], ["training-state-000009.pt", "no such file"]),
    ("state damaged", [*GOOD, "--resume=runs-damaged/00000-good-tiny"], ["training-state-000000.pt", "cannot be read"]),
    ("state of something else", [*GOOD, "--resume=runs-foreign/00000-good-tiny"], ["training-state-000000.pt", "not a training state"]),
    ("data changed since", [*GOOD, "--resume=runs-changed-data/00000-good-tiny"], ["--data=good.zip", "has changed", "restore it"]),
    ("options changed since", [*GOOD, "--gamma=3", "--resume=runs-changed-data/00000-good-tiny"], ["--gamma", "0.256", "Leave these flags out"]),
]


@pytest.mark.parametrize("args, words", [case[1:] for case in TRAIN_CASES], ids=[case[0] for case in TRAIN_CASES])
def test_train(args, words, room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    assert_refused(room, train.main, args, words, capsys)


DRAW = ["--network=net.pkl", "--outdir=out", "--device=cpu"]
OTHER_CASES = [
    ("generate: no seeds", generate.main, DRAW, ["--seeds", "--projected-w"]),
    ("generate: seeds not numbers", generate.main, [*DRAW, "--seeds=a-b"], ["--seeds", "0,3,5-7"]),
    ("generate: seeds backwards", generate.main, [*DRAW, "--seeds=5-3"], ["--seeds", "3-5"]),
    ("generate: network missing", generate.main, ["--network=gone.pkl", "--outdir=out", "--seeds=1"], ["gone.pkl"]),
    ("generate: hostile pickle", generate.main, ["--network=hostile.pkl", "--outdir=out", "--seeds=1"], ["hostile.pkl", "refused", "--trust-pickle"]),
    (
        "generate: class of an unconditional network, missing class",
        generate.main,
        ["--network=classes.pkl", "--outdir=out", "--seeds=1"],
        ["--class"],
    ),
    ("generate: psi beyond float32", generate.main, [*DRAW, "--seeds=1", "--trunc=1e308"], ["--trunc", "too large"]),
    (
        "generate: pickle of no protocol",
        generate.main,
        ["--network=other-protocol.pkl", "--outdir=out", "--seeds=1"],
        ["other-protocol.pkl", "damaged"],
    ),
    ("generate: class out of range", generate.main, ["--network=classes.pkl", "--outdir=out", "--seeds=1", "--class=2"], ["--class"]),
    ("generate: latents missing", generate.main, [*DRAW, "--projected-w=gone.npz"], ["--projected-w=gone.npz"]),
    ("generate: latents of another name", generate.main, [*DRAW, "--projected-w=wrong-name.npz"], ["wrong-name.npz", "'w'"]),
    ("generate: latents of another network", generate.main, [*DRAW, "--projected-w=wrong-shape.npz"], ["wrong-shape.npz", "same network"]),
    ("generate: outdir is a file", generate.main, ["--network=net.pkl", "--outdir=file", "--seeds=1"], ["--outdir"]),
    ("style_mixing: layer out of range", style_mixing.main, [*DRAW, "--rows=1", "--cols=2", "--styles=0-40"], ["--styles", "layers"]),
    ("style_mixing: a sheet too large", style_mixing.main, [*DRAW, "--rows=0-999", "--cols=0-999"], ["--rows", "1,000,000", "10,000"]),
    ("style_mixing: no columns", style_mixing.main, [*DRAW, "--rows=1"], ["--cols"]),
    ("projector: target missing", projector.main, [*DRAW, "--target=gone.png", "--distance=pixel", "--save-video=0"], ["gone.png"]),
    ("projector: target is text", projector.main, [*DRAW, "--target=text.png", "--distance=pixel", "--save-video=0"], ["text.png", "no picture"]),
    ("projector: steps 0", projector.main, [*DRAW, "--target=picture.png", "--num-steps=0"], ["--num-steps", "at least 1"]),
    ("calc_metrics: unknown metric", calc_metrics.main, ["--network=net.pkl", "--metrics=fid"], ["--metrics", "fid50k_full"]),
    ("calc_metrics: network is text", calc_metrics.main, ["--network=text.pkl"], ["text.pkl"]),
    ("calc_metrics: no data known", calc_metrics.main, ["--network=net.pkl", "--device=cpu"], ["--data"]),
    ("calc_metrics: data moved away", calc_metrics.main, ["--network=lost-data.pkl", "--device=cpu"], ["gone.zip", "--data"]),
    ("calc_metrics: gpus 0", calc_metrics.main, ["--network=net.pkl", "--gpus=0"], ["--gpus", "at least 1"]),
    ("calc_metrics: detector missing", calc_metrics.main, ["--network=net.pkl", "--detector", "inception=gone.pt"], ["--detector", "gone.pt"]),
    ("dataset_tool: source missing", dataset_tool.main, ["--source=gone", "--dest=out.zip"], ["gone"]),
    ("dataset_tool: source without images", dataset_tool.main, ["--source=empty-folder", "--dest=out.zip"], ["empty-folder"]),
    (
        "dataset_tool: broken and unequal images",
        dataset_tool.main,
        ["--source=pictures", "--dest=out.zip"],
        ["--fix", "--width", "Nothing was written"],
    ),
    (
        "dataset_tool: crop without size",
        dataset_tool.main,
        ["--source=pictures", "--dest=out.zip", "--transform=center-crop"],
        ["--transform", "--width"],
    ),
    ("dataset_tool: source is a device", dataset_tool.main, ["--source=/dev/zero", "--dest=out.zip"], ["/dev/zero", "no end"]),
    ("dataset_tool: source is text", dataset_tool.main, ["--source=text.zip", "--dest=out.zip"], ["text.zip"]),
    ("dataset_tool: dest is a full folder", dataset_tool.main, ["--source=good.zip", "--dest=pictures"], ["--dest", "pictures"]),
    ("legacy: TensorFlow pickle", legacy.main, ["--source=tensorflow.pkl", "--dest=out.pkl"], ["TensorFlow"]),
    ("legacy: dest is the source", legacy.main, ["--source=net.pkl", "--dest=./net.pkl"], ["--dest=./net.pkl", "the --source itself"]),
    ("legacy: source missing", legacy.main, ["--source=gone.pkl", "--dest=out.pkl"], ["gone.pkl"]),
    ("export: pickle truncated", export.main, ["--source=truncated.pkl", "--dest=out"], ["truncated.pkl"]),
]


@pytest.mark.parametrize("command, args, words", [case[1:] for case in OTHER_CASES], ids=[case[0] for case in OTHER_CASES])
def test_other_tools(command, args, words, room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    assert_refused(room, command, args, words, capsys)


# ------------------------------------------------------------------------------------------
# What a command line alone cannot bring about.


def test_full_disk_while_training(room, capsys, monkeypatch):
    """The disk fills up when the first picture is written: a sentence, no half file, no run folder."""
    monkeypatch.chdir(room)
    sync, calls = os.fsync, []  # the first two: training_options.json and its folder

    def full_after_the_options(descriptor):
        calls.append(descriptor)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full_after_the_options)
    assert_refused(room, train.main, GOOD, ["No space left", "free some space"], capsys)
    assert len(calls) > 2


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs a folder that refuses every user")
def test_outdir_that_cannot_be_written(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    assert_refused(room, train.main, ["--outdir=/proc/self/runs", *GOOD[1:]], ["--outdir=/proc/self/runs", "choose another folder"], capsys)


def test_more_gpus_than_there_are(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _device: pytest.fail("nothing may be asked of the GPU before this is refused"))
    args = [arg for arg in GOOD if not arg.startswith("--device")]
    assert_refused(room, train.main, [*args, "--gpus=2"], ["--gpus=2", "shows 1 CUDA", "lower --gpus"], capsys)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has CUDA")
def test_cuda_that_is_not_there(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    assert_refused(room, train.main, [*GOOD, "--device=cuda"], ["--device=cuda", "--device=cpu"], capsys)


def test_torchrun_with_another_number_of_gpus(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    for name, value in dict(RANK="0", WORLD_SIZE="2", LOCAL_RANK="0").items():
        monkeypatch.setenv(name, value)
    assert_refused(room, train.main, [*GOOD, "--gpus=3"], ["--gpus=3", "torchrun", "leave out --gpus"], capsys)


def test_the_table_is_long_enough():
    assert len(TRAIN_CASES) + len(OTHER_CASES) >= 40


@pytest.mark.skipif(importlib.util.find_spec("wandb") is not None, reason="wandb is installed")
def test_wandb_that_is_not_installed(room, capsys, monkeypatch):
    monkeypatch.chdir(room)
    assert_refused(room, train.main, [*GOOD, "--wandb=project"], ["--wandb", "pip install wandb"], capsys)
