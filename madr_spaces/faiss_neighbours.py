"""Nearest neighbours through faiss, with a proof for every row that rounding changed nothing; rows without one are named.

faiss searches in float32. Its candidates are measured again in float64, and the bound on float32's error says whether an
item that it left out could have been nearer. Must not know what the neighbours are for.
Legend: N items, D feature dimensions, n rows of a block, c candidates.
"""

import sys

import torch

FEWEST_ITEMS = 4096  # below, building the index costs what the search saves
_BLOCK_ROWS = 1024


def is_available():
    """On Linux, where faiss is installed. Elsewhere its threads and PyTorch's are known to abort one another."""
    if sys.platform != "linux":
        return False
    try:
        import faiss  # noqa: F401
    except ImportError:
        return False
    return True


def kth_distances(x_ND, origin_D, orders, num_candidates, rows, measure, progress=None):
    """(distances to the neighbours of these orders [rows, orders] float64, whether each row is proven exact, bool [rows]).

    origin_D: a point in the middle; measure(i_P, j_P): the exact distances of pairs; rows: (first, last).
    """
    import faiss

    centred_ND = torch.empty(x_ND.shape, dtype=torch.float32)  # the only copy of the set: an index that grows would hold two at times
    for start in range(0, len(x_ND), _BLOCK_ROWS):
        centred_ND[start : start + _BLOCK_ROWS] = x_ND[start : start + _BLOCK_ROWS].double() - origin_D
    # As for the tiles of neighbours.py, with float32's unit: products of D terms, two norms, the rounding of the inputs.
    unit = 4 * (x_ND.shape[1] + 8) * torch.finfo(torch.float32).eps
    norms_N = torch.linalg.vector_norm(centred_ND, dim=1).square()
    wanted = min(num_candidates + 1, len(x_ND))  # with the item itself
    radii, proven = [], []
    for start in range(*rows, _BLOCK_ROWS):
        own_n = torch.arange(start, min(start + _BLOCK_ROWS, rows[1]))
        squared_nc, index_nc = (torch.from_numpy(part) for part in faiss.knn(centred_ND[own_n].numpy(), centred_ND.numpy(), wanted))
        farthest_n = squared_nc[:, -1].double() if wanted < len(x_ND) else torch.full([len(own_n)], float("inf"), dtype=torch.float64)
        index_nc = index_nc.clamp(min=0)  # -1 where features overflow float32; such rows stay unproven
        exact_nc = measure(own_n.repeat_interleave(wanted), index_nc.flatten()).reshape(len(own_n), wanted)
        exact_nc[index_nc == own_n[:, None]] = float("inf")
        exact_nc = exact_nc.sort(dim=1).values
        radii.append(exact_nc[:, orders - 1])
        bound_n = unit * (norms_N[own_n] + norms_N.max()).double()
        proven.append(exact_nc[:, int(orders.max()) - 1].square() < farthest_n - bound_n)
        if progress is not None:
            progress(int(own_n[-1]) + 1 - rows[0])
    return torch.cat(radii), torch.cat(proven)
