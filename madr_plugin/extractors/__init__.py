"""Frozen feature extractors: images in, features out, gradients back to the image. See base.py for the protocol."""

from madr_plugin.base.errors import MADRError
from madr_plugin.config import split_extractor
from madr_plugin.extractors.pca import PCAExtractor
from madr_plugin.extractors.random_conv import RandomConvExtractor


def build(name, image_shape, width=0, seed=0, input_size=0, weights="", sha256=""):
    """The extractor called `name` (config.EXTRACTOR_HELP) for images of [C, H, W]. width, input_size 0: its own choice.

    weights, sha256: of its file; comma-separated for the parts of an ensemble that take one.
    """
    kind, argument = split_extractor(name)
    if (weights or sha256) and kind in ("pca", "random"):
        flag = "--madr-weights" if weights else "--madr-weights-sha256"
        raise MADRError(f"{flag} has no effect with --madr-extractor={name}, which takes no file; leave it out or choose another extractor")
    if kind == "pca":
        return PCAExtractor(image_shape, width or 64, seed)
    if kind == "random":
        return RandomConvExtractor(image_shape, width or 384, seed)
    if kind == "own":
        from madr_plugin.extractors.own import OwnExtractor

        return OwnExtractor(image_shape, weights, sha256)
    # Imported when asked for: the hosts of pca need neither timm nor a hub.
    if kind == "ensemble":
        from madr_plugin.extractors.combined import EnsembleExtractor

        files, hashes = (text.split(",") if text else [] for text in (weights, sha256))
        parts = []
        for part in argument.split("+"):
            if split_extractor(part)[0] in ("pca", "random"):
                parts.append(build(part, image_shape, 0, seed))
            else:
                parts.append(build(part, image_shape, 0, seed, input_size, files.pop(0) if files else "", hashes.pop(0) if hashes else ""))
        if files or hashes:
            raise MADRError(
                f"--madr-weights or --madr-weights-sha256 lists more files than --madr-extractor={name} takes; leave out {(files + hashes)[0]}"
            )
        return EnsembleExtractor(parts, image_shape, width or 384, seed)
    if kind == "file":
        from madr_plugin.extractors.combined import FileExtractor, from_safetensors

        if weights:
            raise MADRError(f"--madr-weights has no effect with --madr-extractor={name}, which names its file; leave it out")
        if argument.endswith(".safetensors"):
            return from_safetensors(argument, image_shape, input_size, sha256)
        if input_size:
            raise MADRError(f"--madr-input-size has no effect with --madr-extractor={name}: a TorchScript module does its own resizing; leave it out")
        return FileExtractor(argument, image_shape, sha256)
    from madr_plugin.extractors.deep import DeepExtractor

    return DeepExtractor(name, image_shape, input_size, weights, sha256)
