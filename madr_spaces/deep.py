"""Networks trained on photographs, through timm: dino, dinov2, clip, resnet50, inception, and any other as timm:<name>.

Their weights are found by hub.py or given as a file.
"""

import contextlib
import re

import torch

from madr_spaces import hub, names
from madr_spaces.errors import MADRError
from madr_spaces.space import Space
from madr_spaces.weights import check_sha256, fill

# Families whose position embeddings are interpolated, so that any multiple of the patch side will do.
SIZABLE = ("vit", "deit", "deit3")


class DeepSpace(Space):
    """Images are resized to the network's input and normalised as in its training; the features are what its head would take."""

    default_view = "shift"
    resize_filter = "bicubic, antialiased where it shrinks"

    def __init__(self, name, image_shape, input_size, weights, sha256=""):
        super().__init__(image_shape)
        timm = _import_timm(name)
        model_name, own_size = names.model_of(name), names.MODELS.get(name, ("", 0))[1]
        if not timm.is_model(model_name):
            raise MADRError(f"--madr-extractor={name}: timm {timm.__version__} has no model {model_name!r}; see timm.list_models()")
        self.name, self.model_name = name, model_name
        # CLIP's space is the projected one, which timm keeps as its head; all others are read before the head.
        self.head = {} if name == "clip" else dict(num_classes=0)
        settings = timm.get_pretrained_cfg(model_name)
        self.input_size = input_size or own_size or settings.input_size[-1]
        sized = sizing(model_name, self.input_size)
        check_size(model_name, self.input_size, settings, "--madr-input-size", f"--madr-extractor={name}")
        # Before the network is made, which takes seconds for a large one: what is missing is said at once.
        path = weights or hub.find_weights(name)
        self.weights_sha256 = check_sha256(path, sha256)
        channels = self.image_shape[0]
        if channels not in (1, 3):
            raise MADRError(f"--madr-extractor={name} takes images of 1 or 3 channels (the data has {channels}); use --madr-extractor=pca")
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std).reshape(1, 3, 1, 1))
        self._make_network(timm, path, sized)

    def _make_network(self, timm, path, sized):
        with self._size_blamed():
            network = timm.create_model(self.model_name, pretrained=False, **self.head, **sized)
        fill(network, path, self.name, self.model_name)
        # Not as a submodule with parameters: these must reach no optimizer, no snapshot and no consistency check.
        self._network = [network.eval().requires_grad_(False)]
        with self._size_blamed(), torch.no_grad():
            self(torch.zeros([1, *self.image_shape]))

    @contextlib.contextmanager
    def _size_blamed(self):
        """Networks object to a size in ways of their own."""
        try:
            yield
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
            raise MADRError(
                f"--madr-extractor={self.name} ({self.model_name}) fails on images of {self.input_size} pixels: {str(error)[:200]}; give another "
                "--madr-input-size, a multiple of the network's patch and not too small, or leave the option out"
            ) from error

    def identity(self):
        return dict(name=self.name, model=self.model_name, size=self.input_size, weights=self.weights_sha256, version=1)

    def tensors(self):
        return [*self.buffers(), *self._network[0].parameters(), *self._network[0].buffers()]

    def _apply(self, function, recurse=True):
        self._network[0]._apply(function)
        return super()._apply(function, recurse)

    def forward(self, images):
        x = images.to(self.mean.dtype)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-2:] != (self.input_size, self.input_size):
            smaller = x.shape[-1] > self.input_size
            x = torch.nn.functional.interpolate(x, [self.input_size] * 2, mode="bicubic", align_corners=False, antialias=smaller)
        return self._network[0]((x * 0.5 + 0.5 - self.mean) / self.std)


def sizing(model_name, size):
    """Keywords that make a network of timm for images of that side, where it can be made for any."""
    return dict(img_size=size) if re.split("[._]", model_name.removeprefix("test_"))[0] in SIZABLE else {}


def check_size(model_name, size, settings, flag, blame):
    """Refuse a side that the network cannot take. settings: timm's. flag: of the size; blame: the flag with the network's name."""
    if settings.fixed_input_size and not sizing(model_name, size) and size != settings.input_size[-1]:
        raise MADRError(
            f"{flag}={size} does not fit {blame}: {model_name} takes images of {settings.input_size[-1]} pixels alone; leave the option out"
        )
    patch = next((int(part[5:]) for part in model_name.split(".")[0].split("_") if part.startswith("patch")), 1)
    if size % patch or size < 2 * patch:
        raise MADRError(f"{flag} must be a multiple of the patch side {patch}, at least {2 * patch}, for {blame} (got {size})")


def _import_timm(name):
    try:
        import timm
    except ImportError as error:
        raise MADRError(f"--madr-extractor={name} needs the package timm; install it, or use --madr-extractor=pca") from error
    return timm
