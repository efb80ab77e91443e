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
from training.data import faults, picture
from training.data.file_sets import IMAGE_SUFFIXES, FolderFiles, ZipFiles, is_hidden, is_image_name, open_files  # noqa: F401 (asked for here, too)

METADATA_NAME = "dataset.json"
_HEAD_SIZES = (64, 8192)  # bytes of a PNG before its pixels: mostly 33; with a colour profile some thousands


# ---------------------------------------------------------------------------------------------------------------------
# dataset.json.


@dataclass(frozen=True)
class Metadata:
    """What dataset.json says: labels by file name (None: the set has none), names of the classes, how it was made.

    remarks: sentences for the person, where it looks as if labels were meant that are none.
    """

    labels: dict[str, Any] | None = None
    class_names: list[str] | None = None
    provenance: dict[str, Any] | None = None
    remarks: tuple[str, ...] = ()


def read_metadata(files) -> Metadata:
    """Read the top-level dataset.json; a set without one has no labels."""
    if METADATA_NAME not in files.names:
        return Metadata(remarks=_remarks_on_deeper_files(files))
    where = files.where(METADATA_NAME)
    try:
        content = json.loads(files.read(METADATA_NAME).decode("utf-8-sig"))
    except ValueError as error:  # includes broken UTF-8
        raise UserError(f"{where} is not valid JSON ({error}); mend it, or remove it if the set has no labels.") from error
    if not isinstance(content, dict):
        raise UserError(f'{where} must hold an object like {{"labels": [["00000/img00000000.png", 6], ...]}} (got a {type(content).__name__}).')
    labels = _labels_by_name(content.get("labels"), where)
    return Metadata(
        labels=labels,
        class_names=_checked_class_names(content.get("class_names"), where),
        provenance=content.get("provenance"),
        remarks=() if labels is not None else _remarks_on_no_labels(content, where),
    )


def _remarks_on_deeper_files(files) -> tuple[str, ...]:
    deeper = [name for name in files.names if name.endswith("/" + METADATA_NAME) and not is_hidden(name)]
    if not deeper:
        return ()
    folder = deeper[0].removesuffix("/" + METADATA_NAME)
    remedy = f"give {files.path}/{folder}" if isinstance(files, FolderFiles) else f"unpack the archive and give the folder {folder} in it"
    return (f"{files.path} has no {METADATA_NAME} at its top, so its images count as unlabelled; {deeper[0]} is not read: {remedy}",)


def _remarks_on_no_labels(content: dict, where: str) -> tuple[str, ...]:
    form = '{"labels": [["00000/img00000000.png", 6], ...]}'
    if "labels" not in content:
        found = f"only {first_few(sorted(map(repr, content)))}" if content else "nothing"
        return (f'{where} states no "labels" ({found}), so the images count as unlabelled; write them as {form}, or {{"labels": null}} for none',)
    if content["labels"] is not None:
        return (f'"labels" in {where} is empty, so the images count as unlabelled; write them as {form}, or null for none',)
    return ()


def remarks_on_labels(labels: np.ndarray, class_names: list[str] | None, where: str) -> list[str]:
    """Sentences on class numbers with gaps and names that do not fit; labels: as label_array gives them."""
    if labels.dtype != np.int64 or len(labels) == 0:
        return []
    remarks, used = [], np.unique(labels)
    count = int(used[-1]) + 1
    if len(used) < count:
        remarks.append(
            f"The class numbers in {where} run from {used[0]} to {used[-1]}, but only {len(used)} of these {count} classes (0 to {used[-1]}) have an image, "
            f"and each takes a place in the label; dataset_tool.py --labels=renumber closes the gaps"
        )
    if class_names is not None and len(class_names) < count:
        remarks.append(f'"class_names" in {where} has {len(class_names)} names for {count} classes (0 to {used[-1]}); give one name for each')
    return remarks


def _labels_by_name(entries, where: str) -> dict[str, Any] | None:
    if entries is None or entries == [] or entries == {}:
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


def remedy_without_images(files) -> str:
    """What to do about a folder or zip that was given as a data set and holds no image."""
    if "data.mdb" in files.names:
        return f"it is an LMDB database: convert it with dataset_tool.py --source={files.path} --dest=dataset.zip"
    return "give the folder or zip that dataset_tool.py has written."


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
                raise UserError(f"The label of {name} in {where} is {value}; class numbers are 0 or more, and below 2147483648.")
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


class UnfitImage(UserError):
    """A stored picture that training cannot take. fault: the sentence without the remedy."""

    def __init__(self, fault: str):
        super().__init__(f"{fault}; {_FIX_HINT}")
        self.fault = fault


def decode_image(data: bytes, where: str) -> np.ndarray:
    """Decode a stored picture to uint8 [channel, height, width] with 1 or 3 channels; what dataset_tool.py would have to mend is refused."""
    try:
        with PIL.Image.open(io.BytesIO(data)) as image:
            found = picture.findings(image, data)
            pixels = np.asarray(image)
    except PIL.UnidentifiedImageError as error:
        raise UnfitImage(f"Cannot read the image {where}: it is no picture by its content") from error
    except (OSError, ValueError, SyntaxError, EOFError, PIL.Image.DecompressionBombError) as error:
        raise UnfitImage(f"Cannot read the image {where}: {error}") from error
    if found:
        raise UnfitImage(f"{where}: {', '.join(faults.described(*one) for one in found)}; training takes upright 8-bit grey (L) or RGB")
    return pixels[np.newaxis] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)


def stored_shape(files, name: str) -> list[int]:
    """[channel, height, width] of a stored picture, from its header where possible (PNG), else by decoding it."""
    for size in _HEAD_SIZES:
        shape = picture.plain_png_shape(files.head(name, size))
        if shape is not None:
            return shape
    return list(decode_image(files.read(name), files.where(name)).shape)


def content_digest(entries) -> str:
    """SHA-256 over (name, size, crc, label) of every image, sorted by name: the identity of a set's content."""
    digest = hashlib.sha256()
    for name, size, crc, label in sorted(entries, key=lambda entry: entry[0]):
        digest.update(json.dumps([name, size, crc, label]).encode())
        digest.update(b"\n")
    return digest.hexdigest()
