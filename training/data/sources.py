"""Where pictures come from: a folder, a zip, CIFAR-10's archive, MNIST's idx files, an LSUN database.

Each source yields SourceImage after SourceImage in a fixed order. Pictures in files are handed on as bytes, unjudged.
Must not know how pictures are checked, transformed or written.
"""

import contextlib
import io
import os
import pickle
import re
import tarfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from training.data import dataset_io, file_sets, mnist

LABEL_MODES = ["json", "folders", "none", "renumber"]
_SHARES_TOLD = 10  # classes named in the sentence on --max-images


@dataclass(frozen=True)
class SourceImage:
    """One picture: `data` (an image file's bytes) or `pixels` (uint8 [H, W] or [H, W, 3]); label None: it has none."""

    name: str
    label: Any = None
    data: bytes | None = None
    pixels: np.ndarray | None = None
    read_fault: str = ""  # why there are neither


class Source:
    """Base: iterate for the pictures; `max_images` limits how many are looked at: the first, or of class folders a share of each."""

    num_images = 0
    has_labels = False
    class_names: list[str] | None = None
    provenance: dict[str, Any] | None = None  # what the data set should tell of its making

    def __init__(self):
        self.notes: list[tuple[str, str]] = []  # (file name, kind of note) for what is not a picture of the set
        self.remarks: list[str] = []  # sentences on the labels, for the person

    def labels(self) -> list[Any]:
        """The labels of the pictures in their order, None for those without; no picture is read."""
        return [None] * self.num_images

    def __iter__(self) -> Iterator[SourceImage]:
        raise NotImplementedError(f"{type(self).__name__} must define __iter__")


def _natural_order(name: str) -> tuple[list, str]:
    """Sorts 2 before 10, as people do: runs of digits by their value, what lies between as text."""
    parts = re.split(r"([0-9]+)", name)
    return [int(part) if i % 2 else part for i, part in enumerate(parts)], name


