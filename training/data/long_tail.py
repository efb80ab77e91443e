"""A long-tailed part of a source with classes: class k of K keeps ratio^(-k / (K - 1)) times as many images as class 0.

The profile of long-tailed CIFAR-10 (Cao et al. 2019, 1906.07413, section 4.1). Must not know how pictures are checked or written.
"""

from collections.abc import Iterator

import numpy as np

from dnnlib.errors import UserError
from training.data.sources import Source, SourceImage


def kept_counts(counts_K: np.ndarray, ratio: float) -> np.ndarray:
    """int64 [K]: images that each class keeps of counts_K, classes in order: the most that the profile allows, rounded down."""
    shares_K = ratio ** (-np.arange(len(counts_K)) / (len(counts_K) - 1))
    return np.floor((counts_K / shares_K).min() * shares_K + 1e-9).astype(np.int64)


class LongTail(Source):
    """The images of another source that a long tail keeps, in their order. seed: of the choice within each class."""

    def __init__(self, source: Source, ratio: float, seed: int, path: str):
        super().__init__()
        self._source = source
        labels = source.labels()
        if not all(isinstance(label, int) for label in labels):
            raise UserError(f"--long-tail={ratio:g} needs a class number for every image of {path}; see --labels, or leave it out.")
        classes_N = np.array(labels, dtype=np.int64)
        numbers, counts_K = np.unique(classes_N, return_counts=True)
        if len(numbers) < 2:
            raise UserError(f"--long-tail={ratio:g} needs at least two classes, and {path} has {len(numbers)}; leave it out.")
        kept_K = kept_counts(counts_K, ratio)
        if kept_K.min() < 1:
            raise UserError(f"--long-tail={ratio:g} would leave no image of class {numbers[kept_K.argmin()]} of {path}; give a smaller ratio.")
        chosen = [
            np.random.RandomState([seed, number]).permutation(np.flatnonzero(classes_N == number))[:kept]  # frozen for ever
            for number, kept in zip(numbers.tolist(), kept_K.tolist())
        ]
        self._chosen = set(np.concatenate(chosen).tolist())
        self.num_images = len(self._chosen)
        self.has_labels, self.class_names, self.notes, self.remarks = True, source.class_names, source.notes, source.remarks
        told = dict(ratio=ratio, seed=seed, class_counts=counts_K.tolist(), kept=kept_K.tolist())
        self.provenance = dict(source.provenance or {}, long_tail=told)  # digits in three colours stay so

    def labels(self) -> list:
        return [label for index, label in enumerate(self._source.labels()) if index in self._chosen]

    def __iter__(self) -> Iterator[SourceImage]:
        for index, image in enumerate(self._source):
            if index in self._chosen:
                yield image
