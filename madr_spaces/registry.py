"""A feature space out of its name: the same network under the same name in every tool and in forks.

Must not know images, losses or metrics. The names themselves are in names.py.
"""

from madr_spaces.errors import MADRError
from madr_spaces.fixed import PixelsSpace, RandomConvSpace
from madr_spaces.names import INCEPTION_FID, MODELS, NO_FILE, split, takes_weights
from madr_spaces.pca import PCASpace
from madr_spaces.seeded_conv import RandomSpace


def build(name, image_shape, width=0, seed=0, input_size=0, weights="", sha256="", differentiable=True):
    """The space called `name` (names.HELP) for images of [C, H, W]. width, input_size 0: its own choice.

    weights, sha256: of its file; comma-separated for the parts of an ensemble that take one. differentiable: refuse a file
    that carries no gradient to the image.
    """
    kind, argument = split(name)
    if kind in NO_FILE:
        if weights or sha256:
            flag = "--madr-weights" if weights else "--madr-weights-sha256"
            raise MADRError(f"{flag} has no effect with --madr-extractor={name}, which takes no file; leave it out or choose another extractor")
        return _without_file(kind, image_shape, width, seed)
    # Imported when asked for: the hosts of pca need neither timm nor a hub.
    if kind == "own":
        from madr_spaces.own import OwnSpace

        return OwnSpace(image_shape, weights, sha256)
    if kind == INCEPTION_FID:
        from madr_spaces.from_file import inception_fid

        return inception_fid(image_shape, weights, sha256, differentiable)
    if kind == "ensemble":
        return _ensemble(name, argument, image_shape, width, seed, input_size, weights, sha256, differentiable)
    if kind == "file":
        return _of_file(name, argument, image_shape, input_size, weights, sha256, differentiable)
    from madr_spaces.deep import DeepSpace

    return DeepSpace(name, image_shape, input_size, weights, sha256)


def build_for_metric(name, image_shape, weights="", sha256=""):
    """The space as numbers are reported in it: of its own width and size, with seed 0, so that one name is one network."""
    is_script = name.startswith("file:") and not name.endswith(".safetensors")
    if is_script and image_shape[0] == 1:  # published detectors and networks of photographs see grey images as three equal channels
        image_shape = (3, *image_shape[1:])
    return build(name, image_shape, weights=weights, sha256=sha256, differentiable=False).eval().requires_grad_(False)


def _without_file(kind, image_shape, width, seed):
    if kind == "pca":
        return PCASpace(image_shape, width or 64, seed)
    if kind == "random":
        return RandomSpace(image_shape, width or 384, seed)
    return {"random-conv": RandomConvSpace, "pixels": PixelsSpace}[kind](image_shape)


def _ensemble(name, argument, image_shape, width, seed, input_size, weights, sha256, differentiable):
    from madr_spaces.ensemble import EnsembleSpace

    files, hashes = (text.split(",") if text else [] for text in (weights, sha256))
    parts = []
    for part in argument.split("+"):
        own = (files.pop(0) if files else "", hashes.pop(0) if hashes else "") if takes_weights(part) else ("", "")
        size = input_size if part in MODELS or part.startswith("timm:") else 0
        parts.append(build(part, image_shape, 0, seed, size, *own, differentiable))
    if files or hashes:
        raise MADRError(
            f"--madr-weights or --madr-weights-sha256 lists more files than --madr-extractor={name} takes; leave out {(files + hashes)[0]}"
        )
    return EnsembleSpace(parts, image_shape, width or 384, seed)


def _of_file(name, path, image_shape, input_size, weights, sha256, differentiable):
    from madr_spaces.from_file import FileSpace, from_safetensors

    if weights:
        raise MADRError(f"--madr-weights has no effect with --madr-extractor={name}, which names its file; leave it out")
    if path.endswith(".safetensors"):
        return from_safetensors(path, image_shape, input_size, sha256)
    if input_size:
        raise MADRError(f"--madr-input-size has no effect with --madr-extractor={name}: a TorchScript module does its own resizing; leave it out")
    return FileSpace(path, image_shape, sha256, differentiable)
