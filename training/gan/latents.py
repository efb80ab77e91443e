"""Means of mixtures of normal distributions as latents: GM-GAN, static (Ben-Yosef and Weinshall 2018, 1808.10356).

Whoever draws images - the loop, metrics, the drawing tools, a replay - draws z ~ N(0, I), and the generator itself turns it into a
sample of the mixture (latent_networks.py). Must not know networks. Letters: Z dimensions, K components.
"""

import math

import torch


def circle_means(num_means, radius, z_dim):
    """K means on a circle of this radius in the first two coordinates, zeros elsewhere. -> [K, Z]."""
    angle = torch.arange(num_means, dtype=torch.float64) * (2 * math.pi / num_means)
    means = torch.zeros([num_means, z_dim], dtype=torch.float64)
    means[:, 0], means[:, 1] = radius * angle.cos(), radius * angle.sin()
    return means.to(torch.float32)


def uniform_means(num_means, radius, z_dim):
    """K means drawn from U(-radius, radius)^Z, by PyTorch's global generator. -> [K, Z]."""
    return (torch.rand([num_means, z_dim]) * 2 - 1) * radius
