"""training.data.writer, transforms and sources: PNG bytes, all-or-nothing files, geometry, the usual archives."""

import gzip
import io
import json
import os
import pickle
import re
import sys
import tarfile
import zipfile

import numpy as np
import PIL.Image
import pytest
from hypothesis import given, settings, strategies as st

from dnnlib.errors import UserError
from tests.training.data_fixtures import encoded, idx_bytes, numbered, pixels, png, write_cifar10, write_folder, write_mnist, write_zip
from training.data import dataset_io, mnist, sources, transforms, writer
from training.data.writer import open_writer
from training.dataset import ImageFolderDataset

# PNG and writers.


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 70), st.integers(1, 400), st.sampled_from([1, 3]), st.integers(0, 99))
def test_png_bytes_decode_to_the_pixels(height, width, channels, seed):
    image = pixels(seed, width, channels, height)
    data = writer.encode_png(image)
    with PIL.Image.open(io.BytesIO(data)) as decoded:
        decoded.verify()  # checks every chunk's checksum
    assert np.array_equal(np.asarray(PIL.Image.open(io.BytesIO(data))), image)


@pytest.mark.parametrize("name", ["set.zip", "set", "new/deeper/set.zip", "new/deeper/set"])
def test_written_set_reads_back(tmp_path, name):
    dest = str(tmp_path / name)
    with open_writer(dest) as writer:
        for i in range(3):
            writer.add(pixels(i), i)
        writer.class_names, writer.provenance = ["a", "b", "c"], {"builder": "test"}
    dataset = ImageFolderDataset(dest, use_labels=True)
    assert [dataset[i][1].argmax() for i in range(3)] == [0, 1, 2] and dataset.class_names == ["a", "b", "c"]
    assert np.array_equal(dataset[2][0], pixels(2).transpose(2, 0, 1))
    files = dataset_io.open_files(dest)
    assert files.names == ["00000/img00000000.png", "00000/img00000001.png", "00000/img00000002.png", "dataset.json"]
    assert dataset_io.read_metadata(files).provenance == {"builder": "test"}
    assert json.loads(files.read("dataset.json"))["labels"] == [[f"00000/img{i:08d}.png", i] for i in range(3)]
    if dest.endswith(".zip"):
        assert {info.compress_type for info in zipfile.ZipFile(dest).infolist()} == {zipfile.ZIP_STORED}
    assert all(not entry.startswith(".") for entry in os.listdir(os.path.dirname(dest)))


def test_names_of_many_images():
    assert writer.image_name(0) == "00000/img00000000.png" and writer.image_name(1234567) == "01234/img01234567.png"


def test_equal_images_give_equal_bytes(tmp_path):
    for name in ("a.zip", "b.zip"):
        with open_writer(str(tmp_path / name)) as writer:
            writer.add(pixels(1), 0)
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


@pytest.mark.parametrize("name", ["set.zip", "set"])
def test_an_error_leaves_what_was_there(tmp_path, name):
    dest = tmp_path / name
    if name == "set.zip":
        dest.write_bytes(b"old")
    with pytest.raises(RuntimeError), open_writer(str(dest)) as writer:
        writer.add(pixels(1))
        raise RuntimeError
    assert os.listdir(tmp_path) == (["set.zip"] if name == "set.zip" else [])
    if name == "set.zip":
        assert dest.read_bytes() == b"old"


def test_labels_are_for_all_or_none(tmp_path):
    with pytest.raises(ValueError, match="1 of 2"), open_writer(str(tmp_path / "a.zip")) as writer:
        writer.add(pixels(1), 0)
        writer.add(pixels(2))
    assert os.listdir(tmp_path) == []


def test_destination_faults(tmp_path):
    full = write_folder(tmp_path / "full", {"a.png": png(1)})
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir.zip").mkdir()
    for dest, source, match in [
        (full, None, "not empty"),
        (tmp_path / "file", None, "is a file"),
        (tmp_path / "dir.zip", None, "is a folder"),
        (full, full, "the --source itself"),
        ("", None, "--dest is empty"),
        ("/", None, "not empty|mounted"),
    ]:
        with pytest.raises(UserError, match=match):
            writer.check_destination(str(dest), source)
    (tmp_path / "empty").mkdir()
    writer.check_destination(str(tmp_path / "empty"))


