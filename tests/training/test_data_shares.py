"""--max-images with --labels=folders: every class keeps its share, in the order of the names, and what was taken is said."""

import numpy as np
import pytest

from dnnlib.errors import UserError
from tests.training.data_fixtures import png, write_folder, write_zip
from training.data import image_check, sources


def class_folders(*counts, more=()):
    names = [f"c{number}/{i:03d}.png" for number, count in enumerate(counts) for i in range(count)]
    return {name: png(i, size=2) for i, name in enumerate([*names, *more])}


@pytest.mark.parametrize("write, name", [(write_folder, "set"), (write_zip, "set.zip")])
def test_every_class_keeps_its_share(tmp_path, write, name):
    path = write(tmp_path / name, class_folders(12, 6, 6))
    source = sources.open_source(path, labels="folders", max_images=8)
    assert [item.name for item in source] == [f"c0/{i:03d}.png" for i in (0, 3, 6, 9)] + [f"c{k}/{i:03d}.png" for k in (1, 2) for i in (0, 3)]
    assert source.num_images == 8 and source.labels() == [0, 0, 0, 0, 1, 1, 2, 2] and source.class_names == ["c0", "c1", "c2"]
    assert source.remarks == ["--max-images=8 takes a share of each class: 4 of 12 of c0, 2 of 6 of c1, 2 of 6 of c2"]


def test_what_holds_all_images_cuts_nothing(tmp_path):
    path = write_folder(tmp_path / "set", class_folders(3, 2))
    source = sources.open_source(path, labels="folders", max_images=5)
    assert source.num_images == 5 and not source.remarks


def test_fewer_images_than_classes_are_refused(tmp_path):
    path = write_folder(tmp_path / "set", class_folders(3, 3, 3))
    with pytest.raises(UserError, match="--max-images=2 cannot take an image of each of the 3 classes of .*set; give at least 3"):
        sources.open_source(path, labels="folders", max_images=2)


def test_images_in_no_folder_are_not_passed_over(tmp_path):
    """They have no class, and the check says so."""
    path = write_folder(tmp_path / "set", class_folders(10, 10, more=["stray.png"]))
    source = sources.open_source(path, labels="folders", max_images=4)
    report = image_check.ConversionPass(source, lambda image: image, fix=False, ranges=None).run(lambda images: images)
    assert [fault.name for fault in report.faults if fault.kind == "unlabelled"] == ["stray.png"]
    with pytest.raises(UserError, match="each of the 2 classes of .*set and of those in no folder; give at least 3"):
        sources.open_source(path, labels="folders", max_images=2)


@pytest.mark.parametrize(
    "counts, total, kept",
    [
        ([60] * 10, 100, [10] * 10),
        ([90, 10], 10, [9, 1]),
        ([1000, 1, 1], 3, [1, 1, 1]),
        ([1000, 1, 1], 10, [8, 1, 1]),
        ([5, 5, 5], 4, [2, 1, 1]),
        ([3, 2, 1], 6, [3, 2, 1]),
    ],
)
def test_shares_by_hand(counts, total, kept):
    assert sources.shares(np.array(counts), total).tolist() == kept


def test_shares_add_up_and_fit():
    random = np.random.RandomState(0)
    for _ in range(200):
        counts = random.randint(1, 50, random.randint(1, 9))
        total = random.randint(len(counts), counts.sum() + 1)
        kept = sources.shares(counts, total)
        assert kept.sum() == total and (kept >= 1).all() and (kept <= counts).all()
