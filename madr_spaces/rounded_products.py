"""Which pairs of two sets are near, from matrix products of rounded numbers, with a proof that no near pair is left out.

A product in bfloat16 (float32 where the CPU has no instructions for it) costs a fraction of one in float64. It gives half
the squared distance of every pair up to a bound, and the few pairs that the bound leaves in doubt are measured by the
caller. Must not know what neighbours or balls are for.

With x = hi + lo, hi rounded:  |x.y - hi_x.hi_y| <= |lo_x||y| + |hi_x||lo_y|;  the norms ride along as further columns, in three
parts each, so that the product is |x|^2/2 + |y|^2/2 - hi_x.hi_y. Legend: N items, D feature dimensions, P pairs, n rows of a block.
"""

import functools

import torch

FEWEST_ITEMS = 2048  # below, float64 is as fast
MOST_PAIRS = 128  # per row of a block, on average: with more, the bound says too little
_BLOCK_BYTES = 24 << 20  # of one block of products
_BLOCK_ROWS = 1024
_ROWS_THAT_TELL = 512  # blocks of fewer rows say too little of the rows after them
_GROUP = 16  # columns of which the least is taken at once; a row is padded to a multiple of it
_FAR = 1e30  # half the squared distance of the padding
_LARGEST_NORM = 1e14  # beyond, squares leave the range in which the bound holds
_INTEGERS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}  # non-negative floats are ordered as their bits are


