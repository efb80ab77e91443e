"""Images of a data set of the StyleGAN2-ADA kind, as every space is shown them; and what tells one set from another.

Reads through the host's own data set object and leaves the host's random generators alone. Must not know features.
"""

import contextlib
import hashlib
import random

import numpy as np
import torch


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


def image_fingerprint(dataset):
    """Hash over the number of stored images and some of them: the same for one set, whoever opens it and however (labels, mirror, subset)."""
    stored = getattr(dataset, "_raw_shape", None)
    if stored is not None and callable(getattr(dataset, "_load_raw_image", None)):  # as in every data set of the StyleGAN2-ADA kind
        count, image_of = int(stored[0]), dataset._load_raw_image
    else:
        count, image_of = len(dataset), lambda index: dataset[index][0]
    digest = hashlib.sha256(repr(count).encode())
    for index in np.unique(np.linspace(0, count - 1, 128).astype(int)):
        image = np.ascontiguousarray(image_of(int(index)))
        digest.update(repr(image.shape).encode() + image.tobytes())
    return digest.hexdigest()


def selection(dataset):
    """Which of the stored images the object shows and how: a fingerprint speaks of the stored ones, whatever the options."""
    digest = hashlib.sha256(repr((len(dataset), [int(size) for size in getattr(dataset, "label_shape", [])])).encode())
    for name in ("_raw_idx", "_xflip"):  # as in every data set of the StyleGAN2-ADA kind
        digest.update(np.ascontiguousarray(getattr(dataset, name, [])).tobytes())
    return digest.hexdigest()


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
