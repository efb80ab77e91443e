"""The single digits inside a data set of stacked digits: every channel of every image, each digit once.

The set's own labels (100 r + 10 g + b) say what each channel shows, so a digit classifier can be learned from any such set.
Must not know the classifier.
"""

import hashlib
from dataclasses import dataclass

import numpy as np

from dnnlib.errors import UserError
from metrics import modes
from metrics.listing import NUM_MODES

HELD_OUT_PART = 6  # one digit in six measures the accuracy
MAX_TRIPLES = 60_000  # three times as many draws as MNIST has digits: 95% of them are seen
_ENOUGH_SEEN = 2048  # stop when that many images in a row ...
_NEW_SHARE = 0.01  # ... brought fewer new digits than this share of their channels
_MAX_CONTRADICTIONS = 0.01


@dataclass(frozen=True)
class Digits:
    """Grey images uint8 [N, H, W] with their digits int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self):
        return len(self.labels)

    def take(self, chosen):
        return Digits(self.images[chosen], self.labels[chosen])


def check_stacked(dataset):
    """Refuse a data set that cannot be one of stacked digits."""
    remedy = "give a data set made by dataset_tool.py --build=stacked-mnist or --build=stacked-digits with --data"
    if not dataset.has_onehot_labels:
        raise UserError(f"The modes metric needs class labels 100 r + 10 g + b, but {dataset.name} has none; {remedy}.")
    if dataset.label_dim > NUM_MODES or dataset.num_channels != 3:
        raise UserError(
            f"The modes metric needs RGB images with labels below {NUM_MODES}, but {dataset.name} has {dataset.num_channels} "
            f"channel(s) and labels up to {dataset.label_dim - 1}; {remedy}."
        )


def mode_labels(dataset):
    """The mode of every item: int64 [len(dataset)]."""
    return np.array([int(dataset.get_details(i).raw_label) for i in range(len(dataset))], np.int64)


def collect_digits(dataset, progress=None):
    """Every different channel image of the set with its digit, in an order that depends on the content alone."""
    check_stacked(dataset)
    order = np.random.default_rng(0).permutation(len(dataset))[:MAX_TRIPLES]
    seen, contradictions, channels, new_lately = {}, 0, 0, []
    for count, item in enumerate(order, start=1):
        image, _ = dataset[item]
        before = len(seen)
        for plane, digit in zip(image, modes.unstacked_label(int(dataset.get_details(item).raw_label))):
            key = hashlib.sha1(plane.tobytes(), usedforsecurity=False).digest()
            known = seen.setdefault(key, (plane, int(digit)))
            contradictions += known[1] != digit
            channels += 1
        new_lately.append(len(seen) - before)
        if progress is not None and count % 1000 == 0:
            progress(count)
        if count >= _ENOUGH_SEEN and sum(new_lately[-_ENOUGH_SEEN:]) < _NEW_SHARE * 3 * _ENOUGH_SEEN:
            break
    if contradictions > _MAX_CONTRADICTIONS * channels:
        raise UserError(
            f"The labels of {dataset.name} are not those of stacked digits: equal channels are called different digits in "
            f"{contradictions} of {channels} cases; label each image 100 r + 10 g + b."
        )
    keys = sorted(seen)
    return Digits(np.stack([seen[key][0] for key in keys]), np.array([seen[key][1] for key in keys], np.int64))


def split_digits(digits):
    """(training part, held-out part): by position in the content order, so no digit is in both."""
    held_out = np.arange(len(digits)) % HELD_OUT_PART == 0
    missing = sorted(set(digits.labels[held_out]) - set(digits.labels[~held_out]))
    if missing or len(digits) < HELD_OUT_PART:
        raise UserError(f"The set has too few different digits ({len(digits)}) to learn them and to measure the accuracy; use a larger one.")
    return digits.take(~held_out), digits.take(held_out)
