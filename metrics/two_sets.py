"""Sets without a network: folders or zips of images, files of features, saved statistics, in place of a generator and its data.

    python calc_metrics.py --fakes=samples --data=photos.zip --metrics=fid50k_full,kid50k_full

A set of images stands in for the generator and goes the way of its images; features and statistics go in where those of images
would come out. Must not know any metric, nor click.
"""

import json
import os
import zipfile
import zlib
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from dnnlib.util import construct_class_by_name
from madr_spaces import sampling
from madr_spaces.feature_sets import check_finite, checked_matrix
from metrics import given_features, one_size
from metrics.feature_stats import FeatureStats
from metrics.metric import Takes
from torch_utils.snapshot_names import list_network_snapshots

FLAGS = {"real": "--reals", "generated": "--fakes"}
_LIMITS = {"real": "--num-real", "generated": "--num-gen"}
_IMAGE_FOLDER = "training.dataset.ImageFolderDataset"
_RUN_FILE = "training_options.json"  # lies in the folder of a run
_KINDS = {Takes.IMAGES: "images", Takes.FEATURES: "features", Takes.STATISTICS: "a mean and a covariance"}


@dataclass(frozen=True)
class Side:
    """A set. kind: what it holds; stats: the features or statistics of a file; dataset_kwargs: the images, {} where nothing is compared with."""

    name: str  # 'real' or 'generated'
    path: str | None
    kind: Takes
    facts: dict
    stats: FeatureStats | None = None
    dataset_kwargs: dict = field(default_factory=dict)
    detector_sha256: str | None = None  # through which the features were made, if the file says so
    given_with: str | None = None  # another flag than that of FLAGS

    @property
    def flag(self):
        return f"{self.given_with or FLAGS[self.name]}={self.path}"


NO_REALS = Side("real", None, Takes.IMAGES, {})


class Statistics(FeatureStats):
    """A mean and a covariance that somebody else computed, of an unknown number of images."""

    def __init__(self, mean_D, cov_DD):
        super().__init__(capture_mean_cov=True)
        self.set_num_features(len(mean_D))
        self.num_items = None
        self._mean_cov = mean_D, cov_DD

    def get_mean_cov(self):
        return self._mean_cov


# ----------------------------------------------------------------------------------------------------------------
# Opening.


def is_set(path):
    """Whether a path leads to a set rather than a network: a zip, a file of features or statistics, a folder that is not that of a run."""
    if os.path.isdir(path):
        return not _is_run(path)
    return path.lower().endswith((".zip", ".npy", ".npz"))


def _is_run(folder):
    return os.path.isfile(os.path.join(folder, _RUN_FILE)) or bool(list_network_snapshots(folder))


def open_side(name, path, mirror=False, given_with=None):
    """The Side at a path; whatever it cannot be is a sentence. given_with: the flag, where it is not that of FLAGS."""
    flag = f"{given_with or FLAGS[name]}={path}"
    if not os.path.exists(path):
        raise UserError(f"{flag} does not exist; give a folder or zip of images, or a .npy or .npz file of features or statistics.")
    if path.lower().endswith((".npy", ".npz")):
        return replace(_from_file(name, path, given_with or FLAGS[name]), given_with=given_with)
    if os.path.isdir(path) and _is_run(path):
        raise UserError(f"{flag} is the folder of a run, whose pictures are grids of many images; judge its network with --network={path}.")
    if os.path.isdir(path) or path.lower().endswith(".zip") or zipfile.is_zipfile(path):
        return Side(name, path, Takes.IMAGES, {}, dataset_kwargs=dict(class_name=_IMAGE_FOLDER, path=path, xflip=mirror), given_with=given_with)
    remedy = "a network is judged with --network=PATH" if path.lower().endswith((".pkl", ".safetensors")) else "put images into a folder or zip"
    raise UserError(f"{flag} is neither a folder, nor a zip of images, nor a .npy or .npz file; {remedy}.")


