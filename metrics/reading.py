"""In which batches, and by how many helpers, the images of a set are read. Must not know what becomes of them."""

import os


def batches(num_items, batch_size, num_gpus, rank, chosen=None):
    """This rank's index lists. Batch b belongs to rank b mod num_gpus; all are full and every rank has as many,
    the indices beyond the last item wrap around (FeatureStats drops what comes after max_items). chosen: the items' indices; None: the first ones."""
    per_round = batch_size * num_gpus
    num_rounds = -(-num_items // per_round)
    items = range(num_items) if chosen is None else chosen.tolist()
    starts = (r * per_round + rank * batch_size for r in range(num_rounds))
    return [[items[i % num_items] for i in range(start, start + batch_size)] for start in starts]


def loader_kwargs(device, num_items, given):
    """Options of the DataLoader: those that were given, else by the number of images."""
    if given is not None:
        return given
    workers = min(3, os.cpu_count() or 1) if num_items > 10_000 else 0  # starting them costs more than small sets do
    return dict(num_workers=workers, pin_memory=device.type == "cuda")
