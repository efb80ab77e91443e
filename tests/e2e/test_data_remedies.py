"""What is refused as a data set names its remedy, and following it gives a set that trains."""

import io
import os
import re
import zipfile

import numpy as np
import PIL.Image
import pytest

import dataset_tool
from dnnlib import cli
from dnnlib.errors import UserError
from tests.training.data_fixtures import encoded, pixels, png, write_cifar10, write_folder, write_mnist, write_zip
from training import config
from training.dataset import ImageFolderDataset


def accepted(path):
    """The set, as train.py opens it before its first step."""
    resolved = config.resolve(dict(data=str(path), cfg="tiny"))
    dataset = ImageFolderDataset(**{name: value for name, value in resolved.options.training_set_kwargs.items() if name != "class_name"})
    dataset.check_images()
    return dataset


def refusal(path):
    with pytest.raises(UserError) as caught:
        accepted(path)
    return str(caught.value)


def follow(message, source, dest="mended.zip"):
    """Run the dataset_tool.py command that a message names."""
    flags = re.search(r"dataset_tool\.py((?: --\S+)+)", message)[1].split()
    flags = [flag.replace("--source=...", f"--source={source}").replace("--dest=...", f"--dest={dest}").rstrip(";,.") for flag in flags]
    flags += [f"--source={source}"] * ("--source" not in " ".join(flags)) + [f"--dest={dest}"] * ("--dest" not in " ".join(flags))
    assert cli.call(dataset_tool.main, flags) == 0
    return accepted(next(flag for flag in flags if flag.startswith("--dest=")).removeprefix("--dest="))


def turned():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    return encoded(pixels(1), "JPEG", exif=exif.tobytes())


def frames(kind):
    return encoded(PIL.Image.fromarray(pixels(1)), kind, save_all=True, append_images=[PIL.Image.fromarray(pixels(2))])


ODD_PICTURES = {
    "turned.jpg": (turned, "rotated by its EXIF tag (orientation 6)"),
    "turned.png": (lambda: encoded(pixels(1), exif=PIL.Image.open(io.BytesIO(turned())).getexif().tobytes()), "rotated by its EXIF tag"),
    "key.png": (lambda: encoded(PIL.Image.fromarray(pixels(1)), transparency=(1, 2, 3)), "has transparency"),
    "rgba.png": (lambda: encoded(PIL.Image.fromarray(pixels(1)).convert("RGBA")), "has transparency"),
    "palette.png": (lambda: encoded(PIL.Image.fromarray(pixels(1)).convert("P")), "palette colours"),
    "pages.tiff": (lambda: frames("TIFF"), "several pictures in one file (2 in TIFF)"),
    "moving.webp": (lambda: frames("WEBP"), "several pictures in one file (2 in WEBP)"),
    "moving.gif": (lambda: frames("GIF"), "several pictures in one file (2 in GIF)"),
    "moving.png": (lambda: frames("PNG"), "several pictures in one file (2 in PNG)"),
    "deep.png": (lambda: encoded(PIL.Image.fromarray(pixels(1, channels=1).astype(np.uint16) * 16)), "more than 8 bits"),
    "float.tiff": (lambda: encoded(PIL.Image.fromarray(pixels(1, channels=1) / np.float32(255)), "TIFF"), "floating-point pixels"),
}


@pytest.mark.parametrize("name", ODD_PICTURES)
def test_training_and_dataset_tool_judge_pictures_alike(tmp_path, monkeypatch, capsys, name):
    """Refused by both with the same words, also where the picture isn't the first; mended by --fix."""
    monkeypatch.chdir(tmp_path)
    content, words = ODD_PICTURES[name]
    source = write_folder("set", {"a.png": png(7), "b.png": png(8), name: content()})
    assert cli.call(dataset_tool.main, [f"--source={source}", "--dest=o.zip"]) == 1
    assert f"{name}: {words}" in capsys.readouterr().out and not os.path.exists("o.zip")
    message = refusal(source)
    assert words in message and name in message
    assert len(follow(message, source)) == 3


def test_a_tag_behind_the_pixels_of_a_png_is_seen(tmp_path):
    """Some programs write it there; the header alone does not tell."""
    data = encoded(pixels(1), exif=PIL.Image.open(io.BytesIO(turned())).getexif().tobytes())
    start = data.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4], "big")
    late = data[:start] + data[end:-12] + data[start:end] + data[-12:]
    dataset = ImageFolderDataset(write_folder(tmp_path / "set", {"a.png": png(0), "b.png": late}))
    with pytest.raises(UserError, match="b.png: rotated by its EXIF tag"):
        dataset[1]


