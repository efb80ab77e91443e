"""The random inputs of generated images: item i of seed s is the same whatever the batch size and number of processes.

Must not know networks or metrics.
"""

import numpy as np

_BLOCK = 256
_STREAMS = {"latents": 0, "labels": 1, "subsets": 2, "floor": 3, "bootstrap": 4}


def stream(name, seed, block=0):
    """A NumPy generator for one purpose, seed and block: a counter-based generator, so that streams never overlap."""
    return np.random.Generator(np.random.Philox(key=np.array([seed, _STREAMS[name] << 48 | block], dtype=np.uint64)))


def _rows(name, seed, first, count, draw):
    """Rows first..first+count-1 of an endless table of which `draw(generator)` gives _BLOCK rows at a time."""
    blocks = range(first // _BLOCK, (first + count - 1) // _BLOCK + 1)
    table = np.concatenate([draw(stream(name, seed, block)) for block in blocks])
    start = first - blocks[0] * _BLOCK
    return table[start : start + count]


def latents(seed, first, count, z_dim):
    """z of items first..first+count-1: standard normal float32 [count, z_dim]."""
    return _rows("latents", seed, first, count, lambda rng: rng.standard_normal((_BLOCK, z_dim), dtype=np.float32))


def label_items(seed, first, count, num_items):
    """For each item the index of the real image whose label it borrows, uniform over the data set: int64 [count]."""
    return _rows("labels", seed, first, count, lambda rng: rng.integers(num_items, size=_BLOCK))
