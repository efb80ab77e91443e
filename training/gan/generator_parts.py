"""Parts that change what G is trained towards."""

import math

import torch

from training.gan.part import Part


class PullToReals(Part):
    """weight |G(z) - x|^2 for a random real x (Nie 2021, CN-LSGAN), summed over pixels. One value per image.

    Its minimum over G is the mean of the reals, so that a small weight is meant: it keeps G near them while D is still poor.
    """

    def __init__(self, weight=0.001):
        self.weight = weight

    def generator_term(self, step):
        return self.weight * (step.fakes - step.reals).square().flatten(1).sum(1)


class TopK(Part):
    """G learns from the k highest logits of its batch (Sinha et al. 2020, 2002.06224, algorithm 1).

    k falls from all rows of a microbatch by the factor `decay` with each pass over the data, down to the share `floor` of them.
    """

    def __init__(self, floor=0.5, decay=0.99):
        self.floor, self.decay = floor, decay
        self.num_images, self.cur_nimg = None, 0

    def attach(self, context):
        self.num_images = len(context["training_set"])

    def begin_phase(self, phase, cur_nimg):
        self.cur_nimg = cur_nimg

    def share(self):
        """The share of rows that count now."""
        return max(self.decay ** (self.cur_nimg // self.num_images), self.floor)

    def generator_rows(self, step, rows):
        k = max(math.ceil(self.share() * len(rows) - 1e-9), 1)
        best = step.fake_logits.detach().flatten().topk(k).indices
        return rows[best]


class ModeSeeking(Part):
    """weight / (|G(z1) - G(z2)|_1 / |z1 - z2|_1 + 1e-5), norms as means (Mao et al. 2019, 1903.05628, eq. 3). One value per pair.

    z1 is the step's latent, z2 another one with the same label, noise inputs and style mixing.
    """

    def __init__(self, weight=1.0):
        self.weight = weight

    def generator_term(self, step):
        step.fakes  # noqa: B018 (drawn before z2, so that they are those of a run without this term)
        other_z = torch.randn_like(step.z)
        distance = (step.fakes - step.remade(other_z)).abs().flatten(1).mean(1)
        ratio = distance / (step.z - other_z).abs().mean(1)
        return self.weight / (ratio + 1e-5)
