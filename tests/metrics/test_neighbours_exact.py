"""Nearest-neighbour numbers are properties of the sets: of no block size, no order, no library that proposes candidates."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from madr_spaces import faiss_neighbours, neighbours

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
# Candidates from faiss.


@pytest.fixture
def faiss():
    if not faiss_neighbours.is_available():
        pytest.skip("faiss is not installed")


@settings(max_examples=25, deadline=None)
@given(sets=SETS, k=st.integers(1, 5))
def test_faiss_changes_no_bit(sets, k):
    if not faiss_neighbours.is_available():
        pytest.skip("faiss is not installed")
    x = sets[0]
    for rows in (None, (2, 5), (4, 4)):
        for orders in (k, (1, k)):
            assert torch.equal(
                neighbours.kth_neighbour_distances(x, orders, rows=rows, through_faiss=True),
                neighbours.kth_neighbour_distances(x, orders, rows=rows, through_faiss=False),
            )


def test_rows_that_float32_could_have_swapped_are_measured_again(faiss):
    """Neighbours at 1 + i 1e-9 from a point that lies 1e4 from the others: float32 sees them at one distance, in any order."""
    rng = np.random.default_rng(0)
    directions = rng.standard_normal((200, 6))
    shell = directions / np.linalg.norm(directions, axis=1, keepdims=True) * (1 + 1e-9 * rng.permutation(200))[:, None]
    x = np.concatenate([np.zeros((1, 6)), shell, 1e4 + rng.standard_normal((200, 6))])
    tensor = torch.from_numpy(x)
    measure = lambda i, j: neighbours.pair_distances(tensor, tensor, i, j)
    radii, proven = faiss_neighbours.kth_distances(tensor, neighbours.mean_row(tensor), torch.tensor(3), 11, (0, 1), measure)
    assert not proven.any()
    exact = np.sort(np.linalg.norm(x[1:], axis=1))[2]
    assert neighbours.kth_neighbour_distances(x, 3, rows=(0, 1), through_faiss=True).item() == pytest.approx(exact, abs=1e-12)
    assert abs(radii.item() - exact) > 1e-10  # without the second measurement the number would be wrong


def test_clear_neighbours_are_proven_at_once(faiss):
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((500, 32)).astype(np.float32))
    seen = []
    _, proven = faiss_neighbours.kth_distances(
        x, neighbours.mean_row(x), torch.tensor(3), 11, (0, 500), lambda i, j: neighbours.pair_distances(x, x, i, j), seen.append
    )
    assert proven.double().mean() > 0.95 and seen[-1] == 500


def test_large_sets_go_through_faiss(faiss, monkeypatch):
    asked = []
    genuine = faiss_neighbours.kth_distances
    monkeypatch.setattr(faiss_neighbours, "kth_distances", lambda *args: asked.append(len(args[0])) or genuine(*args))
    monkeypatch.setattr(faiss_neighbours, "FEWEST_ITEMS", 100)
    x = np.random.default_rng(2).standard_normal((120, 4))
    neighbours.kth_neighbour_distances(x[:99], 3)
    assert asked == []
    neighbours.kth_neighbour_distances(x, 3)
    assert asked == [120]


def test_the_mean_taken_block_by_block_is_the_mean():
    x = np.random.default_rng(3).standard_normal((9000, 3)).astype(np.float32)
    np.testing.assert_allclose(neighbours.mean_row(torch.from_numpy(x)).numpy(), x.astype(np.float64).mean(axis=0), rtol=1e-12)
