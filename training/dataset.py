"""The data sets that training and metrics read: indexable (image, label) pairs with an optional subset and mirror copies.

Class names, constructor arguments and properties are public interface (forks subclass them; snapshots name them).
Must not know how files are made (dataset_tool.py) or what the images are used for.
"""

import mmap
import os
import zlib

import numpy as np
import torch.utils.data

import dnnlib
from dnnlib import console
from dnnlib.errors import UserError
from torch_utils import distributed
from training.data import dataset_io


class Dataset(torch.utils.data.Dataset):
    """Base class: a subclass gives `_load_raw_image(raw_idx)` (uint8 CHW) and `_load_raw_labels()` (array or None).

    raw_shape: [N, C, H, W] of what is stored.     max_size: keep a random subset of that size, drawn from `random_seed`.
    use_labels: False gives labels of length 0.    xflip: append a mirrored copy of every image.
    """

    def __init__(self, name, raw_shape, max_size=None, use_labels=False, xflip=False, random_seed=0):
        self._name = name
        self._raw_shape = list(raw_shape)
        self._use_labels = use_labels
        self._raw_labels = None
        self._label_shape = None
        self._cache = None

        if max_size is not None and max_size < 1:
            raise UserError(f"max_size must be at least 1 (got {max_size}); leave it away to use all images.")
        chosen = np.arange(self._raw_shape[0], dtype=np.int64)
        if max_size is not None and max_size < len(chosen):
            # RandomState: the subset of a seed must stay the same for ever. Sorted, because order means nothing here.
            chosen = np.sort(np.random.RandomState(random_seed).permutation(len(chosen))[:max_size])
        self._raw_idx = np.concatenate([chosen, chosen]) if xflip else chosen
        self._xflip = np.arange(len(self._raw_idx)) >= len(chosen)

    # What a subclass provides.

    def _load_raw_image(self, raw_idx) -> np.ndarray:
        raise NotImplementedError(f"{type(self).__name__} must define _load_raw_image(raw_idx)")

    def _load_raw_labels(self) -> np.ndarray | None:
        """Labels of all stored images: int64 [N], float32 [N, L], or None."""
        return None

    def close(self):
        """Release open files. The data set stays usable: they are opened again when needed."""

    def __getstate__(self):
        return dict(self.__dict__, _raw_labels=None)  # loaded again where they are needed

    # Items.

    def __len__(self):
        return len(self._raw_idx)

    def __getitem__(self, idx):
        image = self._raw_image(int(self._raw_idx[idx]))
        if self._xflip[idx]:
            image = image[:, :, ::-1]
        return image.copy(), self.get_label(idx)

    def get_label(self, idx):
        """float32 vector: one-hot for class numbers, else the stored vector; length 0 without labels."""
        label = self._labels()[self._raw_idx[idx]]
        if label.dtype == np.int64:
            one_hot = np.zeros(self.label_shape, dtype=np.float32)
            one_hot[label] = 1
            return one_hot
        return label.copy()

    def get_details(self, idx):
        """Where item `idx` comes from: raw_idx (number of the stored image), xflip (mirrored?), raw_label."""
        raw_idx = int(self._raw_idx[idx])
        return dnnlib.EasyDict(raw_idx=raw_idx, xflip=bool(self._xflip[idx]), raw_label=self._labels()[raw_idx].copy())

    def _raw_image(self, raw_idx: int) -> np.ndarray:
        if self._cache is not None:
            image = self._cache.get(raw_idx)
            if image is not None:
                return image
        image = self._load_raw_image(raw_idx)
        if image.dtype != np.uint8 or list(image.shape) != self.image_shape:
            raise UserError(
                f"{self._describe_image(raw_idx)} is {_shape_text(image.shape)}, but the set is "
                f"{_shape_text(self.image_shape)}; all images of a set must have one size and kind: list the others with "
                f"dataset_tool.py --check --source=..., mend them with --fix, --width and --height."
            )
        if self._cache is not None:
            self._cache.put(raw_idx, image)
        return image

    def _describe_image(self, raw_idx: int) -> str:
        return f"Image {raw_idx} of {self._name}"

    def _labels(self) -> np.ndarray:
        if self._raw_labels is None:
            labels = self._load_raw_labels() if self._use_labels else None
            if labels is None:
                labels = np.zeros([self._raw_shape[0], 0], dtype=np.float32)
            if len(labels) != self._raw_shape[0]:
                raise UserError(f"{self._name} has {self._raw_shape[0]} images but {len(labels)} labels; every image needs one.")
            self._raw_labels = labels
        return self._raw_labels

    # Properties.

    @property
    def name(self):
        return self._name

    @property
    def image_shape(self):
        """[channels, height, width]"""
        return list(self._raw_shape[1:])

    @property
    def num_channels(self):
        return self._raw_shape[1]

    @property
    def resolution(self):
        """Side of the square images in pixels."""
        height, width = self._raw_shape[2:]
        if height != width:
            raise UserError(
                f"The images of {self._name} are {width}x{height} pixels, but must be square; convert them with "
                f"dataset_tool.py --transform=center-crop --width=... --height=..."
            )
        return height

    @property
    def has_power_of_two_resolution(self) -> bool:
        """Whether networks that double the resolution from 4x4 can produce these images."""
        height, width = self._raw_shape[2:]
        return height == width and height & (height - 1) == 0

    @property
    def label_shape(self):
        if self._label_shape is None:
            labels = self._labels()
            self._label_shape = [int(labels.max()) + 1] if labels.dtype == np.int64 else list(labels.shape[1:])
        return list(self._label_shape)

    @property
    def label_dim(self):
        return self.label_shape[0]

    @property
    def has_labels(self):
        return self.label_dim > 0

    @property
    def has_onehot_labels(self):
        return self.has_labels and self._labels().dtype == np.int64

    @property
    def class_names(self) -> list[str] | None:
        """Names of the classes in the order of their numbers; None when the set does not state them.

        dataset_tool.py takes them from folder names and keeps them in dataset.json, under "class_names" beside "labels".
        """
        return None

    @property
    def provenance(self) -> dict | None:
        """How the set was made, as its maker stated it; None when the set does not say."""
        return None

    @property
    def remarks(self) -> list[str]:
        """Sentences for whoever starts a training with it."""
        return []

    def content_fingerprint(self) -> str:
        """Hex digest of all stored images and labels, whatever the options (subset, flips, use_labels) of this object.

        This version decodes every image; subclasses that know a faster way override it.
        """
        labels = self._load_raw_labels()
        return dataset_io.content_digest(
            (f"{i:012d}", *_size_and_crc(self._load_raw_image(i)), None if labels is None else labels[i].tolist()) for i in range(self._raw_shape[0])
        )

    def check_images(self) -> None:
        """Refuse stored images that training could not use, naming them. Called once before training; here there is nothing to look for."""

    # Optional cache of decoded images.

    def use_cache(self, limit_mb: float) -> bool:
        """Keep decoded images in memory from now on if all of them fit into `limit_mb`; returns whether they do.

        The memory fills as images are first read and is shared with DataLoader workers that are forked afterwards
        (spawned ones fill their own, each up to the limit). A method rather than a constructor argument, because the
        arguments are stored in snapshots that other code must be able to use.
        """
        used = np.unique(self._raw_idx)
        image_bytes = int(np.prod(self.image_shape))
        fits = len(used) * image_bytes <= limit_mb * 2**20
        self._cache = _ImageCache(used, self.image_shape) if fits and len(used) else None
        return self._cache is not None


