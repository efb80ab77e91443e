"""training.dataset: items, labels, subsets, flips, workers, cache, identity of content, and every fault as a sentence."""

import json
import pickle
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from dnnlib.errors import UserError
from tests.training.data_fixtures import encoded, numbered, pixels, png, write_folder, write_zip
from training.dataset import Dataset, ImageFolderDataset


@pytest.fixture
def labelled(tmp_path):
    return write_zip(tmp_path / "set.zip", numbered(6, labels=[2, 0, 1, 3, 3, 0], class_names=["a", "b", "c", "d"]))


def all_items(dataset):
    return [dataset[i] for i in range(len(dataset))]


def same(a, b):
    return len(a) == len(b) and all(np.array_equal(x, y) and np.array_equal(c, d) for (x, c), (y, d) in zip(a, b))


def test_items_and_properties(labelled):
    dataset = ImageFolderDataset(path=labelled, use_labels=True, resolution=16)
    assert len(dataset) == 6 and dataset.name == "set" and dataset.image_shape == [3, 16, 16]
    assert (dataset.num_channels, dataset.resolution, dataset.has_power_of_two_resolution) == (3, 16, True)
    assert (dataset.label_shape, dataset.label_dim, dataset.has_labels, dataset.has_onehot_labels) == ([4], 4, True, True)
    assert dataset.class_names == ["a", "b", "c", "d"]
    for index, number in enumerate([2, 0, 1, 3, 3, 0]):
        image, label = dataset[index]
        assert image.dtype == np.uint8 and np.array_equal(image, pixels(index).transpose(2, 0, 1))
        assert label.dtype == np.float32 and label.tolist() == np.eye(4)[number].tolist()
        assert np.array_equal(dataset.get_label(index), label)
    image[:] = 0  # the caller's own copy
    assert dataset[5][0].any()


def test_without_labels(labelled, tmp_path):
    unused = ImageFolderDataset(labelled)
    assert unused.label_shape == [0] and not unused.has_labels and not unused.has_onehot_labels
    assert unused[0][1].shape == (0,) and unused[0][1].dtype == np.float32
    none = ImageFolderDataset(write_zip(tmp_path / "none.zip", numbered(2)), use_labels=True)
    assert none.label_dim == 0 and none.class_names is None
    no_json = ImageFolderDataset(write_folder(tmp_path / "plain", {"b.png": png(1), "a/c.png": png(2)}), use_labels=True)
    assert no_json.label_dim == 0 and np.array_equal(no_json[0][0], pixels(2).transpose(2, 0, 1))


def test_vector_labels_and_grey_images(tmp_path):
    files = numbered(3, channels=1, labels=[[0.5, 1], [2, 3], [-1, 0.25]])
    dataset = ImageFolderDataset(write_folder(tmp_path / "grey", files), use_labels=True)
    assert dataset.image_shape == [1, 16, 16] and dataset.label_shape == [2]
    assert dataset.has_labels and not dataset.has_onehot_labels
    assert dataset.get_label(2).tolist() == [-1, 0.25] and dataset.get_label(0).dtype == np.float32
    dataset.get_label(0)[:] = 9
    assert dataset.get_label(0).tolist() == [0.5, 1]


def test_subset_is_drawn_with_the_seed_and_flips_are_appended(labelled):
    whole = ImageFolderDataset(labelled, use_labels=True)
    part = ImageFolderDataset(labelled, use_labels=True, max_size=4, random_seed=7, xflip=True)
    expected = sorted(np.random.RandomState(7).permutation(6)[:4].tolist())
    assert len(part) == 8
    for position, raw_idx in enumerate(expected):
        plain, flipped = part[position], part[position + 4]
        assert np.array_equal(plain[0], whole[raw_idx][0]) and np.array_equal(flipped[0], plain[0][:, :, ::-1])
        assert np.array_equal(flipped[1], whole[raw_idx][1]) and flipped[0].flags.c_contiguous
        details = part.get_details(position + 4)
        assert (details.raw_idx, details.xflip, details.raw_label) == (raw_idx, True, whole.get_details(raw_idx).raw_label)
        assert part.get_details(position).xflip is False
    assert part.label_dim == 4  # classes are those of the whole set
    assert len(ImageFolderDataset(labelled, max_size=99)) == 6
    with pytest.raises(UserError, match="max_size"):
        ImageFolderDataset(labelled, max_size=0)


