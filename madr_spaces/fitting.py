"""Spaces that are fitted to data (pca, random): which images they see, and what is kept of them between calls.

Must not know what the features are for.
"""

import numpy as np
import torch

from madr_spaces import files, images
from madr_spaces.seeds import derived_seed

FORMAT = 1  # raise when the content of a cache file changes meaning


def order(num_images, seed):
    """All image numbers in the order in which they are chosen where not all can be looked at."""
    return np.random.RandomState(derived_seed("reference", seed) % 2**32).permutation(num_images)


@torch.no_grad()
def fit(space, dataset, seed, device="cpu"):
    """Fit a space to images of a data set; -> {name: tensor}, its buffers on the CPU."""
    rows = np.sort(order(len(dataset), seed)[: space.images_to_fit])
    space.fit(torch.cat([space.shrunk(part.to(device)) for part, _ in images.batches(dataset, rows)]))
    return buffers_of(space)


def buffers_of(space):
    return {name: value.detach().cpu().clone() for name, value in space.named_buffers()}


def put(space, buffers):
    for name, value in space.named_buffers():
        value.copy_(buffers[name])


def fitted(space, dataset, cache=True, announce=print):
    """Buffers of a space fitted to a data set with seed 0 on the CPU, for a metric; kept on disk under the content of the set."""
    if not cache:
        return fit(space, dataset, 0)
    name = space.identity()["name"]
    identity = dict(format=FORMAT, fit=space.identity(), data=images.data_fingerprint(dataset), selection=images.selection(dataset))
    return files.load_known(identity, f"fit-{name}", announce) or files.save_known(identity, f"fit-{name}", fit(space, dataset, 0), announce)


def facts(space, dataset):
    """What a result line says of the fit."""
    return dict(data=images.data_fingerprint(dataset), images=min(space.images_to_fit, len(dataset)), seed=0)
