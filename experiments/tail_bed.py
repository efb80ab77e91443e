"""Long-tailed MNIST: does a GAN keep the rare digits, and are they digits?

Class d has a probability ~ 100^(-d/9): the rarest holds .4% of the images, the four rarest 4%. Grey, at half of MNIST's size, before a D that is as strong as G, so that
most of what is generated can be read. The shape of a bed: experiments/digit_bed.py.
"""

import numpy as np

from experiments import digit_bed
from metrics import kernels

NUM_IMAGES = 12_000
TAIL_RATIO = 100.0  # of the commonest class to the rarest
RARE_BELOW = 0.03  # classes of a smaller true share count as rare
HOLDS = 1 / 5  # a class is held with at least this part of its share
SURE = 0.9  # probability from which an image counts as a clear digit
SIDE = 14
_CHANNELS = ([64, 32], [32, 64])


def shares():
    """True share of each of the ten classes."""
    weights = TAIL_RATIO ** (-np.arange(10) / 9)
    return weights / weights.sum()


class TailSet(digit_bed.ImageSet):
    """Digits drawn with replacement, each class with its share; `labels`: their classes, which no method is shown."""

    def __init__(self, digits, num_images=NUM_IMAGES, seed=0):
        rng = np.random.RandomState(seed)
        self.labels = rng.choice(10, size=num_images, p=shares())
        rows = [np.flatnonzero(digits.labels == label) for label in range(10)]
        super().__init__(digits.images[[rng.choice(rows[label]) for label in self.labels]][:, np.newaxis])


def networks():
    """(G_kwargs, D_kwargs), as digit_bed.networks()."""
    return digit_bed.networks(SIDE, _CHANNELS)


class Judge:
    """Measures of generated images. Shares count clear digits alone: whatever it is shown, a classifier calls it one of ten digits, and takes smears for rare ones."""

    def __init__(self, classifier, dataset, num_samples=10_000):
        self.classifier, self.num_samples = classifier, num_samples
        digits, sure, features = digit_bed.read_planes(classifier, dataset.images[:, 0])
        self.real_clear_10 = self._clear_shares(digits, sure)
        self.real_moments = kernels.mean_and_covariance(features)

    @staticmethod
    def _clear_shares(digits_N, sure_N):
        """Share of all images that are clear ones of each class, [10]."""
        return np.bincount(digits_N[sure_N >= SURE], minlength=10) / len(digits_N)

    def __call__(self, images):
        """{measure: number} of uint8 images [N, 1, H, W]. `clear` and shares are relative to those of the reals; `total_variation`: of classes among clear images."""
        digits, sure, features = digit_bed.read_planes(self.classifier, images[:, 0])
        found, real, rare = self._clear_shares(digits, sure), self.real_clear_10, shares() < RARE_BELOW
        held = found >= HOLDS * real
        return dict(
            rare_share=float(found[rare].sum() / real[rare].sum()),
            classes=int(held.sum()),
            rare_classes=int(held[rare].sum()),
            clear=float(found.sum() / real.sum()),
            total_variation=float(np.abs(found / max(found.sum(), 1e-12) - real / real.sum()).sum() / 2),
            relative=(found / real).tolist(),
            frechet=kernels.frechet_distance(*kernels.mean_and_covariance(features), *self.real_moments),
        )