def test_upstream_subset_numbers():
    """Shuffling 0 ... 9 in place with seed 0 and keeping 4, sorted: what other checkouts draw."""
    order = np.arange(10)
    np.random.RandomState(0).shuffle(order)
    dataset = Dataset("x", [10, 3, 4, 4], max_size=4, random_seed=0)
    assert [dataset.get_details(i).raw_idx for i in range(4)] == sorted(order[:4].tolist())


@pytest.mark.parametrize("start, workers, cached", [("fork", 2, False), ("fork", 2, True), ("spawn", 1, True)])
def test_loader_workers_read_the_same(tmp_path, start, workers, cached):
    path = write_zip(tmp_path / "set.zip", numbered(40, labels=list(range(40))))
    dataset = ImageFolderDataset(path, use_labels=True, xflip=True)
    expected = all_items(dataset)  # the file is open in this process now
    if cached:
        assert dataset.use_cache(1)
    loader = torch.utils.data.DataLoader(dataset, batch_size=5, num_workers=workers, multiprocessing_context=start)
    images, labels = (torch.cat(part).numpy() for part in zip(*loader))
    assert same(expected, list(zip(images, labels)))


def test_close_and_pickle(labelled):
    dataset = ImageFolderDataset(labelled, use_labels=True)
    expected = all_items(dataset)
    dataset.close()
    dataset.close()
    assert same(expected, all_items(dataset))
    assert same(expected, all_items(pickle.loads(pickle.dumps(dataset))))


def test_compressed_and_prefixed_zips_read_alike(tmp_path):
    files = numbered(3)
    stored, packed = (write_zip(tmp_path / f"{method}.zip", files, method) for method in (0, zipfile.ZIP_DEFLATED))
    assert same(all_items(ImageFolderDataset(stored)), all_items(ImageFolderDataset(packed)))
    prefixed = tmp_path / "prefixed.zip"
    prefixed.write_bytes(b"#!/bin/sh\n" + open(stored, "rb").read())
    assert same(all_items(ImageFolderDataset(stored)), all_items(ImageFolderDataset(prefixed)))


# Cache.


def test_cache_gives_the_same_and_spares_the_files(labelled, monkeypatch):
    dataset = ImageFolderDataset(labelled, use_labels=True, xflip=True, max_size=3)
    expected = all_items(dataset)
    assert not dataset.use_cache(0.001) and dataset.use_cache(0.1)
    assert same(expected, all_items(dataset))
    monkeypatch.setattr(dataset, "_load_raw_image", lambda raw_idx: pytest.fail("read again"))
    again = all_items(dataset)
    assert same(expected, again)
    again[0][0][:] = 0
    assert same(expected, all_items(dataset))


# Identity of content.


def test_fingerprint_ignores_place_order_packing_and_time(tmp_path):
    files = numbered(5, labels=[0, 1, 2, 1, 0])
    backwards = dict(reversed(files.items()))
    prints = {
        ImageFolderDataset(write_zip(tmp_path / "one.zip", files)).content_fingerprint(),
        ImageFolderDataset(write_zip(tmp_path / "two.zip", backwards, time=(2020, 1, 1, 0, 0, 0))).content_fingerprint(),
        ImageFolderDataset(write_zip(tmp_path / "three.zip", files, zipfile.ZIP_DEFLATED)).content_fingerprint(),
        ImageFolderDataset(write_folder(tmp_path / "four", files), xflip=True, use_labels=True).content_fingerprint(),
    }
    assert len(prints) == 1 and len(prints.pop()) == 64


def test_fingerprint_sees_images_labels_and_names(tmp_path):
    files = numbered(5, labels=[0, 1, 2, 1, 0])
    name = "00000/img00000003.png"
    other_byte = bytearray(files[name])
    other_byte[-20] ^= 1
    variants = [
        files,
        dict(files, **{name: bytes(other_byte)}),
        dict(files, **{"dataset.json": {"labels": None}}),
        numbered(5, labels=[0, 1, 2, 2, 0]),
        numbered(4, labels=[0, 1, 2, 1]),
    ]
    renamed = dict(files)
    renamed["00000/img9.png"] = renamed.pop(name)
    variants.append(renamed)
    prints = {ImageFolderDataset(write_folder(tmp_path / str(i), variant)).content_fingerprint() for i, variant in enumerate(variants)}
    assert len(prints) == len(variants)


