"""Data sets of other code bases: whatever class the options name, the loop asks all of them the same things.

Must not know how training works.
"""

import functools
import zlib

import numpy as np
import torch.utils.data

from training.data import dataset_io


def _fingerprint_of_items(dataset):
    """Hex digest of all items as the object shows them, with its subset and mirror copies; decodes every image."""

    def described(index):
        image, label = dataset[index]
        image = np.ascontiguousarray(image)
        return f"{index:012d}", image.nbytes, zlib.crc32(image.tobytes()), np.asarray(label).tolist()

    return dataset_io.content_digest(described(index) for index in range(len(dataset)))


# What training.dataset.Dataset has beyond the data sets of other forks, and what it comes to without: a function of the data set.
FALLBACKS = {"check_images": lambda dataset: None, "use_cache": lambda dataset, limit_mb: False, "content_fingerprint": _fingerprint_of_items}


class ForeignDataset(torch.utils.data.Dataset):
    """A data set that lacks some of FALLBACKS, with those added. Everything else is the data set's own."""

    def __init__(self, foreign):
        self.foreign = foreign

    def __len__(self):
        return len(self.foreign)

    def __getitem__(self, index):
        return self.foreign[index]

    def __getattr__(self, name):
        if name == "foreign":  # not set yet: while being copied or unpickled
            raise AttributeError(name)
        if name in FALLBACKS and not hasattr(self.foreign, name):
            return functools.partial(FALLBACKS[name], self.foreign)
        return getattr(self.foreign, name)


def as_dataset(made):
    """What a class named in the options has made, with every method that the loop calls."""
    return made if all(hasattr(made, name) for name in FALLBACKS) else ForeignDataset(made)