# Transforms.


def gradient(width, height):
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // max(width - 1, 1), y * 255 // max(height - 1, 1), 0 * x + 9], -1).astype(np.uint8)


def transformed(name, width, height, source_size, resize_filter="box"):
    return transforms.make_transform(name, width, height, resize_filter)(gradient(*source_size))


def test_transform_geometry():
    crop = transformed("center-crop", 16, 16, (48, 32))
    assert crop.shape == (16, 16, 3) and abs(int(crop[0, 0, 0]) - 255 * 8.5 / 47) < 3 and crop[..., 0].max() < 220
    stretch = transformed("stretch", 16, 16, (48, 32))
    assert stretch[..., 0].min() < 7 and stretch[..., 0].max() > 247 and stretch.shape == (16, 16, 3)
    pad = transformed("pad", 16, 16, (48, 24))
    assert not pad[:4].any() and not pad[12:].any() and (pad[4:12, :, 2] == 9).all()
    tall_pad = transformed("pad", 16, 16, (24, 48))
    assert not tall_pad[:, :4].any() and (tall_pad[:, 4:12, 2] == 9).all()
    wide = transformed("center-band", 32, 16, (64, 48))
    assert wide.shape == (32, 32, 3) and not wide[:8].any() and not wide[24:].any() and (wide[8:24, :, 2] == 9).all()
    assert abs(int(wide[8, 0, 1]) - 255 * 8.5 / 47) < 3  # the band of rows 8 ... 39 of 48
    tall = transformed("center-band", 16, 32, (48, 64))
    assert np.array_equal(tall, transformed("center-crop-tall", 16, 32, (48, 64)))
    assert tall.shape == (32, 32, 3) and not tall[:, :8].any() and (tall[:, 8:24, 2] == 9).all()
    plain = transforms.make_transform(None, 8, None, "lanczos")(gradient(16, 8))
    assert plain.shape == (8, 8, 3)


@pytest.mark.parametrize("resize_filter", ["box", "lanczos"])
@pytest.mark.parametrize("source_size", [(64, 48), (80, 50), (64, 64), (33, 40)])
def test_center_crop_wide_has_the_rows_of_the_family(source_size, resize_filter):
    """round(width * h / w) of the h rows, from the middle and at full width, scaled to width x height on a black square."""
    (w, h), (width, height) = source_size, (32, 16)
    rows = round(width * h / w)
    top = (h - rows) // 2
    band = PIL.Image.fromarray(gradient(w, h)[top : top + rows]).resize((width, height), transforms.RESIZE_FILTERS[resize_filter])
    result = transformed("center-crop-wide", width, height, source_size, resize_filter)
    assert result.shape == (32, 32, 3) and not result[:8].any() and not result[24:].any()
    assert np.array_equal(result[8:24], np.asarray(band))


def test_crops_leave_out_what_they_would_enlarge():
    assert transformed("center-crop-wide", 32, 16, (30, 30)) is None  # narrower than --width
    assert transformed("center-crop-wide", 32, 16, (64, 30)) is None  # 15 rows
    assert transformed("center-crop-wide", 32, 16, (64, 32)) is not None
    assert transformed("center-band", 32, 16, (30, 30)) is None
    assert transformed("center-band", 32, 16, (64, 20)) is None
    assert transformed("center-crop-tall", 16, 32, (30, 30)) is None
    assert transformed("center-crop", 32, 32, (10, 12)).shape == (32, 32, 3)


def test_grey_pictures_and_filters():
    grey = pixels(3, 32, 1)
    for name in transforms.TRANSFORMS:
        assert transforms.make_transform(name, 16, 16, "lanczos")(grey).shape == (16, 16)
    box = transforms.make_transform("stretch", 16, 16, "box")(grey)
    mean = grey.reshape(16, 2, 16, 2).mean(axis=(1, 3))
    assert np.abs(box - mean).max() <= 1
    assert not np.array_equal(box, transforms.make_transform("stretch", 16, 16, "lanczos")(grey))


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(transforms.TRANSFORMS), st.integers(3, 6), st.integers(1, 90), st.integers(1, 90))
def test_every_picture_comes_out_at_the_stated_size(name, log_side, width, height):
    side = 2**log_side
    result = transforms.make_transform(name, side, side, "lanczos")(gradient(width, height))
    assert transforms.output_size(name, side, side) == (side, side)
    if result is None:
        assert name.startswith("center-") and (min(width, height) < side or width != height)
    else:
        assert result.shape == (side, side, 3) and result.dtype == np.uint8


