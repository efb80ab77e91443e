"""Pictures with more than 8 bits per channel: reading them in full, and the one range of a set that becomes black to white.

The imaging library hands out the upper 8 bits of a colour channel; 12 bits in 16 would come out nearly black. Must not know of
files, orientation or labels.
"""

import io
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import PIL.Image

KINDS = ("16-bit", "float")  # each kind of fault has a range of its own: whole numbers and fractions have nothing in common
NAMES = {"16-bit": "more than 8 bits per channel", "float": "floating-point pixels"}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _TIFF_SAMPLE_FORMAT = 258, 262, 339
_WHITE_IS_ZERO, _UNSIGNED = 0, 1
_PNM = re.compile(rb"P([56])(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)(?:\s|#[^\n]*\n)+(\d+)\s")
_FLOAT_LIMITS = (1, 255, 65535)

Range = tuple[float, float]


class NotReadable(Exception):
    """(kind of fault, detail)"""


@dataclass(frozen=True)
class DeepPicture:
    """values: [H, W] or [H, W, 3], numbers as stored. alpha: [H, W] in 0 ... 1, or None. kind: one of KINDS."""

    values: np.ndarray
    alpha: np.ndarray | None
    kind: str

    def mapped(self, function: Callable[[np.ndarray], np.ndarray]) -> "DeepPicture":
        """The picture with its pixels moved."""
        return DeepPicture(function(self.values), None if self.alpha is None else function(self.alpha), self.kind)

    def span(self) -> Range | None:
        """The smallest and the largest value that shows; None where nothing does."""
        shown = self.values if self.alpha is None else self.values[self.alpha > 0]
        return (float(shown.min()), float(shown.max())) if shown.size else None

    def to_8_bit(self, scale: Range) -> np.ndarray:
        """uint8: scale[0] becomes 0, scale[1] becomes 255, what lies outside is clipped; transparency is laid over white."""
        low, high = scale
        pixels = ((self.values.astype(np.float64) - low) / (high - low)).clip(0, 1) * 255
        if self.alpha is not None:
            alpha = self.alpha if pixels.ndim == 2 else self.alpha[:, :, np.newaxis]
            pixels = pixels * alpha + 255 * (1 - alpha)
        return np.rint(pixels).astype(np.uint8)


# ---------------------------------------------------------------------------------------------------------------------
# Reading.


def kind_of(image: PIL.Image.Image, data: bytes) -> str | None:
    """One of KINDS for an opened picture with more than 8 bits per channel, else None."""
    if image.mode == "F":
        return "float"
    if image.mode.startswith("I"):
        return "16-bit"
    if image.format == "PNG":
        is_deep = data[24] == 16  # the header's bit depth
    elif image.format == "TIFF":
        is_deep = max(image.tag_v2.get(_TIFF_BITS, (1,))) > 8
    else:
        is_deep = image.format == "PPM" and _pnm_limit(data) > 255
    return "16-bit" if is_deep else None


def read(image: PIL.Image.Image, data: bytes, kind: str) -> DeepPicture:
    """All bits of a picture that kind_of has called deep."""
    alpha = None
    if image.format == "PPM" and _pnm_limit(data) > 255:
        values = _read_pnm(data)
    elif image.mode[0] in "IF":
        values = _read_one_channel(image)
    else:
        values = _read_channels(image, data)
        if image.mode == "RGBA":
            values, alpha = values[..., :-1], values[..., -1] / 65535
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    key = image.info.get("transparency")
    if key is not None and alpha is None:  # PNG: the colour that is transparent
        different = values != np.asarray(key)
        alpha = (different if values.ndim == 2 else different.any(axis=2)).astype(np.float64)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise NotReadable("not-finite", f"{int((~np.isfinite(values)).sum())} of {values.size} values are nan or infinite")
    return DeepPicture(values, alpha, kind)


def _read_one_channel(image: PIL.Image.Image) -> np.ndarray:
    values = np.asarray(image)
    if image.format == "TIFF":
        tags = image.tag_v2
        if values.dtype == np.int32 and max(tags.get(_TIFF_BITS, (1,))) == 32 and tags.get(_TIFF_SAMPLE_FORMAT, (_UNSIGNED,))[0] == _UNSIGNED:
            values = values.view(np.uint32)  # the library has no such mode
        if image.mode.startswith("I;16") and tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:
            values = 65535 - values.astype(np.int32)
    return values


