"""Frozen feature extractors: images in, features out, gradients back to the image. See base.py for the protocol."""
from madr_plugin.config import EXTRACTOR_NAMES as NAMES
from madr_plugin.errors import MADRError
from madr_plugin.extractors.pca import PCAExtractor
from madr_plugin.extractors.random_conv import RandomConvExtractor


def build(name, image_shape, width=0, seed=0):
    """The extractor called `name` for images of [C, H, W]. width 0: its own choice."""
    if name == "pca":
        return PCAExtractor(image_shape, width or 64, seed)
    if name == "random":
        return RandomConvExtractor(image_shape, width or 384, seed)
    raise MADRError(f"--madr-extractor must be one of {', '.join(NAMES)} (got {name!r})")
