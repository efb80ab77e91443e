"""training.data.image_check: every kind of bad picture in one listing, and what mending makes of it."""

import io
import os
import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from tests.training.data_fixtures import encoded, numbered, pixels, png, write_folder, write_zip
from training.data import image_check, sources, transforms
from training.data.sources import SourceImage
from training.dataset import ImageFolderDataset


def picture(seed, mode, size=16):
    return PIL.Image.fromarray(pixels(seed, size)).convert(mode)


def smooth(size=16, height=None):
    y, x = np.mgrid[: height or size, :size]
    return np.stack([8 * x, 8 * y, 100 + 0 * x], axis=-1).clip(0, 255).astype(np.uint8)


def jpeg_with_orientation(number):
    exif = PIL.Image.Exif()
    exif[0x0112] = number
    return encoded(smooth(), "JPEG", exif=exif.tobytes(), quality=95)


def png16():
    values = (np.arange(256).reshape(16, 16) * 257).astype(np.uint16)
    return encoded(PIL.Image.fromarray(values))


def png16_rgb():
    """A 16-bit RGB PNG, which the imaging library cannot write: made by hand."""
    import struct
    import zlib

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    rows = b"".join(b"\0" + (pixels(50 + y)[y].astype(">u2") * 257).tobytes() for y in range(16))
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", 16, 16, 16, 2, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def animation(kind):
    frames = [picture(200 + number, "RGB") for number in range(3)]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def flipped_byte(data, place):
    data = bytearray(data)
    data[place] ^= 0x55
    return bytes(data)


