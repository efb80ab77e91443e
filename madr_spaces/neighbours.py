"""Nearest-neighbour numbers: improved precision and recall, density and coverage. Arrays in, numbers out.

Exact, blockwise, under bounded memory, and independent of the block size to the last count: matrix products (on a CPU
rounded ones, rounded_products.py, else in float64) say which pairs are clearly nearer or farther than asked, and every pair
that rounding could decide is measured again by one function whose result for a pair depends on that pair alone. Must not
know where features come from.
Legend: N reals or ball centres, M fakes or points, D feature dimensions, P pairs.
"""

import torch

from madr_spaces import rounded_products
from madr_spaces.errors import MADRError
from madr_spaces.feature_sets import check_same_width, checked_matrix

NUMBERS = ("precision", "recall", "density", "coverage")
K_PRECISION_RECALL, K_DENSITY_COVERAGE = 3, 5

TILE_BYTES = 8 << 20  # of one tile; up to four live at once. Larger ones are no faster
ACCELERATOR_TILE_BYTES = 512 << 20
# More candidates than asked for, so that a swap by rounding among nearly equal distances cannot change the k-th.
_SPARE_CANDIDATES = 8
_PAIR_BYTES, _ACCELERATOR_PAIR_BYTES = 768 << 10, 64 << 20
_BLOCK_ROWS = 4096


