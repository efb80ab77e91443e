"""`random-conv` and `pixels`: the same numbers on every machine, with no file, no seed and nothing to fit.

They serve as the held-out space beside another one, machines without a network, and tests. Must not know who compares with them.
"""

import hashlib

import torch

from madr_spaces.errors import MADRError
from madr_spaces.space import Space

SEED = 20
CHANNELS = (3, 16, 32, 64)
NUM_CLASSES = 10  # of the classifier behind random-conv, which stand-ins for published detectors have


def fixed_layers():
    """[(weight, bias)] of the three convolutions and of the classifier.

    Zero mean per filter, so that plain brightness does not drown everything else.
    """
    generator = torch.Generator().manual_seed(SEED)
    shapes = [*([b, a, 3, 3] for a, b in zip(CHANNELS, CHANNELS[1:])), [NUM_CLASSES, 2 * sum(CHANNELS[1:])]]
    layers = []
    for shape in shapes:
        weight = torch.randn(shape, generator=generator)
        weight = weight - weight.flatten(1).mean(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
        layers.append((weight / weight[0].numel() ** 0.5 * 1.4, 0.1 * torch.randn(shape[:1], generator=generator)))
    return layers


def stated_digest(name, layers=()):
    """SHA-256 over name and layers as result lines have stated it since the first version: numbers of one network stay comparable."""
    digest = hashlib.sha256(name.encode())
    for key, value in layers:
        digest.update(key.encode() + value.numpy().tobytes())
    return digest.hexdigest()


def check_channels(name, image_shape):
    """Refuse images that are neither grey nor of three colours."""
    if image_shape[0] not in (1, 3):
        raise MADRError(f"--madr-extractor={name} takes images of 1 or 3 channels (the data has {image_shape[0]}); use --madr-extractor=pca")


class RandomConvSpace(Space):
    """Random convolutions of three scales, fixed by a seed; mean and spread of every channel at 32 x 32 pixels: 224 features."""

    resize_filter = "bilinear, antialiased"

    def __init__(self, image_shape):
        super().__init__(image_shape)
        check_channels("random-conv", self.image_shape)
        for index, (weight, bias) in enumerate(fixed_layers()[:-1]):
            self.register_buffer(f"conv{index}", weight)
            self.register_buffer(f"bias{index}", bias)

    def identity(self):
        return dict(name="random-conv", version=1)

    def digest(self):
        *convolutions, classes = fixed_layers()
        layers = [(f"layers.{index}", layer) for index, layer in enumerate(convolutions)] + [("classes", classes)]
        return stated_digest("random-conv", [(f"{key}.{part}", value) for key, layer in layers for part, value in zip(("weight", "bias"), layer)])

    def forward(self, images):
        images = images.to(self.conv0.dtype).expand(-1, 3, -1, -1)
        return self.spread(torch.nn.functional.interpolate(images, size=[32, 32], mode="bilinear", align_corners=False, antialias=True))

    def spread(self, x):
        """[N, 3, H, W] at the size to look at -> [N, 224]. Also compiled, in metrics/extractors.py."""
        features = []
        for weight, bias in [(self.conv0, self.bias0), (self.conv1, self.bias1), (self.conv2, self.bias2)]:
            x = torch.relu(torch.nn.functional.conv2d(x, weight, bias, stride=2, padding=1))
            features.append(x.mean([2, 3]))
            # A deviation of 0 has no derivative: where a channel says nothing of an image, another is put in its place for the backward pass.
            is_flat = x.detach().std([2, 3], unbiased=False) == 0
            stand_in = torch.arange(x.shape[3] * x.shape[2], dtype=x.dtype, device=x.device).reshape(x.shape[2], x.shape[3])
            deviation = torch.where(is_flat[:, :, None, None], stand_in, x).std([2, 3], unbiased=False)
            features.append(torch.where(is_flat, torch.zeros_like(deviation), deviation))
        return torch.cat(features, dim=1)


class PixelsSpace(Space):
    """The image at 16 x 16 as a vector of 768 values in [-1, 1]."""

    resize_filter = "bilinear, antialiased"

    def __init__(self, image_shape):
        super().__init__(image_shape)
        check_channels("pixels", self.image_shape)

    def identity(self):
        return dict(name="pixels", version=1)

    def digest(self):
        return stated_digest("pixels")

    def forward(self, images):
        images = images.to(torch.float32).expand(-1, 3, -1, -1)
        return torch.nn.functional.interpolate(images, size=[16, 16], mode="bilinear", align_corners=False, antialias=True).flatten(1)
