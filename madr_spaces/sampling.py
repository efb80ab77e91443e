"""The random inputs of generated images: item i of seed s is the same whatever the batch size and number of processes.

Metrics here and in forks draw from it, so that one seed gives the same images. Must not know networks or metrics.
"""

import numpy as np
import torch

from madr_spaces.seeds import global_rng_seeded

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


def noise(device, seed, number):
    """Context in which torch's own generators (the networks' noise inputs draw from them) follow (seed, number of the batch)."""
    return global_rng_seeded(device, (seed * 0x9E3779B97F4A7C15 + number) % 2**63)


def batch_size(resolution, most):
    """Images of a batch: the networks' activations grow with the pixels, 4 images at 256 x 256 and above."""
    return max(4, min(most, 4 * (256 // max(resolution, 1)) ** 2))


def to_bytes(images):
    """Images in [-1, 1] -> uint8, as they would be saved."""
    return (images.to(torch.float32) * 127.5 + 128).clamp(0, 255).to(torch.uint8)