@functools.cache
def rounded_type():
    """bfloat16 where this CPU multiplies it and its products are as exact as the bound supposes, else float32."""
    if not any(getattr(torch.cpu, f"_is_{name}_supported", bool)() for name in ("avx512_bf16", "amx_tile")):
        return torch.float32
    x = torch.randn([64, 1000], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both = x.to(torch.bfloat16)
    error = (both @ both.T).double() - both.double() @ both.double().T
    largest = both.double().abs() @ both.double().abs().T
    return torch.bfloat16 if bool((error.abs() <= 2**-8 * (both.double() @ both.double().T).abs() + 1e-5 * largest).all()) else torch.float32


class RoundedSet:
    """A set about an origin, rounded: columns_NE = [hi, 1, 1, 1, |x|^2/2 in three parts], norms of x and of its remainder lo (float64)."""

    def __init__(self, x_ND, origin_D, dtype=None):
        self.count, dims = x_ND.shape
        self.dtype = dtype or rounded_type()
        padded = -(-self.count // _GROUP) * _GROUP
        self.columns_NE = torch.zeros([padded, dims + 6], dtype=self.dtype)
        self.norm_N = torch.zeros([self.count], dtype=torch.float64)
        self.rest_N = torch.zeros([self.count], dtype=torch.float64)
        for start in range(0, self.count, _BLOCK_ROWS):
            rows = slice(start, min(start + _BLOCK_ROWS, self.count))
            centred_nD = x_ND[rows].double() - origin_D
            self.columns_NE[rows, :dims] = centred_nD
            self.norm_N[rows] = torch.linalg.vector_norm(centred_nD, dim=1)
            self.rest_N[rows] = torch.linalg.vector_norm(centred_nD - self.columns_NE[rows, :dims].double(), dim=1)
        self.columns_NE[:, dims : dims + 3] = 1
        left_N = torch.full([padded], _FAR, dtype=torch.float64)
        left_N[: self.count] = self.norm_N.square() / 2
        for part in range(3):
            self.columns_NE[:, dims + 3 + part] = left_N
            left_N -= self.columns_NE[:, dims + 3 + part].double()
        self.is_usable = bool((self.norm_N <= _LARGEST_NORM).all())
        self.largest_norm, self.largest_rest = float(self.norm_N.max()), float(self.rest_N.max())
        # Products of D + 6 terms summed in float32, and the rounding of the norms' last part; four times what each costs at most.
        self.unit = 4 * (dims + 14) * torch.finfo(torch.float32).eps

    def rows(self, chosen):
        """The left side of the product: [-hi, |x|^2/2 in three parts, 1, 1, 1] of a slice."""
        x_nE = self.columns_NE[chosen]
        return torch.cat([-x_nE[:, :-6], x_nE[:, -3:], x_nE[:, -6:-3]], dim=1)

    def bound(self, other, chosen=slice(None)):
        """How far half a squared distance is off at most, for each chosen item against any of the other set, before the product is rounded."""
        norm_n, rest_n = self.norm_N[chosen], self.rest_N[chosen]
        products = rest_n * other.largest_norm + (norm_n + rest_n) * other.largest_rest
        return products + self.unit * (norm_n.square() + other.largest_norm**2) + 1e-30


class Products:
    """Half the squared distances of the pairs of two rounded sets, block by block of rows."""

    def __init__(self, rows, columns):
        self.rows, self.columns, self.dtype = rows, columns, rows.dtype
        self.rounding = 0.51 * torch.finfo(self.dtype).eps  # of the result: half a unit in the last place
        width, size = len(columns.columns_NE), torch.finfo(self.dtype).bits // 8
        self.block_rows = max(32, min(_BLOCK_ROWS, _BLOCK_BYTES // (size * width)) // _GROUP * _GROUP)

    def blocks(self, first, last):
        """Yield (first row, its end, products [n, columns with padding])."""
        for start in range(first, last, self.block_rows):
            end = min(start + self.block_rows, last)
            yield start, end, self.rows.rows(slice(start, end)) @ self.columns.columns_NE.T

    def at_most(self, product_n, bound_n):
        """Upper bound of what a product stands for."""
        return product_n.double().clamp(min=0) / (1 - self.rounding) + bound_n

    def at_least(self, product_n, bound_n):
        """Lower bound of what a product stands for."""
        return product_n.double() / (1 + self.rounding) - bound_n

    def threshold(self, half_square_n, bound_n):
        """The bits up to which a product may stand for at most half_square_n."""
        limit_n = ((half_square_n + bound_n) * (1 + self.rounding)).clamp(max=_FAR / 4)
        limit_n = (limit_n * (1 + 2 * torch.finfo(torch.float32).eps)).to(torch.float32)  # to float32, upwards
        if self.dtype == torch.float32:
            return limit_n.view(torch.int32)
        return (limit_n.view(torch.int32) + 0xFFFF >> 16).to(torch.int16)


def pairs_of(mask_nM):
    """(row, column) of each marked pair, by rows; M a multiple of 8."""
    words = mask_nM.view(torch.int64).flatten().nonzero()[:, 0]  # eight pairs at once: nearly all are far
    word, byte = mask_nM.view(-1, 8)[words].nonzero().unbind(1)
    flat = words[word] * 8 + byte
    return flat // mask_nM.shape[1], flat % mask_nM.shape[1]


def kth_distances(x_ND, origin_D, orders, rows, measure, progress=None):
    """(distances to the other items of these orders [rows, orders] float64, whether each row is found, bool [rows]).

    origin_D: a point in the middle; measure(i_P, j_P): the exact distances of pairs; rows: (first, last). Rows that are not found have too
    many items within the bound.
    """
    own = RoundedSet(x_ND, origin_D)
    radii = torch.zeros([rows[1] - rows[0], *orders.shape], dtype=torch.float64)
    found = torch.zeros([rows[1] - rows[0]], dtype=torch.bool)
    if not own.is_usable:
        return radii, found
    search = _NearPairs(own, int(orders.max()))
    in_one = rows == (0, own.count) and search.products.block_rows >= _ROWS_THAT_TELL
    blocks = search.of_all() if in_one else search.of_rows(*rows)
    for start, end, pairs in blocks:
        if pairs is not None:
            distance_P = measure(*pairs)
            row_P, order = pairs[0] - start, distance_P.argsort()
            distance_P = distance_P[order[row_P[order].argsort(stable=True)]]
            count_n = torch.bincount(row_P, minlength=end - start)
            place = (count_n.cumsum(0) - count_n).reshape(-1, *[1] * orders.ndim) + (orders - 1)
            enough_n = count_n >= search.k
            radii[start - rows[0] : end - rows[0]][enough_n] = distance_P[place[enough_n]]
            found[start - rows[0] : end - rows[0]] = enough_n
        if progress is not None:
            progress(end - rows[0])
    return radii, found


class _NearPairs:
    """Yields, block by block of rows, the pairs (i_P, j_P) among which the k nearest others of each row are; None where there are too many."""

    def __init__(self, own, k):
        self.own, self.k, self.products = own, k, Products(own, own)
        self.integer = _INTEGERS[own.dtype]
        self.most = torch.iinfo(self.integer).max
        self.bound_N = own.bound(own)

    def limit(self, kth_n, rows):
        """The bits up to which an item may be among the k nearest, where the k-th of some others has the bits kth_n."""
        half_square_n = self.products.at_most(kth_n.view(self.own.dtype), self.bound_N[rows]).nan_to_num(nan=_FAR)
        return self.products.threshold(half_square_n, self.bound_N[rows])

    def of_rows(self, first, last):
        for start, end, product_nM in self.products.blocks(first, last):
            bits_nM, place_n = product_nM.view(self.integer), torch.arange(end - start)
            bits_nM[place_n, place_n + start] = self.most
            # The k-th smallest of the groups' least is no smaller than the k-th of all: that many items are as near for certain.
            least_nG = bits_nM.view(end - start, _GROUP, -1).amin(1)
            rows = slice(start, end)
            row_P, column_P = pairs_of(bits_nM <= self.limit(self._kth(least_nG), rows)[:, None])
            yield start, end, (row_P + start, column_P) if len(row_P) <= MOST_PAIRS * (end - start) else None

    def _kth(self, least_nG):
        return least_nG.kthvalue(self.k, dim=1).values if self.k <= least_nG.shape[1] else least_nG.new_full([len(least_nG)], self.most)

    def of_all(self):
        """The same of all rows, with each product of two blocks computed once: what a later block's rows may need of it is kept for them."""
        count, size = self.own.count, self.products.block_rows
        later = _LaterRows(self, size)
        for start in range(0, count, size):
            end = min(start + size, count)
            product_nM = self.own.rows(slice(start, end)) @ self.own.columns_NE[start:].T
            bits_nM, place_n = product_nM.view(self.integer), torch.arange(end - start)
            bits_nM[place_n, place_n] = self.most
            least_nG = bits_nM.view(end - start, _GROUP, -1).amin(1)
            limit_n = self.limit(self._kth(torch.cat([later.nearest_kN[:, start:end].T, least_nG], dim=1)), slice(start, end))
            mask_nM = bits_nM <= limit_n[:, None]
            if end < count:
                later.look_at(start, bits_nM)
                mask_nM[:, size : size + count - end] |= bits_nM[:, size : size + count - end] <= later.limit_N[end:]
            row_P, column_P = pairs_of(mask_nM)
            if len(row_P) > MOST_PAIRS * (end - start + (count - end) // 8):
                yield from self.of_rows(start, count)
                return
            bits_P = bits_nM[row_P, column_P]
            later.keep(row_P + start, column_P + start, bits_P, end)
            mine = bits_P <= limit_n[row_P]
            pairs = [(row_P[mine] + start, column_P[mine] + start)]
            for own_P, other_P, kept_P in later.kept.pop(start // size, []):
                still = kept_P <= limit_n[own_P - start]
                pairs.append((own_P[still], other_P[still]))
            yield start, end, tuple(map(torch.cat, zip(*pairs)))


class _LaterRows:
    """Holds what rows of later blocks need of earlier ones: the k least of groups, the limits that follow, pairs within these."""

    def __init__(self, search, size):
        self.search, self.size = search, size
        self.nearest_kN = torch.full([search.k, len(search.own.columns_NE)], search.most, dtype=search.integer)
        self.limit_N = None
        self.kept = {}  # by block: [(later row, earlier row, bits)]

    def look_at(self, start, bits_nM):
        """Tighten the limits by a block, at every doubling of the rows seen: that often is enough, and each time costs a pass."""
        number, end = start // self.size, start + self.size
        if number & (number + 1):
            return
        least_gM = bits_nM[:, self.size :].view(_GROUP, self.size // _GROUP, -1).amin(0)
        self.nearest_kN[:, end:] = torch.cat([self.nearest_kN[:, end:], least_gM]).topk(self.search.k, dim=0, largest=False).values
        self.limit_N = self.search.limit(self.nearest_kN[:, : self.search.own.count].amax(0), slice(None))

    def keep(self, row_P, column_P, bits_P, end):
        """Keep those pairs whose column is a row of a later block and within its limit."""
        is_later = column_P >= end
        row_P, column_P, bits_P = row_P[is_later], column_P[is_later], bits_P[is_later]
        if not len(row_P):
            return
        order = (bits_P <= self.limit_N[column_P]).nonzero()[:, 0]
        order = order[column_P[order].argsort()]
        row_P, column_P, bits_P = row_P[order].to(torch.int32), column_P[order].to(torch.int32), bits_P[order]
        blocks, counts = (column_P // self.size).unique_consecutive(return_counts=True)
        parts = zip(*(values.split(counts.tolist()) for values in (column_P, row_P, bits_P)))
        for block, part in zip(blocks.tolist(), parts):
            self.kept.setdefault(block, []).append(part)


class BallPairs:
    """Which points lie in which balls, and which centres in balls around the points.

    radii_NK: of K balls about each centre; own_radii_M: of one ball about each point, or None.
    """

    def __init__(self, points_MD, centres_ND, origin_D, radii_NK, own_radii_M, measure):
        self.points, self.centres = (RoundedSet(x, origin_D) for x in (points_MD, centres_ND))
        self.products, self.measure = Products(self.points, self.centres), measure
        self.radii_NK, self.own_radii_M = radii_NK, own_radii_M
        self.is_usable = self.points.is_usable and self.centres.is_usable

    def blocks(self, first, last):
        """Yield (first row, its end, None where there are too many, or (row, column, per radius whether it is inside)) over blocks of points."""
        integer = _INTEGERS[self.points.dtype]
        padded = len(self.centres.columns_NE)
        column_limit = torch.full([padded], -1, dtype=integer)
        column_limit[: self.centres.count] = self.products.threshold(self.radii_NK.amax(1).square() / 2, self.centres.bound(self.points))
        for start, end, product_nM in self.products.blocks(first, last):
            bits_nM, bound_n = product_nM.view(integer), self.points.bound(self.centres, slice(start, end))
            mask_nM = bits_nM <= column_limit
            if self.own_radii_M is not None:
                mask_nM |= bits_nM <= self.products.threshold(self.own_radii_M[start:end].square() / 2, bound_n)[:, None]
            row_P, column_P = pairs_of(mask_nM)
            yield start, end, self._judged(product_nM, bound_n, row_P, column_P, start) if len(row_P) <= MOST_PAIRS * (end - start) else None

    def _judged(self, product_nM, bound_n, row_P, column_P, start):
        """(row, column, distance against each radius: -1 inside, 1 outside, 0 on the rim [P, radii])."""
        radii_PK = self.radii_NK[column_P]
        if self.own_radii_M is not None:
            radii_PK = torch.cat([radii_PK, self.own_radii_M[row_P + start][:, None]], dim=1)
        half_PK = radii_PK.square() / 2
        product_P, bound_P = product_nM[row_P, column_P], bound_n[row_P]
        is_in = self.products.at_most(product_P, bound_P)[:, None] < half_PK * (1 - 1e-12)
        is_out = self.products.at_least(product_P, bound_P)[:, None] > half_PK * (1 + 1e-12)
        side_PK = is_out.to(torch.int8) - is_in.to(torch.int8)
        doubtful = (side_PK == 0).any(1).nonzero()[:, 0]
        if len(doubtful):
            exact = self.measure(row_P[doubtful] + start, column_P[doubtful])[:, None]
            side_PK[doubtful] = (exact > radii_PK[doubtful]).to(torch.int8) - (exact < radii_PK[doubtful]).to(torch.int8)
        return row_P, column_P, side_PK
