"""training.data.deep: pictures with more than 8 bits are read in full, and one range of the whole set becomes black to white."""

import struct
import zlib

import numpy as np
import PIL.Image
import pytest

from tests.training.data_fixtures import encoded, pixels, png, write_folder
from training.data import deep, image_check, picture, sources, transforms
from training.data.sources import SourceImage
from training.dataset import ImageFolderDataset


def png16(values, colour_type, key=None):
    """uint16 [H, W, C] to a PNG of 16 bits per channel, which the imaging library cannot write in colour."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    extra = b"" if key is None else chunk(b"tRNS", np.array(key, ">u2").tobytes())
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff16(values, order="<", bits=16, photometric=None, sample_format=None, packed=False):
    """[H, W] or [H, W, C] to a TIFF, byte by byte."""
    height, width = values.shape[:2]
    channels = values.shape[2] if values.ndim == 3 else 1
    data = values.astype(values.dtype.newbyteorder(order)).tobytes()
    data = zlib.compress(data) if packed else data
    tags = {256: (3, [width]), 257: (3, [height]), 258: (3, [bits] * channels), 259: (3, [8 if packed else 1])}
    tags.update({262: (3, [photometric if photometric is not None else 2 if channels > 1 else 1]), 277: (3, [channels])})
    tags.update({273: (4, [8]), 278: (3, [height]), 279: (4, [len(data)])})
    if channels == 4:
        tags[338] = (3, [2])
    if sample_format is not None:
        tags[339] = (3, [sample_format])
    entries, extra, start = b"", b"", 8 + len(data) + 2 + 12 * len(tags) + 4
    for tag, (kind, numbers) in sorted(tags.items()):
        content = b"".join(struct.pack(order + {3: "H", 4: "I"}[kind], number) for number in numbers)
        if len(content) > 4:
            field, extra = struct.pack(order + "I", start + len(extra)), extra + content
        else:
            field = content.ljust(4, b"\0")
        entries += struct.pack(order + "HHI", tag, kind, len(numbers)) + field
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + entries + b"\0" * 4 + extra


def numbers(seed, channels, high=4096, size=16):
    shape = [size, size] + ([channels] if channels > 1 else [])
    return np.random.RandomState(seed).randint(0, high, shape).astype(np.uint16)


def pnm(values):
    height, width = values.shape[:2]
    kind = b"P5" if values.ndim == 2 else b"P6"
    return kind + b"\n# made by a test\n%d %d\n4095\n" % (width, height) + values.astype(">u2").tobytes()


@pytest.mark.parametrize(
    "write, channels",
    [
        (lambda values: encoded(PIL.Image.fromarray(values)), 1),
        (lambda values: png16(values, 2), 3),
        (lambda values: tiff16(values, "<"), 3),
        (lambda values: tiff16(values, ">"), 3),
        (lambda values: tiff16(values, "<"), 1),
        (lambda values: tiff16(values, ">"), 1),
        (lambda values: tiff16(values, packed=True), 3),
        (lambda values: tiff16(values, ">", packed=True), 3),
        (lambda values: tiff16(65535 - values, photometric=0), 1),
        (lambda values: tiff16(values.astype(np.int32), bits=32, sample_format=2), 1),
        (pnm, 3),
        (pnm, 1),
    ],
    ids=(
        "png, png rgb, tiff rgb, tiff rgb big-endian, tiff, tiff big-endian, packed tiff rgb, packed tiff rgb big-endian, "
        "tiff white is zero, tiff int32, ppm, pgm"
    ).split(", "),
)
def test_every_bit_is_read(write, channels):
    values = numbers(1, channels)
    result, found = picture.decode(write(values))
    assert isinstance(result, deep.DeepPicture) and np.array_equal(result.values, values)
    assert [kind for kind, _ in found] == ["16-bit"]
    assert np.array_equal(result.to_8_bit((0, 4095)), np.rint(values / 4095 * 255))


def test_unsigned_numbers_beyond_31_bits_stay_positive():
    values = np.array([[0, 2**31, 2**32 - 1, 5]], np.uint32)
    assert picture.decode(tiff16(values, bits=32))[0].values.tolist() == values.tolist()


@pytest.mark.parametrize("write, channels", [(lambda v: png16(v, 4), 2), (lambda v: png16(v, 6), 4), (tiff16, 4)], ids=["grey", "rgb", "tiff"])
def test_transparency_of_deep_pictures_shows_white(write, channels):
    values = numbers(2, channels)
    values[..., -1] = 65535
    values[0, 0, -1] = 0
    values[0, 1, -1] = 32768
    result, found = picture.decode(write(values))
    assert {kind for kind, _ in found} == {"16-bit", "alpha"}
    shown = result.to_8_bit((0, 4095))
    expected = np.rint(values[..., :-1] / 4095 * 255).squeeze()
    assert np.array_equal(shown[1:], expected[1:]) and (shown[0, 0] == 255).all()
    assert np.abs(shown[0, 1] - (expected[0, 1] / 2 + 127.5)).max() <= 1
    hidden = deep.DeepPicture(np.array([[9, 5000]]), np.array([[1.0, 0.0]]), "16-bit")
    assert hidden.span() == (9, 9)  # what does not show tells nothing of the range


def test_a_transparent_colour_of_16_bits():
    values = numbers(3, 3)
    result, found = picture.decode(png16(values, 2, key=values[2, 3]))
    assert ("alpha" in [kind for kind, _ in found]) and (result.to_8_bit((0, 4095))[2, 3] == 255).all() and result.alpha.sum() == 255


def test_deep_pictures_are_turned_upright():
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    values = numbers(4, 1)
    result, found = picture.decode(encoded(PIL.Image.fromarray(values), exif=exif.tobytes()))
    assert np.array_equal(result.values, np.rot90(values, -1)) and {kind for kind, _ in found} == {"16-bit", "exif"}


@pytest.mark.parametrize(
    "low, high, kind, expected",
    [
        (0, 255, "16-bit", (0, 255)),
        (3, 4010, "16-bit", (0, 4095)),
        (0, 65535, "16-bit", (0, 65535)),
        (0, 300, "16-bit", (0, 511)),
        (0, 100, "16-bit", (0, 100)),
        (29000, 31000, "16-bit", (29000, 31000)),  # a thermal camera: all of it would be one grey
        (-1024, 3071, "16-bit", (-1024, 3071)),
        (0.02, 0.98, "float", (0, 1)),
        (0, 0.04, "float", (0, 0.04)),
        (0, 250.5, "float", (0, 255)),
        (-1, 1, "float", (-1, 1)),
        (0, 1e6, "float", (0, 1e6)),
        (7, 7, "16-bit", (0, 255)),
        (-7, -7, "16-bit", (-7, -6)),
    ],
)
def test_the_range_that_fits_a_set(low, high, kind, expected):
    assert deep.fitting_range(low, high, kind) == expected


def convert(tmp_path, files, fix=True, **options):
    source = sources.open_source(write_folder(tmp_path / "in", files))
    report = image_check.convert(source, transforms.make_transform(None, None, None, "lanczos"), str(tmp_path / "out.zip"), fix, **options)
    return report, [image for image, _ in ImageFolderDataset(str(tmp_path / "out.zip"))] if report.is_sound(fix) else None


def test_one_scale_for_the_whole_set(tmp_path):
    """The darker half of a set stays darker, whichever comes first."""
    values = [numbers(seed, 1, high) for seed, high in [(1, 900), (2, 4096), (3, 1500)]]
    report, images = convert(tmp_path, {f"{i}.png": encoded(PIL.Image.fromarray(v)) for i, v in enumerate(values)})
    assert report.ranges.scales == {"16-bit": (0, 4095)} and report.num_kept == 3
    for image, value in zip(images, values):
        assert np.array_equal(image[0], np.rint(value / 4095 * 255))


def test_whole_numbers_and_fractions_have_scales_of_their_own(tmp_path):
    whole, fractions = numbers(1, 1), np.random.RandomState(2).rand(16, 16).astype(np.float32)
    files = {"a.png": encoded(PIL.Image.fromarray(whole)), "b.tiff": encoded(PIL.Image.fromarray(fractions), "TIFF"), "c.png": png(3, channels=1)}
    report, images = convert(tmp_path, files)
    assert report.ranges.scales == {"16-bit": (0, 4095), "float": (0, 1)}
    assert np.array_equal(images[0][0], np.rint(whole / 4095 * 255)) and np.array_equal(images[1][0], np.rint(fractions.astype(float) * 255))
    assert np.array_equal(images[2][0], pixels(3, channels=1))


def test_a_stated_range_is_taken_and_needs_no_fix(tmp_path):
    values = numbers(5, 1)
    report, images = convert(tmp_path, {"a.png": encoded(PIL.Image.fromarray(values))}, fix=False, ranges=deep.stated((1000, 3000)))
    assert report.faults == [] and report.ranges.seen["16-bit"].clipped == 1
    assert np.array_equal(images[0][0], np.rint(((values - 1000.0) / 2000).clip(0, 1) * 255))


def test_without_fix_or_range_deep_pictures_are_faults(tmp_path):
    report, images = convert(tmp_path, {"a.png": encoded(PIL.Image.fromarray(numbers(5, 1)))}, fix=False)
    assert images is None and [fault.kind for fault in report.serious(False)] == ["16-bit"] and report.ranges.seen["16-bit"].high > 4000


def test_both_wrong_guesses_at_once_are_mended_in_one_more_pass(tmp_path):
    """The first picture is grey in a colour set, and the range is not known: the first pass finds both."""
    values = numbers(6, 3)
    report, images = convert(tmp_path, {"a.png": png(1, channels=1), "b.png": png(2), "c.png": png16(values, 2)})
    assert report.channels == 3 and np.array_equal(images[2], np.rint(values / 4095 * 255).transpose(2, 0, 1))
    assert np.array_equal(images[0], np.repeat(pixels(1, channels=1)[None], 3, 0))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_deep_pictures_are_one_bad_file():
    for data in (png16(numbers(1, 3), 2)[:-40], tiff16(numbers(1, 3))[:300], pnm(numbers(1, 3))[:200]):
        result, faults = image_check.examine(SourceImage("x", data=data))
        assert result is None and [fault.kind in ("truncated", "unreadable") for fault in faults] == [True]
