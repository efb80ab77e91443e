"""Computes what the table of champions goes by: thresholds, their floor, and which reals are pulled to. Pure functions.

Shapes: N reals, D feature width. Distances are Euclidean, in feature space; squared ones say so.
Source: one latent per real with a threshold that tightens where it is met, Adaptive IMLE (Aghabozorgi 2023); the floor and the ages are our own.
"""

import torch

from madr_spaces.distances import squared_distances

RANKS = (1, 2, 4, 8, 16, 32, 64)  # of neighbours whose distance is kept
DUPLICATES = 0.1  # quantile of the distances between different reals under which a real's own counts as that of a copy


@torch.no_grad()
def held_out_radii(features_ND, class_N, ranks=RANKS, block=512):
    """Compute how far the k-th nearest OTHER real of each real's class is, for k in `ranks` -> [N, ranks] > 0.

    The first is as near as a new image of p_data comes to it, were there as many as reals. class_N: int64, -1 without labels; of a class of fewer
    the farthest counts, a class of one real looks at all. A copy of another real gets the lower decile of the first distances between different
    reals, else it would ask for a copy. Raises ValueError where all reals are alike.
    """
    radii_NK = _nearest_others(features_ND, class_N, ranks, block)
    alone_N = ~torch.isfinite(radii_NK[:, 0])
    if alone_N.any():
        radii_NK = torch.where(alone_N[:, None], _nearest_others(features_ND, torch.full_like(class_N, -1), ranks, block), radii_NK)
    different = radii_NK[:, 0][torch.isfinite(radii_NK[:, 0]) & (radii_NK[:, 0] > 0)]
    if len(different) == 0:
        raise ValueError("all real features are alike")
    return radii_NK.clamp(min=float(different.sort().values[int(DUPLICATES * (len(different) - 1))]))


def _nearest_others(features_ND, class_N, ranks, block):
    """Distances to the nearest other rows of the same class, of these ranks (the last one for ranks beyond it) -> [N, ranks]; inf where there is none."""
    centred_ND, found, last = features_ND - features_ND.mean(0), [], min(max(ranks), len(features_ND) - 1)
    for start in range(0, len(features_ND), block):
        rows = torch.arange(start, min(start + block, len(features_ND)), device=features_ND.device)
        squared_nN = squared_distances(centred_ND[rows], centred_ND)
        squared_nN.masked_fill_(class_N[rows, None] != class_N[None, :], torch.inf)
        squared_nN[rows - start, rows] = torch.inf
        lowest_nL, at_nL = squared_nN.topk(last, dim=1, largest=False)
        # Once more as differences: of products little is left where two are near.
        exact_nL = (centred_ND[rows, None] - centred_ND[at_nL]).norm(dim=2)
        exact_nL = torch.where(torch.isfinite(lowest_nL), exact_nL, torch.inf).sort(dim=1).values
        there_n = torch.isfinite(exact_nL).sum(1)
        places_nK = torch.tensor(ranks, device=rows.device).minimum(there_n[:, None]).clamp(min=1) - 1
        found.append(exact_nL.gather(1, places_nK))
    return torch.cat(found)


def rank_expected(num_reals, num_images, expected):
    """Find the place in RANKS of the ball around a real in which `expected` of so many images lie at p_g = p_data, rounded up; None: wider than all."""
    rank = max(1.0, expected * num_reals / max(num_images, 1))
    return next((place for place, known in enumerate(RANKS) if rank <= known), None)


def aged_squared(squared_N, age_N, drift):
    """e_r^2 = d_r^2 + v age_r: what a squared distance measured so many images ago is expected to be now; inf stays inf -> [N].

    drift: v >= 0, by how much squared distances of remembered latents have been found to grow per generated image.
    """
    return squared_N + drift * age_N


def shrunk_thresholds(threshold_N, distance_N, floor_N, halvings):
    """tau_r <- max(floor_r, tau_r 2^-halvings) where e_r <= tau_r, else tau_r -> [N]. halvings >= 0: what the step amounts to."""
    return torch.where(distance_N <= threshold_N, torch.maximum(floor_N, threshold_N * 2.0**-halvings), threshold_N)


def pull_weights(distance_N, threshold_N, largest):
    """v_r = min(e_r / tau_r, largest) where e_r > tau_r and finite, else 0: in proportion to which reals are drawn -> [N]."""
    is_far_N = (distance_N > threshold_N) & torch.isfinite(distance_N)
    ratio_N = torch.where(is_far_N, distance_N, 0) / threshold_N
    return ratio_N.clamp(max=largest)
