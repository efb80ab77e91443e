"""The numbers that are computed from whole feature sets or their moments: arrays in, numbers out.

Nothing here reads a file, knows a network or draws without being given a generator. Float64 throughout.
Legend: N reals, M fakes, D feature dimensions, C classes, S splits.
"""

import numpy as np

from dnnlib.errors import UserError
from madr_spaces.feature_sets import as_matrix, check_finite, check_same_width

# How much negative mass an eigenvalue may have, relative to the largest, before the matrix is no covariance.
_NEGATIVE_TOLERANCE = 1e-6


# ----------------------------------------------------------------------------------------------------------------
# Frechet distance (Heusel et al. 2017, eq. 6).


def mean_and_covariance(features_ND):
    """mu_D and the biased covariance (1/N) sum (x - mu)(x - mu)^T, both float64."""
    x_ND = as_matrix(features_ND, "Given")
    mean_D = x_ND.mean(axis=0)
    centred_ND = x_ND - mean_D
    return mean_D, centred_ND.T @ centred_ND / len(x_ND)


def _psd_square_root(cov_DD, name):
    """The symmetric square root of a covariance; rounding-sized negative eigenvalues count as zero."""
    check_finite(cov_DD, f"{name} covariance:")
    values_D, vectors_DD = np.linalg.eigh((cov_DD + cov_DD.T) / 2)
    if values_D[0] < -_NEGATIVE_TOLERANCE * max(values_D[-1], np.finfo(np.float64).tiny):
        raise UserError(f"The {name} covariance has a negative eigenvalue ({values_D[0]:.3g}), so it is no covariance; compute the statistics again.")
    return (vectors_DD * np.sqrt(np.maximum(values_D, 0))) @ vectors_DD.T


def frechet_distance(mean_a_D, cov_a_DD, mean_b_D, cov_b_DD):
    """|mu_a - mu_b|^2 + tr(A + B - 2 (A B)^(1/2)).

    tr (A B)^(1/2) is the sum of the singular values of A^(1/2) B^(1/2): the same number as through a general matrix
    square root, but real and stable also when there are fewer items than dimensions.
    """
    mean_a_D, mean_b_D = np.asarray(mean_a_D, np.float64), np.asarray(mean_b_D, np.float64)
    cov_a_DD, cov_b_DD = np.asarray(cov_a_DD, np.float64), np.asarray(cov_b_DD, np.float64)
    if mean_a_D.shape != mean_b_D.shape or cov_a_DD.shape != cov_b_DD.shape:
        raise UserError(f"The two sets of statistics have {mean_a_D.size} and {mean_b_D.size} dimensions; both must come from one detector.")
    cross_DD = _psd_square_root(cov_a_DD, "first") @ _psd_square_root(cov_b_DD, "second")
    trace_root = np.linalg.svd(cross_DD, compute_uv=False).sum()
    return float(np.square(mean_a_D - mean_b_D).sum() + np.trace(cov_a_DD) + np.trace(cov_b_DD) - 2 * trace_root)


# ----------------------------------------------------------------------------------------------------------------
# Kernel distance (Binkowski et al. 2018, section 4).


def polynomial_mmd2(x_ND, y_MD):
    """Unbiased squared MMD under k(x, y) = (x.y / D + 1)^3."""
    n, m, dims = len(x_ND), len(y_MD), x_ND.shape[1]

    def kernel(a, b):
        return (a @ b.T / dims + 1) ** 3

    def mean_off_diagonal(k):
        return (k.sum() - np.trace(k)) / (len(k) * (len(k) - 1))

    if min(n, m) < 2:
        raise UserError(f"The kernel distance needs at least 2 items on each side (got {n} and {m}); use more images.")
    return float(mean_off_diagonal(kernel(x_ND, x_ND)) + mean_off_diagonal(kernel(y_MD, y_MD)) - 2 * kernel(x_ND, y_MD).mean())


def kernel_distance(real_ND, fake_MD, num_subsets, max_subset_size, rng, progress=None):
    """The mean of polynomial_mmd2 over random subsets of equal size, drawn without replacement from `rng`."""
    real_ND, fake_MD = as_matrix(real_ND, "Real"), as_matrix(fake_MD, "Generated")
    check_same_width(real_ND, fake_MD)
    size = min(len(real_ND), len(fake_MD), max_subset_size)
    estimates = []
    for done in range(1, num_subsets + 1):
        x = real_ND[rng.choice(len(real_ND), size, replace=False)]
        y = fake_MD[rng.choice(len(fake_MD), size, replace=False)]
        estimates.append(polynomial_mmd2(x, y))
        if progress is not None:
            progress(done)
    return float(np.mean(estimates))


# ----------------------------------------------------------------------------------------------------------------
# Inception score (Salimans et al. 2016, section 4).


def inception_score(probs_NC, num_splits):
    """Mean and standard deviation over S consecutive parts of exp(mean_n KL(p(y|x_n) || mean_n p(y|x_n)))."""
    probs_NC = as_matrix(probs_NC, "Class probability")
    if len(probs_NC) < num_splits:
        raise UserError(f"The inception score over {num_splits} parts needs at least {num_splits} images (got {len(probs_NC)}); generate more.")
    if probs_NC.min() < 0:
        raise UserError(f"Class probabilities must not be negative (got {probs_NC.min():.3g}); the detector does not return probabilities.")
    scores_S = []
    edges = np.arange(num_splits + 1) * len(probs_NC) // num_splits
    for first, last in zip(edges[:-1], edges[1:]):
        part_nC = probs_NC[first:last]
        marginal_C = part_nC.mean(axis=0)
        # 0 log 0 = 0; where the marginal is 0 so is every p, hence the ratio there never counts.
        ratio_nC = np.divide(part_nC, marginal_C, out=np.ones_like(part_nC), where=part_nC > 0)
        scores_S.append(np.exp((part_nC * np.log(ratio_nC)).sum(axis=1).mean()))
    return float(np.mean(scores_S)), float(np.std(scores_S))


# ----------------------------------------------------------------------------------------------------------------
# Perceptual path length (Karras et al. 2018, section 4.1): the outliers at both ends do not count.


def trimmed_mean(values_N, low_percent=1, high_percent=99):
    """Mean of the values between the two percentiles, both included; the percentiles are values of the set itself."""
    values_N = np.asarray(values_N, np.float64)
    check_finite(values_N, "Path length")
    low = np.percentile(values_N, low_percent, method="lower")
    high = np.percentile(values_N, high_percent, method="higher")
    return float(values_N[(values_N >= low) & (values_N <= high)].mean())
