"""Nearest-neighbour numbers: improved precision and recall, density and coverage. Arrays in, numbers out.

Exact, blockwise, under bounded memory, and independent of the block size to the last count: float64 matrix products
say which pairs are clearly nearer or farther than asked, and every pair that rounding could decide is measured again by
one function whose result for a pair depends on that pair alone. Must not know where features come from.
Legend: N reals or ball centres, M fakes or points, D feature dimensions, P pairs.
"""

import torch

from madr_spaces import faiss_neighbours
from madr_spaces.errors import MADRError
from madr_spaces.feature_sets import check_same_width, checked_matrix

NUMBERS = ("precision", "recall", "density", "coverage")
K_PRECISION_RECALL, K_DENSITY_COVERAGE = 3, 5

TILE_BYTES = 8 << 20  # of one tile; up to four live at once. Larger ones are no faster
ACCELERATOR_TILE_BYTES = 512 << 20
# More candidates than asked for, so that a swap by rounding among nearly equal distances cannot change the k-th.
_SPARE_CANDIDATES = 8
_PAIR_BYTES = 8 << 20
_BLOCK_ROWS = 4096


def pair_distances(a_ND, b_MD, i_P, j_P):
    """Euclidean distances |a[i_p] - b[j_p]|, float64; a value depends on its two rows only, not on the other pairs."""
    chunk = max(1, _PAIR_BYTES // (16 * a_ND.shape[1]))  # heavily tied sets ask for very many pairs
    parts = [
        torch.cdist(a_ND[i].double()[:, None], b_MD[j].double()[:, None], compute_mode="donot_use_mm_for_euclid_dist").flatten()
        for i, j in zip(i_P.split(chunk), j_P.split(chunk))
    ]
    return torch.cat(parts)


def prepare(features, name, device):
    """A checked set as a tensor where float64 is to be had."""
    matrix = torch.from_numpy(checked_matrix(features, name))
    # Apple GPUs have no float64; this arithmetic must not lose it.
    return matrix.to("cpu" if torch.device(device).type == "mps" else device)


def mean_row(x_ND):
    """Mean over the items, float64 [D]; block by block, since a float64 copy of a whole set would double the memory."""
    return sum(part.double().sum(dim=0) for part in x_ND.split(_BLOCK_ROWS)) / len(x_ND)


class Tiles:
    """|a_i - b_j|^2 in tiles by one float64 matrix product each, with a bound on its rounding error."""

    def __init__(self, a_ND, b_MD, tile_bytes):
        # Distances do not change when both sets move; near the origin rounding is smallest.
        self.origin_D = mean_row(b_MD)
        self.a_ND, self.b_MD = a_ND, b_MD
        side = max(1, int((tile_bytes / 8) ** 0.5))
        self.rows, self.cols = min(side, len(a_ND)), min(side, len(b_MD))

    def row_block(self, chosen):
        """(rows [n, D] about the origin, their squared norms [n]) of a slice or of indices."""
        a = self.a_ND[chosen].double() - self.origin_D
        return a, a.square().sum(dim=1)

    def row_blocks(self, first, last):
        for start in range(first, last, self.rows):
            yield start, *self.row_block(slice(start, min(start + self.rows, last)))

    def column_blocks(self, a_nD, norms_n):
        """Yield (first column, squared distances [n, m], their rounding bound as the sum of an [n, 1] and a [1, m])."""
        factor = 4 * (a_nD.shape[1] + 8) * torch.finfo(torch.float64).eps
        for start in range(0, len(self.b_MD), self.cols):
            b = self.b_MD[start : start + self.cols].double() - self.origin_D
            norms_m = b.square().sum(dim=1)
            squared = torch.addmm(norms_m[None], a_nD, b.T, alpha=-2).add_(norms_n[:, None])
            yield start, squared, factor * norms_n[:, None], factor * norms_m[None]


def kth_neighbour_distances(features_ND, k, *, rows=None, device="cpu", tile_bytes=TILE_BYTES, progress=None, through_faiss=None):
    """Distance of each item to its k-th nearest OTHER item of the same set, [N] float64; for a tuple of k: [N, len(k)].

    The item itself is left out by its index, not by its distance, so that duplicates count as neighbours.
    rows: (first, last) to compute a part only; progress: called with the number of finished rows. through_faiss: whether
    faiss proposes the neighbours (None: where it is faster); the numbers are the same to the last bit.
    """
    x_ND = prepare(features_ND, "Given", device)
    orders = torch.as_tensor(k, device=x_ND.device)
    k = int(orders.max())
    if len(x_ND) <= k:
        raise MADRError(
            f"The distance to the {k}-th neighbour needs more than {k} items (got {len(x_ND)}); use more images or a smaller neighbourhood."
        )
    first, last = rows or (0, len(x_ND))
    own_R = torch.arange(first, last, device=x_ND.device)
    if through_faiss is None:
        through_faiss = x_ND.device.type == "cpu" and len(x_ND) >= faiss_neighbours.FEWEST_ITEMS and faiss_neighbours.is_available()
    if not through_faiss or first == last:
        return _kth_by_tiles(x_ND, own_R, orders, tile_bytes, progress)
    radii, proven_R = faiss_neighbours.kth_distances(
        x_ND, mean_row(x_ND), orders, k + _SPARE_CANDIDATES, (first, last), lambda i, j: pair_distances(x_ND, x_ND, i, j), progress
    )
    if not proven_R.all():
        radii[~proven_R] = _kth_by_tiles(x_ND, own_R[~proven_R], orders, tile_bytes, None)
    return radii


def _kth_by_tiles(x_ND, own_R, orders, tile_bytes, progress):
    """The same for the rows own_R (any indices)."""
    tiles = Tiles(x_ND, x_ND, tile_bytes)
    wanted = min(int(orders.max()) + _SPARE_CANDIDATES, len(x_ND) - 1)
    radii, done = [], 0
    for own in own_R.split(tiles.rows):
        n, (a_nD, norms_n) = len(own), tiles.row_block(own)
        best = a_nD.new_zeros((n, 0))
        best_index = torch.zeros((n, 0), dtype=torch.long, device=x_ND.device)
        for col, squared, _, _ in tiles.column_blocks(a_nD, norms_n):
            inside = (own >= col) & (own < col + squared.shape[1])
            squared[inside, own[inside] - col] = float("inf")
            near = squared.topk(min(wanted, squared.shape[1]), dim=1, largest=False)
            best = torch.cat([best, near.values], dim=1)
            best_index = torch.cat([best_index, near.indices + col], dim=1)
            keep = best.topk(min(wanted, best.shape[1]), dim=1, largest=False)
            best, best_index = keep.values, best_index.gather(1, keep.indices)
        candidates = best_index.shape[1]
        exact = pair_distances(x_ND, x_ND, own.repeat_interleave(candidates), best_index.flatten()).reshape(n, candidates)
        radii.append(exact.sort(dim=1).values[:, orders - 1])
        done += n
        if progress is not None:
            progress(done)
    return torch.cat(radii) if done else torch.zeros([0, *orders.shape], dtype=torch.float64, device=x_ND.device)


def ball_hits(points_MD, centres_ND, radii_N, *, strict=False, rows=None, device="cpu", tile_bytes=TILE_BYTES, progress=None):
    """How many balls hold each point [M], and how many points each ball holds [N], int64.

    A ball (centre, radius) holds a point when distance <= radius, or < radius with `strict`.
    rows: (first, last) of the points to compute a part only (the second result then counts those points alone).
    """
    y_MD, x_ND = prepare(points_MD, "Point", device), prepare(centres_ND, "Centre", device)
    check_same_width(x_ND, y_MD, ("Centre", "Point"))
    radii_N = torch.as_tensor(radii_N, dtype=torch.float64).to(x_ND.device)
    first, last = rows or (0, len(y_MD))
    tiles = Tiles(y_MD, x_ND, tile_bytes)
    balls_per_point = torch.zeros(last - first, dtype=torch.long, device=x_ND.device)
    points_per_ball = torch.zeros(len(x_ND), dtype=torch.long, device=x_ND.device)
    for start, y_mD, norms_m in tiles.row_blocks(first, last):
        for col, squared, bound_rows, bound_cols in tiles.column_blocks(y_mD, norms_m):
            radii = radii_N[col : col + squared.shape[1]]
            squared -= radii[None].square()
            inside = squared < 0
            # The squared radius is rounded too: 4 units in the last place cover the square and the root behind it.
            bound_cols = bound_cols + radii[None].square() * (4 * torch.finfo(torch.float64).eps)
            doubtful = (squared.abs_() <= bound_rows + bound_cols).nonzero()
            if len(doubtful):
                i, j = doubtful[:, 0], doubtful[:, 1]
                exact = pair_distances(y_MD, x_ND, i + start, j + col)
                inside[i, j] = exact < radii[j] if strict else exact <= radii[j]
            balls_per_point[start - first : start - first + len(y_mD)] += inside.sum(dim=1)
            points_per_ball[col : col + len(radii)] += inside.sum(dim=0)
        if progress is not None:
            progress(start + len(y_mD) - first)
    return balls_per_point, points_per_ball


# ----------------------------------------------------------------------------------------------------------------
# The numbers.


def check_sets(real_ND, fake_MD, k):
    """Both sets as matrices, or a sentence saying why no k-NN number can be made of them."""
    real, fake = checked_matrix(real_ND, "Real"), checked_matrix(fake_MD, "Generated")
    check_same_width(real, fake)
    for name, matrix in (("real", real), ("generated", fake)):
        if len(matrix) <= k:
            raise MADRError(
                f"A neighbourhood of {k} needs more than {k} {name} images (got {len(matrix)}); use more images or a smaller neighbourhood."
            )
    return real, fake


def precision_recall(real_ND, fake_MD, k=3, *, strict=False, **how):
    """Improved precision and recall (Kynkaanniemi et al. 2019, eq. 1-3).

    precision: share of fakes inside the k-NN ball of at least one real; recall: share of reals inside one of a fake.
    Features that are all equal have balls of radius 0: both numbers are 1, with `strict` 0. how: device, tile_bytes.
    """
    real, fake = check_sets(real_ND, fake_MD, k)
    in_real, _ = ball_hits(fake, real, kth_neighbour_distances(real, k, **how), strict=strict, **how)
    in_fake, _ = ball_hits(real, fake, kth_neighbour_distances(fake, k, **how), strict=strict, **how)
    return float((in_real > 0).double().mean()), float((in_fake > 0).double().mean())


def density_coverage(real_ND, fake_MD, k=5, *, strict=False, **how):
    """Density and coverage (Naeem et al. 2020, eq. 4-5).

    density: 1/(k M) sum of the real balls that hold each fake; coverage: share of real balls that hold any fake.
    Features that are all equal: density N / k and coverage 1, with `strict` both 0.
    """
    real, fake = check_sets(real_ND, fake_MD, k)
    per_fake, per_ball = ball_hits(fake, real, kth_neighbour_distances(real, k, **how), strict=strict, **how)
    return float(per_fake.double().sum() / (k * len(fake))), float((per_ball > 0).double().mean())


def prdc_items(real, fake, numbers, radii, hits):
    """{number: (which items, float64 value of each)} of the wanted NUMBERS; each is the mean over its items, real or generated ones.

    radii(features, k or tuple of k, what it is for), hits(points, centres, radii, what for): the two kernels above, which a
    caller may share among processes.
    """
    wanted, items = set(numbers), {}
    ks = tuple(k for k, those in ((K_PRECISION_RECALL, {"precision"}), (K_DENSITY_COVERAGE, {"density", "coverage"})) if those & wanted)
    if ks:
        real_radii = dict(zip(ks, radii(real, ks, "radii of reals").T))
    if "precision" in wanted:
        items["precision"] = "generated", hits(fake, real, real_radii[K_PRECISION_RECALL], "precision")[0] > 0
    if {"density", "coverage"} & wanted:
        per_fake, per_ball = hits(fake, real, real_radii[K_DENSITY_COVERAGE], "density and coverage")
        items["density"] = "generated", per_fake.double() / K_DENSITY_COVERAGE
        items["coverage"] = "real", per_ball > 0
    if "recall" in wanted:
        items["recall"] = "real", hits(real, fake, radii(fake, K_PRECISION_RECALL, "radii of generated"), "recall")[0] > 0
    return {name: (items[name][0], items[name][1].double().cpu().numpy()) for name in numbers}


def prdc(real_ND, fake_MD, **how):
    """{number: value} of the four, each with the k of the metrics that bear its name. how: as for the kernels."""
    real, fake = check_sets(real_ND, fake_MD, max(K_PRECISION_RECALL, K_DENSITY_COVERAGE))
    radii = lambda features, k, _what: kth_neighbour_distances(features, k, **how)
    hits = lambda points, centres, radii_N, _what: ball_hits(points, centres, radii_N, **how)
    return {name: float(values.mean()) for name, (_, values) in prdc_items(real, fake, NUMBERS, radii, hits).items()}


def expected_coverage(num_real, num_fake, k=5):
    """Coverage of a perfect generator: 1 - prod_{i=1..k} (N - i) / (M + N - i), about 1 - 2^-k for N = M."""
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (num_real - i) / (num_fake + num_real - i)
    return 1.0 - missed
