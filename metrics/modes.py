"""How many of a known set of modes a generator reaches, and how evenly: counts in, numbers out.

Must not know how the counts came about (metrics/mode_coverage.py) nor what a mode looks like.
Legend: K modes, n samples.
"""

import numpy as np

from dnnlib.errors import UserError

ENOUGH_HITS = 5  # a stray misclassification reaches a mode once, hardly ever five times


def stacked_label(digits_N3):
    """Three digits -> one of 1000 modes: 100 r + 10 g + b."""
    digits_N3 = np.asarray(digits_N3, np.int64)
    return digits_N3 @ np.array([100, 10, 1])


def unstacked_label(labels_N):
    """One of 1000 modes -> its three digits [N, 3]."""
    labels_N = np.asarray(labels_N, np.int64)
    return np.stack([labels_N // 100, labels_N // 10 % 10, labels_N % 10], axis=-1)


def kl_divergence(counts_K, reference_K):
    """KL(p || q) in nats for p = counts / n; modes without a sample add nothing (0 log 0 = 0)."""
    counts_K, reference_K = np.asarray(counts_K, np.float64), np.asarray(reference_K, np.float64)
    if counts_K.shape != reference_K.shape:
        raise UserError(f"Counts of {counts_K.size} modes cannot be compared with a reference of {reference_K.size}.")
    if counts_K.sum() <= 0 or reference_K.sum() <= 0:
        raise UserError("The divergence over modes needs at least one sample and one reference item.")
    p, q = counts_K / counts_K.sum(), reference_K / reference_K.sum()
    hit = p > 0
    if (q[hit] == 0).any():
        return float("inf")
    return float((p[hit] * np.log(p[hit] / q[hit])).sum())


def mode_statistics(counts_K, reference_K):
    """Modes with at least 1 and at least 5 samples, KL in nats, and the share of samples outside the reference's modes.

    Only modes that the reference holds count; samples of other modes are left out of the KL (which they would make
    infinite) and reported as `outside`.
    """
    counts_K, reference_K = np.asarray(counts_K, np.int64), np.asarray(reference_K, np.float64)
    wanted = reference_K > 0
    inside = counts_K[wanted]
    return {
        "modes": int((inside >= 1).sum()),
        "modes_5hits": int((inside >= ENOUGH_HITS).sum()),
        "kl": kl_divergence(inside, reference_K[wanted]) if inside.sum() else float("inf"),
        "outside": float(1 - inside.sum() / counts_K.sum()),
    }


def independent_digits(counts_1000):
    """The distribution over 1000 modes that has the counts' digit frequencies and independent channels."""
    table = np.asarray(counts_1000, np.float64).reshape(10, 10, 10)
    total = table.sum()
    r, g, b = table.sum(axis=(1, 2)) / total, table.sum(axis=(0, 2)) / total, table.sum(axis=(0, 1)) / total
    return np.einsum("i,j,k->ijk", r, g, b).reshape(1000)


def real_data_floor(data_K, reference_K, num_samples, rng, num_repeats=50):
    """What a perfect generator would score: the mean over repeats of mode_statistics on n samples of the data.

    data_K: the data's distribution over modes, from which a perfect generator draws; reference_K: what KL compares with.
    Returns (mean KL, its standard deviation over repeats, mean number of modes).
    """
    data_K = np.asarray(data_K, np.float64)
    scores = [mode_statistics(counts, reference_K) for counts in rng.multinomial(num_samples, data_K / data_K.sum(), size=num_repeats)]
    kl = np.array([score["kl"] for score in scores])
    return float(kl.mean()), float(kl.std()), float(np.mean([score["modes"] for score in scores]))