def _from_file(name, path, flag):
    arrays = _arrays_of(path, flag)
    stated = _stated_detector(arrays)
    facts = dict(path=path, file=os.path.basename(path), sha256=file_digest(path))
    if {"options", "num_items"} <= set(arrays):  # kept by calc_metrics.py itself
        stats = _kept_statistics(arrays, path, flag)
        kind = Takes.FEATURES if stats.capture_all else Takes.STATISTICS
        if stats.capture_all:
            stats = of_rows(stats.get_all())
    elif {"mu", "sigma"} <= set(arrays):
        stats, kind = _published_statistics(arrays["mu"], arrays["sigma"], path, flag), Takes.STATISTICS
    else:
        stats, kind = of_rows(given_features.read(path, flag, name.capitalize())), Takes.FEATURES
    facts.update(kind=_KINDS[kind], num_items=stats.num_items, num_features=stats.num_features)
    return Side(name, path, kind, facts, stats, detector_sha256=stated)


def _arrays_of(path, flag):
    """{name: array} of an .npz, else {}."""
    if not path.lower().endswith(".npz"):
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            names = set(arrays.files)
            wanted = names & {"options", "num_items", "rows", "sum", "outer", "facts", "mu", "sigma"}
            return {name: arrays[name] for name in wanted}
    except (ValueError, OSError, EOFError, NotImplementedError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{flag}={path} is no .npz file without pickled objects ({str(error)[:120]}); write it again with numpy.savez.") from error


def _stated_detector(arrays):
    """SHA-256 of the detector of a file that calc_metrics.py kept, or None."""
    try:
        return json.loads(str(arrays["facts"]))["detector"][1] or None
    except (KeyError, ValueError, TypeError, IndexError):
        return None


def _kept_statistics(arrays, path, flag):
    try:
        return FeatureStats.from_arrays(arrays)
    except (KeyError, ValueError, TypeError, IndexError) as error:
        raise UserError(f"{flag}={path} is a damaged file of statistics ({type(error).__name__}: {error}); compute it again.") from error


def _published_statistics(mean_D, cov_DD, path, flag):
    shapes = f"mu {list(mean_D.shape)}, sigma {list(cov_DD.shape)}"
    if mean_D.ndim != 1 or cov_DD.shape != (len(mean_D), len(mean_D)) or not {mean_D.dtype.kind, cov_DD.dtype.kind} <= set("fiu"):
        raise UserError(f"{flag}={path} holds {shapes}; a mean of D numbers goes with a covariance of D x D.")
    mean_D, cov_DD = mean_D.astype(np.float64), cov_DD.astype(np.float64)
    for what, array in (("mean", mean_D[:, None]), ("covariance", cov_DD)):
        check_finite(array, f"{flag}={path}, {what}:")
    return Statistics(mean_D, cov_DD)


def of_rows(rows_ND):
    """FeatureStats of given features: all of them, and their sums."""
    stats = FeatureStats(capture_all=True, capture_mean_cov=True)
    stats.append(rows_ND)
    return stats


# ----------------------------------------------------------------------------------------------------------------
# Checks.


def check(sides, rows):
    """Refuse metrics that need more than the sides hold, naming those that would do."""
    for row in rows:
        if row.takes is Takes.NETWORK:
            raise UserError(
                f"--metrics={row.name} needs the network itself, its latents or its snapshots, which no set of images has; give --network=PATH alone."
            )
        for side in sides:
            if side.kind > row.takes:
                raise UserError(
                    f"--metrics={row.name} needs {_KINDS[row.takes]} on every side, but {side.flag} holds {_KINDS[side.kind]}; "
                    f"give {_KINDS[row.takes]} there, or take a metric of less ({'fid50k_full' if side.kind is Takes.STATISTICS else 'kid50k_full, madr_prdc'})."
                )
    stated = {side.detector_sha256 for side in sides if side.detector_sha256}
    if len(stated) > 1:
        named = " and ".join(side.flag for side in sides if side.detector_sha256)
        raise UserError(f"{named} were made through different detectors; compute them again through one.")


def check_detector(sides, result):
    """Refuse a number of features of a file that says they come from another detector than the images went through."""
    used = (result.facts.get("detector") or {}).get("sha256")
    for side in sides:
        if used and side.detector_sha256 and side.detector_sha256 != used:
            raise UserError(
                f"{side.flag} was made through another detector than {result.metric} looks through here (SHA-256 {side.detector_sha256[:12]}..., "
                f"here {used[:12]}...); give the images themselves, or the same file with --detector."
            )


def limited(side, count, seed):
    """The side with at most `count` items, drawn at random as the order of files often follows classes; None: all."""
    flag = _LIMITS[side.name]
    if count is None or side.kind is Takes.IMAGES:
        return side
    if side.kind is Takes.STATISTICS:
        raise UserError(f"{flag}={count} has no effect on {side.flag}: a mean and a covariance are of all their images; leave it out.")
    rows = side.stats.get_all()
    chosen = _chosen(len(rows), count, seed, side.name, flag, side.flag)
    return replace(side, stats=of_rows(rows[chosen]))


def _chosen(there, count, seed, name, flag="--num-gen", what="the set"):
    """Indices of `count` items in their order, or of all."""
    if count is None or count == there:
        return np.arange(there)
    if count > there:
        if name == "real":
            return np.arange(there)  # at most so many
        raise UserError(f"{flag}={count} asks for more images than the {there} of {what}; lower it, or leave it out to take all.")
    return np.sort(sampling.stream("subsets", seed, block=int(name == "generated")).permutation(there)[:count])


# ----------------------------------------------------------------------------------------------------------------
# Images in the place of a generator.


def open_images(side, use_labels=False):
    """The data set of a side, whose images are of one size and kind."""
    dataset = construct_class_by_name(**{**side.dataset_kwargs, "use_labels": use_labels})
    dataset.check_images()
    return dataset


class Images:
    """A set of images with what metrics ask of a generator: the kind of its images, and batches of them, each once and in the set's order.

    dataset: with image_shape (C, H, W). side: where it was given. num_gen: of a draw from them; None: all.
    """

    z_dim = 0

    def __init__(self, dataset, side, num_gen=None, seed=0):
        self.dataset = dataset
        self.chosen = _chosen(len(dataset), num_gen, seed, "generated", what=side.flag)
        self.img_channels, height, width = dataset.image_shape
        self.img_resolution = max(height, width)
        self.c_dim = dataset.label_dim
        self.facts = dict(
            kind=_KINDS[Takes.IMAGES],
            path=side.path,
            fingerprint=dataset.content_fingerprint(),
            name=dataset.name,
            num_images=len(dataset),
            image_shape=list(dataset.image_shape),
        )

    def __len__(self):
        return len(self.chosen)

    def batches(self, opts, num_items, batch_gen):
        """uint8 [batch_gen, C, H, W] on the device of the options: the shares of this rank, as metric_utils.generate_images gives them."""
        per_round = batch_gen * opts.num_gpus
        for first_round in range(0, num_items, per_round):
            first = first_round + opts.rank * batch_gen
            # Every rank brings full batches; what wraps around lies beyond the last item and is dropped.
            items = [self.chosen[i % len(self.chosen)] for i in range(first, first + batch_gen)]
            yield torch.from_numpy(np.stack([self.dataset[i][0] for i in items])).to(opts.device)


def check_same_kind(mine, theirs):
    """Refuse images of other sizes or channels: scaling changes every number, and a detector does it without a word.

    mine, theirs: (words like '--fakes=PATH', (C, H, W), path of a set or None of a network). theirs is what sets the kind.
    """
    (my_words, my_shape, my_path), (their_words, their_shape, their_path) = mine, theirs
    if list(my_shape) == list(their_shape):
        return
    text = lambda shape: f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
    what = f"{my_words} has images of {text(my_shape)}, {their_words} of {text(their_shape)}"
    if my_shape[0] != their_shape[0]:
        raise UserError(f"{what}; grey and colour cannot be compared: give images of one kind.")
    if my_path is None or (their_path is None and not one_size.is_made(their_shape)):
        raise UserError(f"{what}; {one_size.remedy_beside_network(my_shape if my_path is None else their_shape)}.")
    sets = {words.split("=")[0].strip("-"): (path, shape) for words, shape, path in (mine, theirs)}
    raise UserError(f"{what}; {one_size.remedy(their_shape, sets)}.")


def as_given_features(sides):
    """GivenFeatures where both sides are features, for metrics that look at these alone; else None."""
    real, fake = sides
    if real.kind is fake.kind is Takes.FEATURES:
        rows = [checked_matrix(side.stats.get_all(), side.name.capitalize()) for side in sides]
        return given_features.GivenFeatures(*rows, dict(real=real.facts, generated=fake.facts))
    return None
