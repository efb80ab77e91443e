"""Frozen feature extractors: images in, features out, gradients back to the image. See base.py for the protocol."""
from madr_plugin.config import split_extractor
from madr_plugin.extractors.pca import PCAExtractor
from madr_plugin.extractors.random_conv import RandomConvExtractor


def build(name, image_shape, width=0, seed=0, input_size=0, weights=""):
    """The extractor called `name` (config.EXTRACTOR_HELP) for images of [C, H, W]. width, input_size 0: its own choice."""
    kind, argument = split_extractor(name)
    if kind == "pca":
        return PCAExtractor(image_shape, width or 64, seed)
    if kind == "random":
        return RandomConvExtractor(image_shape, width or 384, seed)
    if kind == "own":
        from madr_plugin.extractors.own import OwnExtractor
        return OwnExtractor(image_shape, weights)
    # Imported when asked for: the hosts of pca need neither timm nor a hub.
    if kind == "ensemble":
        from madr_plugin.extractors.combined import EnsembleExtractor
        files = weights.split(",") if weights else []
        parts = []
        for part in argument.split("+"):
            takes_file = split_extractor(part)[0] not in ("pca", "random")
            parts.append(build(part, image_shape, 0, seed, input_size, files.pop(0) if takes_file and files else ""))
        return EnsembleExtractor(parts, image_shape, width or 384, seed)
    if kind == "file":
        from madr_plugin.extractors.combined import FileExtractor
        return FileExtractor(argument, image_shape)
    from madr_plugin.extractors.deep import DeepExtractor
    return DeepExtractor(name, image_shape, input_size, weights)