def pair_distances(a_ND, b_MD, i_P, j_P):
    """Euclidean distances |a[i_p] - b[j_p]|, float64; a value depends on its two rows only, not on the other pairs."""
    # Heavily tied sets ask for very many pairs; on a CPU those of a chunk stay in the cache.
    chunk = max(1, (_PAIR_BYTES if a_ND.device.type == "cpu" else _ACCELERATOR_PAIR_BYTES) // (8 * a_ND.shape[1]))
    origin = torch.zeros([1, 1, a_ND.shape[1]], dtype=torch.float64, device=a_ND.device)
    parts = [i_P.new_zeros([0], dtype=torch.float64)]
    for i, j in zip(i_P.split(chunk), j_P.split(chunk)):
        between_PD = a_ND.index_select(0, i).double().sub_(b_MD.index_select(0, j))
        parts.append(torch.cdist(between_PD[None], origin, compute_mode="donot_use_mm_for_euclid_dist").flatten())
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


def kth_neighbour_distances(features_ND, k, *, rows=None, device="cpu", tile_bytes=TILE_BYTES, progress=None, rounded=None):
    """Distance of each item to its k-th nearest OTHER item of the same set, [N] float64; for a tuple of k: [N, len(k)].

    The item itself is left out by its index, not by its distance, so that duplicates count as neighbours.
    rows: (first, last) to compute a part only; progress: called with the number of finished rows. rounded: whether
    rounded products propose the neighbours (None: where it is faster); the numbers are the same to the last bit.
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
    if not _rounded_pays(rounded, x_ND) or first == last:
        return _kth_by_tiles(x_ND, own_R, orders, tile_bytes, progress)
    radii, found_R = rounded_products.kth_distances(
        x_ND, mean_row(x_ND), orders, (first, last), lambda i, j: pair_distances(x_ND, x_ND, i, j), progress
    )
    if not found_R.all():
        radii[~found_R] = _kth_by_tiles(x_ND, own_R[~found_R], orders, tile_bytes, None)
    return radii


def _rounded_pays(asked, *sets):
    if asked is not None:
        return asked
    return all(len(x_ND) >= rounded_products.FEWEST_ITEMS and x_ND.device.type == "cpu" for x_ND in sets)


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


def ball_hits(points_MD, centres_ND, radii_N, *, strict=False, **how):
    """How many balls hold each point [M], and how many points each ball holds [N], int64.

    A ball (centre, radius) holds a point when distance <= radius, or < radius with `strict`.
    rows: (first, last) of the points to compute a part only (the second result then counts those points alone).
    """
    per_point, per_ball, _ = all_ball_hits(points_MD, centres_ND, torch.as_tensor(radii_N)[:, None], strict=strict, **how)
    return per_point[:, 0], per_ball[:, 0]


def all_ball_hits(
    points_MD, centres_ND, radii_NK, own_radii_M=None, *, strict=False, rows=None, device="cpu", tile_bytes=TILE_BYTES, progress=None, rounded=None
):
    """The same of several balls about each centre, and of one about each point, in one pass over the pairs.

    Returns (balls per point [M, K], points per ball [N, K], balls of points per centre [N], None without own_radii_M), int64.
    """
    y_MD, x_ND = prepare(points_MD, "Point", device), prepare(centres_ND, "Centre", device)
    check_same_width(x_ND, y_MD, ("Centre", "Point"))
    radii_NK = torch.as_tensor(radii_NK, dtype=torch.float64).to(x_ND.device)
    if own_radii_M is not None:
        own_radii_M = torch.as_tensor(own_radii_M, dtype=torch.float64).to(x_ND.device)
    rows = rows or (0, len(y_MD))
    hits = _Hits(rows, len(x_ND), radii_NK.shape[1], own_radii_M is not None, x_ND.device)
    pairs = None
    if _rounded_pays(rounded, y_MD, x_ND):
        measure = lambda i, j: pair_distances(y_MD, x_ND, i, j)
        pairs = rounded_products.BallPairs(y_MD, x_ND, mean_row(x_ND), radii_NK, own_radii_M, measure)
    if pairs is not None and pairs.is_usable:
        for start, end, found in pairs.blocks(*rows):
            if found is None:
                _hits_by_tiles(hits, y_MD, x_ND, radii_NK, own_radii_M, strict, (start, end), tile_bytes, None)
            else:
                row_P, column_P, side_PK = found
                hits.add_pairs(start + row_P, column_P, side_PK < 0 if strict else side_PK <= 0)
            if progress is not None:
                progress(end - rows[0])
    else:
        _hits_by_tiles(hits, y_MD, x_ND, radii_NK, own_radii_M, strict, rows, tile_bytes, progress)
    return hits.result()


class _Hits:
    """Counts: column k < K the k-th ball about each centre, the last one that about each point, where there are any."""

    def __init__(self, rows, num_centres, num_radii, of_points, device):
        self.first, self.num_radii, self.of_points = rows[0], num_radii, of_points
        columns = num_radii + of_points
        self.per_point = torch.zeros([rows[1] - rows[0], columns], dtype=torch.long, device=device)
        self.per_centre = torch.zeros([num_centres, columns], dtype=torch.long, device=device)

    def add_pairs(self, row_P, column_P, inside_PK):
        for k, inside_P in enumerate(inside_PK.unbind(1)):
            self.per_point[:, k] += torch.bincount(row_P[inside_P] - self.first, minlength=len(self.per_point))
            self.per_centre[:, k] += torch.bincount(column_P[inside_P], minlength=len(self.per_centre))

    def result(self):
        own = self.per_centre[:, -1] if self.of_points else None
        return self.per_point[:, : self.num_radii], self.per_centre[:, : self.num_radii], own


def _hits_by_tiles(hits, y_MD, x_ND, radii_NK, own_radii_M, strict, rows, tile_bytes, progress):
    """Add those of the points of `rows`, through products in float64."""
    tiles = Tiles(y_MD, x_ND, tile_bytes)
    for start, y_mD, norms_m in tiles.row_blocks(*rows):
        at = start - hits.first
        for col, squared, bound_rows, bound_cols in tiles.column_blocks(y_mD, norms_m):
            n, m = squared.shape
            of_centres = [radii_NK[col : col + m, k][None] for k in range(radii_NK.shape[1])]
            of_points = [] if own_radii_M is None else [own_radii_M[start : start + n][:, None]]
            for k, radii in enumerate(of_centres + of_points):
                beyond = squared - radii.square()
                inside = beyond < 0
                # The squared radius is rounded too: 4 units in the last place cover the square and the root behind it.
                bound = bound_rows + bound_cols + radii.square() * (4 * torch.finfo(torch.float64).eps)
                doubtful = (beyond.abs_() <= bound).nonzero()
                if len(doubtful):
                    i, j = doubtful[:, 0], doubtful[:, 1]
                    exact = pair_distances(y_MD, x_ND, i + start, j + col)
                    limit = radii.expand(n, m)[i, j]
                    inside[i, j] = exact < limit if strict else exact <= limit
                hits.per_point[at : at + n, k] += inside.sum(dim=1)
                hits.per_centre[col : col + m, k] += inside.sum(dim=0)
        if progress is not None:
            progress(at + len(y_mD))


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

    radii(features, k or tuple of k, what it is for), hits(points, centres, radii_NK, own_radii_M or None, what for): the kernels above,
    which a caller may share among processes. The pairs of real and generated items are looked at once.
    """
    wanted, items = set(numbers), {}
    ks = [k for k, those in ((K_PRECISION_RECALL, {"precision"}), (K_DENSITY_COVERAGE, {"density", "coverage"})) if those & wanted]
    real_radii = radii(real, tuple(ks), "radii of reals") if ks else torch.zeros([len(real), 0], dtype=torch.float64)
    fake_radii = radii(fake, K_PRECISION_RECALL, "radii of generated") if "recall" in wanted else None
    per_fake, per_ball, per_real = hits(fake, real, real_radii, fake_radii, "inside")
    if "precision" in wanted:
        items["precision"] = "generated", per_fake[:, ks.index(K_PRECISION_RECALL)] > 0
    if {"density", "coverage"} & wanted:
        column = ks.index(K_DENSITY_COVERAGE)
        items["density"] = "generated", per_fake[:, column].double() / K_DENSITY_COVERAGE
        items["coverage"] = "real", per_ball[:, column] > 0
    if "recall" in wanted:
        items["recall"] = "real", per_real > 0
    return {name: (items[name][0], items[name][1].double().cpu().numpy()) for name in numbers}


def prdc(real_ND, fake_MD, **how):
    """{number: value} of the four, each with the k of the metrics that bear its name. how: as for the kernels."""
    real, fake = check_sets(real_ND, fake_MD, max(K_PRECISION_RECALL, K_DENSITY_COVERAGE))
    radii = lambda features, k, _what: kth_neighbour_distances(features, k, **how)
    hits = lambda points, centres, radii_NK, own_radii_M, _what: all_ball_hits(points, centres, radii_NK, own_radii_M, **how)
    return {name: float(values.mean()) for name, (_, values) in prdc_items(real, fake, NUMBERS, radii, hits).items()}


def expected_coverage(num_real, num_fake, k=5):
    """Coverage of a perfect generator: 1 - prod_{i=1..k} (N - i) / (M + N - i), about 1 - 2^-k for N = M."""
    missed = 1.0
    for i in range(1, k + 1):
        missed *= (num_real - i) / (num_fake + num_real - i)
    return 1.0 - missed
