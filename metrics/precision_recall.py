"""Improved precision and recall in VGG16 space (Kynkaanniemi et al. 2019), rows shared among processes."""

import functools

import torch

from madr_spaces import neighbours
from metrics import metric_utils
from metrics.detectors import VGG16_URL
from metrics.metric import Fewest, Group, Metric, Reals, Takes


def compute_distances(row_features, col_features, num_gpus, rank, col_batch_size):
    """All Euclidean distances [rows, columns] on rank 0, None elsewhere; columns are shared among the ranks.

    Public interface of other forks; compute_pr needs no full matrix.
    """
    assert 0 <= rank < num_gpus
    blocks = []
    for start in range(0, len(col_features), col_batch_size * num_gpus):
        # Every rank takes part in every round, with rows of zeros where the columns have run out.
        own = col_features[start + rank * col_batch_size : start + (rank + 1) * col_batch_size]
        padded = torch.zeros([col_batch_size, col_features.shape[1]], dtype=col_features.dtype, device=col_features.device)
        padded[: len(own)] = own
        block = torch.cdist(row_features[None], padded[None], compute_mode="donot_use_mm_for_euclid_dist")[0]
        parts = [block]
        if num_gpus > 1:
            parts = [torch.empty_like(block) for _ in range(num_gpus)]
            torch.distributed.all_gather(parts, block)
        blocks += [part.cpu() for part in parts]
    return torch.cat(blocks, dim=1)[:, : len(col_features)] if rank == 0 else None


def rows_of(rank, num_gpus, num_rows):
    """(first, last) row of a rank's consecutive share."""
    return rank * num_rows // num_gpus, (rank + 1) * num_rows // num_gpus


def join_rows(part, num_gpus, num_rows):
    """Each rank's consecutive rows -> the whole vector on every rank."""
    if num_gpus == 1:
        return part
    longest = -(-num_rows // num_gpus)
    padded = part.new_zeros([longest, *part.shape[1:]])
    padded[: len(part)] = part
    parts = [torch.empty_like(padded) for _ in range(num_gpus)]
    torch.distributed.all_gather(parts, padded)
    sizes = [last - first for first, last in (rows_of(r, num_gpus, num_rows) for r in range(num_gpus))]
    return torch.cat([part[:size] for part, size in zip(parts, sizes)])


def covered_share(opts, points, centres, k, *, strict=False, tile_bytes=neighbours.TILE_BYTES, rel_lo=0, rel_hi=1, tag="neighbours"):
    """Share of points inside the k-NN ball of at least one centre; the work is shared among the ranks."""
    middle = (rel_lo + rel_hi) / 2
    how = dict(device=opts.device, tile_bytes=tile_bytes)
    first, last = rows = rows_of(opts.rank, opts.num_gpus, len(centres))
    progress = opts.progress.sub(tag=f"{tag} radii", num_items=last - first, rel_lo=rel_lo, rel_hi=middle)
    radii = neighbours.kth_neighbour_distances(centres, k, rows=rows, progress=progress.update, **how)
    radii = join_rows(radii, opts.num_gpus, len(centres))
    first, last = rows = rows_of(opts.rank, opts.num_gpus, len(points))
    progress = opts.progress.sub(tag=f"{tag} inside", num_items=last - first, rel_lo=middle, rel_hi=rel_hi)
    hits, _ = neighbours.ball_hits(points, centres, radii, strict=strict, rows=rows, progress=progress.update, **how)
    return float((join_rows(hits, opts.num_gpus, len(points)) > 0).double().mean())


def compute_pr(opts, max_real, num_gen, nhood_size, row_batch_size, col_batch_size):
    """(precision, recall). The batch sizes bound the memory of one tile; the result does not depend on them."""
    detector_kwargs = dict(return_features=True)
    real = metric_utils.compute_feature_stats_for_dataset(
        opts, VGG16_URL, detector_kwargs, rel_lo=0, rel_hi=0.3, capture_all=True, max_items=max_real
    ).get_all()
    fake = metric_utils.compute_feature_stats_for_generator(
        opts, VGG16_URL, detector_kwargs, rel_lo=0.3, rel_hi=0.6, capture_all=True, max_items=num_gen
    ).get_all()
    opts.record(k=nhood_size, tie_rule="<=", distance="Euclidean, float64, exact")
    neighbours.check_sets(real, fake, nhood_size)
    largest = row_batch_size * col_batch_size * 8
    tile_bytes = min(largest, neighbours.TILE_BYTES) if opts.device.type == "cpu" else min(largest, neighbours.ACCELERATOR_TILE_BYTES)
    precision = covered_share(opts, fake, real, nhood_size, tile_bytes=tile_bytes, rel_lo=0.6, rel_hi=0.8, tag="precision")
    recall = covered_share(opts, real, fake, nhood_size, tile_bytes=tile_bytes, rel_lo=0.8, rel_hi=1, tag="recall")
    return precision, recall


def _pr(opts, name, **counts):
    precision, recall = compute_pr(opts, nhood_size=3, row_batch_size=10_000, col_batch_size=10_000, **counts)
    return {f"{name}_precision": precision, f"{name}_recall": recall}


_PR = functools.partial(
    Metric,
    function=_pr,
    meaning="Precision and recall (k = 3) in VGG16's space",
    detector="vgg16",
    takes=Takes.FEATURES,
    fewest=Fewest(4, "a neighbourhood of 3 needs more than 3 {side} images"),
)
METRICS = [
    _PR("pr50k3_full", group=Group.RECOMMENDED, counts=dict(max_real=200_000, num_gen=50_000)),
    _PR("pr50k3", group=Group.OLDER, counts=dict(max_real=50_000, num_gen=50_000), reals=Reals.MIRRORED_AS_TRAINED),
    _PR("pr10k3_full", group=Group.QUICK, counts=dict(max_real=200_000, num_gen=10_000)),
]