def test_a_colour_profile_before_the_pixels_costs_no_decoding(tmp_path, monkeypatch):
    files = {"a.png": png(0), "b.png": encoded(pixels(1), icc_profile=b"\0" * 3000)}
    dataset = ImageFolderDataset(write_folder(tmp_path / "set", files))
    monkeypatch.setattr("training.data.dataset_io.decode_image", lambda *_: pytest.fail("decoded"))
    dataset.check_images()


def test_a_camera_file_with_a_preview_is_one_picture(tmp_path):
    photograph = encoded(PIL.Image.fromarray(pixels(1)), "MPO", save_all=True, append_images=[PIL.Image.fromarray(pixels(2))])
    assert PIL.Image.open(io.BytesIO(photograph)).n_frames == 2
    assert len(accepted(write_folder(tmp_path / "set", {"a.jpg": photograph}))) == 1


@pytest.mark.parametrize("size", [(24, 16), (24, 24), (2, 2)])
def test_sizes(tmp_path, monkeypatch, size):
    monkeypatch.chdir(tmp_path)
    source = write_folder("set", {f"{i}.png": png(i, size[0], height=size[1]) for i in range(3)})
    assert follow(refusal(source), source).resolution == max(1 << (min(size).bit_length() - 1), 8)


def test_mixed_sizes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_folder("set", {"a.png": png(1), "b.png": png(2, 32), "c.png": png(3, channels=1), "d.png": png(4, 20, height=30)})
    message = refusal(source)
    assert "3 of 4 images" in message and "b.png is 32x32" in message and "1 channel" in message
    dataset = follow(message, source)
    assert len(dataset) == 4 and np.array_equal(dataset[0][0], pixels(1).transpose(2, 0, 1))


@pytest.mark.parametrize("flag", ["--data", "--source"])
def test_a_single_picture(tmp_path, monkeypatch, capsys, flag):
    monkeypatch.chdir(tmp_path)
    write_folder("set", {"a.png": png(1), "b.png": png(2)})
    if flag == "--data":
        message = refusal("set/a.png")
    else:
        assert cli.call(dataset_tool.main, ["--source=set/a.png", "--dest=o.zip"]) == 1
        message = capsys.readouterr().err
    folder = re.search(r"a single picture; give the folder that it lies in: (\S+)", message)[1]
    assert len(accepted(folder)) == 2


@pytest.mark.parametrize("kind", ["cifar", "mnist", "lmdb"])
def test_archives_that_are_no_sets_yet(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    if kind == "lmdb":
        lmdb = pytest.importorskip("lmdb")
        path = "cat_lmdb"
        with lmdb.open(path, map_size=1 << 20) as database, database.begin(write=True) as transaction:
            transaction.put(b"a", png(1))
    elif kind == "cifar":
        path = "cifar-10-python.tar.gz"
        write_cifar10(path)
    else:
        path = os.path.relpath(write_mnist("digits")[2])
    assert len(follow(refusal(path), path)) > 0


def test_other_archives_are_to_be_unpacked(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    files = {"a.png": png(1), "b.png": png(2)}
    write_zip("packed.zip", files, method=zipfile.ZIP_LZMA)
    for path in ("packed.zip", "pictures.tar.gz"):
        if path != "packed.zip":
            open(path, "wb").write(b"x")
        assert "unpack" in refusal(path)
    with zipfile.ZipFile("packed.zip") as archive:
        archive.extractall("unpacked")
    assert len(accepted("unpacked")) == 2


def test_what_train_says_of_labels(tmp_path, monkeypatch):
    """Labels that are none, unused labels and gaps reach the person through the resolved options."""
    monkeypatch.chdir(tmp_path)

    def resolved(name, content, **flags):
        return config.resolve(dict(data=write_folder(name, {"a.png": png(1), "b.png": png(2), "dataset.json": content}), cfg="tiny", **flags))

    labels = [["a.png", 0], ["b.png", 100000]]
    (remark,) = resolved("unused", {"labels": labels}).remarks
    assert "--cond=1 uses them" in remark
    (remark,) = resolved("gaps", {"labels": labels}, cond=True).remarks
    assert "2 of these 100001 classes" in remark
    mended = re.search(r"dataset_tool\.py (--labels=\S+)", remark)[1]
    assert cli.call(dataset_tool.main, ["--source=gaps", "--dest=o.zip", mended]) == 0
    closed = config.resolve(dict(data="o.zip", cfg="tiny", cond=True))
    assert closed.remarks == [] and closed.label_dim == 2
    with pytest.raises(UserError, match=r"--cond=1 needs labels.*states no \"labels\" \(only 'label'\)"):
        resolved("slip", {"label": labels}, cond=True)
