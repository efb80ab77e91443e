"""Nearest-neighbour numbers are properties of the sets: of no block size, no order, no library that proposes candidates."""

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings, strategies as st

from madr_spaces import neighbours, rounded_products

# On a lattice distances tie, duplicates included; the offset makes rounding large.
SETS = st.builds(
    lambda seed, n, m, dims, lattice, offset, scale: tuple(
        scale * (offset + (rng.integers(0, 3, (count, dims)) if lattice else rng.standard_normal((count, dims))))
        for rng in [np.random.default_rng(seed)]
        for count in (n, m)
    ),
    st.integers(0, 2**32 - 1),
    st.integers(6, 60),
    st.integers(6, 60),
    st.integers(1, 6),
    st.booleans(),
    st.sampled_from([0, 1e3]),
    st.sampled_from([1e-3, 1, 1e6]),
)


def counts(real, fake, k, strict, tile_bytes):
    """All counts behind the four numbers."""
    how = dict(tile_bytes=tile_bytes)
    radii = [neighbours.kth_neighbour_distances(x, k, **how) for x in (real, fake)]
    hits = [*neighbours.ball_hits(fake, real, radii[0], strict=strict, **how), *neighbours.ball_hits(real, fake, radii[1], strict=strict, **how)]
    return [*radii, *hits]


@settings(max_examples=25, deadline=None)
@given(sets=SETS, k=st.integers(1, 5), strict=st.booleans(), side=st.integers(1, 70))
def test_no_count_depends_on_the_block_size(sets, k, strict, side):
    whole, blocks = (counts(*sets, k, strict, tile_bytes) for tile_bytes in (1 << 24, 8 * side**2))
    assert all(torch.equal(a, b) for a, b in zip(whole, blocks))


@settings(max_examples=15, deadline=None)
@given(sets=SETS, k=st.integers(1, 5), strict=st.booleans(), seed=st.integers(0, 99))
def test_no_number_depends_on_the_order_of_items(sets, k, strict, seed):
    rng = np.random.default_rng(seed)
    numbers = lambda real, fake: (
        *neighbours.precision_recall(real, fake, k, strict=strict),
        *neighbours.density_coverage(real, fake, k, strict=strict),
    )
    assert numbers(*sets) == pytest.approx(numbers(*(rng.permutation(x) for x in sets)), abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(sets=SETS, k=st.integers(1, 5))
def test_any_set_covers_itself_unless_ties_are_ignored(sets, k):
    real = sets[0]
    assert neighbours.precision_recall(real, real, k) == (1, 1)
    density, coverage = neighbours.density_coverage(real, real, k)
    assert coverage == 1 and density >= (k + 1) / k - 1e-12  # its centre and k others, more with ties


@pytest.mark.parametrize("dims, dtype", [(3, np.float32), (40, np.float64), (200, np.float32)])
def test_prdc_package_agrees_to_the_last_count(dims, dtype):
    prdc = pytest.importorskip("prdc")
    for seed in range(3):
        rng = np.random.default_rng(seed)
        n, m, k = rng.integers(20, 160), rng.integers(20, 160), int(rng.integers(1, 9))
        real, fake = rng.standard_normal((n, dims)).astype(dtype), (0.3 + 0.9 * rng.standard_normal((m, dims))).astype(dtype)
        theirs = prdc.compute_prdc(real, fake, nearest_k=k)
        precision, recall = neighbours.precision_recall(real, fake, k, strict=True)
        density, coverage = neighbours.density_coverage(real, fake, k, strict=True)
        ours = dict(precision=precision * m, recall=recall * n, density=density * k * m, coverage=coverage * n)
        scale = dict(precision=m, recall=n, density=k * m, coverage=n)
        assert {name: round(value, 6) for name, value in ours.items()} == {name: round(float(theirs[name]) * scale[name], 6) for name in scale}


# ----------------------------------------------------------------------------------------------------------------
# Candidates from rounded products.

BOTH_TYPES = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)


@pytest.fixture
def rounding(monkeypatch, dtype):
    monkeypatch.setattr(rounded_products, "rounded_type", lambda: dtype)


@BOTH_TYPES
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sets=SETS, k=st.integers(1, 5), strict=st.booleans(), block=st.integers(1, 70))
def test_rounded_products_change_no_bit(rounding, sets, k, strict, block):
    real, fake = sets
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rounded_products, "_BLOCK_ROWS", block)
        patch.setattr(rounded_products, "_ROWS_THAT_TELL", 0)
        for rows in (None, (2, 5), (4, 4)):
            for orders in (k, (1, k)):
                one, other = (neighbours.kth_neighbour_distances(real, orders, rows=rows, rounded=rounded) for rounded in (True, False))
                assert torch.equal(one, other)
            radii, own = neighbours.kth_neighbour_distances(real, (1, k)), neighbours.kth_neighbour_distances(fake, k)
            for own_radii in (own, None):
                hits = [
                    neighbours.all_ball_hits(fake, real, radii, own_radii, strict=strict, rows=rows, rounded=rounded) for rounded in (True, False)
                ]
                assert all(a is b is None or torch.equal(a, b) for a, b in zip(*hits))


