"""The host's data set as MADR reads it: images, classes, and what tells one set from another.

Reads through the host's own dataset class and leaves the host's random generators alone. Must not know features.
"""

import contextlib
import hashlib
import os
import random

import numpy as np
import torch

from madr_plugin.base.errors import MADRError
from madr_plugin.host.construct import construct


def open_dataset(training_set_kwargs):
    """The host's dataset, by the host's own constructor."""
    if not training_set_kwargs:
        raise MADRError("MADR does not know the training set: pass training_set_kwargs in loss_kwargs.madr, or call loss.attach(context)")
    if "path" in training_set_kwargs and not os.path.exists(training_set_kwargs["path"]):
        raise MADRError(f"MADR: training set {training_set_kwargs['path']} does not exist; check --data")
    return construct(**training_set_kwargs)


def data_fingerprint(dataset):
    """The host's own content hash where it has one, else a hash over the number of images and evenly spaced samples."""
    if hasattr(dataset, "content_fingerprint"):
        return str(dataset.content_fingerprint())
    digest = hashlib.sha256(repr((len(dataset), tuple(dataset.image_shape))).encode())
    for index in np.unique(np.linspace(0, len(dataset) - 1, 512).astype(int)):
        image, label = dataset[int(index)]
        digest.update(np.ascontiguousarray(image).tobytes())
        digest.update(np.ascontiguousarray(label).tobytes())
    return digest.hexdigest()


def selection(dataset):
    """Which of the stored images the object shows and how: a fingerprint speaks of the stored ones, whatever the options."""
    digest = hashlib.sha256(repr((len(dataset), [int(size) for size in getattr(dataset, "label_shape", [])])).encode())
    for name in ("_raw_idx", "_xflip"):  # as in every data set of the StyleGAN2-ADA kind
        digest.update(np.ascontiguousarray(getattr(dataset, name, [])).tobytes())
    return digest.hexdigest()


def read_images(dataset, rows, largest_side=None):
    """Images of these indices as the host's loop hands them to its loss: float32 [n, C, H, W] in [-1, 1]; averaged down to a side if they are larger."""
    parts = []
    for images, _ in batches(dataset, rows):
        if largest_side is not None and images.shape[-1] > largest_side:
            images = torch.nn.functional.adaptive_avg_pool2d(images, [largest_side, largest_side])
        parts.append(images)
    return torch.cat(parts)


def read_images_and_classes(dataset, rows):
    """(images as read_images(), class index [n]; -1 without labels)."""
    images, classes = zip(*batches(dataset, rows))
    return torch.cat(images), torch.cat(classes)


def batches(dataset, rows, batch_size=64):
    """(images [n, C, H, W] float32 in [-1, 1], class [n]) in the order of `rows`."""
    for start in range(0, len(rows), batch_size):
        items = [dataset[int(row)] for row in rows[start : start + batch_size]]
        images = torch.from_numpy(np.stack([np.asarray(item[0]) for item in items])).to(torch.float32) / 127.5 - 1
        labels = np.stack([np.asarray(item[1], dtype=np.float32).reshape(-1) for item in items])
        yield images, classes_of(torch.from_numpy(labels))


def classes_of(labels_NL):
    """Class index of one-hot labels; -1 where there are no labels or labels of another kind."""
    if labels_NL.shape[1] == 0:
        return torch.full([len(labels_NL)], -1, dtype=torch.int64, device=labels_NL.device)
    one_hot_N = ((labels_NL == 0) | (labels_NL == 1)).all(1) & (labels_NL.sum(1) == 1)
    return torch.where(one_hot_N, labels_NL.argmax(1), torch.full_like(labels_NL[:, 0], -1, dtype=torch.int64))


@contextlib.contextmanager
def host_rng_untouched():
    """Dataset classes may draw from Python's or numpy's global generators; the host must not notice that we read it."""
    python_state, numpy_state, torch_state = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        torch.set_rng_state(torch_state)