class FileSource(Source):
    """Image files in a folder or zip.

    labels: 'json' (dataset.json), 'folders' (top-level sub-folder = class), 'none', 'renumber' (dataset.json's classes, numbered
    without gaps).
    """

    def __init__(self, path: str, labels: str, max_images: int | None):
        super().__init__()
        self._files = dataset_io.open_files(path)
        self._names = [name for name in self._files.names if dataset_io.is_image_name(name)]
        if not self._names:
            raise UserError(
                f"--source={path} holds no images ({len(self._files.names)} other files); their names must end in "
                f"{', '.join(sorted(dataset_io.IMAGE_SUFFIXES))}."
            )
        self._note_other_files()
        self._labels = self._labels_from_folders(path) if labels == "folders" else {}
        if labels == "folders":
            self._take_share_of_each_class(path, max_images)
        self._names = self._names[:max_images]
        self.num_images = len(self._names)
        if labels in ("json", "renumber"):
            self._labels = self._labels_from_json(with_strays=max_images is None, renumber=labels == "renumber")
        self.has_labels = bool(self._labels)
        if labels == "json" and not self._labels and not self.remarks:
            self._tell_of_class_folders()

    def _tell_of_class_folders(self) -> None:
        folders = {name.split("/")[0] if "/" in name else None for name in self._names}
        numbered = all(re.fullmatch(r"\d{5}", name or "") for name in folders)  # as data sets are stored: 00000/img00000000.png
        if len(folders) > 1 and None not in folders and not numbered:
            self.remarks.append(f"{len(folders)} sub-folders; --labels=folders makes classes of them")

    def _note_other_files(self) -> None:
        for name in self._files.names:
            if name != dataset_io.METADATA_NAME and not dataset_io.is_image_name(name):
                self.notes.append((name, "hidden" if dataset_io.is_hidden(name) else "not-an-image"))

    def _labels_from_folders(self, path: str) -> dict[str, Any]:
        class_of = {name: name.split("/")[0] for name in self._names if "/" in name}
        self.class_names = sorted(set(class_of.values()), key=_natural_order)
        if len(self.class_names) < 2:
            found = f"only '{self.class_names[0]}'" if self.class_names else "none"
            raise UserError(
                f"--labels=folders needs one sub-folder per class right below {path}, but found {found}; give "
                f"the folder that holds the class folders, or leave --labels away."
            )
        number = {class_name: i for i, class_name in enumerate(self.class_names)}
        return {name: number[class_name] for name, class_name in class_of.items()}

    def _take_share_of_each_class(self, path: str, max_images: int | None) -> None:
        """Leave max_images names, evenly spaced within each class: the first ones would be those of the first classes."""
        if max_images is None or max_images >= len(self._names):
            return
        # What lies beside the folders has no class, but must not stay unseen: the check names it.
        groups_N = np.array([self._labels.get(name, -1) for name in self._names])
        numbers, counts_K = np.unique(groups_N, return_counts=True)
        if max_images < len(numbers):
            strays = " and of those in no folder" if numbers[0] < 0 else ""
            raise UserError(
                f"--max-images={max_images} cannot take an image of each of the {len(self.class_names or [])} classes of {path}{strays}; give at "
                f"least {len(numbers)}, or leave it out to take all."
            )
        kept_K = shares(counts_K, max_images)
        chosen = [np.flatnonzero(groups_N == number)[evenly_spaced(count, kept)] for number, count, kept in zip(numbers, counts_K, kept_K)]
        self._names = [self._names[index] for index in np.sort(np.concatenate(chosen))]
        taken = [f"{kept} of {count} of {self._class_name(number)}" for number, count, kept in zip(numbers, counts_K, kept_K)]
        more = f", ... ({len(taken)} classes)" if len(taken) > _SHARES_TOLD else ""
        self.remarks.append(f"--max-images={max_images} takes a share of each class: {', '.join(taken[:_SHARES_TOLD])}{more}")

    def _class_name(self, number: int) -> str:
        return self.class_names[number] if self.class_names and number >= 0 else "those in no folder"

    def _labels_from_json(self, with_strays: bool, renumber: bool) -> dict[str, Any]:
        metadata = dataset_io.read_metadata(self._files)
        self.remarks.extend(metadata.remarks)
        labels = metadata.labels or {}
        known = [name for name in self._names if name in labels]
        if with_strays:
            self.notes.extend((name, "label-without-image") for name in sorted(set(labels) - set(self._names)))
        if renumber and not known:
            raise UserError(f"--labels=renumber needs class numbers in the dataset.json of {self._files.path}, which states none; leave it out.")
        if known:
            where = self._files.where(dataset_io.METADATA_NAME)
            # Refuses mixtures of kinds; images without a label are the check's business.
            values = dataset_io.label_array(labels, known, where)
            self.class_names = metadata.class_names
            if renumber:
                return self._renumbered({name: labels[name] for name in known}, values)
            if metadata.provenance is not None:  # digits in three colours stay so at another size
                self.provenance = dict(metadata.provenance, converted=True)
            self.remarks.extend(dataset_io.remarks_on_labels(values, metadata.class_names, where))
        return labels

    def _renumbered(self, labels: dict[str, Any], values: np.ndarray) -> dict[str, Any]:
        """Class numbers 0, 1, 2 ... in the order of the former ones, which stay as names where the set states no others."""
        if values.dtype != np.int64:
            raise UserError(f"--labels=renumber is for class numbers, but the labels of {self._files.path} are vectors; leave it out.")
        numbers = np.unique(values).tolist()
        names = self.class_names or []
        self.class_names = [names[number] if number < len(names) else str(number) for number in numbers]
        number_of = {former: number for number, former in enumerate(numbers)}
        return {name: number_of[label] for name, label in labels.items()}

    def labels(self) -> list[Any]:
        return [self._labels.get(name) for name in self._names]

    def __iter__(self) -> Iterator[SourceImage]:
        for name in self._names:
            label = self._labels.get(name)
            data, fault = None, ""
            try:
                data = self._files.read(name)
            except UserError as error:  # one more bad file, not the end of the pass
                fault = str(error)
            yield SourceImage(name, label=label, data=data, read_fault=fault)


