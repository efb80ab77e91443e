"""The host's data set as MADR opens and reads it; how images are read at all is in madr_spaces/images.py. Must not know features."""

import os

import numpy as np
import torch

from madr_plugin.host.construct import construct
from madr_spaces.errors import MADRError
from madr_spaces.images import batches


def open_dataset(training_set_kwargs):
    """The host's dataset, by the host's own constructor."""
    if not training_set_kwargs:
        raise MADRError("MADR does not know the training set: pass training_set_kwargs in loss_kwargs.madr, or call loss.attach(context)")
    if "path" in training_set_kwargs and not os.path.exists(training_set_kwargs["path"]):
        raise MADRError(f"MADR: training set {training_set_kwargs['path']} does not exist; check --data")
    return construct(**training_set_kwargs)


def read_images(dataset, rows, largest_side=None, told=len):
    """Images of these indices as the host's loop hands them to its loss: float32 [n, C, H, W] in [-1, 1]; averaged down to a side if they are larger.

    told(images): called with each part that was read (progress.py).
    """
    parts = []
    for images, _ in batches(dataset, rows):
        if largest_side is not None and max(images.shape[-2:]) > largest_side:
            images = torch.nn.functional.adaptive_avg_pool2d(images, [min(side, largest_side) for side in images.shape[-2:]])
        parts.append(images)
        told(images)
    return torch.cat(parts)


def read_images_and_classes(dataset, rows, told=len):
    """(images as read_images(), class index [n]; -1 without labels)."""
    images, classes = [], []
    for part, of_part in batches(dataset, rows):
        images.append(part), classes.append(of_part)
        told(part)
    return torch.cat(images), torch.cat(classes)


def read_images_and_labels(dataset, rows):
    """(images as read_images(), label vectors float32 [n, c]; c is 0 without labels), as D is given them."""
    items = [dataset[int(row)] for row in rows]
    images = torch.from_numpy(np.stack([np.asarray(item[0]) for item in items])).to(torch.float32) / 127.5 - 1
    labels = np.stack([np.asarray(item[1], dtype=np.float32).reshape(-1) for item in items])
    return images, torch.from_numpy(labels)