def test_fingerprint_of_a_plain_subclass():
    class Squares(Dataset):
        def __init__(self, value, **kwargs):
            self.value = value
            super().__init__("squares", [3, 1, 2, 2], **kwargs)

        def _load_raw_image(self, raw_idx):
            return np.full([1, 2, 2], self.value + raw_idx, dtype=np.uint8)

        def _load_raw_labels(self):
            return np.arange(3, dtype=np.int64)

    assert Squares(1).content_fingerprint() == Squares(1, xflip=True).content_fingerprint()
    assert Squares(1).content_fingerprint() != Squares(2).content_fingerprint()
    assert Squares(5, use_labels=True)[2][1].tolist() == [0, 0, 1] and Squares(1).class_names is None


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.text("abcde", min_size=1, max_size=3), st.integers(0, 3)), min_size=1, max_size=6, unique_by=lambda entry: entry[0]),
    st.booleans(),
    st.booleans(),
    st.integers(1, 7),
    st.integers(0, 99),
)
def test_folder_and_zip_are_one_data_set(tmp_path_factory, entries, with_labels, xflip, max_size, seed):
    root = tmp_path_factory.mktemp("property")
    files = {f"{name[0]}/{name}.png": png(index, 4) for index, (name, _) in enumerate(entries)}
    labels = [[f"{name[0]}/{name}.png", label] for name, label in entries]
    files["dataset.json"] = {"labels": labels if with_labels else None}
    options = dict(use_labels=True, xflip=xflip, max_size=max_size, random_seed=seed)
    folder = ImageFolderDataset(write_folder(root / "set", files), **options)
    archive = ImageFolderDataset(write_zip(root / "set.zip", dict(reversed(files.items()))), **options)
    assert folder.content_fingerprint() == archive.content_fingerprint()
    assert folder.label_shape == archive.label_shape and folder.name == archive.name
    assert len(folder) == min(len(entries), max_size) * (1 + xflip) and same(all_items(folder), all_items(archive))


# Faults.


def refused(path, match, read=(), **options):
    with pytest.raises(UserError, match=match) as caught:
        dataset = ImageFolderDataset(path, **options)
        for index in read:
            dataset[index]
    return str(caught.value)


