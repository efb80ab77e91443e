"""Writing a data set: numbered PNG files and dataset.json into a zip or a folder, complete or not at all.

The same images give the same bytes on every machine. Must not know where the images come from.
"""

import contextlib
import json
import os
import shutil
import struct
import uuid
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from dnnlib.files import atomic_open, clean_stale_temporaries
from training.data.dataset_io import METADATA_NAME

_ZIP_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest a zip can state; a real time would make equal data sets differ
_DEFLATE_BLOCK = 65535
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PNG_COLOUR_TYPE = {1: 0, 3: 2}  # by number of channels: grey, RGB


def encode_png(image: np.ndarray) -> bytes:
    """uint8 [H, W] or [H, W, 3] to an uncompressed PNG.

    Written by hand, because the bytes that a compressor makes depend on its version, and because it is ten times as fast
    as going through an imaging library.
    """
    height, width = image.shape[:2]
    channels = 1 if image.ndim == 2 else image.shape[2]
    rows = np.zeros([height, 1 + width * channels], dtype=np.uint8)  # a zero before each row: 'not filtered'
    rows[:, 1:] = image.reshape(height, width * channels)
    header = struct.pack(">IIBBBBB", width, height, 8, _PNG_COLOUR_TYPE[channels], 0, 0, 0)
    return b"".join([_PNG_SIGNATURE, _png_chunk(b"IHDR", header), _png_chunk(b"IDAT", _stored_zlib(rows.tobytes())), _png_chunk(b"IEND", b"")])


def _png_chunk(kind: bytes, content: bytes) -> bytes:
    return b"".join([struct.pack(">I", len(content)), kind, content, struct.pack(">I", zlib.crc32(content, zlib.crc32(kind)))])


def _stored_zlib(data: bytes) -> bytes:
    """`data` as a zlib stream (RFC 1950) of stored blocks (RFC 1951, 3.2.4)."""
    parts = [b"\x78\x01"]
    for start in range(0, len(data), _DEFLATE_BLOCK):
        block = data[start : start + _DEFLATE_BLOCK]
        parts += [struct.pack("<BHH", start + _DEFLATE_BLOCK >= len(data), len(block), len(block) ^ 0xFFFF), block]
    return b"".join(parts + [struct.pack(">I", zlib.adler32(data))])


def image_name(index: int) -> str:
    """12345 -> 00012/img00012345.png: a thousand files per sub-folder."""
    return f"{index:08d}"[:5] + f"/img{index:08d}.png"


class DatasetWriter:
    """Takes images one by one with their labels; numbers them in that order."""

    def __init__(self, save_bytes):
        self._save_bytes = save_bytes  # (name, bytes) -> None
        self._labels: list[Any] = []
        self.class_names: list[str] | None = None
        self.provenance: dict[str, Any] | None = None

    @property
    def num_images(self) -> int:
        return len(self._labels)

    def add(self, image: np.ndarray, label=None) -> None:
        """image: uint8 [H, W] or [H, W, 3]; label: class number, list of floats, or None."""
        self._save_bytes(image_name(self.num_images), encode_png(image))
        self._labels.append(label)

    def finish(self) -> None:
        """Write dataset.json. Labels are for all images or for none."""
        unlabelled = sum(label is None for label in self._labels)
        if 0 < unlabelled < len(self._labels):
            raise ValueError(f"{unlabelled} of {len(self._labels)} images have no label")
        labels = None if unlabelled else [[image_name(i), label] for i, label in enumerate(self._labels)]
        content = {"labels": labels}
        if labels is not None and self.class_names is not None:
            content["class_names"] = self.class_names
        if self.provenance is not None:
            content["provenance"] = self.provenance
        self._save_bytes(METADATA_NAME, json.dumps(content).encode())


def check_destination(dest: str, source: str | None = None) -> None:
    """Refuse a destination that cannot be written, before any work is done."""
    if not dest:
        raise UserError("--dest is empty; give the name of a .zip archive or of a new or empty folder.")
    if source is not None and os.path.exists(source) and os.path.exists(dest) and os.path.samefile(source, dest):
        raise UserError(f"--dest is the --source itself ({dest}); choose another path.")
    if dest.lower().endswith(".zip"):
        if os.path.isdir(dest):
            raise UserError(f"--dest={dest} is a folder; choose another name for the zip archive.")
    elif os.path.isdir(dest):
        if os.listdir(dest):
            raise UserError(f"--dest={dest} is not empty; choose a new folder, or empty this one.")
        if os.path.ismount(dest):
            raise UserError(f"--dest={dest} is where a disk is mounted; give a new folder inside it.")
    elif os.path.exists(dest):
        raise UserError(f"--dest={dest} is a file; give the name of a .zip archive or of a new or empty folder.")


@contextlib.contextmanager
def open_writer(dest: str) -> Iterator[DatasetWriter]:
    """A DatasetWriter for a .zip archive (replaced if it exists) or for a new or empty folder.

    `dest` appears, complete, when the block ends without an error; otherwise it stays as it was.
    """
    check_destination(dest)
    parent = os.path.dirname(os.path.abspath(dest))
    os.makedirs(parent, exist_ok=True)
    with contextlib.suppress(PermissionError):  # then the writing itself says what is wrong
        clean_stale_temporaries(parent)  # a killed run leaves a hidden file as large as the data set
    with _zip_saver(dest) if dest.lower().endswith(".zip") else _folder_saver(dest) as save_bytes:
        writer = DatasetWriter(save_bytes)
        yield writer
        writer.finish()


@contextlib.contextmanager
def _zip_saver(dest: str):
    with atomic_open(dest) as file, zipfile.ZipFile(file, "w", compression=zipfile.ZIP_STORED) as archive:

        def save_bytes(name: str, data: bytes) -> None:
            info = zipfile.ZipInfo(name, date_time=_ZIP_TIME)
            info.external_attr = 0o644 << 16
            archive.writestr(info, data)

        yield save_bytes


@contextlib.contextmanager
def _folder_saver(dest: str):
    dest = os.path.realpath(dest)  # so that a symbolic link to an empty folder stays one
    parent, name = os.path.split(dest)
    # Beside the destination, because only a rename within one file system is atomic.
    temporary = os.path.join(parent, f".{name[:200]}.unfinished-{uuid.uuid4().hex[:8]}")

    def save_bytes(name: str, data: bytes) -> None:
        path = os.path.join(temporary, *name.split("/"))
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data)

    try:
        os.mkdir(temporary)
        yield save_bytes
        os.replace(temporary, dest)  # takes the place of an empty folder, and of nothing else
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
