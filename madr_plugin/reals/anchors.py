"""Weighted anchors: a large set of real features stood in for by K centroids (faiss.Kmeans), each with the number of its reals.

Pure functions of features; the scales, cells and radii of a reference are still taken from the reals themselves.
Shapes: N reals, K anchors, S sampled reals, D feature width.
"""

import math

import torch

from madr_spaces import kmeans
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.seeds import derived_seed

ITERATIONS = 20
ERROR_SAMPLE = 2048  # reals on which the kernel's part of the error is measured


def compress(features_ND, class_N, num_anchors, seed):
    """-> dict(anchors [K, D], mass [K] float32: reals of each, anchor_class [K], anchor_of_real [N]).

    Within each class (-1: no labels), anchors in proportion to its reals and at least one, so K may differ a little.
    The masses of a class add up to its reals, and the weighted mean of its anchors is the mean of its reals.
    """
    parts, offset, anchor_N = [], 0, torch.zeros([len(features_ND)], dtype=torch.int64)
    for index in class_N.unique().tolist():
        rows = (class_N == index).nonzero()[:, 0]
        wanted = min(max(1, round(num_anchors * len(rows) / len(features_ND))), len(rows))
        own_nD, own_n = _cluster(features_ND[rows], wanted, derived_seed("anchors", seed, index) % 2**31)
        anchor_N[rows] = own_n + offset
        offset += len(own_nD)
        parts.append((own_nD, torch.full([len(own_nD)], index, dtype=torch.int64)))
    anchors_KD, class_K = (torch.cat(part) for part in zip(*parts))
    return dict(anchors=anchors_KD, mass=torch.bincount(anchor_N, minlength=offset).to(torch.float32), anchor_class=class_K, anchor_of_real=anchor_N)


def _cluster(features_nD, wanted, seed):
    """(centroids [k, D], centroid of each row [n]); k <= wanted: centroids without rows are dropped."""
    if wanted == len(features_nD):
        return features_nD.clone(), torch.arange(wanted)
    trained = import_faiss().Kmeans(features_nD.shape[1], wanted, niter=ITERATIONS, seed=seed, min_points_per_centroid=1)
    trained.train(features_nD.contiguous().numpy())
    # One more assignment and mean by our own hand: faiss trains on a sample and returns no means of what it assigns.
    kept, cell_n = kmeans.nearest_centres(features_nD, torch.from_numpy(trained.centroids.copy())).unique(return_inverse=True)
    sums_kD = torch.zeros([len(kept), features_nD.shape[1]], dtype=torch.float64).index_add_(0, cell_n, features_nD.to(torch.float64))
    return (sums_kD / torch.bincount(cell_n)[:, None]).to(torch.float32), cell_n


def quantisation_error(features_ND, anchors_KD, anchor_N):
    """sum |x - a(x)|^2 / sum |x - mean|^2: share of the reals' variance that the anchors do not show; 0 for a perfect stand-in."""
    wide_ND = features_ND.to(torch.float64)
    lost = (wide_ND - anchors_KD[anchor_N].to(torch.float64)).square().sum()
    return float(lost / (wide_ND - wide_ND.mean(0)).square().sum().clamp(min=1e-30))


def kernel_error(features_ND, anchors_KD, anchor_N, kernel):
    """(MMD of the reals and their stand-ins, MMD of the reals and ONE random real times sqrt n): the second, over sqrt(n), is
    what a draw of n reals deviates by, the yardstick of the first.

    MMD^2 = E k(x, x') - 2 E k(x, a(x')) + E k(a(x), a(x')) over pairs of different reals: unbiased, on evenly spread reals.
    """
    rows = torch.linspace(0, len(features_ND) - 1, min(len(features_ND), ERROR_SAMPLE), dtype=torch.float64).round().to(torch.int64)
    real_SD, image_SD = features_ND[rows], anchors_KD[anchor_N[rows]]

    def mean_of_pairs(a_SD, b_SD):
        kernel_SS = kernel(squared_distances(a_SD, b_SD).to(torch.float64))
        return float(kernel_SS.sum() - kernel_SS.diagonal().sum()) / (len(a_SD) * (len(a_SD) - 1))

    among_reals = mean_of_pairs(real_SD, real_SD)
    squared = among_reals - 2 * mean_of_pairs(real_SD, image_SD) + mean_of_pairs(image_SD, image_SD)
    return math.sqrt(max(squared, 0.0)), math.sqrt(max(1 - among_reals, 0.0))


def sentence(num_reals, num_anchors, lost_variance, mmd, mmd_of_one, reals_per_step):
    """What the compression costs, in words."""
    return (
        f"MADR: {num_reals} reals stood in for by {num_anchors} weighted anchors: {lost_variance:.1%} of their variance lost, kernel distance "
        f"{mmd:.2g} (drawing {reals_per_step} reals at random, as each step does, deviates by {mmd_of_one / math.sqrt(reals_per_step):.2g})"
    )


def import_faiss():
    try:
        import faiss
    except ImportError as error:
        raise MADRError(
            "--madr-anchors needs the package faiss-cpu or faiss-gpu for its k-means; install one, or use --madr-anchors=0 "
            "with a --madr-reference-cap that fits your memory"
        ) from error
    return faiss
