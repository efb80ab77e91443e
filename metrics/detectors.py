"""What metrics look through: the published detectors and the feature spaces of madr_spaces, found, loaded, called.

A published detector is a TorchScript file that takes uint8 images [N, 3, H, W] in [0, 255] at their own resolution and a few
keywords (return_features, no_output_bias, resize_images, return_lpips) and returns one row per image; its URL stands for it.
'extractor:NAME' stands for a space. Must not know which metric asks.
"""

import contextlib
import inspect
import os
import urllib.parse
import warnings
from dataclasses import dataclass, replace

import torch

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from dnnlib.util import is_url, open_url
from madr_spaces import fitting, hub, names, registry
from madr_spaces.errors import MADRError, words_of
from madr_spaces.hub import FOLDER_VARIABLE
from madr_spaces.space import Space

_PUBLIC = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/"
INCEPTION_URL = _PUBLIC + "inception-2015-12-05.pt"
VGG16_URL = _PUBLIC + "vgg16.pt"
SCHEME = "extractor:"
# The short names that --detector takes, beside the file names themselves.
SHORT_NAMES = {"inception": "inception-2015-12-05", "vgg16": "vgg16"}
# Key of the feature space among the paths of detectors, and the one that older versions knew it by: --detector madr=NAME.
SPACE, OLD_SPACE = "metric-space", "madr"


@dataclass(frozen=True)
class DetectorSource:
    """Which detector was used, in words that a result line can carry."""

    name: str
    path: str  # '' for a space without a file; comma-separated for an ensemble
    sha256: str
    identity: dict | None = None  # of a space, once it is loaded: all that its features depend on
    fitted: dict | None = None  # of a space that is fitted to data: to which


@contextlib.contextmanager
def in_words_of_metrics(space, flag="--metric-space"):
    """The shelf of spaces speaks in the flags of training; here --metric-space names the space, and --detector a file in training."""
    try:
        yield
    except MADRError as error:
        text = str(error).replace("--madr-extractor", flag)
        raise UserError(text.replace("--madr-weights=PATH", f"--madr-weights=PATH (in training: --detector {weights_key(space)}=PATH)")) from error


# ----------------------------------------------------------------------------------------------------------------
# Names and files as the user gives them.


def weights_key(space):
    """The name under which --detector takes the weights of a space: `inception` there is the detector of FID."""
    return {"inception": "timm:" + names.model_of("inception"), names.INCEPTION_FID: SHORT_NAMES["inception"]}.get(space, space)


def files_of(space, text):
    """The files of a space's weights: one, or those of an ensemble's parts, joined by commas. Elsewhere a comma belongs to the path."""
    return text.split(",") if space.startswith("ensemble:") else [text]


def check_overrides(overrides, announce=None):
    """{name: path} from --detector name=path, with full names as keys; refuses unknown names and missing files.

    announce: called with a sentence where an older version's spelling is used.
    """
    files = {*SHORT_NAMES.values(), *(weights_key(name) for name in (*names.MODELS, "own"))}
    checked = {}
    for name, path in dict(overrides or {}).items():
        full = SHORT_NAMES.get(name, name)
        if full == OLD_SPACE:
            todays = names.OLD_NAMES.get(path, path)
            if announce is not None:
                announce(f"--detector {name}={path} is the old spelling of --metric-space={todays}.")
            full, path = SPACE, todays
        if full == SPACE:
            space_url(path)
            checked.setdefault(full, path)
            continue
        if full not in files and not full.startswith(("timm:", "ensemble:")):
            known = ", ".join(sorted({*SHORT_NAMES, *files, "timm:<model>"}))
            raise UserError(f"--detector {name}={path}: there is no detector {name!r}; the names are {known}.")
        parts = path.split(",") if full.startswith("ensemble:") else [path]
        if not all(os.path.isfile(part) for part in parts):
            raise UserError(f"--detector {name}={path}: there is no such file; give the path of a TorchScript file (for a space: of weights).")
        checked[full] = ",".join(os.path.abspath(part) for part in parts)
    return checked