class ImageFolderDataset(Dataset):
    """Images below a folder or in a zip, with labels in its dataset.json."""

    def __init__(self, path, resolution=None, **super_kwargs):
        self._path = os.fspath(path)
        self._files = dataset_io.open_files(self._path)
        self._image_names = [name for name in self._files.names if dataset_io.is_image_name(name)]
        if not self._image_names:
            raise UserError(f"{self._path} holds no images ({len(self._files.names)} other files); {dataset_io.remedy_without_images(self._files)}")
        self._metadata = dataset_io.read_metadata(self._files)
        self._fingerprint = None
        raw_shape = [len(self._image_names), *self._load_raw_image(0).shape]
        super().__init__(name=_name_of(self._path), raw_shape=raw_shape, **super_kwargs)
        if resolution is not None and self.image_shape[1:] != [resolution, resolution]:
            height, width = self.image_shape[1:]
            raise UserError(
                f"The images of {self._path} are {width}x{height} pixels, but resolution {resolution} was asked "
                f"for; use the set's own, or convert it with dataset_tool.py --width={resolution} "
                f"--height={resolution}"
            )
        self._labels()  # faults in the labels must show before training starts

    @property
    def class_names(self) -> list[str] | None:
        names = self._metadata.class_names
        return None if names is None else list(names)

    @property
    def remarks(self) -> list[str]:
        """Sentences on the labels for whoever starts a training: labels that are none, that are not used, or that have gaps."""
        remarks = list(self._metadata.remarks)
        if self._metadata.labels is not None and not self._use_labels:
            remarks.append(f"{self._path} has labels, which this training does not use; --cond=1 uses them")
        elif self._metadata.labels is not None:
            where = self._files.where(dataset_io.METADATA_NAME)
            remarks += dataset_io.remarks_on_labels(self._labels(), self._metadata.class_names, where)
        return remarks

    @property
    def provenance(self) -> dict | None:
        stated = self._metadata.provenance
        return dict(stated) if isinstance(stated, dict) else None

    def close(self):
        self._files.close()

    def __getstate__(self):
        return dict(super().__getstate__())  # self._files leaves its open file behind

    def content_fingerprint(self) -> str:
        """See Dataset. Made of every image's name within the set, length and CRC-32, and its label; independent of where
        the set lies, of folder or zip, of the order within the zip and of time stamps.

        The CRCs of a zip come from its directory (reading an image checks it against that), so even a large zip takes about
        a second; a folder is read as a whole, once per object. CRC-32 notices any changed byte and practically every other
        accident, but is no protection against a deliberate change.
        """
        if self._fingerprint is None:
            labels = self._metadata.labels or {}
            names = _with_progress(self._image_names, "Hashing images")
            self._fingerprint = dataset_io.content_digest((name, *self._files.size_and_crc(name), labels.get(name)) for name in names)
        return self._fingerprint

    def check_images(self) -> None:
        """Look at every stored image's header and refuse the set if any differs, naming how many and the first few.

        Without this, the one odd image shows when its turn comes, perhaps hours into a run. About 25 us per PNG.
        """
        faults, sizes = [], {tuple(self.image_shape[1:])}
        for name in _with_progress(self._image_names, "Checking images"):
            try:
                shape = dataset_io.stored_shape(self._files, name)
            except UserError as error:
                faults.append(getattr(error, "fault", str(error)))
            else:
                sizes.add(tuple(shape[1:]))
                if shape != self.image_shape:
                    faults.append(f"{name} is {_shape_text(shape)}")
        if faults:
            height, width = self.image_shape[1:]
            scaling = f" --transform=center-crop --width={width} --height={height}" if len(sizes) > 1 else ""
            raise UserError(
                f"{len(faults)} of {len(self._image_names)} images in {self._path} do not fit the set, which is "
                f"{_shape_text(self.image_shape)}: {'. '.join(faults[:5])}. Mend them with dataset_tool.py --fix --source={self._path} "
                f"--dest=...{scaling} (--check instead of --fix and --dest lists them all)."
            )

    def _load_raw_image(self, raw_idx):
        name = self._image_names[raw_idx]
        return dataset_io.decode_image(self._files.read(name), self._files.where(name))

    def _load_raw_labels(self):
        if self._metadata.labels is None:
            return None
        return dataset_io.label_array(self._metadata.labels, self._image_names, self._files.where(dataset_io.METADATA_NAME))

    def _describe_image(self, raw_idx):
        return self._files.where(self._image_names[raw_idx])


