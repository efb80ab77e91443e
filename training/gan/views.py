"""Parts that change what D sees: packs of images, differentiable augmentation, consistency under transformations, smoothed targets."""

import dataclasses

import torch

from training.gan import penalties
from training.gan.part import Part


class PacGAN(Part):
    """D judges m images of one kind, joined along the channels, as one (Lin et al. 2018, 1712.04086). Consecutive images make a pack.

    Their labels are joined as well. Logits, and with them all terms, are [N / m, 1].
    """

    def __init__(self, m=2):
        self.pack = m


class LabelSmoothing(Part):
    """D's target for reals below 1 (Salimans et al. 2016, 1606.03498, section 3.4): the real term alone is changed, one-sided.

    The middle of the targets of least squares moves with it. That of cross entropy stays: sigmoid(0) is nearly the middle of 0 and .9.
    """

    def __init__(self, target=0.9):
        self.target = target

    def change_terms(self, terms):
        return dataclasses.replace(terms, real=terms.smoothed(self.target), boundary=terms.boundary * self.target)


class DiffAugment(Part):
    """Augmentation of reals and fakes alike, differentiable, in D's steps and in G's (Zhao et al. 2020, 2006.10738, section 3.2).

    color 1: brightness, saturation and contrast; translation: by up to this share of the side, zeros beyond; cutout: a square of
    this share of the side, zeros inside. 0 leaves one out.
    """

    def __init__(self, color=1, translation=0.125, cutout=0.5):
        self.color, self.translation, self.cutout = color, translation, cutout

    def view(self, images):
        if self.color:
            images = coloured(images)
        if self.translation:
            images = moved(images, round(self.translation * images.shape[2]), "zeros")
        return cut(images, round(self.cutout * images.shape[2])) if self.cutout else images


class BalancedConsistency(Part):
    """real |D(x) - D(T(x))|^2 + fake |D(G(z)) - D(T(G(z)))|^2 (Zhao et al. 2020, 2002.04724, algorithm 1). One value per group.

    T mirrors every second image, by chance, and moves each by up to `shift` pixels, mirrored at the border. Where images are
    augmented, x and T(x) are so by the same draws.
    """

    def __init__(self, real=10.0, fake=10.0, shift=4):
        self.real, self.fake, self.shift = real, fake, shift

    def discriminator_term(self, step):
        at_reals = penalties.consistency(step.real_logits, step.judged_again("reals", self.changed(step.reals.detach())), self.real)
        return at_reals + penalties.consistency(step.fake_logits, step.judged_again("fakes", self.changed(step.fakes.detach())), self.fake)

    def changed(self, images):
        """T. [N, C, H, W] -> [N, C, H, W]."""
        flips = torch.rand([len(images), 1, 1, 1], device=images.device) < 0.5
        return moved(torch.where(flips, images.flip(3), images), self.shift, "mirror")


class LatentConsistency(Part):
    """zCR (2002.04724, algorithm 2), dz ~ N(0, sigma^2). D: dis |D(G(z)) - D(G(z + dz))|^2, one value per group. G: -gen |G(z) - G(z + dz)|^2
    as a mean over pixels, one value per image: a sum would grow with the image until nothing else counted.

    The two images share noise inputs, style mixing and augmentation.
    """

    compares_near_images = True

    def __init__(self, dis=5.0, gen=0.5, sigma=0.03):
        self.dis, self.gen, self.sigma = dis, gen, sigma

    def neighbours(self, step):
        """G(z + dz)."""
        step.fakes  # noqa: B018 (drawn before dz, so that they are those of a run without this term)
        return step.remade(step.z + self.sigma * torch.randn_like(step.z))

    def discriminator_term(self, step):
        # Both are G's own images, which have the step's labels also where D sees others.
        logits = step.fake_logits if step.fakes_are_fresh else step.judged_again("fakes", step.fresh_fakes, step.labels)
        return penalties.consistency(logits, step.judged_again("fakes", self.neighbours(step), step.labels), self.dis)

    def generator_term(self, step):
        return -self.gen * penalties.image_distance(step.fakes, self.neighbours(step))


# ------------------------------------------------------------------------------------------
# Changes of images [N, C, H, W], each drawn by itself.


def coloured(images):
    """Brightness by U(-.5, .5); then distances to the grey of each pixel times U(0, 2); then to the image's mean times U(.5, 1.5)."""
    brightness, saturation, contrast = torch.rand([3, len(images), 1, 1, 1], device=images.device, dtype=images.dtype)
    images = images + brightness - 0.5
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean([1, 2, 3], keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def moved(images, most, border):
    """Whole pixels from -most to most in each direction. border: what comes in, 'zeros' or 'mirror' (the image, mirrored at its edge)."""
    if most == 0:
        return images
    N, _, H, W = images.shape
    padded = torch.nn.functional.pad(images, [most] * 4, mode="constant" if border == "zeros" else "reflect")
    offsets = torch.randint(0, 2 * most + 1, [2, N, 1], device=images.device)
    rows = (offsets[0] + torch.arange(H, device=images.device))[:, None, :, None]
    columns = (offsets[1] + torch.arange(W, device=images.device))[:, None, None, :]
    image, channel = (
        torch.arange(N, device=images.device)[:, None, None, None],
        torch.arange(images.shape[1], device=images.device)[None, :, None, None],
    )
    return padded[image, channel, rows, columns]


def cut(images, side):
    """Zeros in a square of this side, whose centre lies anywhere in the image."""
    N, _, H, W = images.shape
    row, column = (torch.randint(0, size, [N, 1, 1, 1], device=images.device) - side // 2 for size in (H, W))
    y, x = torch.arange(H, device=images.device)[:, None], torch.arange(W, device=images.device)[None, :]
    inside = (y >= row) & (y < row + side) & (x >= column) & (x < column + side)
    return images * ~inside
