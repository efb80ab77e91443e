"""Judging pictures: what is wrong with each, what can be mended, and the one pass that converts a source while listing it all.

Must not know the command line; sources gives the pictures, writer takes them.
"""

import hashlib
import io
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageOps

from training.data.sources import Source, SourceImage
from training.data.transforms import Transform
from training.data.writer import DatasetWriter, open_writer

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
_DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, PIL.Image.DecompressionBombError)


# ---------------------------------------------------------------------------------------------------------------------
# Kinds of faults.


@dataclass(frozen=True)
class FaultKind:
    """title: for the list. mend: what --fix does about it ('' = it cannot). remedy: what the person can do otherwise.

    A fault that is only `noted` does not keep the set from being written.
    """

    title: str
    mend: str = ""
    remedy: str = ""
    noted: bool = False


FAULT_KINDS: dict[str, FaultKind] = {
    "empty": FaultKind("empty file", mend="dropped"),
    "truncated": FaultKind("truncated file", mend="dropped"),
    "unreadable": FaultKind("unreadable image", mend="dropped"),
    "alpha": FaultKind("has transparency", mend="laid over white"),
    "16-bit": FaultKind("16 bits per channel", mend="scaled to 8 bits"),
    "cmyk": FaultKind("CMYK colours", mend="converted to RGB"),
    "palette": FaultKind("palette colours", mend="converted to RGB"),
    "mode": FaultKind("unusual colour mode", mend="converted"),
    "exif": FaultKind("rotated by its EXIF tag", mend="rotated"),
    "grey": FaultKind("grey in a colour set", mend="converted to RGB"),
    "colour": FaultKind("colour in a grey set", mend="converted to grey"),
    "non-square": FaultKind("not square", remedy="choose a --transform (center-crop, pad, stretch, ...) with --width and --height"),
    "size": FaultKind("size differs from the others", remedy="give --width and --height (and perhaps a --transform)"),
    "resolution": FaultKind("not a power of two", remedy="give --width and --height"),
    "unlabelled": FaultKind("has no label, while others do", remedy="add the labels, remove these images, or say --labels=none"),
    "duplicate": FaultKind("same picture as another", mend="dropped", noted=True),
    "too-small": FaultKind("too small or too flat for the crop", noted=True),
    "hidden": FaultKind("hidden file, skipped", noted=True),
    "not-an-image": FaultKind("not an image by its name, skipped", noted=True),
    "label-without-image": FaultKind("labelled, but there is no such image", noted=True),
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file."""

    name: str
    kind: str
    detail: str = ""

    def is_serious(self, fix: bool) -> bool:
        """Whether it keeps the set from being written."""
        kind = FAULT_KINDS[self.kind]
        return not kind.noted and not (fix and kind.mend)

    def text(self) -> str:
        return f"{self.name}: {FAULT_KINDS[self.kind].title}" + (f" ({self.detail})" if self.detail else "")


# ---------------------------------------------------------------------------------------------------------------------
# One picture.


class _Unusable(Exception):
    """This picture cannot be decoded: (kind, detail)."""


def examine(image: SourceImage) -> tuple[np.ndarray | None, list[Fault]]:
    """The picture as upright 8-bit grey [H, W] or RGB [H, W, 3], mended where needed, and what was wrong with it.

    None in place of the pixels when it cannot be decoded.
    """
    if image.pixels is not None:
        return image.pixels, []
    if image.data is None:
        return None, [Fault(image.name, "unreadable", image.read_fault)]
    faults: list[Fault] = []
    try:
        pixels = _decode(image.data, lambda kind, detail="": faults.append(Fault(image.name, kind, detail)))
    except _Unusable as error:
        return None, [Fault(image.name, *error.args)]
    return pixels, faults


def _decode(data: bytes, note: Callable) -> np.ndarray:
    if not data:
        raise _Unusable("empty", "")
    if data.startswith(_PNG_SIGNATURE):
        _check_png_chunks(data)
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            image.load()
            orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
            if orientation in range(2, 9):
                note("exif", f"orientation {orientation}")
                image = PIL.ImageOps.exif_transpose(image)
            return np.asarray(_to_grey_or_rgb(image, data, note))
    except _DECODING_ERRORS as error:
        text = str(error) or type(error).__name__
        raise _Unusable("truncated" if "truncated" in text.lower() else "unreadable", text) from error


def _check_png_chunks(data: bytes) -> None:
    """Walk a PNG's chunks: the decoder itself does not notice wrong checksums of pixels or a missing end."""
    position = 8
    while position + 12 <= len(data):
        length = int.from_bytes(data[position : position + 4], "big")
        end = position + 12 + length
        if end > len(data):
            break
        kind = data[position + 4 : position + 8]
        if zlib.crc32(data[position + 4 : end - 4]) != int.from_bytes(data[end - 4 : end], "big"):
            raise _Unusable("unreadable", f"wrong checksum in chunk {kind.decode('latin1')}")
        if kind == b"IEND":
            return
        position = end
    raise _Unusable("truncated", f"the file ends after {len(data)} bytes")


def _to_grey_or_rgb(image: PIL.Image.Image, data: bytes, note: Callable) -> PIL.Image.Image:
    mode = image.mode
    if data.startswith(_PNG_SIGNATURE):
        if data[24] == 16:  # the header's bit depth; the decoder hides it for RGB
            note("16-bit", f"PNG, mode {mode}")
    elif mode.startswith("I"):
        note("16-bit", f"mode {mode}")
    if mode in ("L", "RGB"):
        return image
    if mode.startswith("I"):
        values = np.clip(np.asarray(image).astype(np.float64), 0, 65535)
        return PIL.Image.fromarray(np.rint(values / 257).astype(np.uint8))
    if mode in ("RGBA", "LA", "PA", "RGBa", "La") or (mode == "P" and "transparency" in image.info):
        note("alpha", f"mode {mode}")
        return _over_white(image, "L" if mode in ("LA", "La") else "RGB")
    if mode == "P":
        note("palette")
        return image.convert("RGB")
    if mode == "CMYK":
        note("cmyk")
        return image.convert("RGB")
    if mode == "F":
        raise _Unusable("unreadable", "floating-point pixels have no stated range")
    note("mode", f"mode {mode}")
    return image.convert("L" if mode == "1" else "RGB")


def _over_white(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    image = image.convert("RGBA")
    canvas = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(canvas, image).convert("RGB").convert(mode)


# ---------------------------------------------------------------------------------------------------------------------
# The pass over all pictures.


@dataclass
class Report:
    """What a pass found."""

    faults: list[Fault] = field(default_factory=list)
    num_seen: int = 0
    num_kept: int = 0
    size: tuple[int, int] | None = None  # (width, height) of most images
    channels: int = 0  # 1 or 3, of most images
    labels: list[Any] = field(default_factory=list)

    def is_sound(self, fix: bool) -> bool:
        """Whether the set can be written."""
        return self.num_kept > 0 and not self.serious(fix)

    def serious(self, fix: bool) -> list[Fault]:
        """The faults that keep the set from being written."""
        return [fault for fault in self.faults if fault.is_serious(fix)]


class ConversionPass:
    """One pass over a source: check everything, and write what is good as long as the whole set can be written.

    Most kinds of faults show in a single picture. Size and grey or colour are judged against the majority, known at the
    end; until then `channels` (default: as the first picture) is what is written.
    """

    def __init__(self, source: Source, transform: Transform, fix: bool, writer: DatasetWriter | None = None, channels: int | None = None):
        self.source, self.transform, self.fix, self.writer, self.channels = source, transform, fix, writer, channels
        self.report = Report()
        self._names_by_size: dict[tuple[int, int], list[str]] = defaultdict(list)
        self._names_by_channels: dict[int, list[str]] = defaultdict(list)
        self._first_with_pixels: dict[bytes, str] = {}
        self._can_write = writer is not None

    def run(self, progress: Callable = lambda images: images) -> Report:
        """Go through all pictures. `progress` wraps the iteration (a tqdm bar)."""
        self._note(Fault(name, kind) for name, kind in self.source.notes)
        for image in progress(self.source):
            self._take(image)
        self._judge_sizes()
        self._judge_channels()
        self.report.faults.sort(key=lambda fault: (fault.name, fault.kind))
        return self.report

    def _note(self, faults: Iterable[Fault]) -> None:
        for fault in faults:
            self.report.faults.append(fault)
            self._can_write = self._can_write and not fault.is_serious(self.fix)

    def _take(self, image: SourceImage) -> None:
        self.report.num_seen += 1
        pixels, faults = examine(image)
        self._note(faults)
        if pixels is None:
            return
        if image.pixels is None and self._is_duplicate(image.name, pixels) and self.fix:
            return
        transformed = self.transform(pixels)
        if transformed is None:
            self._note([Fault(image.name, "too-small", f"{pixels.shape[1]}x{pixels.shape[0]}")])
        else:
            self._keep(image, transformed)

    def _is_duplicate(self, name: str, pixels: np.ndarray) -> bool:
        digest = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
        digest.update(np.ascontiguousarray(pixels))
        first = self._first_with_pixels.setdefault(digest.digest(), name)
        if first != name:
            self._note([Fault(name, "duplicate", f"first seen as {first}")])
        return first != name

    def _keep(self, image: SourceImage, pixels: np.ndarray) -> None:
        height, width = pixels.shape[:2]
        channels = 1 if pixels.ndim == 2 else 3
        self.channels = self.channels or channels
        if self.source.has_labels and image.label is None:
            self._note([Fault(image.name, "unlabelled")])
        if width != height:
            self._note([Fault(image.name, "non-square", f"{width}x{height}")])
        self._names_by_size[width, height].append(image.name)
        self._names_by_channels[channels].append(image.name)
        self.report.labels.append(image.label)
        self.report.num_kept += 1
        one_kind = len(self._names_by_size) == 1 and (channels == self.channels or self.fix)
        self._can_write = self._can_write and one_kind
        if self._can_write:
            self.writer.add(_with_channels(pixels, self.channels), image.label)

    def _judge_sizes(self) -> None:
        if not self._names_by_size:
            return
        self.report.size = max(self._names_by_size, key=lambda size: len(self._names_by_size[size]))
        for (width, height), names in self._names_by_size.items():
            if (width, height) != self.report.size and width == height:
                usual = "x".join(map(str, self.report.size))
                self._note(Fault(name, "size", f"{width}x{height}, most are {usual}") for name in names)
        width, height = self.report.size
        if width == height and width & (width - 1):
            self._note([Fault("(all images)", "resolution", f"{width}x{height}")])

    def _judge_channels(self) -> None:
        if not self._names_by_channels:
            return
        grey, colour = (self._names_by_channels.get(channels, []) for channels in (1, 3))
        self.report.channels = 1 if len(grey) > len(colour) else 3
        minority, kind = (colour, "colour") if self.report.channels == 1 else (grey, "grey")
        self._note(Fault(name, kind) for name in minority)


class _Abandon(Exception):
    """Leave the writer's block without a data set."""


def convert(
    source: Source, transform: Transform, dest: str, fix: bool, progress: Callable = lambda images: images, channels: int | None = None
) -> Report:
    """Write the source to `dest`, if `report.is_sound(fix)`; otherwise `dest` stays as it was."""
    try:
        with open_writer(dest) as writer:
            one_pass = ConversionPass(source, transform, fix, writer, channels)
            report = one_pass.run(progress)
            if not report.is_sound(fix) or one_pass.channels != report.channels:
                raise _Abandon
            writer.class_names = source.class_names
    except _Abandon:
        if report.is_sound(fix):
            # The first picture was of the minority's kind, so the images were mended the wrong way round. Once more.
            return convert(source, transform, dest, fix, progress, channels=report.channels)
    return report


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3 and pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    if channels == 1 and pixels.ndim == 3:
        return np.asarray(PIL.Image.fromarray(pixels).convert("L"))
    return pixels
