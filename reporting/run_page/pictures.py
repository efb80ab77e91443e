"""Sample grids made small enough for a page: the same few tiles of every grid, as JPEG data addresses.

Must not know HTML.
"""

import base64
import io
import os
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageOps

TILE_PX = 128  # tiles are made at most this large
SHEET_PX = 512  # and so many are shown as fit into this, but
MIN_TILES, MAX_TILES = 4, 12  # at least and at most so many across
STRIP_PX, STRIP_ROWS = 64, 6  # the strip over time: size and number of its tiles
QUALITIES = (90, 80, 70, 55)
UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, PIL.Image.DecompressionBombError)  # of a PNG that is damaged or being written


@dataclass
class Sheet:
    """Tiles of one grid: uint8 [rows, columns, side, side, 3]."""

    tiles: np.ndarray

    @property
    def pixels(self):
        """uint8 [rows * side, columns * side, 3]."""
        rows, columns, side = self.tiles.shape[:3]
        return self.tiles.transpose(0, 2, 1, 3, 4).reshape(rows * side, columns * side, 3)


def read_sheet(path, resolution, rows_are_classes=False):
    """Some tiles of a grid PNG made of resolution x resolution images; with resolution None the whole grid as one tile.

    The first columns; the first rows, or, when every row is a class, rows spread over all classes. Raises one of
    UNREADABLE for a damaged file.
    """
    with PIL.Image.open(path) as picture:
        picture = picture.convert("RGB")
    if resolution is None or picture.width % resolution or picture.height % resolution:
        side = max(picture.size)
        picture = PIL.ImageOps.pad(picture, (side, side)) if picture.width != picture.height else picture
        return Sheet(_resized(picture, min(side, SHEET_PX))[None, None])
    columns, rows = picture.width // resolution, picture.height // resolution
    side = min(resolution, TILE_PX)
    across = min(max(SHEET_PX // side, MIN_TILES), MAX_TILES)
    num_rows = min(rows, across)
    chosen = np.linspace(0, rows - 1, num_rows).round().astype(int) if rows_are_classes else range(num_rows)
    boxes = [
        [(column * resolution, row * resolution, (column + 1) * resolution, (row + 1) * resolution) for column in range(min(columns, across))]
        for row in chosen
    ]
    return Sheet(np.stack([np.stack([_resized(picture.crop(box), side) for box in line]) for line in boxes]))


def _resized(picture, side):
    if picture.size != (side, side):
        picture = picture.resize((side, side), PIL.Image.Resampling.LANCZOS)
    return np.asarray(picture)


def over_time(sheets):
    """One picture of how the same latents changed: a row per latent, a column per sheet. uint8 [H, W, 3]; None if there is nothing to compare."""
    sheets = [sheet for sheet in sheets if sheet.tiles.shape == sheets[-1].tiles.shape]
    if len(sheets) < 2 or sheets[-1].tiles.shape[:2] == (1, 1):
        return None
    rows, columns = sheets[-1].tiles.shape[:2]
    # Along the diagonal: with labels the rows differ in class.
    places = [(index % rows, index % columns) for index in range(min(STRIP_ROWS, max(rows, columns)))]
    side = sheets[-1].tiles.shape[2]
    lines = [np.concatenate([_resized(PIL.Image.fromarray(sheet.tiles[place]), min(side, STRIP_PX)) for sheet in sheets], axis=1) for place in places]
    enlarge = max(STRIP_PX // side, 1)
    return np.concatenate(lines, axis=0).repeat(enlarge, axis=0).repeat(enlarge, axis=1)


def jpeg_address(pixels, max_bytes):
    """uint8 [H, W, 3] -> 'data:image/jpeg;base64,...' of at most about max_bytes of JPEG: first quality, then size is given up."""
    picture = PIL.Image.fromarray(pixels)
    while True:
        for quality in QUALITIES:
            buffer = io.BytesIO()
            # Full colour resolution: digits of different colours lie one over another. No optimize: Pillow fails on noise with it.
            picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
            if buffer.tell() <= max_bytes or max(picture.size) <= 64:
                return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
        picture = picture.resize([max(round(size * 0.75), 1) for size in picture.size], PIL.Image.Resampling.LANCZOS)


def evenly(items, count):
    """At most `count` of a list, evenly spread, the first and the last among them."""
    if len(items) <= count:
        return list(items)
    return [items[index] for index in np.linspace(0, len(items) - 1, count).round().astype(int)]


def read_sheets(folder, names, resolution, rows_are_classes, problems):
    """{name: Sheet} of those that can be read; the others are told in `problems`."""
    sheets = {}
    for name in names:
        try:
            sheets[name] = read_sheet(os.path.join(folder, name), resolution, rows_are_classes)
        except UNREADABLE as error:
            problems.append(f"{name} could not be read as a picture ({type(error).__name__}); it may be being written.")
    return sheets
