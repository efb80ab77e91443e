"""Data sets with known modes: three digits stacked into the channels of an RGB image, 1000 modes in all.

Stacked Digits uses scikit-learn's bundled digits (no download, quick), Stacked MNIST the real ones (the protocol that
papers report). Label = 100 * red + 10 * green + blue digit. Must not know how such sets are judged.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from dnnlib.errors import UserError
from training.data import mnist
from training.data.writer import open_writer

NUM_MODES = 1000
RESOLUTION = 32
BUILDERS = ["stacked-digits", "stacked-mnist"]
# Image counts when none is asked for, by builder and split.
DEFAULT_NUM_IMAGES = {
    ("stacked-digits", "train"): 50_000,
    ("stacked-digits", "eval"): 10_000,
    ("stacked-mnist", "train"): 128_000,
    ("stacked-mnist", "test"): 26_000,
}
_EVAL_EVERY = 4  # every fourth digit of a class is kept for evaluation
_ENLARGEMENT = 3
_WEIGHT_UNIT = 2 * _ENLARGEMENT**3  # makes the interpolation weights whole numbers
_SPLIT_NUMBER = {"train": 0, "eval": 1, "test": 1}

Progress = Callable[[Iterable], Iterable]


def build_stacked_digits(
    dest: str,
    split: str = "train",
    num_images: int | None = None,
    modes: int = NUM_MODES,
    imbalanced: bool = False,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[int, int]:
    """Write Stacked Digits (32x32, enlarged smoothly from 8x8) to a zip or folder; returns the image count per mode.

    split: 'train' or 'eval', which share no digit: of each class, in scikit-learn's order, the 4th, 8th, 12th ... digit
    is for evaluation and all others are for training.
    """
    digits, labels, content_hash = load_small_digits(split)
    provenance = {
        "digits": "scikit-learn load_digits",
        "source_sha256": {"load_digits": content_hash},
        "split_rule": f"eval = every {_EVAL_EVERY}th digit of each class in scikit-learn's order",
    }
    return _build_stack("stacked-digits", dest, digits, labels, split, num_images, modes, imbalanced, seed, provenance, progress)


def build_stacked_mnist(
    dest: str,
    source: str | None = None,
    split: str = "train",
    num_images: int | None = None,
    modes: int = NUM_MODES,
    imbalanced: bool = False,
    seed: int = 0,
    progress: Progress = iter,
) -> dict[int, int]:
    """Write Stacked MNIST (32x32: 28x28 with a border of 2) to a zip or folder; returns the image count per mode.

    source: folder with MNIST's idx files; None downloads them.
    split: 'train' (triples of the 60,000 training digits) or 'test' (of the 10,000 test digits).
    """
    digits, labels, hashes = mnist.load_mnist(source, split)
    if max(digits.shape[1:]) > RESOLUTION:
        raise UserError(
            f"The digits in {source} are {digits.shape[2]}x{digits.shape[1]} pixels; Stacked MNIST takes up to {RESOLUTION}x{RESOLUTION}."
        )
    if labels.max() > 9:
        raise UserError(f"The labels in {source} go up to {labels.max()}; Stacked MNIST takes the ten digits 0-9.")
    provenance = {"digits": "MNIST", "source_sha256": hashes, "split_rule": "MNIST's own training and test digits"}
    return _build_stack("stacked-mnist", dest, digits, labels, split, num_images, modes, imbalanced, seed, provenance, progress)


def _build_stack(
    builder: str,
    dest: str,
    digits: np.ndarray,
    labels: np.ndarray,
    split: str,
    num_images: int | None,
    modes: int,
    imbalanced: bool,
    seed: int,
    provenance: dict[str, Any],
    progress: Progress,
) -> dict[int, int]:
    num_images = num_images or DEFAULT_NUM_IMAGES[builder, split]
    rng = np.random.RandomState([seed, _SPLIT_NUMBER[split]])  # RandomState's numbers are frozen for ever
    mode_numbers = draw_modes(num_images, np.bincount(labels, minlength=10), modes, imbalanced, rng)
    triples = draw_triples(mode_numbers, labels, rng)
    top, left = (RESOLUTION - digits.shape[1]) // 2, (RESOLUTION - digits.shape[2]) // 2
    window = np.s_[top : top + digits.shape[1], left : left + digits.shape[2]]
    with open_writer(dest) as writer:
        writer.class_names = [f"{mode:03d}" for mode in range(modes)]
        writer.provenance = {
            "builder": builder,
            "version": 1,
            "seed": seed,
            "split": split,
            "num_images": num_images,
            "modes": modes,
            "mode_rule": f"labels 0 to {modes - 1}",
            "imbalanced": imbalanced,
            **provenance,
        }
        image = np.zeros([RESOLUTION, RESOLUTION, 3], dtype=np.uint8)
        for mode, triple in progress(list(zip(mode_numbers.tolist(), triples))):
            for channel, index in enumerate(triple):
                image[(*window, channel)] = digits[index]
            writer.add(image, mode)
    return dict(sorted(Counter(mode_numbers.tolist()).items()))


def draw_modes(num_images: int, class_counts: np.ndarray, modes: int, imbalanced: bool, rng: np.random.RandomState) -> np.ndarray:
    """Mode number of each image, int64 [num_images], independently drawn.

    Balanced: three digits drawn uniformly from all digits, given that the mode is among the first `modes`
    (p(mode) ~ product of the three class counts). Imbalanced, as in GDPP: with probability .3 uniform over the 1000 modes,
    else int(N(700, 200)) clipped to 0 ... 999.
    """
    if not 1 <= modes <= NUM_MODES:
        raise UserError(f"--modes must lie between 1 and {NUM_MODES} (got {modes}).")
    if num_images < 1:
        raise UserError(f"--num-images must be at least 1 (got {num_images}).")
    if imbalanced:
        if modes != NUM_MODES:
            raise UserError(f"--imbalanced is defined over all {NUM_MODES} modes; leave --modes={modes} away.")
        is_uniform = rng.random_sample(num_images) < 0.3
        peaked = rng.normal(700, 200, size=num_images).astype(np.int64).clip(0, NUM_MODES - 1)
        return np.where(is_uniform, rng.randint(0, NUM_MODES, size=num_images), peaked)
    counts = class_counts.astype(np.int64)
    weights = (counts[:, None, None] * counts[None, :, None] * counts[None, None, :]).reshape(-1)[:modes]
    cumulative = np.cumsum(weights)
    if cumulative[-1] == 0:
        raise UserError(f"The source has no digits for the first {modes} modes; raise --modes or give all ten digits.")
    return np.searchsorted(cumulative, rng.randint(0, cumulative[-1], size=num_images, dtype=np.int64), side="right")


def draw_triples(mode_numbers: np.ndarray, labels: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Indices of three digits for each mode, int64 [N, 3]: each uniform over its class."""
    by_class = np.argsort(labels, kind="stable")
    counts = np.bincount(labels, minlength=10)
    first = np.cumsum(counts) - counts
    classes = np.stack([mode_numbers // 100, mode_numbers // 10 % 10, mode_numbers % 10], axis=1)
    missing = sorted(set(classes[counts[classes] == 0].tolist()))
    if missing:
        raise UserError(f"The source holds no digit {missing[0]}, but the modes need it; give all ten digits.")
    return by_class[first[classes] + (rng.random_sample(classes.shape) * counts[classes]).astype(np.int64)]


# ---------------------------------------------------------------------------------------------------------------------
# scikit-learn's digits.


def load_small_digits(split: str) -> tuple[np.ndarray, np.ndarray, str]:
    """uint8 [N, 30, 30], labels [N] of a split, and the SHA-256 of all 8x8 originals with their labels."""
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UserError("--build=stacked-digits needs scikit-learn: pip install scikit-learn") from error
    bundle = load_digits()
    images, labels = bundle.images.astype(np.uint8), bundle.target.astype(np.uint8)
    content_hash = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    chosen = is_eval_digit(labels) == (split == "eval")
    return enlarge_digits(images[chosen]), labels[chosen], content_hash


def is_eval_digit(labels: np.ndarray) -> np.ndarray:
    """bool [N]: the split rule of Stacked Digits: every fourth of each class, counted in the given order."""
    result = np.zeros(len(labels), dtype=bool)
    for number in np.unique(labels):
        result[np.flatnonzero(labels == number)[_EVAL_EVERY - 1 :: _EVAL_EVERY]] = True
    return result


def enlarge_digits(images: np.ndarray) -> np.ndarray:
    """[N, 8, 8] with values 0 ... 16 to uint8 [N, 30, 30]: a dark border of one pixel, then Catmull-Rom interpolation x3.

    All sums are of whole numbers, so the bytes are equal on every machine.
    """
    weights = _catmull_rom_weights(images.shape[1] + 2, _ENLARGEMENT)
    padded = np.pad(images.astype(np.int64), [(0, 0), (1, 1), (1, 1)])
    unit = 16 * _WEIGHT_UNIT**2  # what full brightness amounts to
    values = (weights @ padded @ weights.T).clip(0, unit)
    return ((2 * 255 * values + unit) // (2 * unit)).astype(np.uint8)  # rounded to the nearest


def _catmull_rom_weights(size: int, factor: int) -> np.ndarray:
    """int64 [size * factor, size], in units of 1/_WEIGHT_UNIT: row i weighs the samples around (i + 1/2) / factor - 1/2.

    Everything outside is taken as zero.
    """
    weights = np.zeros([size * factor, size])
    for row in range(size * factor):
        position = (row + 0.5) / factor - 0.5
        base = int(np.floor(position + 1e-9))
        t = position - base
        # Keys (1981), a = -1/2: weights of the samples base-1 ... base+2.
        taps = [-(t**3) + 2 * t**2 - t, 3 * t**3 - 5 * t**2 + 2, -3 * t**3 + 4 * t**2 + t, t**3 - t**2]
        for sample, tap in enumerate(taps, start=base - 1):
            if 0 <= sample < size:
                weights[row, sample] = tap / 2
    return np.rint(weights * _WEIGHT_UNIT).astype(np.int64)
