"""How diverse generated images are against real ones, cheaply: thumbnails, principal components, cells. Pure functions.

Nothing here is meant to replace a metric: pixels at 16 x 16 see colours, shapes and layouts, not meaning. They are
nearly free, and enough to see modes being lost. Must not know networks, alarms or files.
Legend: N reals, M fakes, D features, K cells.
"""

import numpy as np
import torch

SIDE = 16  # of the thumbnails, in pixels
MAX_FEATURES = 32  # principal components
MAX_CELLS = 32
IMAGES_PER_CELL = 8  # expected in a cell, at least: of the reals that it is fitted on and of the fakes
GATE = 0.99  # quantile of the reals' distances to their centres: what lies farther off resembles no real
LEAST_GATE = 0.05  # per pixel, in [-1, 1]: for sets in which every image is a cell of its own
HELD_SHARE = 0.25  # a cell with less than this part of its expected fakes does not count as held
FARTHEST = 1000.0  # distance of a generator that makes no finite image, and the largest that is told
NUM_SIMULATIONS = 400  # of the overlap that a perfect generator shows


def thumbnails(images):
    """Images [N, C, H, W] in [-1, 1] -> float32 [N, C * side^2] on the CPU, side = min(H, W, 16); area means."""
    side = min(*images.shape[2:], SIDE)
    small = torch.nn.functional.adaptive_avg_pool2d(images.to(torch.float32), [side, side])
    return small.flatten(1).cpu()


def fit_reference(thumbs_ND, num_fakes, population, k_means, seed):
    """What the fakes are measured against, as a dict of tensors and numbers.

    thumbs_ND: of the real images. num_fakes: per measurement. population: size of the set that the reals were drawn from.
    k_means(points_ND, num_centres, rng) -> centres [K, D]. Returns mean and basis of the features, centres and shares of
    the cells, their common radius, variance of the reals; expected, noise: of the overlap for a perfect generator.
    """
    rng = np.random.Generator(np.random.PCG64(seed))
    mean_D = thumbs_ND.to(torch.float64).mean(0)
    centred_ND = thumbs_ND.to(torch.float64) - mean_D
    _, vectors = torch.linalg.eigh(centred_ND.T @ centred_ND / len(centred_ND))
    basis = vectors[:, -MAX_FEATURES:].flip(1)
    features_ND = centred_ND @ basis
    num_cells = int(np.clip(min(len(thumbs_ND), num_fakes) // IMAGES_PER_CELL, min(2, len(thumbs_ND)), MAX_CELLS))
    centres_KD = torch.from_numpy(k_means(features_ND.numpy(), num_cells, rng))
    distance_N, cell_N = nearest_centres(features_ND, centres_KD)
    counts_K = torch.bincount(cell_N, minlength=len(centres_KD))
    centres_KD, counts_K = centres_KD[counts_K > 0], counts_K[counts_K > 0]
    shares_K = counts_K.to(torch.float64) / len(features_ND)
    expected, noise = simulated_overlap(shares_K.numpy(), num_fakes, len(thumbs_ND), population, rng)
    radius = max(float(torch.quantile(distance_N, GATE)), LEAST_GATE * thumbs_ND.shape[1] ** 0.5)
    return dict(
        mean=mean_D,
        basis=basis,
        centres=centres_KD,
        shares=shares_K,
        radius=radius,
        variance=total_variance(features_ND),
        expected=expected,
        noise=noise,
    )


def features_of(thumbs_ND, reference):
    """float64 [N, D] in the reals' principal components; images that are not finite are left out."""
    thumbs_ND = thumbs_ND[thumbs_ND.isfinite().all(1)].to(torch.float64)
    return (thumbs_ND - reference["mean"]) @ reference["basis"]


def total_variance(features_MD):
    """Half the mean squared distance of two of them; 0 for fewer than two."""
    return float(features_MD.var(0).sum()) if len(features_MD) > 1 else 0.0


def nearest_centres(features_MD, centres_KD):
    """(distance to the nearest centre [M], its index [M])."""
    return torch.cdist(features_MD, centres_KD, compute_mode="donot_use_mm_for_euclid_dist").min(1)


def overlap(counts_K, shares_K, num_fakes):
    """sum_k min(n_k / M, p_k): the share of the reals' mass that the fakes fill; 1 less the total variation distance."""
    return float(torch.minimum(counts_K.to(torch.float64) / num_fakes, shares_K).sum())


def simulated_overlap(shares_K, num_fakes, num_reals, population, rng):
    """(mean, standard deviation) of the overlap when fakes and reals come from one distribution.

    The shares themselves are uncertain when the reals are a part of their population (drawn without replacement, hence
    the finite population factor).
    """
    true_RK = np.broadcast_to(shares_K, [NUM_SIMULATIONS, len(shares_K)])
    left_out = 1 - num_reals / max(population, num_reals)
    if left_out > 0:
        drawn_RK = rng.multinomial(num_reals, shares_K, size=NUM_SIMULATIONS) / num_reals
        true_RK = np.maximum(shares_K + (drawn_RK - shares_K) * left_out**0.5, 0)
        true_RK = true_RK / true_RK.sum(1, keepdims=True)
    counts_RK = np.stack([rng.multinomial(num_fakes, true_K) for true_K in true_RK])
    overlap_R = np.minimum(counts_RK / num_fakes, shares_K).sum(1)
    return float(overlap_R.mean()), float(overlap_R.std())


def measure(thumbs_MD, reference, num_fakes):
    """(numbers, held cells: bool [K]) of one set of fakes.

    diversity: overlap over what a perfect generator shows, about 1. spread: root of the fakes' variance over the reals',
    which is the ratio of their root mean square pairwise distances. cells: number of cells held. within: share of the
    fakes within the gate of some cell; those beyond count for no cell. distance: median distance of a fake to its nearest
    centre, in units of that gate.
    """
    features_MD = features_of(thumbs_MD, reference)
    distance_M, cell_M = nearest_centres(features_MD, reference["centres"])
    counts_K = torch.bincount(cell_M[distance_M <= reference["radius"]], minlength=len(reference["centres"]))
    held_K = counts_K > HELD_SHARE * num_fakes * reference["shares"]
    variance = total_variance(features_MD)
    spread = (variance / reference["variance"]) ** 0.5 if reference["variance"] > 0 else float(variance == 0)
    diversity = overlap(counts_K, reference["shares"], num_fakes) / reference["expected"]
    distance = float(distance_M.median() / reference["radius"]) if len(distance_M) else FARTHEST
    return dict(
        diversity=diversity, spread=spread, cells=float(held_K.sum()), within=int(counts_K.sum()) / num_fakes, distance=min(distance, FARTHEST)
    ), held_K
