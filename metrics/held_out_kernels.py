"""Numbers of generated features that stand beside those of real ones which nobody trained on. Arrays in, numbers out.

Exact where pairs are compared; nothing draws without being given a generator. Must not know where features come from.
Legend: N reals, M points (generated or held-out), D feature dimensions, L directions, C classes.
"""

import numpy as np
import torch

from dnnlib.errors import UserError
from madr_spaces import neighbours
from madr_spaces.feature_sets import as_matrix, check_same_width
from metrics.diversity_kernels import nearest_centres

NUM_DIRECTIONS = 512
CLEAR_K = 3
_DIRECTIONS_AT_ONCE = 32


# ----------------------------------------------------------------------------------------------------------------
# Sliced Wasserstein distance (Bonneel et al. 2015, eq. 6, by directions drawn at random).


def sliced_wasserstein(x_ND, y_MD, directions_LD):
    """sqrt(mean_l W_2(x u_l, y u_l)^2): in one dimension W_2^2 is the integral of the squared difference of the quantile functions.

    Exact for each direction, also where N and M differ.
    """
    x, y = as_matrix(x_ND, "First"), as_matrix(y_MD, "Second")
    check_same_width(x, y, ("First", "Second"))
    n, m = len(x), len(y)
    steps = np.union1d(np.arange(n + 1) * m, np.arange(m + 1) * n)  # in units of 1 / (N M): between two of them both functions are constant
    widths, of_x, of_y = np.diff(steps) / (n * m), steps[:-1] // m, steps[:-1] // n
    squares = []
    for start in range(0, len(directions_LD), _DIRECTIONS_AT_ONCE):
        chosen = directions_LD[start : start + _DIRECTIONS_AT_ONCE].T
        along_x, along_y = np.sort(x @ chosen, axis=0), np.sort(y @ chosen, axis=0)
        squares.append(widths @ np.square(along_x[of_x] - along_y[of_y]))
    return float(np.sqrt(np.concatenate(squares).mean()))


def random_directions(num_dims, rng, count=NUM_DIRECTIONS):
    """Unit vectors, uniform on the sphere, [L, D]."""
    directions = rng.standard_normal((count, num_dims))
    return directions / np.linalg.norm(directions, axis=1, keepdims=True)


def ratio(of_generated, of_held_out, what):
    """of_generated / of_held_out; a sentence where the held-out images are at no distance."""
    if not of_held_out > 0:
        raise UserError(
            f"The held-out images are at no {what} from the reals, so nothing can be compared with it; give other images with --held-out."
        )
    return of_generated / of_held_out


# ----------------------------------------------------------------------------------------------------------------
# Shares and quality of classes.


def seen_classes(real_ND, class_N, points_MD, *, k=CLEAR_K, device="cpu"):
    """(class of each point's nearest real [M], whether the point is clear, bool [M]).

    Clear: inside the ball of a real of that class which reaches to this real's k-th nearest other real. An unclear image lies between the
    classes, and its nearest real is of a rare one more often than not: it says nothing of either.
    """
    real, points = neighbours.check_sets(real_ND, points_MD, k)
    class_N = np.asarray(class_N)
    class_M = class_N[nearest_centres(points, real, block=max(1, neighbours.TILE_BYTES // (8 * len(real))))[0]]
    radii = neighbours.kth_neighbour_distances(real, k, device=device).cpu().numpy()
    clear_M = np.zeros(len(points), bool)
    for number in np.unique(class_M):
        own, reals = np.flatnonzero(class_M == number), class_N == number
        hits, _ = neighbours.ball_hits(points[own], real[reals], torch.from_numpy(radii[reals]), device=device)
        clear_M[own] = hits.cpu().numpy() > 0
    return class_M, clear_M


def class_shares(class_M, clear_M, num_classes):
    """(share of the points that are clear images of each class [C], share of clear ones among those taken for the class [C], nan without any)."""
    taken = np.bincount(class_M, minlength=num_classes)
    clear = np.bincount(class_M[clear_M], minlength=num_classes)
    return clear / len(class_M), np.divide(clear, taken, out=np.full(num_classes, np.nan), where=taken > 0)


def rare_classes(class_N, num_classes):
    """Classes of which there are fewer than half as many reals as of the mean class, ascending."""
    count_C = np.bincount(class_N, minlength=num_classes)
    return np.flatnonzero((count_C > 0) & (count_C < len(class_N) / (2 * num_classes)))
