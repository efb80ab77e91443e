"""Writes the plugin's cache files whole or not at all, and reads them without executing anything."""

import os
import pickle
import tempfile
from pathlib import Path

import torch


def cache_folder():
    """Name our folder in the host's cache ($DNNLIB_CACHE_DIR, else ~/.cache/dnnlib)."""
    root = os.environ.get("DNNLIB_CACHE_DIR") or os.path.join(os.path.expanduser("~"), ".cache", "dnnlib")
    return Path(root) / "madr-features"


def save_tensors(path, tensors):
    """Write {name: tensor} atomically."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save(tensors, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def load_tensors(path):
    """Read {name: tensor}; None when the file is absent or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