def with_space(overrides, space):
    """The checked paths of detectors with the feature space among them, if one is named; it counts before one named in an old spelling."""
    if space is not None:
        space_url(space)
    return {**check_overrides(overrides), **({} if space is None else {SPACE: space})}


def with_weights(overrides, space, weights):
    """The paths of detectors with the file of --madr-weights (None: not given) for the space that it belongs to."""
    if weights is None:
        return overrides
    if not names.takes_weights(space):
        raise UserError(f"--madr-weights={weights} has no effect: the space {space} takes no weights; leave the option out.")
    if not all(os.path.isfile(part) for part in files_of(space, weights)):
        raise UserError(f"--madr-weights={weights} does not exist; give the path of a .safetensors or .pth file (for inception-fid: TorchScript).")
    return check_overrides({**overrides, weights_key(space): weights})


def named_space(metric_space, madr_extractor):
    """The space that --metric-space names, or --madr-extractor, its old spelling in the metrics' tools; None if neither is given."""
    if metric_space is not None and madr_extractor is not None:
        raise UserError(f"--metric-space={metric_space} and --madr-extractor={madr_extractor} are two spellings of one option; leave one out.")
    if madr_extractor is not None:
        with in_words_of_metrics(madr_extractor, "--madr-extractor"):
            names.of_old_metrics(madr_extractor)
        space_url(madr_extractor, "--madr-extractor")
    elif metric_space is not None:
        space_url(metric_space)
    return metric_space or madr_extractor


# ----------------------------------------------------------------------------------------------------------------
# Finding.


def detector_name(url):
    """The name of a detector's file without folder and ending; 'extractor:NAME' stays as it is."""
    if url.startswith(SCHEME):
        return url
    return os.path.splitext(urllib.parse.unquote(urllib.parse.urlparse(url).path).rpartition("/")[2])[0]


def space_url(space, flag="--metric-space"):
    """What stands for a feature space where a detector's URL is asked for; unknown names and missing files are refused."""
    with in_words_of_metrics(space, flag):
        kind, path = names.split(space)
    if kind == "file" and not os.path.isfile(path):
        raise UserError(f"{flag}={space}: there is no such file; give the path of a TorchScript or .safetensors file.")
    return INCEPTION_URL if space == names.INCEPTION_FID else SCHEME + space


def find_detector(url, overrides=None, verbose=False, otherwise=None):
    """DetectorSource of a URL, a local path or 'extractor:NAME'.

    Looked for in this order: `overrides` {name: path}, the folder $MADR_DETECTORS_DIR, the download cache, the network.
    otherwise: what the person may do without the file, for a tool that writes no result line.
    """
    overrides = check_overrides(overrides)
    if url.startswith(SCHEME):
        return _find_space(url.removeprefix(SCHEME), overrides)
    name = detector_name(url)
    folder = os.path.expanduser(os.environ.get(FOLDER_VARIABLE, ""))
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
        path = _download(url, name, folder, verbose, otherwise)
    return DetectorSource(name, path, file_digest(path))


def is_here(space, overrides=None):
    """Whether the weights of a network of photographs (dino, dinov2, ...) are on this machine."""
    return weights_key(space) in check_overrides(overrides) or hub.local_weights(space) is not None


def _find_space(space, overrides):
    with in_words_of_metrics(space):
        kind, argument = names.split(space)
        if kind == "file":
            path = os.path.abspath(argument)
            return DetectorSource("file:" + os.path.basename(path), path, file_digest(path))
        if space in names.NO_FILE:
            return DetectorSource(SCHEME + space, "", registry.build(space, (3, 32, 32)).digest())
        given = files_of(space, overrides[weights_key(space)]) if weights_key(space) in overrides else []
        paths = given or [_weights_of(part, overrides) for part in names.parts(space) if names.takes_weights(part)]
        digests = [file_digest(path) for path in paths if path]
        return DetectorSource(SCHEME + space, ",".join(paths), ",".join(digests))


