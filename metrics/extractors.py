"""Feature extractors by name: small ones that need no download, networks of photographs, TorchScript files of the user's.

The small ones serve tests, machines without a network and as a held-out space: their numbers compare runs with one
another, are no substitute for the published detectors and never take their names. `python -m metrics.extractors NAME PATH` writes one as a TorchScript file for --detector.
Must not know which metric asks.
"""

import hashlib
import os
import sys
import warnings

import torch

from dnnlib.errors import UserError
from metrics import photo_networks

SCHEME = "extractor:"
FILE = "file:"  # of TorchScript
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


class FileExtractor(torch.nn.Module):
    """A TorchScript file. One that takes return_features is called as the published detectors are, with uint8 images; any
    other as in the training with the same file, with float32 images in [-1, 1]."""

    def __init__(self, path):
        super().__init__()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # see detectors.load_detector
                self.network = torch.jit.load(path, map_location="cpu").eval()
        except (RuntimeError, ValueError, OSError) as error:
            raise UserError(
                f"--madr-extractor={FILE}{path} is not a TorchScript file that this PyTorch can read "
                f"({str(error).strip().splitlines()[0]}); write one with torch.jit.save."
            ) from error
        self.like_published = "return_features" in {argument.name for argument in self.network.forward.schema.arguments}

    def forward(self, img, return_features: bool = False):
        if self.like_published:
            return self.network(img, return_features=return_features)
        features = self.network(img.to(torch.float32) / 127.5 - 1)
        return features.flatten(1) if isinstance(features, torch.Tensor) and features.ndim > 1 else features


_CLASSES = {"random-conv": RandomConv, "pixels": Pixels}


def names():
    """The built-in ones, which need no file."""
    return sorted(_CLASSES)


def checked_name(name):
    """The name itself, if it is one; else a sentence with all names."""
    if name.startswith(FILE):
        if not os.path.isfile(name.removeprefix(FILE)):
            raise UserError(f"--madr-extractor={name}: there is no such file; give the path of a TorchScript file.")
    elif name not in _CLASSES and name not in photo_networks.MODELS:
        raise UserError(
            f"--madr-extractor must be one of {', '.join([*photo_networks.MODELS, 'inception', *names()])} or {FILE}PATH of a "
            f"TorchScript file (got {name!r})."
        )
    return name


def build(name, path=""):
    """An extractor by its name, with or without 'extractor:' before it; parameters frozen. path: of its file, if it has one."""
    short = name.removeprefix(SCHEME)
    if short.startswith(FILE):
        extractor = FileExtractor(path)
    elif short in photo_networks.MODELS:
        extractor = photo_networks.PhotoNetwork(short, path)
    elif short in _CLASSES:
        extractor = _CLASSES[short]()
    else:
        raise UserError(f"There is no built-in extractor {short!r}; the names are {', '.join(names())}.")
    return extractor.eval().requires_grad_(False)


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
