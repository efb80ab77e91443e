"""The random inputs of generated images: see madr_spaces/sampling.py, which a fork's metrics share, so that they draw the same images."""

from madr_spaces.sampling import batch_size, label_items, latents, noise, stream, to_bytes

__all__ = ["batch_size", "label_items", "latents", "noise", "stream", "to_bytes"]
