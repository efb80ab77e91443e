"""Bringing pictures to one size: the crops, pads and scalings that dataset_tool.py offers.

Pure functions of pixels. Must not know files, labels or data sets.
"""

from collections.abc import Callable

import numpy as np
import PIL.Image

from dnnlib.errors import UserError

TRANSFORMS = ["center-crop", "center-crop-wide", "center-crop-tall", "center-band", "pad", "stretch"]
_ON_A_SQUARE = ("center-crop-wide", "center-crop-tall", "center-band")
RESIZE_FILTERS = {"box": PIL.Image.Resampling.BOX, "lanczos": PIL.Image.Resampling.LANCZOS}

Transform = Callable[[np.ndarray], np.ndarray | None]


def output_size(name: str | None, width: int | None, height: int | None) -> tuple[int, int] | None:
    """(width, height) of the images that the options lead to; None when it depends on the pictures.

    Refuses contradictory options, before any picture is read.
    """
    for flag, value in [("--width", width), ("--height", height)]:
        if value is not None and value < 1:
            raise UserError(f"{flag} must be at least 1 (got {value}).")
    if name is None:
        size = None if width is None or height is None else (width, height)
    else:
        if width is None or height is None:
            raise UserError(f"--transform={name} needs both --width and --height, for example --width=256 --height=256.")
        if name == "center-crop-wide" and width < height:
            raise UserError(f"--transform=center-crop-wide needs --width >= --height (got {width}x{height}); use center-band for upright pictures.")
        if name == "center-crop-tall" and height < width:
            raise UserError(f"--transform=center-crop-tall needs --height >= --width (got {width}x{height}); use center-band for lying pictures.")
        side = max(width, height)
        size = (side, side) if name in _ON_A_SQUARE else (width, height)
    if size is not None:
        check_output_size(*size)
    return size


def check_both_sides(width: int | None, height: int | None) -> None:
    """Refuses half a size, with which the other side would stay as it is in each picture."""
    if (width is None) != (height is None):
        missing, side = ("--height", width) if height is None else ("--width", height)
        raise UserError(f"{missing} is missing: give {missing}={side}.")


def check_output_size(width: int, height: int) -> None:
    """The networks take squares whose side is a power of two."""
    if width != height:
        raise UserError(
            f"The images would be {width}x{height} pixels, but the networks need squares: make --width and "
            f"--height equal, or use --transform=center-band, which fills up with black."
        )
    if width & (width - 1):
        below = 1 << (width.bit_length() - 1)
        raise UserError(
            f"The images would be {width}x{height} pixels, but the networks need a power of two: use "
            f"--width={below} --height={below} (or {2 * below})."
        )


def make_transform(name: str | None, width: int | None, height: int | None, resize_filter: str) -> Transform:
    """A function from uint8 [H, W(, 3)] to the same of the wanted size; it returns None for a picture to leave out."""
    resample = RESIZE_FILTERS[resize_filter]
    output_size(name, width, height)
    if name is None or name == "stretch":
        return lambda pixels: _resize(pixels, width or pixels.shape[1], height or pixels.shape[0], resample)
    if name == "center-crop":
        return lambda pixels: _resize(_centre_window(pixels, *[min(pixels.shape[:2])] * 2), width, height, resample)
    if name == "pad":
        return lambda pixels: _fit_and_pad(pixels, width, height, resample)
    if name == "center-crop-wide":
        return lambda pixels: _crop_wide(pixels, width, height, resample)
    if width >= height:
        return lambda pixels: _crop_to_band(pixels, width, height, resample)
    return lambda pixels: _swap_axes(_crop_to_band(_swap_axes(pixels), height, width, resample))


def _resize(pixels: np.ndarray, width: int, height: int, resample) -> np.ndarray:
    if pixels.shape[:2] == (height, width):
        return pixels
    return np.asarray(PIL.Image.fromarray(pixels).resize((width, height), resample))


def _centre_window(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return np.ascontiguousarray(pixels[top : top + height, left : left + width])


def _on_black(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    canvas = np.zeros([height, width, *pixels.shape[2:]], dtype=np.uint8)
    top, left = (height - pixels.shape[0]) // 2, (width - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _fit_and_pad(pixels: np.ndarray, width: int, height: int, resample) -> np.ndarray:
    scale = min(width / pixels.shape[1], height / pixels.shape[0])
    fitted = _resize(pixels, max(round(pixels.shape[1] * scale), 1), max(round(pixels.shape[0] * scale), 1), resample)
    return _on_black(fitted, width, height)


def _crop_wide(pixels: np.ndarray, width: int, height: int, resample) -> np.ndarray | None:
    """The middle round(width * h / w) of the h rows, at the full width w, scaled to width x height, on a black square.

    These are the pixels that StyleGAN2-ADA's data sets have under this name; what is not of its aspect is distorted. None for
    pictures narrower than `width` or with fewer such rows than `height`.
    """
    rows = round(width * pixels.shape[0] / pixels.shape[1])
    if pixels.shape[1] < width or rows < height:
        return None
    return _on_black(_resize(_centre_window(pixels, pixels.shape[1], rows), width, height, resample), width, width)


def _crop_to_band(pixels: np.ndarray, width: int, height: int, resample) -> np.ndarray | None:
    """The full-width band of aspect width:height from the middle, scaled to width x height, on a black square.

    None for pictures that are narrower than `width` (they would be enlarged) or too flat to fill the band.
    """
    band = round(pixels.shape[1] * height / width)
    if pixels.shape[1] < width or pixels.shape[0] < band:
        return None
    return _on_black(_resize(_centre_window(pixels, pixels.shape[1], band), width, height, resample), width, width)


def _swap_axes(pixels: np.ndarray | None) -> np.ndarray | None:
    return None if pixels is None else np.ascontiguousarray(pixels.swapaxes(0, 1))
