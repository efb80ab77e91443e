"""`own`: a small encoder trained without labels on the user's own images (python -m madr_plugin.own_extractor), joined
with the principal components of the pixels.

This module has the network and its file; the training is in madr_plugin/own_training.py.
"""

import json
import os

import torch
import torch.nn.functional as F

from madr_spaces.errors import MADRError
from madr_spaces.images import data_fingerprint, image_fingerprint
from madr_spaces.pca import PCASpace
from madr_spaces.space import Space
from madr_spaces.weights import check_sha256, import_safetensors

SIDE = 32  # images are brought to this side first
CHANNELS = (32, 64, 96, 128)
FORMAT = "madr-own-1"
HOW_TO_MAKE = "python -m madr_plugin.own_extractor --data=<images> --out=own.safetensors"


def initial_weights(image_channels, width, generator):
    """{name: tensor}: four convolutions and a projection to `width`, scaled for SiLU."""
    weights, previous = {}, image_channels
    for index, channels in enumerate(CHANNELS):
        weights[f"conv{index}"] = torch.randn([channels, previous, 3, 3], generator=generator) * (2 / (previous * 9)) ** 0.5
        weights[f"gain{index}"], weights[f"bias{index}"] = torch.ones([channels]), torch.zeros([channels])
        previous = channels
    weights["projection"] = torch.randn([previous * 16, width], generator=generator) / (previous * 16) ** 0.5
    return weights


def encode(images, weights):
    """images [N, C, H, W] in [-1, 1] -> [N, width]: strides 1, 2, 2, 2; the last 4x4 map is kept, since place matters."""
    x = images.to(weights["conv0"].dtype)
    if x.shape[-2:] != (SIDE, SIDE):
        x = F.interpolate(x, [SIDE, SIDE], mode="bilinear", align_corners=False, antialias=x.shape[-1] > SIDE)
    for index in range(len(CHANNELS)):
        x = F.conv2d(x, weights[f"conv{index}"], stride=1 if index == 0 else 2, padding=1)
        x = F.silu(F.group_norm(x, 8, weights[f"gain{index}"], weights[f"bias{index}"]))
    return x.flatten(1) @ weights["projection"]


class OwnSpace(Space):
    """[encoder / its median real distance, PCA / its median real distance] / sqrt 2. Everything lies in the file."""

    default_view = "none"
    resize_filter = "bilinear, antialiased where it shrinks"

    def __init__(self, image_shape, path, sha256=""):
        super().__init__(image_shape)
        if not path:
            raise MADRError(
                f"--madr-extractor=own needs the file of an encoder trained on your images: make it with `{HOW_TO_MAKE}` "
                "and pass --madr-weights=own.safetensors"
            )
        self.sha256 = check_sha256(path, sha256) if os.path.isfile(path) else ""
        tensors, self.about = read(path)  # has its own words for a file that is not there
        if self.about["image_shape"][0] != self.image_shape[0]:
            raise MADRError(
                f"--madr-weights={path} was trained on images of {self.about['image_shape'][0]} channels, the data has "
                f"{self.image_shape[0]}; train one on this data with `{HOW_TO_MAKE}`"
            )
        self.data_fingerprint, self.image_fingerprint = self.about["data_fingerprint"], self.about.get("image_fingerprint")
        self.pca = PCASpace(self.about["image_shape"], self.about["pca_width"], 0)
        self.pca.images_to_fit = 0
        self.names = [name for name in tensors if not name.startswith("pca.")]
        for name in self.names:
            self.register_buffer(name, tensors[name])
        self.pca.load_state_dict({name.removeprefix("pca."): value for name, value in tensors.items() if name.startswith("pca.")})

    def knows(self, dataset):
        """Whether it was trained on these images; None where its file is too old to tell in this host."""
        if self.image_fingerprint is not None:
            return self.image_fingerprint == image_fingerprint(dataset)
        return self.data_fingerprint == data_fingerprint(dataset) if hasattr(dataset, "content_fingerprint") else None

    def identity(self):
        return dict(name="own", sha256=self.sha256, version=1)

    def forward(self, images):
        learned = encode(images, {name: getattr(self, name) for name in self.names}) / self.scale
        return torch.cat([learned, self.pca(images)], dim=1) * 0.5**0.5


def read(path):
    """({name: tensor}, {what it is}) of an encoder's file."""
    safetensors = import_safetensors()
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}
        about = json.loads(metadata.get("madr", "{}"))
    except Exception as error:  # absent, damaged, of another kind: the remedy is the same
        raise MADRError(f"--madr-weights={path} cannot be read as an encoder: {str(error)[:200]}; make one with `{HOW_TO_MAKE}`") from error
    if about.get("format") != FORMAT:
        raise MADRError(f"--madr-weights={path} was not written by madr_plugin.own_extractor; make a file with `{HOW_TO_MAKE}`")
    return tensors, about
