"""Digits of which one in a hundred has another colour: does a GAN keep the rare colour, and at what quality?

Data as in Dia-GAN (Lee 2021, arXiv 2102.12033): the first 10,000 training digits of MNIST, red, 1% of them green. Kept at MNIST's 28 pixels, before a DCGAN
smaller than theirs, so that a run takes minutes on one core. The shape of a bed: experiments/digit_bed.py.
"""

import numpy as np

from experiments import digit_bed
from metrics import kernels

NUM_IMAGES, MINORITY = 10_000, 0.01
SIDE = 28
SURE = 0.9  # probability from which an image counts as a clear digit
PURE = 0.8  # part of an image's light from which it has one colour
_CHANNELS = ([64, 32, 16], [16, 32, 64])


class ColoredSet(digit_bed.ImageSet):
    """Digits in the red channel, or in the green one for the images of `is_green`."""

    def __init__(self, digits, num_images=NUM_IMAGES, seed=0):
        planes = digits.images[:num_images]
        self.is_green = np.zeros(len(planes), bool)
        self.is_green[np.random.RandomState(seed).permutation(len(planes))[: round(MINORITY * len(planes))]] = True
        images = np.zeros([len(planes), 3, *planes.shape[1:]], np.uint8)
        images[np.arange(len(planes)), self.is_green.astype(int)] = planes
        super().__init__(images)


def networks():
    """(G_kwargs, D_kwargs), as digit_bed.networks()."""
    return digit_bed.networks(SIDE, _CHANNELS)


class Judge:
    """Measures of generated images: shares count clear digits of one colour alone, since blends and smears lie between the colours."""

    def __init__(self, classifier, dataset, num_samples=10_000):
        self.classifier, self.num_samples = classifier, num_samples
        _, sure, features = digit_bed.read_planes(classifier, dataset.images.max(axis=1))
        self.real_clear, self.true_share = float((sure >= SURE).mean()), float(dataset.is_green.mean())
        self.real_moments = kernels.mean_and_covariance(features)

    def __call__(self, images):
        """{measure: number} of uint8 images [N, 3, H, W]. Shares and clearness are relative to those of the reals."""
        light = images.sum(axis=(2, 3), dtype=np.int64)  # [N, 3]
        red, green = (light[:, channel] >= PURE * np.maximum(light.sum(axis=1), 1) for channel in (0, 1))
        _, sure, features = digit_bed.read_planes(self.classifier, images.max(axis=1))
        clear = sure >= SURE
        shows_green = green & clear
        return dict(
            minority_share=float(shows_green.mean() / (self.true_share * self.real_clear)),
            minority_clear=float(clear[green].mean() / self.real_clear) if green.any() else float("nan"),
            clear=float(clear.mean() / self.real_clear),
            blended=float((~red & ~green).mean()),
            frechet=kernels.frechet_distance(*kernels.mean_and_covariance(features), *self.real_moments),
        )