@BOTH_TYPES
@pytest.mark.parametrize("num_distinct", [700, 3], ids=["clusters", "duplicates"])
def test_many_blocks_leave_nothing_out(rounding, monkeypatch, num_distinct):
    """With duplicates the bound says too little, and the rest is searched row by row, then in float64."""
    monkeypatch.setattr(rounded_products, "_BLOCK_ROWS", 112)
    monkeypatch.setattr(rounded_products, "_ROWS_THAT_TELL", 0)
    monkeypatch.setattr(rounded_products, "MOST_PAIRS", 40 if num_distinct == 700 else 8)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((20, 12))[rng.integers(0, 20, 700)] * 3 + rng.standard_normal((num_distinct, 12))[np.arange(700) % num_distinct]
    asked, genuine = [], rounded_products._NearPairs.of_rows
    monkeypatch.setattr(rounded_products._NearPairs, "of_rows", lambda self, *rows: asked.append(rows) or genuine(self, *rows))
    whole = neighbours.kth_neighbour_distances(x, (1, 5), rounded=True)
    assert torch.equal(whole, neighbours.kth_neighbour_distances(x, (1, 5), rounded=False))
    assert (asked == []) == (num_distinct == 700)
    assert torch.equal(whole[100:300], neighbours.kth_neighbour_distances(x, (1, 5), rows=(100, 300), rounded=True))


@BOTH_TYPES
@pytest.mark.parametrize("num_dims", [4, 64])
def test_hits_of_one_pass_are_those_of_brute_force(rounding, num_dims):
    rng = np.random.default_rng(5)
    points, centres = rng.standard_normal((300, num_dims)), rng.standard_normal((220, num_dims))
    radii, own = rng.uniform(0, 1.2 * num_dims**0.5, (220, 2)), rng.uniform(0, 1.2 * num_dims**0.5, 300)
    distance = np.linalg.norm(points[:, None] - centres[None], axis=2)
    per_point, per_centre, of_points = neighbours.all_ball_hits(points, centres, radii, own, rounded=True)
    for k in range(2):
        inside = distance <= radii[None, :, k]
        assert per_point[:, k].tolist() == inside.sum(1).tolist() and per_centre[:, k].tolist() == inside.sum(0).tolist()
    assert of_points.tolist() == (distance <= own[:, None]).sum(0).tolist() and 0 < of_points.sum() < distance.size


@BOTH_TYPES
def test_neighbours_that_rounding_cannot_tell_apart_are_measured(rounding):
    """Neighbours at 1 + i 1e-9 from a point that lies 1e4 from the others: rounded, they are at one distance, in any order."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((100, 6))
    shell = directions / np.linalg.norm(directions, axis=1, keepdims=True) * (1 + 1e-9 * rng.permutation(100))[:, None]
    x = np.concatenate([np.zeros((1, 6)), shell, 1e4 + rng.standard_normal((400, 6))])
    exact = np.sort(np.linalg.norm(x[1:], axis=1))[2]
    assert neighbours.kth_neighbour_distances(x, 3, rows=(0, 1), rounded=True).item() == pytest.approx(exact, abs=1e-12)


@BOTH_TYPES
def test_where_the_bound_says_too_little_the_rows_are_named(rounding):
    tensor = torch.zeros([400, 3], dtype=torch.float64)  # all at one place: every item is as near as the third
    measure = lambda i, j: neighbours.pair_distances(tensor, tensor, i, j)
    assert not rounded_products.kth_distances(tensor, tensor[0], torch.tensor(3), (0, 400), measure)[1].any()
    far = torch.tensor([[0.0], [1.0], [1e20]], dtype=torch.float64)
    measure = lambda i, j: neighbours.pair_distances(far, far, i, j)
    assert not rounded_products.kth_distances(far, far.mean(0), torch.tensor(1), (0, 3), measure)[1].any()


@BOTH_TYPES
def test_the_bound_holds(rounding, dtype):
    rng = np.random.default_rng(7)
    x, y = (torch.from_numpy(rng.standard_normal((count, 300)) * rng.uniform(0.1, 10, (count, 1))) for count in (90, 70))
    sets = [rounded_products.RoundedSet(z, torch.zeros([300], dtype=torch.float64)) for z in (x, y)]
    products = rounded_products.Products(*sets)
    [(_, _, product)] = products.blocks(0, 90)
    half, bound = torch.cdist(x, y).square() / 2, sets[0].bound(sets[1])[:, None]
    assert (products.at_least(product[:, :70], bound) <= half).all() and (half <= products.at_most(product[:, :70], bound)).all()
    assert (bound < (0.05 if dtype == torch.bfloat16 else 1e-3) * half.mean()).all()  # and says something


def test_large_sets_go_through_rounded_products(monkeypatch):
    asked, genuine = [], rounded_products.kth_distances
    monkeypatch.setattr(rounded_products, "kth_distances", lambda *args: asked.append(len(args[0])) or genuine(*args))
    monkeypatch.setattr(rounded_products, "FEWEST_ITEMS", 100)
    x = np.random.default_rng(2).standard_normal((120, 4))
    neighbours.kth_neighbour_distances(x[:99], 3)
    assert asked == []
    neighbours.kth_neighbour_distances(x, 3)
    assert asked == [120]


def test_the_mean_taken_block_by_block_is_the_mean():
    x = np.random.default_rng(3).standard_normal((9000, 3)).astype(np.float32)
    np.testing.assert_allclose(neighbours.mean_row(torch.from_numpy(x)).numpy(), x.astype(np.float64).mean(axis=0), rtol=1e-12)