class ArraySource(Source):
    """Pictures that are pixels already: uint8 [N, H, W] or [N, H, W, 3]."""

    def __init__(self, images: np.ndarray, labels: np.ndarray | None, class_names: list[str] | None, name_format: str):
        super().__init__()
        self._images, self._labels, self._name_format = images, labels, name_format
        self.num_images = len(images)
        self.has_labels = labels is not None
        self.class_names = class_names if self.has_labels else None

    def labels(self) -> list[Any]:
        return super().labels() if self._labels is None else self._labels.tolist()

    def __iter__(self) -> Iterator[SourceImage]:
        for index, pixels in enumerate(self._images):
            label = None if self._labels is None else int(self._labels[index])
            yield SourceImage(self._name_format.format(index), label=label, pixels=pixels)


class LmdbSource(Source):
    """An LSUN database: image files as values, in the order of their keys; no labels."""

    def __init__(self, path: str, max_images: int | None):
        super().__init__()
        self._path = path
        with self._opened() as transaction:
            entries = transaction.stat()["entries"]
        if entries == 0:
            raise UserError(f"The LMDB database {path} is empty.")
        self.num_images = entries if max_images is None else min(entries, max_images)

    @contextlib.contextmanager
    def _opened(self):
        try:
            import lmdb
        except ImportError as error:
            raise UserError(f"--source={self._path} is an LMDB database, which needs a package: pip install lmdb") from error
        try:
            database = lmdb.open(self._path, readonly=True, lock=False)
        except lmdb.Error as error:
            raise UserError(f"Cannot open the LMDB database {self._path}: {error}; it may be an incomplete copy.") from error
        with database, database.begin() as transaction:
            yield transaction

    def __iter__(self) -> Iterator[SourceImage]:
        with self._opened() as transaction:
            for _, (key, value) in zip(range(self.num_images), transaction.cursor()):
                yield SourceImage(key.decode("ascii", "backslashreplace"), data=bytes(value))


def open_source(path: str, labels: str = "json", max_images: int | None = None) -> Source:
    """The source at a path, recognised by what lies there; `labels` is one of LABEL_MODES."""
    if max_images is not None and max_images < 1:
        raise UserError(f"--max-images must be at least 1 (got {max_images}); leave it out to take all.")
    if not os.path.exists(path):
        raise UserError(f"There is nothing at --source={path}; check the path (from {os.getcwd()}).")
    is_folder = os.path.isdir(path)
    if not is_folder and not os.path.isfile(path):
        raise UserError(f"--source={path} is neither a file nor a folder but a device or a pipe, which has no end; give a file or a folder.")
    if is_folder and (os.path.exists(os.path.join(path, "data.mdb")) or os.path.normpath(path).endswith("_lmdb")):
        return _without_folder_labels(LmdbSource(path, max_images), labels, path)
    if is_folder or path.lower().endswith(".zip") or zipfile.is_zipfile(path):
        return FileSource(path, labels, max_images)
    if file_sets.is_mnist_name(path):
        return _without_folder_labels(_open_mnist(path, labels, max_images), labels, path)
    if file_sets.is_tar_name(path):
        return _without_folder_labels(_open_cifar10(path, labels, max_images), labels, path)
    if file_sets.is_image_name(path):
        raise UserError(f"--source={path} is no folder{file_sets.picture_remedy(path)}")
    raise UserError(
        f"--source={path} is of no known kind; known are: a folder, a .zip, cifar-10-python.tar.gz, "
        f"train-images-idx3-ubyte.gz, and an LSUN ..._lmdb folder."
    )


def _without_folder_labels(source: Source, labels: str, path: str) -> Source:
    if labels in ("folders", "renumber"):
        raise UserError(
            f"--labels={labels} needs a folder or zip of images, not {path}; leave it out: labels that the archive itself holds are taken by default."
        )
    return source


