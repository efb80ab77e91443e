"""A generator whose latents are a mixture of normal distributions: GM-GAN, static (Ben-Yosef and Weinshall 2018, 1808.10356).

Whoever draws images - the loop, metrics, the drawing tools, a replay - draws z ~ N(0, I), and the generator itself turns it into a
sample of the mixture. Every snapshot stores the text of this file, and other code bases of the family execute it: hence it imports only
torch and what all of them have. Letters in shapes: N latents, Z dimensions, K components.
"""

import math

import torch

from torch_utils import persistence


def circle_means(num_means, radius, z_dim):
    """K means on a circle of this radius in the first two coordinates, zeros elsewhere. -> [K, Z]."""
    angle = torch.arange(num_means, dtype=torch.float64) * (2 * math.pi / num_means)
    means = torch.zeros([num_means, z_dim], dtype=torch.float64)
    means[:, 0], means[:, 1] = radius * angle.cos(), radius * angle.sin()
    return means.to(torch.float32)


def uniform_means(num_means, radius, z_dim):
    """K means drawn from U(-radius, radius)^Z, by PyTorch's global generator. -> [K, Z]."""
    return (torch.rand([num_means, z_dim]) * 2 - 1) * radius


@persistence.persistent_class
class MixtureMapping(torch.nn.Module):
    """Normal latents z [N, Z] and labels -> ws of the mapping `inner`, whose latents are a mixture of normal distributions.

    The uniform mixture of N(mu_k, std^2 I) (Ben-Yosef and Weinshall 2018, 1808.10356, eq. 3), exactly: with u = K Phi(z_0) of the first
    coordinate, k = floor(u) is uniform, and u - k is U(0, 1) and independent of k, so that Phi^-1(u - k) is a normal number in the place of
    z_0. Images jump where z_0 passes from one component to the next. Other attributes are those of `inner`.
    """

    def __init__(self, num_means, z_dim):
        super().__init__()
        self.register_buffer("means", torch.zeros([num_means, z_dim]))
        self.register_buffer("std", torch.ones([]))
        self.inner = None

    def __getattr__(self, name):
        try:
            return super().__getattr__(name)
        except AttributeError:
            inner = self.__dict__.get("_modules", {}).get("inner")
            if inner is None:
                raise
            return getattr(inner, name)

    def mixed(self, z):
        """Normal latents to those of the mixture. [N, Z] -> [N, Z]."""
        num_means = len(self.means)
        u = torch.special.ndtr(z[:, 0].to(torch.float64)) * num_means
        component = u.floor().clamp(0, num_means - 1)
        first = torch.special.ndtri((u - component).clamp(1e-9, 1 - 1e-9)).to(z.dtype)
        normal = torch.cat([first[:, None], z[:, 1:]], dim=1)
        return self.means.to(z.dtype)[component.to(torch.int64)] + self.std.to(z.dtype) * normal

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, skip_w_avg_update=False):
        return self.inner(self.mixed(z), c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff, skip_w_avg_update=skip_w_avg_update)


@persistence.persistent_class
class MixtureGenerator(torch.nn.Module):
    """The generator `base_class_name`, made with base_kwargs, behind a MixtureMapping.

    kind 'circle': num_means means of this radius in the first two coordinates; 'uniform': drawn from U(-radius, radius) in all of them.
    std: of every component. Raises ValueError for a base that is none of BASES: a snapshot names it, and may come from anywhere.
    """

    BASES = ("training.networks.Generator", "training.gan.networks.DCGANGenerator")

    def __init__(self, base_class_name, kind, num_means, radius, std, **base_kwargs):
        import dnnlib  # here, as it is for construction alone

        super().__init__()
        if base_class_name not in self.BASES:
            raise ValueError(f"base_class_name must be one of {', '.join(self.BASES)} (got {base_class_name!r})")
        base = dnnlib.util.construct_class_by_name(class_name=base_class_name, **base_kwargs)
        for name in ("z_dim", "c_dim", "w_dim", "img_resolution", "img_channels", "num_ws"):
            setattr(self, name, getattr(base, name))
        self.synthesis = base.synthesis
        self.mapping = MixtureMapping(num_means, self.z_dim)
        self.mapping.inner = base.mapping
        make = circle_means if kind == "circle" else uniform_means
        self.mapping.means.copy_(make(num_means, radius, self.z_dim))
        self.mapping.std.fill_(std)

    def forward(self, z, c, truncation_psi=1, truncation_cutoff=None, **synthesis_kwargs):
        return self.synthesis(self.mapping(z, c, truncation_psi=truncation_psi, truncation_cutoff=truncation_cutoff), **synthesis_kwargs)
