"""What attach() compares generated images with: a folder or zip, a data set object, a tensor of images or of points, read in one shape or refused.

Must not know the term.
"""

import hashlib
import os

import numpy as np
import torch

from madr_plugin.host.construct import construct
from madr_spaces.errors import MADRError
from madr_spaces.images import host_rng_untouched
from madr_spaces.space import Space

LARGEST = 1.0  # of a pixel: images are given as networks of this family draw them
LEAST_SPREAD = 1e-5  # of points: they are read as pixels are, which leaves steps of 1e-7


class TensorSet:
    """Images [N, C, H, W] in [-1, 1] (or uint8), or points [N, D], in the shape of a data set of images, with labels [N, c] or none."""

    def __init__(self, values, labels=None):
        if not torch.is_tensor(values) and not isinstance(values, (np.ndarray, list, tuple)):
            raise MADRError(
                f"the reference must be a folder or zip of images, a data set object of the StyleGAN2-ADA kind, or a tensor (got {type(values).__name__})"
            )
        values = numbers(values, "the reference").detach().cpu()
        if values.ndim not in (2, 4) or len(values) < 2:
            raise MADRError(f"the reference must be images [N, C, H, W] or points [N, D], two or more of them (got shape {list(values.shape)})")
        if values.ndim == 4 and values.shape[3] in (1, 3) and values.shape[1] > 4:
            raise MADRError(
                f"images of the reference have their channels first, [N, C, H, W] (got shape {list(values.shape)}); permute(0, 3, 1, 2) puts them there"
            )
        if values.ndim == 2 and values.dtype == torch.uint8:
            raise MADRError("points of the reference must be floating-point numbers, as the generator draws them (got torch.uint8)")
        if values.dtype == torch.uint8:
            values = values.to(torch.float32) / 127.5 - 1
        if not values.is_floating_point() or not bool(values.isfinite().all()):
            raise MADRError(f"the reference must hold finite floating-point numbers, or images of type uint8 (got {values.dtype})")
        if values.ndim == 4 and float(values.abs().max()) > LARGEST + 1e-3:
            low, high = float(values.min()), float(values.max())
            raise MADRError(
                f"images of the reference must lie in [-1, 1] (got {low:g} to {high:g}); scale them as the generator draws them, or give uint8"
            )
        self.values = values.to(torch.float32)
        spread = float(self.values.std(0).max())
        if values.ndim == 2 and 0 < spread < LEAST_SPREAD:
            raise MADRError(
                f"the points of the reference spread by {spread:.1g}, and less than {LEAST_SPREAD:g} is lost in rounding; scale them and what the generator draws up"
            )
        self.image_shape = list(values.shape[1:]) if values.ndim == 4 else [values.shape[1], 1, 1]
        self.labels = (
            np.zeros([len(values), 0], np.float32) if labels is None else numbers(labels, "labels of the reference").detach().cpu().float().numpy()
        )
        if not np.isfinite(self.labels).all():
            raise MADRError("labels of the reference must be finite; for images without a class leave all labels out")
        if self.labels.ndim != 2:
            raise MADRError(f"labels of the reference must be vectors [N, c], one-hot where they are classes (got shape {list(self.labels.shape)})")
        if len(self.labels) != len(values):
            raise MADRError(f"the reference has {len(values)} images and {len(self.labels)} labels; give one label vector per image")

    def __len__(self):
        return len(self.values)

    def __getitem__(self, index):
        return ((self.values[index].numpy() + 1) * 127.5).reshape(self.image_shape), self.labels[index]

    def content_fingerprint(self):
        return hashlib.sha256(self.values.numpy().tobytes() + self.labels.tobytes()).hexdigest()


def numbers(values, what):
    """Read a tensor, an array or a list of either as one dense tensor."""
    try:
        if isinstance(values, (list, tuple)) and len(values) > 0 and all(torch.is_tensor(value) for value in values):
            values = torch.stack([value.detach().cpu() for value in values])
        read = torch.as_tensor(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise MADRError(f"{what} must be one tensor or array of numbers, every row of one shape ({error})") from error
    return read.to_dense() if read.layout != torch.strided else read


class PointSpace(Space):
    """Points [N, D, 1, 1] as their own features. Their principal components would leave out directions in which the reference does not vary, but a generator may."""

    def identity(self):
        return dict(name="points", width=self.image_shape[0], version=1)

    def forward(self, points):
        return points.flatten(1).to(torch.float32)


def opened(reference, labels):
    """Give the reference of attach() in the shape of a data set: image_shape, a length, (image, label) at each index."""
    has_own_labels = hasattr(reference, "image_shape") and hasattr(reference, "__getitem__")
    if labels is not None and (has_own_labels or isinstance(reference, (str, os.PathLike))):
        raise MADRError(
            "attach(): labels are those of a tensor, and this reference is a folder, zip or data set object; leave them out, "
            "or give a data set object that has labels"
        )
    if isinstance(reference, (str, os.PathLike)):
        if not os.path.exists(reference):
            raise MADRError(f"attach(): the reference {reference} does not exist; give a folder or zip of images, or a tensor")
        try:
            return construct(class_name="training.dataset.ImageFolderDataset", path=os.fspath(reference), use_labels=False)
        except ImportError as error:
            raise MADRError("attach(): no package training.dataset here reads files; give the reference as a tensor or a data set object") from error
        except Exception as error:  # the host's own kinds; what it says is for whoever reads this
            raise MADRError(f"attach(): {error}") from error
    if has_own_labels:
        _check_kind(reference)
        return reference
    return TensorSet(reference, labels)


def _check_kind(dataset):
    """Refuse data set objects whose images would be read wrongly: those of the StyleGAN2-ADA kind give pixels of 0 to 255 and a label."""
    kind = "a data set object of the StyleGAN2-ADA kind has a length, and gives (image of 0 to 255 [C, H, W], label vector)"
    try:
        with host_rng_untouched():
            image, _ = dataset[0]
        count, image = len(dataset), np.asarray(image)
    except (TypeError, ValueError) as error:
        raise MADRError(f"attach(): {kind}; this one does not ({error}); give a tensor of its images") from error
    if count < 2 or list(image.shape) != list(dataset.image_shape):
        raise MADRError(f"attach(): {kind}; this one has {count} images, states the shape {list(dataset.image_shape)} and gives {list(image.shape)}")
    if image.dtype != np.uint8 and (image.min() < 0 or image.min() < image.max() <= LARGEST):
        raise MADRError(f"attach(): {kind}; this one gives {image.min():g} to {image.max():g}; give a tensor of its images in [-1, 1] instead")
