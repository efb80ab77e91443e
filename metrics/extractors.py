"""Small feature extractors that need no download: for tests, for machines without a network and as a held-out space.

Their numbers compare runs with one another; they are no substitute for the published detectors and never take their
names. `python -m metrics.extractors NAME PATH` writes one as a TorchScript file for --detector.
Must not know which metric asks.
"""
import hashlib
import sys
import warnings

import torch

from dnnlib.errors import UserError

SCHEME = "extractor:"
_NUM_CLASSES = 10


class RandomConv(torch.nn.Module):
    """Random convolutions of three scales, fixed by a seed; mean and spread of every channel: 224 features.

    Takes the keywords of all published detectors, so that it can stand in for each of them in a test.
    """

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.ModuleList([torch.nn.Conv2d(a, b, 3, stride=2, padding=1) for a, b in [(3, 16), (16, 32), (32, 64)]])
        self.classes = torch.nn.Linear(224, _NUM_CLASSES)
        generator = torch.Generator().manual_seed(20)
        for layer in [*self.layers, self.classes]:
            weight = torch.randn(layer.weight.shape, generator=generator)
            # Zero mean per filter, so that plain brightness does not drown everything else.
            weight = weight - weight.flatten(1).mean(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
            layer.weight.data.copy_(weight / weight[0].numel() ** 0.5 * 1.4)
            layer.bias.data.copy_(0.1 * torch.randn(layer.bias.shape, generator=generator))

    def forward(self, img, return_features: bool = False, no_output_bias: bool = False, resize_images: bool = True, return_lpips: bool = False):
        x = img.to(torch.float32) / 127.5 - 1
        if resize_images:
            x = torch.nn.functional.interpolate(x, size=[32, 32], mode="bilinear", align_corners=False, antialias=True)
        features = []
        for layer in self.layers:
            x = torch.relu(layer(x))
            features.append(x.mean([2, 3]))
            features.append(x.std([2, 3], unbiased=False))
        joined = torch.cat(features, dim=1)
        if return_features or return_lpips:
            return joined
        logits = torch.nn.functional.linear(joined, self.classes.weight)
        if not no_output_bias:
            logits = logits + self.classes.bias
        return torch.softmax(logits, dim=1)


class Pixels(torch.nn.Module):
    """The image at 16x16 as a vector of 768 values in [-1, 1]."""

    def forward(self, img, return_features: bool = False):
        x = img.to(torch.float32) / 127.5 - 1
        return torch.nn.functional.interpolate(x, size=[16, 16], mode="bilinear", align_corners=False, antialias=True).flatten(1)


_CLASSES = {"random-conv": RandomConv, "pixels": Pixels}


def names():
    return sorted(_CLASSES)


def build(name):
    """A built-in extractor by its name, with or without 'extractor:' before it; parameters frozen."""
    short = name.removeprefix(SCHEME)
    if short not in _CLASSES:
        raise UserError(f"There is no built-in extractor {short!r}; the names are {', '.join(names())}.")
    return _CLASSES[short]().eval().requires_grad_(False)


def digest(name):
    """SHA-256 over the weights: what a file's hash is for a downloaded detector."""
    sha256 = hashlib.sha256(name.removeprefix(SCHEME).encode())
    for key, value in build(name).state_dict().items():
        sha256.update(key.encode() + value.numpy().tobytes())
    return sha256.hexdigest()


def save_torchscript(name, path):
    """Write a built-in extractor in the format of the published detectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # see detectors.load_detector
        torch.jit.script(build(name)).save(str(path))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in _CLASSES:
        sys.exit(f"usage: python -m metrics.extractors {{{','.join(names())}}} PATH")
    save_torchscript(sys.argv[1], sys.argv[2])
