"""What report.py has found out about the diversity of one snapshot, kept as a file of arrays in the run folder.

The file says what it was made of (its key); whoever would make it of something else makes it anew. Must not know how
the arrays are computed (metrics/) nor how they are shown.
"""

import hashlib
import json
import os
import re
import zipfile
import zlib
from dataclasses import dataclass

import numpy as np

from dnnlib import files
from torch_utils.snapshot_names import NETWORK_SNAPSHOT_REGEX, kimg_of

VERSION = 1  # raise when the arrays or how they come about change
NAME_REGEX = re.compile(r"^diversity-(\d+)(?:-(\d{3}))?\.npz$")
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError)


@dataclass
class DiversityFile:
    """kimg of the snapshot; facts: a dict of JSON; arrays: {name: array}. `in`: whether an array is there."""

    kimg: float
    facts: dict
    arrays: dict

    def __contains__(self, name):
        return name in self.arrays

    def __getitem__(self, name):
        return self.arrays[name]


def path_for(network):
    """Where the file for a network snapshot lies; None when the network's name is none of a snapshot."""
    match = NETWORK_SNAPSHOT_REGEX.match(os.path.basename(network))
    return (
        os.path.join(os.path.dirname(os.path.abspath(network)), f"diversity-{match.group(1)}{'-' + match.group(2) if match.group(2) else ''}.npz")
        if match
        else None
    )


def of_snapshot(network, facts, arrays):
    """The DiversityFile of a network snapshot, as it would be read from its file."""
    return DiversityFile(kimg_of(NETWORK_SNAPSHOT_REGEX.match(os.path.basename(network))), json.loads(json.dumps(facts)), arrays)


def key_of(inputs):
    """Digest of everything that the arrays depend on, a dict of JSON."""
    return hashlib.sha256(json.dumps([VERSION, inputs], sort_keys=True).encode()).hexdigest()


def save(path, key, facts, arrays):
    with files.atomic_open(path) as file:
        np.savez_compressed(file, key=np.array(key), facts=np.array(json.dumps(facts)), **arrays)


def load(path, key=None):
    """DiversityFile, or None when there is none, it is of another version or, with `key`, made of something else. Raises one of DAMAGED."""
    if not os.path.isfile(path):
        return None
    with np.load(path, allow_pickle=False) as stored:
        facts = json.loads(str(stored["facts"]))
        if facts["version"] != VERSION or key is not None and str(stored["key"]) != key:
            return None
        return DiversityFile(
            kimg_of(NAME_REGEX.match(os.path.basename(path))), facts, {name: stored[name] for name in stored.files if name not in ("key", "facts")}
        )


def newest(run_dir, problems):
    """The DiversityFile of the newest snapshot that has one which can be read, or None; damaged ones are told in `problems`."""
    names = sorted((name for name in os.listdir(run_dir) if NAME_REGEX.match(name)), key=lambda name: kimg_of(NAME_REGEX.match(name)))
    for name in reversed(names):
        try:
            found = load(os.path.join(run_dir, name))
        except DAMAGED as error:
            problems.append(f"{name} is damaged ({type(error).__name__}) and left out; report.py makes it again.")
            continue
        if found is not None:
            return found
    return None
