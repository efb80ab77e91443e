"""Judging a whole source: what is wrong with each picture, and the one pass that converts them while listing it all.

Must not know the command line; sources gives the pictures, picture.py decodes them, writer takes them.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import PIL.Image

from training.data import deep, picture
from training.data.faults import FAULT_KINDS, Fault, FaultKind, described  # noqa: F401 (asked for here, too)
from training.data.sources import Source, SourceImage
from training.data.transforms import Transform
from training.data.writer import DatasetWriter, open_writer


def examine(image: SourceImage) -> tuple["np.ndarray | deep.DeepPicture | None", list[Fault]]:
    """The picture as upright 8-bit grey [H, W] or RGB [H, W, 3], mended where needed, and what was wrong with it.

    A DeepPicture where it has more than 8 bits per channel; None when it cannot be decoded.
    """
    if image.pixels is not None:
        return image.pixels, []
    if image.data is None:
        return None, [Fault(image.name, "unreadable", image.read_fault)]
    try:
        pixels, found = picture.decode(image.data)
    except picture.Unusable as error:
        return None, [Fault(image.name, *error.args)]
    return pixels, [Fault(image.name, kind, detail) for kind, detail in found]


# ---------------------------------------------------------------------------------------------------------------------
# The pass over all pictures.

ALL_IMAGES = "(all images)"  # stands for a file's name in what is wrong with the set as a whole


@dataclass
class Report:
    """What a pass found."""

    faults: list[Fault] = field(default_factory=list)
    num_seen: int = 0
    num_kept: int = 0
    size: tuple[int, int] | None = None  # (width, height) of most images
    side: int = 0  # the power of two that fits most images, to propose
    channels: int = 0  # 1 or 3, of most images
    labels: list[Any] = field(default_factory=list)
    ranges: deep.Ranges = field(default_factory=deep.Ranges)  # what the pictures with more than 8 bits hold, and their scale

    def is_sound(self, fix: bool) -> bool:
        """Whether the set can be written."""
        return self.num_kept > 0 and not self.serious(fix)

    def serious(self, fix: bool) -> list[Fault]:
        """The faults that keep the set from being written."""
        return [fault for fault in self.faults if fault.is_serious(fix)]


class ConversionPass:
    """One pass over a source: check everything, and write what is good as long as the whole set can be written.

    Most kinds of faults show in a single picture. Size and grey or colour are judged against the majority, known at the
    end; until then `channels` (default: as the first picture) is what is written. Pictures with more than 8 bits need the range
    of the whole set: without `ranges` the pass only looks.
    """

    def __init__(
        self,
        source: Source,
        transform: Transform,
        fix: bool,
        writer: DatasetWriter | None = None,
        channels: int | None = None,
        ranges: deep.Ranges | None = None,
    ):
        self.source, self.transform, self.fix, self.writer, self.channels = source, transform, fix, writer, channels
        self.report = Report() if ranges is None else Report(ranges=deep.Ranges(ranges.scales, ranges.is_stated))
        self.lacks_ranges = False
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
        is_stated = self.report.ranges.is_stated  # then more than 8 bits are what the person expects
        self._note(fault for fault in faults if not (is_stated and fault.kind in deep.KINDS))
        if pixels is None:
            return
        if image.pixels is None and self._is_duplicate(image.name, pixels) and self.fix:
            return
        if isinstance(pixels, deep.DeepPicture):
            pixels = self._to_8_bit(pixels)
        transformed = self.transform(pixels)
        if transformed is None:
            self._note([Fault(image.name, "too-small", f"{pixels.shape[1]}x{pixels.shape[0]}")])
        else:
            self._keep(image, transformed)

    def _to_8_bit(self, pixels: deep.DeepPicture) -> np.ndarray:
        scale = self.report.ranges.scale_of(pixels)
        if scale is None:
            self.lacks_ranges, self._can_write = True, False
            scale = deep.fitting_range(*(pixels.span() or (0, 0)), pixels.kind)  # to go on looking with something
        return pixels.to_8_bit(scale)

    def _is_duplicate(self, name: str, pixels: "np.ndarray | deep.DeepPicture") -> bool:
        digest = hashlib.blake2b(digest_size=16)
        parts = [pixels.values, pixels.alpha] if isinstance(pixels, deep.DeepPicture) else [pixels]
        for part in parts:
            if part is not None:
                digest.update(f"{part.shape}{part.dtype}".encode())
                digest.update(np.ascontiguousarray(part))
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
        sides = sorted(min(size) for size, names in self._names_by_size.items() for _ in names)
        self.report.side = 1 << max(sides[len(sides) // 2].bit_length() - 1, 2)
        if 2 * len(self._names_by_size[self.report.size]) <= len(sides):
            self._note_mixture(len(sides))
            return
        for (width, height), names in self._names_by_size.items():
            if (width, height) != self.report.size and width == height:
                usual = "x".join(map(str, self.report.size))
                self._note(Fault(name, "size", f"{width}x{height}, most are {usual}") for name in names)
        width, height = self.report.size
        if width == height and width & (width - 1):
            self._note([Fault(ALL_IMAGES, "resolution", f"{width}x{height}")])

    def _note_mixture(self, num_images: int) -> None:
        """One fault of the set where no size is the rule; it stands for those of the single pictures' shapes, too."""
        sizes = sorted(self._names_by_size, key=lambda size: (size[0] * size[1], size))
        smallest, largest = ("x".join(map(str, size)) for size in (sizes[0], sizes[-1]))
        self.report.faults = [fault for fault in self.report.faults if fault.kind != "non-square"]
        self._note([Fault(ALL_IMAGES, "sizes", f"{len(sizes)} sizes in {num_images} images, {smallest} to {largest}")])

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
    source: Source,
    transform: Transform,
    dest: str,
    fix: bool,
    progress: Callable = lambda images: images,
    channels: int | None = None,
    ranges: deep.Ranges | None = None,
) -> Report:
    """Write the source to `dest`, if `report.is_sound(fix)`; otherwise `dest` stays as it was.

    ranges: the scale of pictures with more than 8 bits; by default the one that fits all of them.
    """
    try:
        with open_writer(dest) as writer:
            one_pass = ConversionPass(source, transform, fix, writer, channels, ranges)
            report = one_pass.run(progress)
            if not report.is_sound(fix) or one_pass.channels != report.channels or one_pass.lacks_ranges:
                raise _Abandon
            writer.class_names, writer.provenance = source.class_names, source.provenance
    except _Abandon:
        if report.is_sound(fix):
            # Mended the wrong way round, because the first picture was of the minority's kind, or the range of the set was not
            # known yet. Once more.
            known = report.ranges.from_what_was_seen() if one_pass.lacks_ranges else ranges
            return convert(source, transform, dest, fix, progress, report.channels, known)
    return report


def _with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    if channels == 3 and pixels.ndim == 2:
        return np.repeat(pixels[:, :, np.newaxis], 3, axis=2)
    if channels == 1 and pixels.ndim == 3:
        return np.asarray(PIL.Image.fromarray(pixels).convert("L"))
    return pixels
