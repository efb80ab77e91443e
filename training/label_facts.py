"""What is known of the labels of a training set: classes or vectors, the names of the classes, the range of the numbers.

It is kept with the network, so that whoever draws needs no data set. Must not know how labels are typed or drawn.
"""

import json
import os
from dataclasses import dataclass

import numpy as np
import torch

from dnnlib.errors import UserError
from training.data import dataset_io

# The attribute of the generator: a dictionary of one tensor, because that is what loading without running code lets through and
# what other code of the family passes on unseen.
ATTRIBUTE = "label_facts"
_KEY = "json"
_ROWS_AT_ONCE = 1 << 16


@dataclass(frozen=True)
class LabelFacts:
    """are_classes: every label is one-hot. num: length of the label. low, high: range of each number, of vectors alone.

    class_names: in the order of their numbers, None where the set did not state them. absent: classes without an image, as
    (first, last) of each gap: labels may be numbers far apart.
    """

    are_classes: bool
    num: int
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    class_names: tuple[str, ...] | None = None
    absent: tuple[tuple[int, int], ...] = ()

    def is_absent(self, class_index):
        """Whether the set had no image of a class."""
        return any(first <= class_index <= last for first, last in self.absent)

    def name_of(self, class_index):
        """Name of a class, or None."""
        return self.class_names[class_index] if self.class_names and class_index < len(self.class_names) else None


def of_training_set(training_set, labels):
    """The facts of a set whose labels are the tensor [N, L]; data sets of other code do not know names."""
    return of_labels(labels.numpy(), getattr(training_set, "class_names", None))


def of_labels(labels, class_names=None):
    """The facts of labels that are int64 [N] (class numbers) or float [N, L]; None where L is 0."""
    if labels.ndim == 1:
        counts = np.bincount(labels)
        return _classes(counts, class_names)
    num = labels.shape[1]
    if num == 0 or len(labels) == 0:
        return None
    counts, low, high, one_hot = np.zeros([num], np.int64), labels[0].copy(), labels[0].copy(), True
    for start in range(0, len(labels), _ROWS_AT_ONCE):  # all at once would take the memory of the labels twice more
        part = labels[start : start + _ROWS_AT_ONCE]
        ones = part == 1
        one_hot = one_hot and bool((ones | (part == 0)).all() and (ones.sum(axis=1) == 1).all())
        counts += ones.sum(axis=0)
        low, high = np.minimum(low, part.min(axis=0)), np.maximum(high, part.max(axis=0))
    if one_hot:
        return _classes(counts, class_names)
    return LabelFacts(False, num, tuple(map(float, low)), tuple(map(float, high)))


def _classes(counts, class_names):
    names = tuple(class_names[: len(counts)]) if class_names else None
    edges = np.flatnonzero(np.diff(np.concatenate([[0], counts == 0, [0]]).astype(np.int8)))
    gaps = tuple((int(first), int(end) - 1) for first, end in zip(edges[::2], edges[1::2]))
    return LabelFacts(True, len(counts), class_names=names, absent=gaps)


# ------------------------------------------------------------------------------------------
# With the network.


def keep_with(network, facts):
    """Let the network carry the facts into its snapshots; without labels nothing changes."""
    if facts is not None:
        text = json.dumps(vars(facts)).encode()
        setattr(network, ATTRIBUTE, {_KEY: torch.frombuffer(bytearray(text), dtype=torch.uint8)})


def kept_with(network):
    """The facts that a network carries; None where it carries none, or something else."""
    try:
        stated = json.loads(bytes(getattr(network, ATTRIBUTE)[_KEY].cpu().numpy()))
        stated["absent"] = [(int(first), int(last)) for first, last in stated["absent"]]
        facts = LabelFacts(**{name: tuple(value) if isinstance(value, list) else value for name, value in stated.items()})
        names, numbers = facts.class_names or (), (*facts.low, *facts.high)
        is_sound = all(isinstance(name, str) for name in names) and np.isfinite(np.array(numbers, dtype=np.float64)).all()
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return facts if is_sound and len(numbers) == (0 if facts.are_classes else 2 * network.c_dim) else None


def of_snapshot(snapshot):
    """The facts that the generator carries, else those of its training data, if they are still there; None if nobody knows."""
    network = snapshot["G_ema"]
    if network.c_dim == 0:
        return None
    facts = kept_with(network)
    if facts is None:
        path = (snapshot.get("training_set_kwargs") or {}).get("path")
        facts = _of_data(path) if isinstance(path, str) and os.path.exists(path) else None
    return facts if facts is not None and facts.num == network.c_dim else None


def _of_data(path):
    """The facts of a folder or zip, from its dataset.json; the images are not looked at."""
    try:
        files = dataset_io.open_files(path)
        names = [name for name in files.names if dataset_io.is_image_name(name)]
        metadata = dataset_io.read_metadata(files)
        if metadata.labels is None or not names:
            return None
        return of_labels(dataset_io.label_array(metadata.labels, names, path), metadata.class_names)
    except (UserError, OSError):
        return None  # the data may have changed since; they are not what is drawn
