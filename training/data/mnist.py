"""The MNIST digits: reading idx files from a folder, or fetching the originals from their public mirrors.

Must not know what the digits are used for.
"""

import gzip
import hashlib
import os
import zlib

import numpy as np

import dnnlib.util
from dnnlib.errors import UserError

MIRRORS = ["https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"]
_SPLIT_PREFIX = {"train": "train", "test": "t10k"}
# SHA-256 of the compressed files as the mirrors hand them out.
_GZIP_SHA256 = {
    "train-images-idx3-ubyte.gz": "0b367032e93c5d0cea0925647cfdb18614af8ee15f83e6f2fc2ad904a6835971",
    "train-labels-idx1-ubyte.gz": "1787548bbe0bff1ec2ecdc0ef292b02df999e2d1a6002d27500982c652b17203",
    "t10k-images-idx3-ubyte.gz": "1a1a05eab793c14bb050b398624a11b0ffd1a2953baed553b1b9bd079e2a20be",
    "t10k-labels-idx1-ubyte.gz": "b91679a0acfe4ba0e50a2437a903084cba1f5f92592b016a25a7dfd00455798b",
}


def read_idx(path: str) -> tuple[np.ndarray, str]:
    """The uint8 array in an idx file (gzipped or not), and the SHA-256 of its uncompressed bytes.

    Format: two zero bytes, type (8 = unsigned byte), number of dimensions, each dimension as a big-endian 32-bit number,
    then the data.
    """
    try:
        with open(path, "rb") as file:
            data = file.read()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path} is incomplete or damaged ({error}); download it again.") from error
    except OSError as error:
        raise UserError(f"Cannot read {path}: {error.strerror or error}; check the file.") from error
    if len(data) < 4 or data[:3] != b"\x00\x00\x08":
        raise UserError(f"{path} is not an idx file of bytes; download it again from {MIRRORS[0]}")
    dimensions = data[3]
    shape = np.frombuffer(data, dtype=">u4", count=dimensions, offset=4).astype(int).tolist() if len(data) >= 4 + 4 * dimensions else None
    if shape is None or len(data) != 4 + 4 * dimensions + int(np.prod(shape)):
        raise UserError(f"{path} is incomplete: it states the shape {shape} but holds {len(data)} bytes; download it again.")
    return np.frombuffer(data, dtype=np.uint8, offset=4 + 4 * dimensions).reshape(shape), hashlib.sha256(data).hexdigest()


def labels_path_for(images_path: str) -> str | None:
    """The label file that belongs to an image file by MNIST's naming, if it lies beside it."""
    folder, name = os.path.split(images_path)
    wanted = name.replace("-images-idx3", "-labels-idx1")
    stem = wanted[:-3] if wanted.endswith(".gz") else wanted
    for candidate in [wanted, stem, stem + ".gz"]:
        if os.path.isfile(os.path.join(folder, candidate)):
            return os.path.join(folder, candidate)
    return None


def read_digits(images_path: str, labels_path: str) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """Images uint8 [N, H, W], labels uint8 [N], and the SHA-256 of both files' content by file name."""
    images, images_hash = read_idx(images_path)
    labels, labels_hash = read_idx(labels_path)
    if images.ndim != 3 or labels.ndim != 1 or len(images) != len(labels):
        raise UserError(
            f"{images_path} (shape {list(images.shape)}) and {labels_path} (shape {list(labels.shape)}) do not "
            f"belong together; get both from one place."
        )
    return images, labels, {_stem(images_path): images_hash, _stem(labels_path): labels_hash}


def load_mnist(folder: str | None, split: str, flag: str = "--source") -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """The digits of a split ('train' or 'test') from idx files in `folder`, or downloaded when it is None. flag: that named the folder."""
    names = [f"{_SPLIT_PREFIX[split]}-{part}-ubyte" for part in ("images-idx3", "labels-idx1")]
    if folder is None:
        return read_digits(*[_download(name + ".gz") for name in names])
    if not os.path.isdir(folder):
        raise UserError(
            f"{flag}={folder} is not a folder; give the one that holds {names[0]}.gz and {names[1]}.gz, or leave {flag} away to download them."
        )
    return read_digits(*[_find(folder, name, flag) for name in names])


def _find(folder: str, name: str, flag: str) -> str:
    for candidate in [name + ".gz", name]:
        if os.path.isfile(os.path.join(folder, candidate)):
            return os.path.join(folder, candidate)
    raise UserError(f"{folder} holds no {name}.gz; put it there (from {MIRRORS[0]}), or leave {flag} away to download it.")


def _download(name: str) -> str:
    fault = None
    for mirror in MIRRORS:
        try:
            return dnnlib.util.open_url(mirror + name, return_filename=True, digest=_GZIP_SHA256[name])
        except UserError as error:
            fault = error
    raise UserError(
        f"Cannot fetch {name} from any of its {len(MIRRORS)} addresses; the last said: {fault} Or give the folder "
        f"with MNIST's four files as --source."
    ) from fault


def _stem(path: str) -> str:
    name = os.path.basename(path)
    return name[:-3] if name.endswith(".gz") else name