def bad_files():
    """name -> (bytes, expected kind); every name tells the fault."""
    colour = encoded(smooth(), "JPEG")
    transparent_palette = encoded(picture(101, "P"), transparency=3)
    return {
        "empty.png": (b"", "empty"),
        "cut.png": (png(20)[:300], "truncated"),
        "cut_end.png": (png(21)[:-12], "truncated"),
        "cut.jpg": (colour[: len(colour) // 2], "truncated"),
        "text.png": (b"this is no image", "unreadable"),
        "flipped.png": (flipped_byte(png(22), 400), "unreadable"),
        "rgba.png": (encoded(picture(102, "RGBA")), "alpha"),
        "la.png": (encoded(picture(103, "LA")), "alpha"),
        "palette_alpha.png": (transparent_palette, "alpha"),
        "palette.png": (encoded(picture(104, "P")), "palette"),
        "grey.png": (png(5, channels=1), "grey"),
        "sixteen.png": (png16(), "16-bit"),
        "sixteen_rgb.png": (png16_rgb(), "16-bit"),
        "cmyk.jpg": (encoded(picture(106, "CMYK"), "JPEG"), "cmyk"),
        "bilevel.png": (encoded(picture(107, "1")), "mode"),
        "float.tiff": (encoded(PIL.Image.fromarray(np.ones([16, 16], np.float32)), "TIFF"), "float"),
        "no_number.tiff": (encoded(PIL.Image.fromarray(np.full([16, 16], np.nan, np.float32)), "TIFF"), "not-finite"),
        "moving.png": (animation("PNG"), "frames"),
        "key.png": (encoded(picture(108, "RGB"), transparency=(1, 2, 3)), "alpha"),
        "turned.jpg": (jpeg_with_orientation(6), "exif"),
        "twin.png": (png(0), "duplicate"),
        ".DS_Store": (b"x", "hidden"),
        "notes.txt": (b"x", "not-an-image"),
    }


UNMENDABLE = {"wide.png": (png(8, 24, height=16), "non-square"), "small.png": (png(9, 8), "size")}


def good_files(count=30):
    return {f"000good{i:02d}.png": png(i) for i in range(count)}


def source_of(tmp_path, files, pack=write_folder, labels="json"):
    path = tmp_path / ("set.zip" if pack is write_zip else "set")
    return sources.open_source(pack(path, files), labels=labels)


def no_transform():
    return transforms.make_transform(None, None, None, "lanczos")


def check(source, fix=False, transform=None):
    return image_check.ConversionPass(source, transform or no_transform(), fix=fix).run()


@pytest.mark.parametrize("pack", [write_folder, write_zip])
def test_one_pass_lists_every_kind_of_fault(tmp_path, pack):
    bad = dict(bad_files(), **UNMENDABLE)
    files = dict(good_files(), **{name: data for name, (data, _) in bad.items()})
    names = [name for name in files if name not in (".DS_Store", "notes.txt", "000good00.png")]
    files["dataset.json"] = {"labels": [[name, 1] for name in names] + [["gone.png", 2]]}
    report = check(source_of(tmp_path, files, pack))
    found = {}
    for fault in report.faults:
        found.setdefault(fault.name, set()).add(fault.kind)
        assert fault.name in fault.text() and image_check.FAULT_KINDS[fault.kind].title in fault.text()
    expected = {name: {kind} for name, (_, kind) in bad.items()}
    for grey_too in ("la.png", "sixteen.png", "bilevel.png", "float.tiff"):
        expected[grey_too].add("grey")
    expected["000good00.png"] = {"unlabelled"}
    expected["gone.png"] = {"label-without-image"}
    assert found == expected
    assert not report.is_sound(fix=False) and not report.is_sound(fix=True)
    assert report.size == (16, 16) and report.channels == 3
    assert {fault.kind for fault in report.serious(fix=True)} == {"non-square", "size", "unlabelled"}


def test_damaged_zip_member_is_one_bad_file(tmp_path):
    path = tmp_path / "set.zip"
    write_zip(path, numbered(3))
    path.write_bytes(flipped_byte(path.read_bytes(), 200))
    report = check(sources.open_source(str(path)))
    assert [(fault.name, fault.kind) for fault in report.faults] == [("00000/img00000000.png", "unreadable")]
    assert "damaged" in report.faults[0].text()


def test_fix_mends_and_writes(tmp_path):
    files = dict(good_files(), **{name: data for name, (data, _) in bad_files().items()})
    source = source_of(tmp_path, files)
    untouched = image_check.convert(source, no_transform(), str(tmp_path / "refused.zip"), fix=False)
    assert not untouched.is_sound(False) and os.listdir(tmp_path) == ["set"]
    report = image_check.convert(source, no_transform(), str(tmp_path / "out.zip"), fix=True)
    dropped = {"empty.png", "cut.png", "cut_end.png", "cut.jpg", "text.png", "flipped.png", "no_number.tiff", "twin.png"}
    kept = sorted(name for name in files if name not in dropped | {".DS_Store", "notes.txt"})
    assert report.is_sound(True) and report.num_kept == len(kept)
    written = ImageFolderDataset(str(tmp_path / "out.zip"))
    assert len(written) == len(kept) and written.image_shape == [3, 16, 16]
    images = dict(zip(kept, (written[i][0].transpose(1, 2, 0) for i in range(len(kept)))))
    assert np.array_equal(images["000good07.png"], pixels(7))
    assert np.array_equal(images["grey.png"], np.repeat(pixels(5, channels=1)[:, :, None], 3, 2))
    assert np.array_equal(images["sixteen.png"][:, :, 0], np.arange(256).reshape(16, 16))
    assert np.array_equal(images["palette.png"], np.asarray(picture(104, "P").convert("RGB")))
    assert set(np.unique(images["bilevel.png"])) == {0, 255}
    assert np.array_equal(images["moving.png"], np.asarray(picture(200, "RGB")))
    assert (images["float.tiff"] == 255).all()  # ones, of 0 to 1
    upright = np.asarray(PIL.Image.open(io.BytesIO(files["turned.jpg"])))
    assert np.array_equal(images["turned.jpg"], np.rot90(upright, -1))  # orientation 6: turn clockwise


def test_transparency_is_laid_over_white():
    image = np.zeros([2, 2, 4], dtype=np.uint8)
    image[..., 3] = [[0, 255], [128, 255]]
    image[1, 1, 0] = 200
    result, faults = image_check.examine(SourceImage("x.png", data=encoded(image)))
    assert [fault.kind for fault in faults] == ["alpha"]
    assert result[0, 0].tolist() == [255] * 3 and result[0, 1].tolist() == [0] * 3 and result[1, 1].tolist() == [200, 0, 0]
    assert abs(int(result[1, 0, 0]) - 127) <= 1


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_the_transparent_grey_of_a_small_png_shows_white(bits):
    """Small greys are written so by programs that shrink files; the one that is transparent is stated in their own scale."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    greys, pixels_per_byte, white = np.array([[0, 1] * 8, [1, 2**bits - 1] * 8]), 8 // bits, 2**bits - 1
    packed = sum(greys[:, place::pixels_per_byte] << (8 - bits * (place + 1)) for place in range(pixels_per_byte))
    header, rows = struct.pack(">IIBBBBB", 16, 2, bits, 0, 0, 0, 0), b"".join(b"\0" + bytes(row.tolist()) for row in packed)
    for key in (0, 1):
        parts = [chunk(b"IHDR", header), chunk(b"tRNS", struct.pack(">H", key)), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
        result, faults = image_check.examine(SourceImage("x.png", data=b"\x89PNG\r\n\x1a\n" + b"".join(parts)))
        assert np.array_equal(result, np.where(greys == key, 255, greys * (255 // white))) and [fault.kind for fault in faults] == ["alpha"]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(orientation):
    data = jpeg_with_orientation(orientation)
    stored = np.asarray(PIL.Image.open(io.BytesIO(data)))
    result, faults = image_check.examine(SourceImage("x.jpg", data=data))
    upright = {
        1: stored,
        2: stored[:, ::-1],
        3: stored[::-1, ::-1],
        4: stored[::-1],
        5: stored.swapaxes(0, 1),
        6: np.rot90(stored, -1),
        7: np.rot90(stored, 2).swapaxes(0, 1),
        8: np.rot90(stored),
    }[orientation]
    assert np.array_equal(result, upright) and len(faults) == (orientation > 1)


@pytest.mark.parametrize("first_is_odd", [False, True])
@pytest.mark.parametrize("majority", [1, 3])
def test_mixed_grey_and_colour_follow_the_majority(tmp_path, majority, first_is_odd):
    minority = 4 - majority
    files = {f"img{i}.png": png(i, channels=majority) for i in range(1, 6)}
    files["img0.png" if first_is_odd else "img9.png"] = png(30, channels=minority)
    source = source_of(tmp_path, files)
    kind = "grey" if majority == 3 else "colour"
    assert [(f.name, f.kind) for f in check(source).faults] == [("img0.png" if first_is_odd else "img9.png", kind)]
    assert image_check.convert(source, no_transform(), str(tmp_path / "fixed"), fix=True).channels == majority
    fixed = ImageFolderDataset(str(tmp_path / "fixed"))
    assert fixed.num_channels == majority and len([fixed[i] for i in range(6)]) == 6
    odd = np.repeat(pixels(30, channels=1)[None], 3, 0) if majority == 3 else np.asarray(PIL.Image.fromarray(pixels(30)).convert("L"))[None]
    assert np.array_equal(fixed[0 if first_is_odd else 5][0], odd)


def test_duplicates_are_noted_and_dropped_by_fix_only(tmp_path):
    source = source_of(tmp_path, {"a.png": png(1), "b.png": png(2), "c.png": encoded(pixels(1), compress_level=9)})
    report = image_check.convert(source, no_transform(), str(tmp_path / "kept"), fix=False)
    assert [(f.name, f.kind, f.detail) for f in report.faults] == [("c.png", "duplicate", "first seen as a.png")]
    assert len(ImageFolderDataset(str(tmp_path / "kept"))) == 3
    image_check.convert(source, no_transform(), str(tmp_path / "single"), fix=True)
    assert len(ImageFolderDataset(str(tmp_path / "single"))) == 2


def test_a_resolution_that_no_network_takes_is_one_line(tmp_path):
    report = check(source_of(tmp_path, {f"{i}.png": png(i, 24) for i in range(5)}))
    assert [(f.name, f.kind, f.detail) for f in report.faults] == [("(all images)", "resolution", "24x24")]


def test_nothing_usable_is_not_sound(tmp_path):
    report = image_check.convert(source_of(tmp_path, {"a.png": b"", "b.png": b"x"}), no_transform(), str(tmp_path / "o.zip"), True)
    assert report.num_kept == 0 and not report.is_sound(True) and not (tmp_path / "o.zip").exists()


def test_every_fault_kind_has_a_way_out():
    for name, kind in image_check.FAULT_KINDS.items():
        assert kind.title and (kind.noted or kind.mend or kind.remedy), name
