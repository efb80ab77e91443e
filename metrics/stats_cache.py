"""Statistics of real images on disk, under a key made of content: what is the same is found again, nothing else is.

Must not know how the statistics are computed.
"""

import hashlib
import json
import os
import zipfile
import zlib

import numpy as np

from dnnlib import cache
from dnnlib.files import atomic_open
from dnnlib.util import make_cache_dir_path
from metrics import METRICS_VERSION
from metrics.feature_stats import FeatureStats


def describe(dataset, dataset_kwargs, detector, detector_kwargs, max_items, stats_kwargs, drawn_with=None):
    """All that the statistics depend on, as JSON-able facts. The data set's path is not among them.

    drawn_with: seed of a random draw of max_items images; None: the first ones.
    """
    # A space depends on more than its file: on what it was fitted to, on how it resizes images.
    space = {} if detector.identity is None else {"space": detector.identity}
    return {
        **space,
        **({} if drawn_with is None else {"drawn": ["subsets", drawn_with]}),
        "version": METRICS_VERSION,
        "data": dataset.content_fingerprint(),
        "image_shape": list(dataset.image_shape),
        "xflip": bool(dataset_kwargs.get("xflip", False)),
        "subset": [dataset_kwargs.get("max_size"), dataset_kwargs.get("random_seed", 0)] if dataset_kwargs.get("max_size") else None,
        "max_items": max_items,
        "detector": [detector.name, detector.sha256],
        "detector_kwargs": dict(detector_kwargs),
        "stats": dict(stats_kwargs),
    }


def cache_path(facts):
    """Where the statistics of these facts lie. The detector's name is for the reader's eye, the hash decides."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    readable = "".join(ch if ch.isalnum() or ch in "-_." else "_" for ch in facts["detector"][0])[:80]
    return make_cache_dir_path("gan-metrics", f"{readable}-{digest[:32]}.npz")


def load(path, facts):
    """(FeatureStats or None, why not or None). A missing file is no fault; a damaged one is named and does not count."""
    if not os.path.isfile(path):
        return None, None
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if json.loads(str(arrays["facts"])) != json.loads(json.dumps(facts)):
                return None, f"Cached statistics {path} belong to something else; computing them again."
            return FeatureStats.from_arrays(arrays), None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError) as error:
        return None, f"Cached statistics {path} are damaged ({type(error).__name__}); computing them again."


def save(path, facts, stats):
    """Write atomically: a reader or a second writer sees the old file or the new one. Whether it was kept; if not, that is said."""

    def write(path):
        with atomic_open(path) as file:
            np.savez(file, facts=np.array(json.dumps(facts)), **stats.to_arrays())

    return cache.keep(path, write)