def _read_channels(image: PIL.Image.Image, data: bytes) -> np.ndarray:
    """Both bytes of each channel: the library reads one, and reads the other when told that the byte order is the opposite."""
    if image.mode == "CMYK":
        return np.asarray(image.convert("RGB")).astype(np.uint16) * 257
    with PIL.Image.open(io.BytesIO(data)) as twin:
        if image.format == "PNG" and data[25] == 4:  # grey and alpha: two 16-bit numbers are four bytes
            twin.tile = [_with_raw_mode(tile, "RGBA") for tile in twin.tile]
            pairs = np.asarray(twin).astype(np.uint16)
            return pairs[..., 0::2] * 256 + pairs[..., 1::2]
        twin.tile = [_with_raw_mode(tile, _other_byte(_raw_mode(tile))) for tile in twin.tile]
        return np.asarray(image).astype(np.uint16) * 256 + np.asarray(twin)


def _raw_mode(tile) -> str:
    return tile[3] if isinstance(tile[3], str) else tile[3][0]


def _with_raw_mode(tile, raw_mode: str):
    arguments = raw_mode if isinstance(tile[3], str) else (raw_mode, *tile[3][1:])
    return tile._replace(args=arguments) if hasattr(tile, "_replace") else (*tile[:3], arguments)


def _other_byte(raw_mode: str) -> str:
    name, _, order = raw_mode.partition(";16")
    native = "L" if sys.byteorder == "little" else "B"
    other = {"L": "B", "B": "L"}.get(native if order == "N" else order)
    if other is None or name == "RGBa":  # colours multiplied by their opacity: a byte alone says nothing
        raise NotReadable("unreadable", f"16 bits per channel in the unusual form {raw_mode}")
    return f"{name};16{other}"


def _pnm_limit(data: bytes) -> int:
    header = _PNM.match(data)
    return 0 if header is None else int(header[4])


def _read_pnm(data: bytes) -> np.ndarray:
    header = _PNM.match(data)
    width, height, channels = int(header[2]), int(header[3]), 3 if header[1] == b"6" else 1
    count = width * height * channels
    if len(data) < header.end() + 2 * count:
        raise NotReadable("truncated", f"the file ends after {len(data)} bytes")
    return np.frombuffer(data, ">u2", count, header.end()).reshape(height, width, channels)


# ---------------------------------------------------------------------------------------------------------------------
# The range of a set.


@dataclass
class Seen:
    """What a pass has seen of one kind: how many pictures, their smallest and largest value, how many went beyond the scale."""

    count: int = 0
    low: float = float("inf")
    high: float = float("-inf")
    clipped: int = 0


@dataclass
class Ranges:
    """The scale of each kind, where it is known: stated by the person, or by an earlier pass over the whole set."""

    scales: dict[str, Range] = field(default_factory=dict)
    is_stated: bool = False
    seen: dict[str, Seen] = field(default_factory=dict)

    def scale_of(self, picture: DeepPicture) -> Range | None:
        """Take note of the picture; the scale of its kind, None as long as it isn't known."""
        seen, scale = self.seen.setdefault(picture.kind, Seen()), self.scales.get(picture.kind)
        low, high = picture.span() or (0.0, 0.0)
        seen.count, seen.low, seen.high = seen.count + 1, min(seen.low, low), max(seen.high, high)
        seen.clipped += scale is not None and not scale[0] <= low <= high <= scale[1]
        return scale

    def from_what_was_seen(self) -> "Ranges":
        """The scales for a further pass."""
        return Ranges({kind: fitting_range(seen.low, seen.high, kind) for kind, seen in self.seen.items()})


def stated(scale: Range) -> Ranges:
    """The person's own scale, for every kind."""
    return Ranges(dict.fromkeys(KINDS, scale), is_stated=True)


def fitting_range(low: float, high: float, kind: str) -> Range:
    """The smallest customary range that holds the values, if they fill at least half of it; else what they span.

    Customary are 0 ... 2^n - 1 from 8 bits on, and for fractions 0 ... 1, 255, 65535.
    """
    bits = max(int(max(high, 0)).bit_length(), 8)
    limits = _FLOAT_LIMITS if kind == "float" else (2**bits - 1,)
    limit = next((limit for limit in limits if high <= limit), None)
    if limit is not None and low >= 0 and (high - low >= limit / 2 or low == high):
        return 0.0, float(limit)
    return (low, high) if high > low else (low, low + 1)