def shares(counts_K: np.ndarray, total: int) -> np.ndarray:
    """int64 [K]: how many of counts_K a choice of `total` takes: in proportion, the largest remainders rounded up, at least one of each.

    total: from K to the sum of counts_K.
    """
    scaled_K = counts_K.astype(np.int64) * total
    kept_K, rest_K = np.divmod(scaled_K, counts_K.sum())
    kept_K[np.argsort(-rest_K, kind="stable")[: total - kept_K.sum()]] += 1
    for k in np.flatnonzero(kept_K == 0):
        kept_K[kept_K.argmax()] -= 1
        kept_K[k] = 1
    return kept_K


def evenly_spaced(count: int, kept: int) -> np.ndarray:
    """int64 [kept]: so many of the indices 0 ... count - 1, from the first on."""
    return np.arange(kept, dtype=np.int64) * int(count) // int(kept)


def class_counts(labels: list[Any]) -> dict[int, int]:
    """Number of images per class number, in order; empty for labels that are vectors."""
    return dict(sorted(Counter(label for label in labels if isinstance(label, int)).items()))


# ---------------------------------------------------------------------------------------------------------------------
# MNIST and CIFAR-10.


def _open_mnist(path: str, labels: str, max_images: int | None) -> ArraySource:
    labels_path = mnist.labels_path_for(path)
    if labels == "none":
        images, numbers = mnist.read_idx(path)[0], None
    elif labels_path is None:
        raise UserError(f"There is no label file beside {path} (…-labels-idx1-ubyte.gz); put it there, or say --labels=none.")
    else:
        images, numbers, _ = mnist.read_digits(path, labels_path)
    if images.ndim != 3:
        raise UserError(f"{path} has the shape {list(images.shape)}; images need [number, height, width].")
    images = images[:max_images]
    if images.shape[1:] == (28, 28):
        images = np.pad(images, [(0, 0), (2, 2), (2, 2)])  # to 32x32, the next power of two
    return ArraySource(images, None if numbers is None else numbers[:max_images], [str(i) for i in range(10)], "digit {:05d}")


class _ArrayUnpickler(pickle.Unpickler):
    """Loads nothing but plain containers and numpy arrays: a pickle from the web must not run code."""

    def find_class(self, module, name):
        # Asked from numpy itself: the module that holds them has moved between versions.
        allowed = {"_reconstruct": np.zeros(0).__reduce__()[0], "ndarray": np.ndarray, "dtype": np.dtype, "scalar": np.float64(0).__reduce__()[0]}
        if module.split(".")[0] == "numpy" and name in allowed:
            return allowed[name]
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding: text.encode(encoding)
        raise pickle.UnpicklingError(f"refused to load {module}.{name}")


def _open_cifar10(path: str, labels: str, max_images: int | None) -> ArraySource:
    try:
        batches, class_names = _read_cifar10_batches(path)
        images = np.concatenate([np.asarray(batch["data"], dtype=np.uint8) for batch in batches])
        images = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)[:max_images]
        numbers = np.concatenate([np.asarray(batch["labels"], dtype=np.int64) for batch in batches])[:max_images]
        if len(images) != len(numbers):
            raise ValueError(f"{len(images)} images but {len(numbers)} labels")
    except (OSError, EOFError, tarfile.TarError, pickle.UnpicklingError, KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{path} is not a readable cifar-10-python.tar.gz ({type(error).__name__}: {error}); download it "
            f"again from https://www.cs.toronto.edu/~kriz/cifar.html"
        ) from error
    return ArraySource(images, None if labels == "none" else numbers, class_names, "image {:05d}")


def _read_cifar10_batches(path: str) -> tuple[list[dict[str, Any]], list[str] | None]:
    batches, class_names = {}, None
    with tarfile.open(path) as archive:
        for member in archive:
            name = os.path.basename(member.name)
            if not member.isfile() or not re.fullmatch(r"data_batch_\d|batches\.meta", name):
                continue
            content = _ArrayUnpickler(io.BytesIO(archive.extractfile(member).read()), encoding="latin1").load()
            if name == "batches.meta":
                class_names = list(content["label_names"])
            else:
                batches[name] = content
    if not batches:
        raise ValueError("no data_batch_1 ... data_batch_5 inside")
    return [batches[name] for name in sorted(batches)], class_names
