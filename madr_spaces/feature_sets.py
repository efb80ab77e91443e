"""Sets of features as numbers are computed of them: matrices, finite, of one width; and sentences where they are not.

Legend: N, M items, D feature dimensions.
"""

import numpy as np
import torch

from madr_spaces.errors import MADRError


def checked_matrix(features, name):
    """Check a [N, D] set of features (NumPy or torch) and return it as NumPy, float32 kept and all else as float64."""
    array = features.detach().cpu().numpy() if isinstance(features, torch.Tensor) else np.asarray(features)
    if array.ndim != 2 or array.shape[0] < 1 or array.shape[1] < 1:
        raise MADRError(f"{name} features must be a non-empty matrix of shape [items, dimensions] (got {list(array.shape)}); check the detector.")
    check_finite(array, name)
    return array if array.dtype == np.float32 else array.astype(np.float64, copy=False)


def as_matrix(features, name):
    """The same, always as float64."""
    return checked_matrix(features, name).astype(np.float64, copy=False)


def check_finite(array, name):
    """Refuse NaN and infinity with the number of the first item that holds one."""
    finite = np.isfinite(array).reshape(len(array), -1).all(axis=1)
    if not finite.all():
        bad = np.flatnonzero(~finite)
        raise MADRError(
            f"{name} features hold NaN or infinity in {len(bad)} of {len(array)} items (first: item {bad[0]}); "
            "the images or the detector are broken, so no number can be given."
        )


def check_same_width(a_ND, b_MD, names=("Real", "Generated")):
    if a_ND.shape[1] != b_MD.shape[1]:
        raise MADRError(
            f"{names[0]} features have {a_ND.shape[1]} dimensions and {names[1].lower()} ones {b_MD.shape[1]}; both must come from one detector."
        )
