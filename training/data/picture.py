"""One picture file: what is unusual about it, and its pixels, upright and without transparency. The one rule of all tools.

Training refuses what is unusual; dataset_tool.py mends it. Must not know of sets, labels or transforms.
"""

import io
import zlib
from collections.abc import Iterator

import numpy as np
import PIL.Image

from training.data import deep

Finding = tuple[str, str]  # kind of fault (a key of faults.FAULT_KINDS), detail

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_EXIF_ORIENTATION = 0x0112
_DECODING_ERRORS = (OSError, ValueError, SyntaxError, EOFError, IndexError, OverflowError, PIL.Image.DecompressionBombError)
_WITH_ALPHA = ("RGBA", "LA", "PA", "RGBa", "La")
# What may lie between a PNG's header and its pixels and changes what the picture shows.
_TELLING_PNG_CHUNKS = (b"tRNS", b"acTL", b"eXIf")
_TELLING_PNG_TEXTS = (b"Raw profile type", b"XML:com.adobe.xmp")


class Unusable(Exception):
    """This picture cannot be decoded: (kind of fault, detail)."""


def decode(data: bytes) -> tuple["np.ndarray | deep.DeepPicture", list[Finding]]:
    """The picture as upright uint8 [H, W] or [H, W, 3], transparency laid over white, and what had to be mended for that.

    With more than 8 bits per channel it is a DeepPicture: what range becomes black to white is a question of the whole set.
    """
    if not data:
        raise Unusable("empty", "")
    if data.startswith(_PNG_SIGNATURE):
        _check_png_chunks(data)
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            found = findings(image, data)
            _scale_transparent_grey(image, data)
            orientation = _orientation(image)
            kind = deep.kind_of(image, data)
            if kind is not None:
                return deep.read(image, data, kind).mapped(lambda pixels: upright(pixels, orientation)), found
            return np.ascontiguousarray(upright(np.asarray(_to_grey_or_rgb(image)), orientation)), found
    except deep.NotReadable as error:
        raise Unusable(*error.args) from error
    except _DECODING_ERRORS as error:
        text = "no picture by its content" if isinstance(error, PIL.UnidentifiedImageError) else str(error) or type(error).__name__
        raise Unusable("truncated" if "truncated" in text.lower() else "unreadable", text) from error


def findings(image: PIL.Image.Image, data: bytes) -> list[Finding]:
    """What is unusual about an opened picture; loads its pixels. Empty for what training takes as it is: upright 8-bit grey or RGB."""
    found = list(_findings_before_loading(image, data))
    image.load()
    orientation = _orientation(image)
    if orientation != 1:
        found.append(("exif", f"orientation {orientation}"))
    return found


def _findings_before_loading(image: PIL.Image.Image, data: bytes) -> Iterator[Finding]:
    # A camera's MPO file holds the photograph and then previews or depth; it is a JPEG to everybody else.
    frames = getattr(image, "n_frames", 1) if image.format != "MPO" else 1
    if frames > 1:
        yield "frames", f"{frames} in {image.format}"
    mode, kind = image.mode, deep.kind_of(image, data)
    if kind is not None:
        yield kind, f"{image.format}, mode {mode}"
    if mode in _WITH_ALPHA or "transparency" in image.info:
        yield "alpha", f"colour mode {mode}"
    elif mode == "P":
        yield "palette", "colour mode P"
    elif mode == "CMYK":
        yield "cmyk", "colour mode CMYK"
    elif mode not in ("L", "RGB") and kind is None:
        yield "mode", f"colour mode {mode}"


def _orientation(image: PIL.Image.Image) -> int:
    """1 to 8 by EXIF; 1 is upright. Asked after loading: in a PNG the tag may follow the pixels."""
    if image.format == "PNG" and not any(key in image.info for key in ("exif", "Raw profile type exif", "XML:com.adobe.xmp", "xmp")):
        return 1  # reading an empty tag costs as much as decoding a small picture
    orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    return orientation if orientation in range(1, 9) else 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """[H, W, ...] turned and mirrored as the EXIF orientation asks."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels


def _scale_transparent_grey(image: PIL.Image.Image, data: bytes) -> None:
    """In a grey PNG of 2 or 4 bits the library scales the pixels to 8 bits, and not the grey that is transparent: it would be found nowhere."""
    bits, key = data[24] if image.format == "PNG" else 8, image.info.get("transparency")
    if image.mode == "L" and bits in (2, 4) and isinstance(key, int) and key < 2**bits:
        image.info["transparency"] = key * (255 // (2**bits - 1))


def _to_grey_or_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
    mode = image.mode
    if mode in _WITH_ALPHA or "transparency" in image.info:
        return over_white(image, "L" if mode in ("LA", "La", "L", "1") else "RGB")
    if mode in ("L", "RGB"):
        return image
    return image.convert("L" if mode == "1" else "RGB")


def over_white(image: PIL.Image.Image, mode: str) -> PIL.Image.Image:
    """The picture in `mode`, what is transparent showing white: the one background of all tools."""
    image = image.convert("RGBA")
    canvas = PIL.Image.new("RGBA", image.size, (255, 255, 255, 255))
    return PIL.Image.alpha_composite(canvas, image).convert("RGB").convert(mode)


# ---------------------------------------------------------------------------------------------------------------------
# PNG.


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
            raise Unusable("unreadable", f"wrong checksum in chunk {kind.decode('latin1')}")
        if kind == b"IEND":
            return
        position = end
    raise Unusable("truncated", f"the file ends after {len(data)} bytes")


def plain_png_shape(head: bytes) -> list[int] | None:
    """[channel, height, width] of an 8-bit grey or RGB PNG by its first bytes; None where they do not show that it is such a one."""
    if head[:8] != _PNG_SIGNATURE or head[12:16] != b"IHDR" or len(head) < 33:
        return None
    width, height = (int.from_bytes(head[start : start + 4], "big") for start in (16, 20))
    channels = {(8, 0): 1, (8, 2): 3}.get((head[24], head[25]))  # by bit depth and colour type
    position = 33
    while channels is not None and position + 8 <= len(head):
        length, kind = int.from_bytes(head[position : position + 4], "big"), head[position + 4 : position + 8]
        if kind == b"IDAT":
            return [channels, height, width]
        if kind in _TELLING_PNG_CHUNKS or head.startswith(_TELLING_PNG_TEXTS, position + 8):
            return None
        position += 12 + length
    return None
