"""What a data set's files hold: dataset.json, and stored pictures. The files themselves: file_sets.py.

Everything that a person can have done wrong with the files becomes a UserError naming the file and the remedy.
Must not know of training, tensors or how data sets are made.
"""

import hashlib
import io
import json
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import PIL.Image

from dnnlib.errors import UserError
from training.data.file_sets import IMAGE_SUFFIXES, FolderFiles, ZipFiles, is_hidden, is_image_name, open_files  # noqa: F401 (asked for here, too)

METADATA_NAME = "dataset.json"


# ---------------------------------------------------------------------------------------------------------------------
# dataset.json.


@dataclass(frozen=True)
class Metadata:
    """What dataset.json says: labels by file name (None: the set has none), names of the classes, how it was made."""

    labels: dict[str, Any] | None = None
    class_names: list[str] | None = None
    provenance: dict[str, Any] | None = None


def read_metadata(files) -> Metadata:
    """Read the top-level dataset.json; a set without one has no labels."""
    if METADATA_NAME not in files.names:
        return Metadata()
    where = files.where(METADATA_NAME)
    try:
        content = json.loads(files.read(METADATA_NAME).decode("utf-8-sig"))
    except ValueError as error:  # includes broken UTF-8
        raise UserError(f"{where} is not valid JSON ({error}); mend it, or remove it if the set has no labels.") from error
    if not isinstance(content, dict):
        raise UserError(f'{where} must hold an object like {{"labels": [["00000/img00000000.png", 6], ...]}} (got a {type(content).__name__}).')
    return Metadata(
        labels=_labels_by_name(content.get("labels"), where),
        class_names=_checked_class_names(content.get("class_names"), where),
        provenance=content.get("provenance"),
    )


def _labels_by_name(entries, where: str) -> dict[str, Any] | None:
    if entries is None or entries == []:
        return None
    if isinstance(entries, dict):
        entries = list(entries.items())
    if not isinstance(entries, list):
        raise UserError(f'"labels" in {where} must be a list of [file name, label] pairs or null.')
    labels: dict[str, Any] = {}
    for position, entry in enumerate(entries):
        if not (isinstance(entry, (list, tuple)) and len(entry) == 2 and isinstance(entry[0], str)):
            raise UserError(f'Entry {position} of "labels" in {where} must be [file name, label] (got {entry!r:.80}).')
        name = entry[0].replace("\\", "/")
        if name in labels and labels[name] != entry[1]:
            raise UserError(f"{where} gives {name} two labels ({labels[name]!r:.40} and {entry[1]!r:.40}); keep one.")
        labels[name] = entry[1]
    return labels


def _checked_class_names(names, where: str) -> list[str] | None:
    if names is None:
        return None
    if not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise UserError(f'"class_names" in {where} must be a list of texts, one per class.')
    return names


def first_few(names: list[str], count: int = 5) -> str:
    """'a, b, c and 7 more': for messages about many files."""
    listed = ", ".join(names[:count])
    return listed if len(names) <= count else f"{listed} and {len(names) - count} more"


def label_array(labels: dict[str, Any], names: list[str], where: str) -> np.ndarray:
    """Labels of the named files: int64 [N] for class numbers, float32 [N, L] for vectors."""
    missing = [name for name in names if name not in labels]
    if missing:
        raise UserError(
            f"{len(missing)} of {len(names)} images have no label in {where}: {first_few(missing)}; add the "
            f"labels, remove those images, or train without labels."
        )
    values = [labels[name] for name in names]
    if all(isinstance(value, int) and not isinstance(value, bool) for value in values):
        for name, value in zip(names, values):
            if not 0 <= value < 1 << 31:
                raise UserError(f"The label of {name} in {where} is {value}; class numbers start at 0.")
        return np.array(values, dtype=np.int64)
    length = next((len(value) for value in values if isinstance(value, list)), 0)
    for name, value in zip(names, values):
        if not (isinstance(value, list) and len(value) == length > 0 and all(_is_finite_number(x) for x in value)):
            raise UserError(
                f"The label of {name} in {where} is {value!r:.60}; labels must be all class numbers, or all lists of finite numbers of one length."
            )
    return np.array(values, dtype=np.float32)


def _is_finite_number(value) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


# ---------------------------------------------------------------------------------------------------------------------
# Pictures.

_FIX_HINT = "mend the set with dataset_tool.py --fix --source=... --dest=..."


def decode_image(data: bytes, where: str) -> np.ndarray:
    """Decode a stored picture to uint8 [channel, height, width] with 1 or 3 channels."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            mode = image.mode
            pixels = np.asarray(image)
    except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"Cannot read the image {where}: {error}; {_FIX_HINT}") from error
    if mode == "L":
        return pixels[np.newaxis]
    if mode == "RGB":
        return pixels.transpose(2, 0, 1)
    raise UserError(f"The image {where} has colour mode {mode}; training takes 8-bit grey (L) or RGB: {_FIX_HINT}")


def stored_shape(files, name: str) -> list[int]:
    """[channel, height, width] of a stored picture, from its header where possible (PNG), else by decoding it."""
    head = files.head(name, 26)
    if head[:8] == b"\x89PNG\r\n\x1a\n" and head[12:16] == b"IHDR" and len(head) == 26:
        width, height = (int.from_bytes(head[start : start + 4], "big") for start in (16, 20))
        channels = {(8, 0): 1, (8, 2): 3}.get((head[24], head[25]))  # by bit depth and colour type
        if channels is not None:
            return [channels, height, width]
    return list(decode_image(files.read(name), files.where(name)).shape)


def content_digest(entries) -> str:
    """SHA-256 over (name, size, crc, label) of every image, sorted by name: the identity of a set's content."""
    digest = hashlib.sha256()
    for name, size, crc, label in sorted(entries, key=lambda entry: entry[0]):
        digest.update(json.dumps([name, size, crc, label]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
