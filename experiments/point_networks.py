"""Generators and discriminators of points in the interface of the training loop: PacGAN's for its ring and grid (1712.04086, section 4.1), and those
of toy_2d.py.

An image of 2 channels and 1 pixel holds a point, divided by EXTENT.
"""

import torch

from training.gan.latents import MixtureGenerator

EXTENT = 5.0  # points lie in [-EXTENT, EXTENT]^2; pixels in [-1, 1]


class Mapping(torch.nn.Module):
    """z [N, z_dim], c [N, 0] -> ws [N, 1, z_dim]: z itself."""

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        return z[:, None, :]


class Synthesis(torch.nn.Module):
    """ws [N, 1, z_dim] -> [N, 2, 1, 1]: z_dim-400-400-2, batch norm and ReLU."""

    def __init__(self, z_dim, width=400):
        super().__init__()
        layers = []
        for inputs in (z_dim, width):
            layers += [torch.nn.Linear(inputs, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU()]
        self.body = torch.nn.Sequential(*layers, torch.nn.Linear(width, 2))

    def forward(self, ws):
        return (self.body(ws[:, 0]) / EXTENT)[:, :, None, None]


class ToySynthesis(Synthesis):
    """ws [N, 1, z_dim] -> [N, 2, 1, 1]: z_dim-64-64-2, ReLU."""

    def __init__(self, z_dim, width=64):
        torch.nn.Module.__init__(self)
        self.body = torch.nn.Sequential(
            torch.nn.Linear(z_dim, width), torch.nn.ReLU(), torch.nn.Linear(width, width), torch.nn.ReLU(), torch.nn.Linear(width, 2)
        )


class PointGenerator(torch.nn.Module):
    """Latents [N, z_dim] and labels [N, 0] -> points [N, 2, 1, 1]."""

    SYNTHESIS = Synthesis

    def __init__(self, z_dim, c_dim=0, img_channels=2, img_resolution=1):
        super().__init__()
        self.z_dim, self.c_dim, self.img_channels, self.img_resolution = z_dim, c_dim, img_channels, img_resolution
        self.w_dim, self.num_ws = z_dim, 1
        self.mapping, self.synthesis = Mapping(), self.SYNTHESIS(z_dim)

    def forward(self, z, c, **_further):
        return self.synthesis(self.mapping(z, c))


class ToyGenerator(PointGenerator):
    """The same with ToySynthesis."""

    SYNTHESIS = ToySynthesis


class PointMixture(MixtureGenerator):
    """One of these generators whose latents are a mixture of normal distributions."""

    BASES = ("experiments.point_networks.PointGenerator", "experiments.point_networks.ToyGenerator")


class PointDiscriminator(torch.nn.Module):
    """Points [N, img_channels, 1, 1] (more than 2 channels: packs) and what it is told beside them [N, c_dim] -> logits [N, 1]: 200 units, each the
    largest of 5 linear pieces, and a linear layer."""

    def __init__(self, c_dim=0, img_channels=2, img_resolution=1, epilogue_kwargs=None, units=200, pieces=5):
        super().__init__()
        self.c_dim, self.img_channels, self.img_resolution, self.pieces = c_dim, img_channels, img_resolution, pieces
        self.hidden = torch.nn.Linear(img_channels + c_dim, units * pieces)
        self.out = torch.nn.Linear(units, 1)

    def forward(self, img, c, **_further):
        seen = torch.cat([img.flatten(1) * EXTENT, c], dim=1)
        return self.out(self.hidden(seen).unflatten(1, (-1, self.pieces)).amax(dim=2))


class ToyDiscriminator(torch.nn.Module):
    """Points, as above -> logits [N, 1]: 64-64-1, LeakyReLU."""

    def __init__(self, c_dim=0, img_channels=2, img_resolution=1, epilogue_kwargs=None, width=64):
        super().__init__()
        self.c_dim, self.img_channels, self.img_resolution = c_dim, img_channels, img_resolution
        self.body = torch.nn.Sequential(
            torch.nn.Linear(img_channels + c_dim, width), torch.nn.LeakyReLU(0.2), torch.nn.Linear(width, width), torch.nn.LeakyReLU(0.2)
        )
        self.out = torch.nn.Linear(width, 1)

    def forward(self, img, c, **_further):
        return self.out(self.body(torch.cat([img.flatten(1) * EXTENT, c], dim=1)))
