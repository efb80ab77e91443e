"""Feature detectors: finding the file, checking it, loading it, calling it.

A detector is a TorchScript file that takes uint8 images [N, 3, H, W] in [0, 255] at their own resolution and a few
keywords (return_features, no_output_bias, resize_images, return_lpips) and returns one row per image. Must not know
which metric asks.
"""

import inspect
import os
import urllib.parse
import warnings
from dataclasses import dataclass

import torch

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from dnnlib.util import is_url, open_url
from metrics import extractors, photo_networks

_PUBLIC = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
INCEPTION_URL = _PUBLIC + "inception-2015-12-05.pt"
VGG16_URL = _PUBLIC + "vgg16.pt"
# The short names that --detector takes, beside the file names themselves.
SHORT_NAMES = {"inception": "inception-2015-12-05", "vgg16": "vgg16"}
# --detector madr=NAME: the feature space of the diversity metrics, for callers without --madr-extractor.
SPACE = "madr"
FOLDER_VARIABLE = "MADR_DETECTORS_DIR"


@dataclass(frozen=True)
class DetectorSource:
    """Which detector was used, in words that a result line can carry."""

    name: str
    path: str  # '' for a built-in extractor
    sha256: str


def detector_name(url):
    """The name of a detector's file without folder and ending; 'extractor:NAME' stays as it is."""
    if url.startswith(extractors.SCHEME):
        return url
    return os.path.splitext(urllib.parse.unquote(urllib.parse.urlparse(url).path).rpartition("/")[2])[0]


def check_overrides(overrides):
    """{name: path} from --detector name=path, with full names as keys; refuses unknown names and missing files."""
    files = {*SHORT_NAMES.values(), *photo_networks.MODELS}
    known = sorted({SPACE, *SHORT_NAMES, *files})
    checked = {}
    for name, path in dict(overrides or {}).items():
        full = SHORT_NAMES.get(name, name)
        if full == SPACE:
            space_url(path)
            checked[full] = path
            continue
        if full not in files:
            raise UserError(f"--detector {name}={path}: there is no detector {name!r}; the names are {', '.join(known)}.")
        if not os.path.isfile(path):
            raise UserError(
                f"--detector {name}={path}: there is no such file; give the path of a TorchScript file (for dino and dinov2: of weights)."
            )
        checked[full] = os.path.abspath(path)
    return checked


def space_url(space):
    """URL of a feature space by the name that --madr-extractor takes; unknown names and missing files are refused."""
    if space == "inception":
        return INCEPTION_URL
    return extractors.SCHEME + extractors.checked_name(space)


def find_detector(url, overrides=None, verbose=False):
    """DetectorSource of a URL, a local path or 'extractor:NAME'.

    Looked for in this order: `overrides` {name: path}, the folder $MADR_DETECTORS_DIR, the download cache, the network.
    """
    overrides = check_overrides(overrides)
    if url.startswith(extractors.SCHEME):
        return _find_extractor(url, overrides)
    name = detector_name(url)
    folder = os.environ.get(FOLDER_VARIABLE)
    in_folder = os.path.join(folder, name + ".pt") if folder else None
    if name in overrides:
        path = overrides[name]
    elif in_folder and os.path.isfile(in_folder):
        path = in_folder
    elif not is_url(url):
        path = os.path.abspath(url)
        if not os.path.isfile(path):
            raise UserError(f"The detector file {path} does not exist; check the path.")
    else:
        path = _download(url, name, folder, verbose)
    return DetectorSource(name, path, file_digest(path))


def is_here(name, overrides=None):
    """Whether the weights of a network of photographs (dino, dinov2) are on this machine."""
    return name in check_overrides(overrides) or photo_networks.local_weights(name, os.environ.get(FOLDER_VARIABLE)) is not None


def _find_extractor(url, overrides):
    short = url.removeprefix(extractors.SCHEME)
    if short.startswith(extractors.FILE):
        path = os.path.abspath(short.removeprefix(extractors.FILE))
        return DetectorSource(extractors.FILE + os.path.basename(path), path, file_digest(path))
    if short in photo_networks.MODELS:
        path = overrides.get(short) or photo_networks.find_weights(short, os.environ.get(FOLDER_VARIABLE))
        return DetectorSource(url, path, file_digest(path))
    return DetectorSource(url, "", extractors.digest(url))


def _download(url, name, folder, verbose):
    try:
        return open_url(url, verbose=verbose, return_filename=True)
    except UserError as error:
        short = {full: short for short, full in SHORT_NAMES.items()}.get(name, name)
        place = folder or f"a folder that ${FOLDER_VARIABLE} names"
        raise UserError(
            f"The detector {name}.pt cannot be fetched from {url} ({error}) Get the file by other means, then give "
            f"--detector {short}=PATH or put it as {name}.pt into {place}. No SHA-256 of it is known here, so none is "
            "checked; the result line records the hash of the file used."
        ) from error


def resize_filter(source):
    """How images of another size are brought to the detector's: in words for the result line."""
    short = source.name.removeprefix(extractors.SCHEME)
    if short in photo_networks.MODELS:
        return "bicubic, antialiased"
    if short in extractors.names():
        return "bilinear, antialiased"
    return "that of the detector's file"  # which its hash pins down


def load_detector(source, device):
    """The detector as a callable on `device`, in evaluation mode."""
    if source.name.startswith((extractors.SCHEME, extractors.FILE)):
        return extractors.build(source.name, source.path).to(device)
    try:
        with warnings.catch_warnings():
            # The published detectors exist in this format only, whatever PyTorch recommends for new files.
            warnings.simplefilter("ignore")
            return torch.jit.load(source.path, map_location=device).eval()
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"The detector file {source.path} is not a TorchScript file that this PyTorch can read "
            f"({str(error).strip().splitlines()[0]}); get {source.name}.pt again."
        ) from error


def run_detector(detector, source, images, kwargs):
    """Features [N, D] of images [N, 1 or 3, H, W]; grey images become three equal channels."""
    if images.shape[1] == 1:
        images = images.repeat(1, 3, 1, 1)
    if images.shape[1] != 3:
        raise UserError(f"Metrics need images of 1 or 3 channels (got {images.shape[1]}).")
    try:
        features = detector(images, **kwargs)
    except (RuntimeError, TypeError) as error:
        if not _refuses_keywords(detector, kwargs):
            raise
        raise UserError(
            f"The detector {source.path or source.name} does not take the keywords {', '.join(kwargs)}; it must be called as "
            f"{source.name}.pt is: detector(uint8 images, {', '.join(f'{k}={v}' for k, v in kwargs.items())})."
        ) from error
    if not isinstance(features, torch.Tensor) or features.ndim != 2 or len(features) != len(images):
        shape = list(features.shape) if isinstance(features, torch.Tensor) else type(features).__name__
        raise UserError(f"The detector {source.path or source.name} must return one row per image for {len(images)} images (got {shape}).")
    return features


def _refuses_keywords(detector, kwargs):
    """Whether the signature of a TorchScript or Python detector lacks one of the keywords."""
    schema = getattr(getattr(detector, "forward", None), "schema", None)
    if schema is not None:
        names = {argument.name for argument in schema.arguments}
    else:
        names = set(inspect.signature(detector.forward).parameters)
    return not set(kwargs) <= names
