"""What a refusal tells people to do is done here, literally: it must help."""

import io
import json
import re
import zipfile

import numpy as np
import PIL.Image
import pytest

import dataset_tool
import train
from dnnlib import cli

FLAG = re.compile(r"--[\w-]+=[\w.,-]+")


def write_zip(path, width, height, labels=None, count=8):
    with zipfile.ZipFile(path, "w") as archive:
        for index in range(count):
            buffer = io.BytesIO()
            PIL.Image.fromarray(np.random.RandomState(index).randint(0, 256, [height, width, 3], dtype=np.uint8)).save(buffer, format="PNG")
            archive.writestr(f"{index % 2}/img{index}.png", buffer.getvalue())
        if labels is not None:
            archive.writestr("dataset.json", json.dumps(dict(labels=labels)))


@pytest.fixture
def room(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_zip("good.zip", 16, 16)


def dry_run(*args):
    return cli.call(train.main, ["--outdir=out", "--cfg=tiny", "--device=cpu", "--dry-run", *args])


def refusal(capsys, *args):
    capsys.readouterr()
    assert dry_run(*args) == cli.EXIT_ERROR
    return capsys.readouterr().err


# (what was typed, a part of it that goes, what is typed in its place, words of the message that say so)
FLAG_CASES = [
    (["--batch=10", "--gpus=4"], "--batch", ["--batch=16", "--batch-gpu=4"], "use --batch=16 --batch-gpu=4"),
    (["--batch=12", "--batch-gpu=5"], "--batch-gpu", ["--batch-gpu=12"], "use --batch-gpu=4 or 12"),
    (["--batch=12", "--mbstd-group=5"], "--mbstd-group", ["--mbstd-group=3"], "use --mbstd-group=2 or 3 or 4 or 6 or 12"),
    (["--aug=fixed"], None, ["--p=0.3"], "add --p=0.3"),
    (["--p=0.3"], None, ["--aug=fixed"], "add --aug=fixed"),
    (["--p=0.3"], "--p", [], "leave out --p"),
    (["--aug=noaug", "--augpipe=blit"], "--augpipe", [], "leave out one of the two"),
    (["--initstrength=0.5", "--aug-max=0.2"], "--initstrength", ["--initstrength=0.1"], "lower the first"),
    (["--resume-kimg=3"], "--resume-kimg", [], "leave out --resume-kimg"),
    (["--subset=9"], "--subset", ["--subset=8"], "between 1 and 8"),
    (["--desc=a/b"], "--desc", ["--desc=a_b"], "letters, digits and . _ -"),
    (["--keep=none"], "--keep", ["--keep=3,best"], "example: --keep=3,best"),
    (["--metrics=fid50k_fulll"], "--metrics", ["--metrics=fid50k_full"], "fid50k_full"),
    (["--cond=1"], "--cond", [], "leave out --cond"),
]


@pytest.mark.parametrize("typed, goes, comes, words", FLAG_CASES, ids=lambda value: " ".join(value) if isinstance(value, list) else None)
def test_the_flags_that_a_refusal_names_help(room, capsys, typed, goes, comes, words):
    assert words in refusal(capsys, "--data=good.zip", *typed)
    kept = [flag for flag in typed if goes is None or flag.split("=")[0] != goes]
    assert dry_run("--data=good.zip", *kept, *comes) == 0, capsys.readouterr().err


@pytest.mark.parametrize("width, height", [(32, 16), (24, 24), (20, 50)])
def test_images_of_a_wrong_size_are_converted_as_told(room, capsys, width, height):
    write_zip("wrong.zip", width, height)
    told = FLAG.findall(refusal(capsys, "--data=wrong.zip").split("dataset_tool.py")[1])
    assert len(told) == 3
    assert cli.call(dataset_tool.main, ["--source=wrong.zip", "--dest=right.zip", *told]) == 0, capsys.readouterr().err
    assert dry_run("--data=right.zip") == 0


def test_labels_from_folders_as_told(room, capsys):
    with zipfile.ZipFile("good.zip") as archive:
        archive.extractall("pictures")
    [told] = FLAG.findall(refusal(capsys, "--data=good.zip", "--cond=1").split("dataset_tool.py")[1])
    assert cli.call(dataset_tool.main, ["--source=pictures", "--dest=labelled.zip", told]) == 0, capsys.readouterr().err
    assert dry_run("--data=labelled.zip", "--cond=1") == 0


def test_a_data_set_that_is_missing_is_made_as_told(room, capsys):
    with zipfile.ZipFile("good.zip") as archive:
        archive.extractall("pictures")
    told = re.search(r"dataset_tool.py --source=\.\.\. (--dest=\S+)", refusal(capsys, "--data=gone.zip"))
    assert cli.call(dataset_tool.main, ["--source=pictures", told.group(1).rstrip(".")]) == 0
    assert dry_run("--data=gone.zip") == 0
