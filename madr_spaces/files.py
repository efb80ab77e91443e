"""Cache files of features: where they lie, written whole or not at all, read without executing anything."""

import hashlib
import json
import os
import pickle
import tempfile
from pathlib import Path

import torch


def cache_folder():
    """The host's cache ($DNNLIB_CACHE_DIR, else ~/.cache/dnnlib) with a folder of ours in it."""
    root = os.environ.get("DNNLIB_CACHE_DIR") or os.path.join("~", ".cache", "dnnlib")
    return Path(os.path.expanduser(root)) / "madr-features"


def path_of(identity, name):
    """Where the file of an identity (a plain dict) lies. The name is for the reader's eye, the hash decides."""
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
    return cache_folder() / f"{name}-{key[:32]}.pt"


def save_known(identity, name, tensors, announce):
    """Keep {name: tensor} under an identity if the cache can be written; -> tensors."""
    try:
        save_tensors(path_of(identity, name), dict(identity=json.dumps(identity, sort_keys=True), tensors=tensors))
    except OSError as error:
        announce(f"MADR: real features not cached, they will be extracted again next time: {error}")
    return tensors


def load_known(identity, name, announce):
    """{name: tensor} kept under an identity; {} if there is no such file, or one that is damaged or of another format, which is told."""
    path = path_of(identity, name)
    if not path.is_file():
        return {}
    cached = load_tensors(path)
    if isinstance(cached, dict) and cached.get("identity") == json.dumps(identity, sort_keys=True) and isinstance(cached.get("tensors"), dict):
        return cached["tensors"]
    announce(f"MADR: the cache file {path} is damaged or of another format; computing it again.")
    return {}


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
    """{name: tensor}, or None when the file is absent or damaged."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError):
        return None
