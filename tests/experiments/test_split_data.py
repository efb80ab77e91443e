"""Splitting a data set: nothing lost, nothing twice, every class in the part to train on, labels and names kept."""

import numpy as np
import pytest
from click.testing import CliRunner

from dnnlib.errors import UserError
from experiments import split_data
from training.data import writer
from training.dataset import ImageFolderDataset


def made(path, sizes, named=True):
    """A set of 8x8 images whose first pixel is their number, sorted by class."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    with writer.open_writer(str(path)) as part:
        for number, label in enumerate(labels):
            part.add(np.full([8, 8, 3], number, np.uint8), int(label))
        part.class_names = [f"class {i}" for i in range(len(sizes))] if named else None
        part.provenance = dict(imbalanced=True)
    return labels


def numbers(path):
    dataset = ImageFolderDataset(str(path), use_labels=True)
    return {int(dataset[i][0][0, 0, 0]): int(dataset.get_details(i).raw_label) for i in range(len(dataset))}, dataset


def test_a_third_of_every_class_is_held_out_and_labels_stay(tmp_path):
    labels = made(tmp_path / "all.zip", [30, 1, 9, 20])
    parts = [f"--{name}={tmp_path / name}.zip" for name in ("train", "held-out")]
    result = CliRunner().invoke(split_data.main, [f"--source={tmp_path / 'all.zip'}", *parts])
    assert result.exit_code == 0 and "(40 images)" in result.output and "(20 images)" in result.output
    (kept, train), (out, held_out) = numbers(tmp_path / "train.zip"), numbers(tmp_path / "held-out.zip")
    assert sorted([*kept, *out]) == list(range(60)) and {**kept, **out} == dict(enumerate(labels.tolist()))
    assert np.bincount(list(out.values()), minlength=4).tolist() in ([10, 0, 3, 7], [10, 0, 4, 6], [10, 0, 3, 6])
    assert train.class_names == held_out.class_names == [f"class {i}" for i in range(4)]
    assert train.provenance["imbalanced"] and held_out.provenance["part"]["name"] == "held-out"


def test_the_same_seed_gives_the_same_bytes_and_another_others(tmp_path):
    made(tmp_path / "all.zip", [12, 12])
    written = []
    for run, seed in enumerate((0, 0, 1)):
        split_data.split(tmp_path / "all.zip", tmp_path / f"a{run}.zip", tmp_path / f"b{run}.zip", 1 / 3, seed)
        written.append((tmp_path / f"b{run}.zip").read_bytes())
    assert written[0] == written[1] != written[2]


def test_no_class_is_held_out_as_a_whole():
    classes = np.repeat(np.arange(40), 2)
    chosen = split_data.held_out_rows(classes, 0.9, 0)
    assert np.bincount(classes[chosen], minlength=40).max() == 1


def test_parts_that_would_be_empty_or_overwrite_the_source_are_refused(tmp_path):
    made(tmp_path / "all.zip", [2, 2])
    with pytest.raises(UserError, match="another --share"):
        split_data.split(tmp_path / "all.zip", tmp_path / "a.zip", tmp_path / "b.zip", 0.01, 0)
    with pytest.raises(UserError, match="three different files"):
        split_data.split(tmp_path / "all.zip", tmp_path / "all.zip", tmp_path / "b.zip", 0.5, 0)
    assert not (tmp_path / "a.zip").exists()
