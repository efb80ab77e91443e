"""Spaces that need no file, with the face of a published detector: stand-ins for it in tests and on machines without a network.

    python -m metrics.extractors random-conv PATH         writes one as the TorchScript file that --detector takes

Their numbers compare runs with one another, are no substitute for the published detectors and never take their names. Must
not know which metric asks.
"""

import sys
import warnings

import torch

from madr_spaces import fixed


class PublishedConv(torch.nn.Module):
    """random-conv: takes the keywords of all published detectors, so that it can stand in for each of them."""

    def __init__(self):
        super().__init__()
        self.space = fixed.RandomConvSpace((3, 32, 32))
        weight, bias = fixed.fixed_layers()[-1]
        self.register_buffer("weight", weight)
        self.register_buffer("bias", bias)

    def forward(self, img, return_features: bool = False, no_output_bias: bool = False, resize_images: bool = True, return_lpips: bool = False):
        x = img.to(torch.float32) / 127.5 - 1
        joined = self.space(x) if resize_images else self.space.spread(x)
        if return_features or return_lpips:
            return joined
        logits = torch.nn.functional.linear(joined, self.weight)
        if not no_output_bias:
            logits = logits + self.bias
        return torch.softmax(logits, dim=1)


class PublishedPixels(torch.nn.Module):
    """pixels, likewise."""

    def __init__(self):
        super().__init__()
        self.space = fixed.PixelsSpace((3, 16, 16))

    def forward(self, img, return_features: bool = False):
        return self.space(img.to(torch.float32) / 127.5 - 1)


CLASSES = {"random-conv": PublishedConv, "pixels": PublishedPixels}


def save_torchscript(name, path):
    """Write a space in the format of the published detectors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch recommends another format, which carries no gradient to any batch size
        torch.jit.script(CLASSES[name]().eval()).save(str(path))


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] not in CLASSES:
        sys.exit(f"usage: python -m metrics.extractors {{{','.join(CLASSES)}}} PATH")
    save_torchscript(sys.argv[1], sys.argv[2])