class _ImageCache:
    """Decoded images in anonymous shared memory: one flag byte per image, then the pixels.

    Two processes may fill the same place at once; they write the same bytes, and the flag is set after them.
    """

    def __init__(self, raw_indices: np.ndarray, image_shape: list[int]):
        self._place = {int(raw_idx): place for place, raw_idx in enumerate(raw_indices)}
        count = len(raw_indices)
        # mmap(-1) is shared with forked children and is not bound by the size of /dev/shm, which containers keep tiny.
        self._memory = mmap.mmap(-1, count * (1 + int(np.prod(image_shape))))
        block = np.frombuffer(self._memory, dtype=np.uint8)
        self._filled = block[:count]
        self._images = block[count:].reshape(count, *image_shape)

    def __reduce__(self):
        # A pickled copy starts empty: sending the pixels would cost more than reading them again.
        return _ImageCache, (np.array(list(self._place), dtype=np.int64), list(self._images.shape[1:]))

    def get(self, raw_idx: int) -> np.ndarray | None:
        place = self._place[raw_idx]
        return self._images[place] if self._filled[place] else None

    def put(self, raw_idx: int, image: np.ndarray) -> None:
        place = self._place[raw_idx]
        self._images[place] = image
        self._filled[place] = 1


def _with_progress(names: list[str], text: str):
    """The names, with a sign of life on the first process."""
    return names if distributed.get_rank() else console.progress(names, len(names), text)


def _name_of(path: str) -> str:
    return os.path.splitext(os.path.basename(os.path.abspath(path)))[0]


def _shape_text(shape) -> str:
    channels, height, width = shape
    return f"{width}x{height} pixels with {channels} channel{'s' if channels > 1 else ''}"


def _size_and_crc(image: np.ndarray):
    data = np.ascontiguousarray(image).tobytes()
    return len(data), zlib.crc32(data)