def _weights_of(part, overrides):
    if weights_key(part) in overrides:
        return overrides[weights_key(part)]
    if part == names.INCEPTION_FID:
        return find_detector(INCEPTION_URL, overrides).path
    return hub.find_weights(part) if names.model_of(part) else ""  # own has a sentence of its own


def _download(url, name, folder, verbose, otherwise):
    try:
        return open_url(url, verbose=verbose, return_filename=True)
    except UserError as error:
        short = {full: short for short, full in SHORT_NAMES.items()}.get(name, name)
        place = folder or f"a folder that ${FOLDER_VARIABLE} names"
        if otherwise is None:
            end = ". No SHA-256 of it is known here, so none is checked; the result line records the hash of the file used."
        else:
            end = f" (no SHA-256 of it is known here, so none is checked), or {otherwise}"
        raise UserError(
            f"The detector {name}.pt cannot be fetched from {url} ({error}) Get the file by other means, then give "
            f"--detector {short}=PATH or put it as {name}.pt into {place}{end}"
        ) from error


# ----------------------------------------------------------------------------------------------------------------
# Loading and calling.


def detector_facts(source, kwargs):
    """What a result line says of a detector."""
    facts = dict(
        name=source.name,
        sha256=source.sha256,
        kwargs=dict(kwargs),
        input="uint8 at native resolution, resized by the detector",
        # That of a published detector is pinned down by the hash of its file.
        resize_filter=source.identity["resize_filter"] if source.identity else "that of the detector's file",
    )
    return facts if source.fitted is None else dict(facts, fitted=source.fitted)


def load_detector(source, device, dataset=None, cache=True):
    """The detector as a callable on `device`, in evaluation mode."""
    return load(source, device, dataset, cache)[0]


def load(source, device, dataset=None, cache=True):
    """(the detector, its source with all that its features depend on). dataset: what a space is fitted to if it is of that kind."""
    if source.name.startswith((SCHEME, "file:")):
        return _load_space(source, device, dataset, cache)
    try:
        with warnings.catch_warnings():
            # The published detectors exist in this format only, whatever PyTorch recommends for new files.
            warnings.simplefilter("ignore")
            return torch.jit.load(source.path, map_location=device).eval(), source
    except (RuntimeError, ValueError, OSError) as error:
        raise UserError(
            f"The detector file {source.path} is not a TorchScript file that this PyTorch can read "
            f"({words_of(error).splitlines()[0]}); get {source.name}.pt again."
        ) from error


def _load_space(source, device, dataset, cache):
    space = source.name.removeprefix(SCHEME)
    name, weights = (f"file:{source.path}", "") if space.startswith("file:") else (space, source.path)
    with in_words_of_metrics(space):
        made = registry.build_for_metric(name, dataset.image_shape if dataset is not None else (3, 32, 32), weights)
        fitted = None
        if made.images_to_fit:
            if dataset is None:
                raise UserError(f"The space {space} is fitted to a data set, and none is known; give it with --data=PATH.")
            fitting.put(made, fitting.fitted(made, dataset, cache))
            dataset.close()
            fitted = fitting.facts(made, dataset)
    # The digest holds what was fitted: features of another fit are other features.
    identity = dict(made.identity(), digest=made.digest(), resize_filter=made.resize_filter)
    return made.to(device), replace(source, identity=identity, fitted=fitted)


def run_detector(detector, source, images, kwargs):
    """Features [N, D] of images [N, 1 or 3, H, W]; published detectors see grey images as three equal channels."""
    if images.shape[1] not in (1, 3):
        raise UserError(f"Metrics need images of 1 or 3 channels (got {images.shape[1]}).")
    try:
        if isinstance(detector, Space):
            features = detector.of_bytes(images)
        else:
            features = detector(images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images, **kwargs)
    except (RuntimeError, TypeError) as error:
        if isinstance(detector, Space) or not _refuses_keywords(detector, kwargs):
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
