"""Which generated images' neighbourhoods hold a real one: what a resampled generated set is judged by, without new neighbourhoods.

Legend: N reals, M generated images, H holders kept of each real.
"""

import numpy as np

from madr_spaces import neighbours

MOST = 16  # all of so many are left out of a resample once in ten million times


def of_reals(real_ND, fake_MD, k, *, strict=False, device="cpu", tile_bytes=neighbours.TILE_BYTES):
    """int64 [N, H]: indices of at most H generated images whose k-NN ball holds the real, M where there are fewer."""
    points, centres = neighbours.prepare(real_ND, "Real", device), neighbours.prepare(fake_MD, "Generated", device)
    radii = neighbours.kth_neighbour_distances(fake_MD, k, device=device, tile_bytes=tile_bytes).to(points.device)
    found = np.full([len(points), MOST], len(centres))
    have = np.zeros(len(points), np.int64)
    tiles = neighbours.Tiles(points, centres, tile_bytes)
    for start, y_nD, norms_n in tiles.row_blocks(0, len(points)):
        for col, squared, _, _ in tiles.column_blocks(y_nD, norms_n):
            reach = radii[col : col + squared.shape[1]].square()
            inside = squared < reach if strict else squared <= reach
            rows, columns = (index.cpu().numpy() for index in inside.nonzero(as_tuple=True))  # row by row
            place = np.arange(len(rows)) - np.searchsorted(rows, rows) + have[start + rows]
            kept = place < MOST
            found[start + rows[kept], place[kept]] = col + columns[kept]
            have[start : start + len(y_nD)] += np.bincount(rows, minlength=len(y_nD))
    return found