def test_path_faults(tmp_path):
    assert "dataset_tool.py" in refused(tmp_path / "nothing.zip", "no data set at")
    (tmp_path / "text.zip").write_text("hello")
    refused(tmp_path / "text.zip", "not a readable zip")
    (tmp_path / "set.tar").write_text("hello")
    refused(tmp_path / "set.tar", "neither a folder nor a zip")
    whole = open(write_zip(tmp_path / "whole.zip", numbered(3)), "rb").read()
    (tmp_path / "cut.zip").write_bytes(whole[: len(whole) // 2])
    refused(tmp_path / "cut.zip", "cut.zip is not a readable zip.*get it again")
    refused(write_folder(tmp_path / "empty", {"notes.txt": b"x", ".hidden.png": png(0)}), "holds no images")


def test_image_faults_name_the_file(tmp_path):
    good = {"a.png": png(0)}
    for number, (content, match) in enumerate(
        [
            (png(1, 8), "8x8 pixels with 3 channels, but the set is 16x16"),
            (png(1, channels=1), "1 channel, but"),
            (png(1)[:200], "Cannot read the image"),
            (b"", "Cannot read the image"),
            (encoded(PIL.Image.fromarray(pixels(1)).convert("RGBA")), "colour mode RGBA"),
            (encoded(PIL.Image.fromarray(pixels(1)).convert("LA")), "colour mode LA"),
            (encoded(PIL.Image.fromarray(pixels(1)).convert("P")), "colour mode P"),
        ]
    ):
        path = write_folder(tmp_path / str(number), dict(good, **{"b.png": content}))
        message = refused(path, match, read=[0, 1])
        assert "b.png" in message and "dataset_tool.py" in message


@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_all_headers_can_be_checked_before_training(tmp_path, pack):
    files = {f"good{i}.png": png(i) for i in range(8)}
    files["lossy.jpg"] = encoded(pixels(8), "JPEG")
    ImageFolderDataset(pack(tmp_path / "good.zip", files)).check_images()
    files.update(
        {
            "small.png": png(9, 8),
            "grey.png": png(10, channels=1),
            "zcut.jpg": files["lossy.jpg"][:300],
            "rgba.png": encoded(PIL.Image.fromarray(pixels(11)).convert("RGBA")),
        }
    )
    with pytest.raises(UserError, match="4 of 13 images in .* which is 16x16 pixels with 3 channels") as caught:
        ImageFolderDataset(pack(tmp_path / "bad.zip", files)).check_images()
    for name in ("small.png is 8x8", "grey.png is 16x16 pixels with 1 channel.", "zcut.jpg", "rgba.png", "--check"):
        assert name in str(caught.value)


def test_long_readings_show_themselves(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("dnnlib.console.LINE_INTERVAL_SEC", 0)
    dataset = ImageFolderDataset(write_folder(tmp_path / "set", {f"{i}.png": png(i) for i in range(3)}))
    dataset.check_images()
    dataset.content_fingerprint()
    err = capsys.readouterr().err
    for line in (f"Listing {tmp_path / 'set'}: 2", "Checking images: 2 of 3 (67%)", "Hashing images: 2 of 3 (67%)"):
        assert line in err


def test_damaged_zip_member(tmp_path):
    path = tmp_path / "set.zip"
    content = bytearray(open(write_zip(path, numbered(2)), "rb").read())
    content[200] ^= 255
    path.write_bytes(content)
    message = refused(path, "img00000000.png in .*set.zip is damaged")
    assert "img00000001.png" not in message


def test_size_faults(tmp_path):
    path = write_folder(tmp_path / "lying", {"a.png": png(0, 24, height=16)})
    dataset = ImageFolderDataset(path)
    assert dataset.image_shape == [3, 16, 24] and not dataset.has_power_of_two_resolution
    with pytest.raises(UserError, match="24x16 pixels, but must be square.*--transform"):
        dataset.resolution
    odd = ImageFolderDataset(write_folder(tmp_path / "odd", {"a.png": png(0, 24)}))
    assert odd.resolution == 24 and not odd.has_power_of_two_resolution
    refused(tmp_path / "odd", "24x24 pixels, but resolution 32", resolution=32)


def test_label_faults(tmp_path):
    names = [f"00000/img{i:08d}.png" for i in range(9)]

    def with_json(content):
        folder = tmp_path / f"set{len(list(tmp_path.iterdir()))}"
        return write_folder(folder, dict(numbered(9), **{"dataset.json": content}))

    partial = with_json({"labels": [[name, 1] for name in names[:2]]})
    message = refused(partial, "7 of 9 images have no label", use_labels=True)
    assert names[2] in message and names[6] in message and "2 more" in message and "dataset.json" in message
    assert len(ImageFolderDataset(partial)) == 9  # not asked for: no matter
    broken = [
        (b'{"labels": [', "not valid JSON"),
        ([1, 2], "must hold an object"),
        ({"labels": 5}, "must be a list"),
        ({"labels": [["a.png"]]}, "Entry 0"),
        ({"labels": [["a.png", 1], ["a.png", 2]]}, "two labels"),
        ({"labels": [], "class_names": [1]}, "class_names"),
    ]
    for content, match in broken:
        refused(with_json(content), match)
    for values, match in [
        ([-1] * 9, "are 0 or more"),
        ([True] * 9, "True"),
        ([0] * 8 + [[1.0]], "one length"),
        ([[1, 2]] * 8 + [[1]], "one length"),
        ([[float("nan")]] * 9, "finite"),
        (["x"] * 9, "'x'"),
    ]:
        refused(with_json({"labels": [[n, v] for n, v in zip(names, values)]}), match, use_labels=True)


def test_backslashes_and_byte_order_mark(tmp_path):
    content = b"\xef\xbb\xbf" + json.dumps({"labels": [["00000\\img00000000.png", 3]]}).encode()
    path = write_folder(tmp_path / "set", dict(numbered(1), **{"dataset.json": content}))
    assert ImageFolderDataset(path, use_labels=True).label_dim == 4


def test_hidden_files_are_no_images(tmp_path):
    files = dict(numbered(2), **{"__MACOSX/00000/._img.png": b"x", "._a.png": b"x", ".DS_Store": b"x", "00000/.t/a.png": png(9)})
    assert len(ImageFolderDataset(write_zip(tmp_path / "mac.zip", files))) == 2
