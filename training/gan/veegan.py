"""VEEGAN: a reconstructor that names the latents of images, so that D can judge pairs of both. Must not know adversarial losses."""

import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from training.gan import schedule
from training.gan.extras import Extra


class Reconstructor(torch.nn.Module):
    """x [N, C, H, W] -> z [N, z_dim]. Convolutions 3x3 with stride 2 to 4x4 or less, twice the channels each time, then one linear layer."""

    WIDEST = 8  # times `width`

    def __init__(self, z_dim, img_channels, img_resolution, width=32):
        super().__init__()
        layers, channels, size = [], img_channels, img_resolution
        while size > 4 or not layers:
            wider = width if not layers else min(channels * 2, width * self.WIDEST)
            layers.append(torch.nn.Conv2d(channels, wider, 3, stride=2, padding=1))
            channels, size = wider, (size + 1) // 2
        self.layers = torch.nn.ModuleList(layers)
        self.output = torch.nn.Linear(channels * size**2, z_dim)

    def forward(self, x):
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
        return self.output(x.flatten(1))


class VEEGAN(Extra):
    """L = E |z - F(G(z))|^2 + adversarial on the pairs (z, G(z)) against (F(x), x) (Srivastava et al. 2017, 1705.07761, algorithm 1).

    z [N, z_dim], x [N, C, H, W]. D takes the latents beside the labels. G descends both terms, the reconstructor F the first alone, by Adam
    with this rate, in G's steps. The distance is summed over the coordinates of z and has one value per image. `weight`: of the distance.
    A generator that normalises z, as StyleGAN2's does, keeps its direction alone, so that a part of the distance stays.
    """

    def __init__(self, weight=1.0, rate=1e-3, width=32):
        super().__init__()
        self.weight, self.rate, self.width = weight, rate, width

    def build(self, context):
        G = context["G"]
        made = Reconstructor(G.z_dim, G.img_channels, G.img_resolution, self.width).to(next(G.parameters()).dtype)
        self.add_network("reconstructor", made, schedule.adam(self.rate, 0.5, 0.999))

    def generator_term(self, step):
        """|z - F(G(z))|^2 -> [N]."""
        return self.weight * squared_distance(step.z, self.networks["reconstructor"](step.fakes))

    def labels_for_D(self, step, kind, images, labels):
        """[N, c_dim] -> [N, c_dim + z_dim]: the latents that fakes were made of, those that F reads from reals."""
        if kind == "reals":
            with torch.no_grad():
                latents = self.networks["reconstructor"](images)
        elif step.learner == "D" and not step.fakes_are_fresh:
            raise UserError(
                "--method=veegan shows D fakes with the latents that they were made of, and another method shows it others: leave one of them out"
            )
        else:
            latents = step.z
        return torch.cat([labels.to(latents.dtype), latents], dim=1)


def squared_distance(z, other):
    """|z - other|^2, summed over coordinates. [N, z_dim] each -> [N]."""
    return (z - other).square().sum(1)
