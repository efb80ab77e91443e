"""Features that somebody else computed, from .npy and .npz files, in place of images and a network.

    python calc_metrics.py --real-features=real.npz --fake-features=fake.npz --metrics=madr_prdc

Two files of one feature space, rows are items. Must not know which metric asks.
"""

import os
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from madr_spaces.feature_sets import check_same_width, checked_matrix

# Names under which a file of several arrays may keep its features: ours, and those of feature dumps that people pass on.
_NAMES = ("features", "rows", "arr_0")


@dataclass(frozen=True)
class GivenFeatures:
    """Reals [N, D] and generated ones [M, D], with the facts about their files."""

    real: np.ndarray
    fake: np.ndarray
    facts: dict


def read(path, flag, name):
    """The features [items, D] of a file. flag, name: for sentences, like '--real-features' and 'Real'."""
    if not os.path.isfile(path):
        raise UserError(f"{flag}={path} does not exist; give a .npy or .npz file of features, one row per image.")
    try:
        loaded = np.load(path, allow_pickle=False)
        features = loaded if isinstance(loaded, np.ndarray) else _chosen(loaded, path, flag)
    except (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"{flag}={path} is no .npy or .npz file without pickled objects ({str(error)[:120]}); write one with numpy.savez(path, features=array)."
        ) from error
    if features.ndim != 2 or features.dtype.kind not in "fiu":
        raise UserError(
            f"{flag}={path} holds an array of shape {list(features.shape)} and type {features.dtype}; features are a matrix of numbers, one row per image."
        )
    return checked_matrix(features.astype(np.float32) if features.dtype == np.float16 else features, name)


def _chosen(archive, path, flag):
    """The features among the arrays of an .npz: the only matrix, else the one under a known name."""
    with archive:
        arrays = {name: value for name in archive.files if isinstance(value := archive[name], np.ndarray)}  # a zip of other things has bytes
    if {"mu", "sigma"} <= set(arrays):
        raise UserError(
            f"{flag}={path} holds a mean and a covariance (mu, sigma), from which no neighbours can be found; give the features themselves."
        )
    matrices = [name for name, array in arrays.items() if array.ndim == 2]
    for name in matrices if len(matrices) == 1 else [name for name in _NAMES if name in matrices]:
        return arrays[name]
    raise UserError(
        f"{flag}={path} holds {', '.join(f'{name} {list(array.shape)}' for name, array in arrays.items()) or 'nothing'}, and which of them are "
        "the features is not clear; call them 'features'."
    )


def load(real_path, fake_path):
    """GivenFeatures of two files; sentences for all that cannot be one feature space."""
    paths = {"--real-features": real_path, "--fake-features": fake_path}
    missing = [flag for flag, path in paths.items() if path is None]
    if missing:
        there = next(f"{flag}={path}" for flag, path in paths.items() if path is not None)
        raise UserError(
            f"{there} needs {missing[0]} beside it: the features of the {'real' if missing[0] == '--real-features' else 'generated'} images."
        )
    real, fake = read(real_path, "--real-features", "Real"), read(fake_path, "--fake-features", "Generated")
    check_same_width(real, fake)
    facts = {
        name: dict(file=os.path.basename(path), sha256=file_digest(path), dtype=str(features.dtype))
        for name, path, features in (("real", real_path, real), ("generated", fake_path, fake))
    }
    return GivenFeatures(real, fake, facts)