@pytest.mark.parametrize(
    "name, width, height, match",
    [
        ("center-crop", None, None, "--transform=center-crop needs both"),
        ("pad", 64, None, "needs both"),
        ("center-crop", 64, 32, "64x32 pixels"),
        (None, 24, 24, "power of two.*--width=16 --height=16.*32"),
        (None, 0, 8, "at least 1"),
        ("center-crop-wide", 16, 32, "center-band"),
        ("center-crop-tall", 32, 16, "center-band"),
        ("center-crop-wide", 48, 32, "48x48"),
    ],
)
def test_contradictory_sizes_are_refused(name, width, height, match):
    with pytest.raises(UserError, match=match):
        transforms.output_size(name, width, height)


# Sources.


def loaded(source):
    return list(source)


@pytest.mark.parametrize("compress", [True, False])
def test_mnist_source(tmp_path, compress):
    images, labels, path = write_mnist(tmp_path, compress=compress)
    source = sources.open_source(path)
    items = loaded(source)
    assert source.num_images == len(items) == 30 and source.has_labels and source.class_names == [str(i) for i in range(10)]
    for item, image, label in zip(items, images, labels):
        assert item.label == label and type(item.label) is int and item.pixels.shape == (32, 32)
        assert np.array_equal(item.pixels[2:30, 2:30], image) and item.pixels.sum() == image.sum()
    unlabelled = sources.open_source(path, labels="none", max_images=4)
    assert [item.label for item in unlabelled] == [None] * 4 and not unlabelled.has_labels


def test_mnist_faults(tmp_path):
    _, _, path = write_mnist(tmp_path)
    os.unlink(tmp_path / "train-labels-idx1-ubyte.gz")
    with pytest.raises(UserError, match="no label file beside.*--labels=none"):
        sources.open_source(path)
    whole = open(path, "rb").read()
    for content, match in [
        (whole[:-100], "incomplete or damaged"),
        (gzip.compress(gzip.decompress(whole)[:-5]), "states the shape"),
        (gzip.compress(b"hello world"), "not an idx file"),
        (gzip.compress(b"\0\0\x08\x03\0"), "incomplete"),
    ]:
        open(path, "wb").write(content)
        with pytest.raises(UserError, match=match):
            mnist.read_idx(path)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(idx_bytes(np.zeros(4, np.uint8)))
    open(path, "wb").write(whole)
    with pytest.raises(UserError, match="do not.*belong together"):
        sources.open_source(path)


def test_mnist_downloads_try_every_mirror_and_check_the_hash(monkeypatch):
    asked = []

    def refuse(url, return_filename, digest):
        asked.append((url, digest))
        raise UserError("no network.")

    monkeypatch.setattr("dnnlib.util.open_url", refuse)
    with pytest.raises(UserError, match="Cannot fetch train-images.*no network.*--source"):
        mnist.load_mnist(None, "train")
    assert len(asked) == 2 and len({digest for _, digest in asked}) == 1 and len(asked[0][1]) == 64
    assert all(url.startswith("https://") and url.endswith("/train-images-idx3-ubyte.gz") for url, _ in asked)


def test_cifar10_source(tmp_path):
    path = str(tmp_path / "cifar-10-python.tar.gz")
    images, labels = write_cifar10(path)
    source = sources.open_source(path)
    items = loaded(source)
    assert source.class_names == ["airplane", "automobile", "bird"] and source.num_images == 12
    assert [item.label for item in items] == labels
    assert all(np.array_equal(item.pixels, image.transpose(1, 2, 0)) for item, image in zip(items, images))
    assert len(loaded(sources.open_source(path, labels="none", max_images=5))) == 5


class _Evil:
    def __reduce__(self):
        return os.system, ("touch was_here",)


