"""dataset_tool.py --long-tail: the profile by hand, the choice by its seed, and what cannot be cut."""

import json
import zipfile

import numpy as np
import pytest

import dataset_tool
from dnnlib import cli
from tests.training.data_fixtures import png, write_cifar10, write_folder
from training.data import long_tail
from training.dataset import ImageFolderDataset


def test_cifar10_keeps_the_published_counts():
    # 5000 * 100^(-k/9), rounded down (LDAM's CIFAR10-LT): 12,406 images.
    kept = long_tail.kept_counts(np.full(10, 5000), 100)
    assert kept.tolist() == [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50] and kept.sum() == 12406


def test_unequal_classes_bound_the_profile():
    # Shares 1, 1/2, 1/4: class 1 has 6 images, so class 0 may keep 12, not 20.
    assert long_tail.kept_counts(np.array([20, 6, 9]), 4).tolist() == [12, 6, 3]


def convert(tmp_path, name, *more):
    write_folder(
        tmp_path / "source", {f"{kind}/{i}.png": png(10 * number + i) for number, kind in enumerate(("ant", "bee", "cat")) for i in range(8)}
    )
    code = cli.call(dataset_tool.main, [f"--source={tmp_path / 'source'}", f"--dest={tmp_path / name}", "--labels=folders", *more])
    return code, tmp_path / name


def test_a_folder_becomes_long_tailed_by_its_seed(tmp_path, capsys):
    code, path = convert(tmp_path, "tail.zip", "--long-tail=4")
    assert code == 0 and "class    2         2 images  cat" in capsys.readouterr().out
    tail = ImageFolderDataset(str(path), use_labels=True)
    labels = [int(tail.get_details(index).raw_label) for index in range(len(tail))]
    assert np.bincount(labels).tolist() == [8, 4, 2] and tail.class_names == ["ant", "bee", "cat"]
    whole = ImageFolderDataset(str(convert(tmp_path, "whole.zip")[1]), use_labels=True)
    where = {whole[index][0].tobytes(): index for index in range(len(whole))}
    chosen = [where[tail[index][0].tobytes()] for index in range(len(tail))]
    assert chosen == sorted(chosen) and all(index // 8 == label for index, label in zip(chosen, labels))
    with zipfile.ZipFile(path) as archive:
        told = json.loads(archive.read("dataset.json"))["provenance"]["long_tail"]
    assert told == dict(ratio=4, seed=0, class_counts=[8, 8, 8], kept=[8, 4, 2])
    again, other = convert(tmp_path, "again.zip", "--long-tail=4")[1], convert(tmp_path, "other.zip", "--long-tail=4", "--seed=1")[1]
    assert again.read_bytes() == path.read_bytes() != other.read_bytes()


def test_cifar10_archive(tmp_path):
    images, labels = write_cifar10(tmp_path / "cifar-10-python.tar.gz", per_batch=20)
    dest = tmp_path / "lt.zip"
    assert cli.call(dataset_tool.main, [f"--source={tmp_path / 'cifar-10-python.tar.gz'}", f"--dest={dest}", "--long-tail=3"]) == 0
    tail = ImageFolderDataset(str(dest), use_labels=True)
    kept = np.bincount([int(tail.get_details(index).raw_label) for index in range(len(tail))])
    assert kept.tolist() == long_tail.kept_counts(np.bincount(labels), 3).tolist()


@pytest.mark.parametrize(
    "more, words",
    [
        (["--long-tail=100"], "would leave no image of class 1"),
        (["--long-tail=4", "--labels=none"], "needs a class number for every image"),
        (["--seed=1"], "--seed has no effect here"),
    ],
)
def test_refusals(tmp_path, capsys, more, words):
    code, path = convert(tmp_path, "tail.zip", *more)
    assert code == 1 and words in capsys.readouterr().err and not path.exists()


def test_a_ratio_of_one_is_out_of_range(tmp_path, capsys):
    assert convert(tmp_path, "tail.zip", "--long-tail=1")[0] == 2 and "--long-tail" in capsys.readouterr().err