def test_cifar10_faults(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = str(tmp_path / "cifar-10-python.tar.gz")
    with tarfile.open(path, "w:gz") as archive:
        data = pickle.dumps({"data": _Evil(), "labels": []}, protocol=2)
        info = tarfile.TarInfo("data_batch_1")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    with pytest.raises(UserError, match="refused to load .*system"):
        sources.open_source(path)
    assert not os.path.exists("was_here")
    for content in (b"x", gzip.compress(b"x" * 2000), gzip.compress(b"")):
        open(path, "wb").write(content)
        with pytest.raises(UserError, match="not a readable cifar-10"):
            sources.open_source(path)


def test_lsun_source(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    path = str(tmp_path / "cat_train_lmdb")
    pictures = {f"key{i}".encode(): encoded(pixels(i, 20, height=16), "WEBP" if i % 2 else "JPEG") for i in range(4)}
    with lmdb.open(path, map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for key, value in pictures.items():
            transaction.put(key, value)
    source = sources.open_source(path)
    assert source.num_images == 4 and not source.has_labels
    assert [(item.name, item.data) for item in source] == [(key.decode(), value) for key, value in sorted(pictures.items())]
    assert [item.name for item in sources.open_source(path, max_images=2)] == ["key0", "key1"]
    with pytest.raises(UserError, match="--labels=folders needs a folder"):
        sources.open_source(path, labels="folders")


def test_lsun_without_the_package(tmp_path, monkeypatch):
    (tmp_path / "cat_lmdb").mkdir()
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match="pip install lmdb"):
        sources.open_source(str(tmp_path / "cat_lmdb"))


def test_broken_lsun(tmp_path):
    pytest.importorskip("lmdb")
    write_folder(tmp_path / "cat_lmdb", {"data.mdb": b"nonsense" * 100})
    with pytest.raises(UserError, match="Cannot open the LMDB"):
        sources.open_source(str(tmp_path / "cat_lmdb"))


def test_labels_from_folders(tmp_path):
    path = write_zip(tmp_path / "set.zip", {"dog/x/1.png": png(1), "cat/1.png": png(2), "dog/2.png": png(3), "loose.png": png(4)})
    source = sources.open_source(path, labels="folders")
    assert source.class_names == ["cat", "dog"]
    assert {item.name: item.label for item in source} == {"dog/x/1.png": 1, "cat/1.png": 0, "dog/2.png": 1, "loose.png": None}
    single = write_folder(tmp_path / "single", {"all/1.png": png(1)})
    with pytest.raises(UserError, match="one sub-folder per class.*only 'all'"):
        sources.open_source(single, labels="folders")


def test_folder_names_are_classes_in_natural_order(tmp_path):
    folders = ["10", "2", "1", "b2", "b10", "a", "02"]
    path = write_folder(tmp_path / "set", {f"{folder}/x.png": png(i) for i, folder in enumerate(folders)})
    assert sources.open_source(path, labels="folders").class_names == ["1", "02", "2", "10", "a", "b2", "b10"]


def test_class_numbers_with_gaps_are_told_and_closed_on_request(tmp_path):
    def source(labels, mode="json", **more):
        return sources.open_source(write_folder(tmp_path / f"{len(os.listdir(tmp_path))}", numbered(3, labels=labels, **more)), labels=mode)

    assert source([0, 1, 1]).remarks == [] and source([[0.0, 5.0]] * 3).remarks == []
    (remark,) = source([0, 100000, 0]).remarks
    assert "only 2 of these 100001 classes (0 to 100000)" in remark and "--labels=renumber" in remark
    (remark,) = source([1, 2, 3]).remarks
    assert "from 1 to 3, but only 3 of these 4 classes" in remark
    mended = source([7, 100000, 7], "renumber")
    assert mended.remarks == [] and [item.label for item in mended] == [0, 1, 0] and mended.class_names == ["7", "100000"]
    assert source([3, 1, 1], "renumber", class_names=["a", "b", "c", "d"]).class_names == ["b", "d"]
    assert "2 names for 3 classes" in source([0, 1, 2], class_names=["a", "b"]).remarks[0]
    for labels, match in [([[1.0]] * 3, "are vectors"), (None, "states none")]:
        with pytest.raises(UserError, match=match):
            source(labels, "renumber")


@pytest.mark.parametrize(
    "name, content, match",
    [
        ("dataset.json", {"label": [["00000/img00000000.png", 1]]}, "states no \"labels\" \\(only 'label'\\)"),
        ("dataset.json", {}, 'states no "labels" \\(nothing\\)'),
        ("dataset.json", {"labels": {}}, '"labels" in .* is empty'),
        ("dataset.json", {"labels": []}, '"labels" in .* is empty'),
        ("deeper/dataset.json", {"labels": [["a.png", 1]]}, "deeper/dataset.json is not read"),
    ],
)
@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_labels_that_are_none_are_told(tmp_path, name, content, match, pack):
    files = dict(numbered(2), **{"deeper/a.png": png(3), name: content})
    if name != "dataset.json":
        del files["dataset.json"]
    path = pack(tmp_path / "set.zip", files)
    (remark,) = sources.open_source(path).remarks
    assert re.search(match, remark) and ImageFolderDataset(path).remarks == [remark]
    assert sources.open_source(path, labels="none").remarks == []
    if name != "dataset.json" and pack is write_folder:  # the remedy
        assert ImageFolderDataset(re.search("give (.*)$", remark)[1], use_labels=True).label_dim == 2


def test_sets_that_state_their_labels_get_no_remark(tmp_path):
    path = write_folder(tmp_path / "a", numbered(2))
    assert sources.open_source(path).remarks == [] and ImageFolderDataset(path).remarks == []
    path = write_folder(tmp_path / "b", numbered(2, labels=[0, 1]))
    assert ImageFolderDataset(path, use_labels=True).remarks == []
    (remark,) = ImageFolderDataset(path).remarks
    assert "does not use; --cond=1" in remark


@pytest.mark.parametrize("packed", [True, False])
def test_names_with_backslashes_are_folders(tmp_path, packed):
    """Some packing programs write them, and some unpack them to files of that very name."""
    files = {"cat\\1.png": png(1), "dog\\2.png": png(2), "dataset.json": {"labels": [["cat/1.png", 0], ["dog\\2.png", 1]]}}
    path = (write_zip if packed else write_folder)(tmp_path / "set.zip", files)
    source = sources.open_source(path, labels="folders")
    assert source.class_names == ["cat", "dog"] and [item.label for item in source] == [0, 1]
    assert [item.label for item in sources.open_source(path)] == [0, 1]
    dataset = ImageFolderDataset(path, use_labels=True)
    assert dataset.label_dim == 2 and np.array_equal(dataset[1][0], pixels(2).transpose(2, 0, 1))


def test_links_to_class_folders_are_followed_but_not_in_circles(tmp_path):
    write_folder(tmp_path / "elsewhere", {"cats/1.png": png(1), "cats/deep/2.png": png(2)})
    root = write_folder(tmp_path / "set", {"dog/3.png": png(3)})
    os.symlink(tmp_path / "elsewhere" / "cats", tmp_path / "set" / "cat")
    os.symlink(tmp_path / "set", tmp_path / "set" / "dog" / "up")
    os.symlink("self", tmp_path / "set" / ".self")
    source = sources.open_source(root, labels="folders")
    assert [item.name for item in source] == ["cat/1.png", "cat/deep/2.png", "dog/3.png"] and source.class_names == ["cat", "dog"]
    assert len(ImageFolderDataset(root)) == 3
    link = tmp_path / "link"
    os.symlink(root, link)
    assert len(ImageFolderDataset(link)) == 3
    os.symlink(tmp_path / "gone", tmp_path / "set" / "bird")
    with pytest.raises(UserError, match="bird is a link to .*gone, which is not there"):
        sources.open_source(root)


def test_a_folder_that_cannot_be_read_is_not_left_out(tmp_path, monkeypatch):
    root = write_folder(tmp_path / "set", {"cat/1.png": png(1), "dog/3.png": png(3)})
    scandir = os.scandir

    def locked(path):
        if str(path).endswith("dog"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(UserError, match="Cannot read the folder .*dog: Permission denied"):
        sources.open_source(root)


def test_source_faults(tmp_path):
    (tmp_path / "thing.bin").write_bytes(b"x")
    write_folder(tmp_path / "empty", {"a.txt": b"x"})
    for path, match in [("gone", "nothing at --source"), ("thing.bin", "of no known kind"), ("empty", "holds no images")]:
        with pytest.raises(UserError, match=match):
            sources.open_source(str(tmp_path / path))
    with pytest.raises(UserError, match="--max-images"):
        sources.open_source(str(tmp_path / "empty"), max_images=0)
