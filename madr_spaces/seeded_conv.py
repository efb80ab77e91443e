"""`random`: an untrained convolutional network with seeded weights (the paper's ablation of learned features).

Another network than `random-conv` (fixed.py), which knows no seed and is not scaled to the data. Means and deviations of the last layer over the image are mixed to the stated width by a seeded projection.
"""

import math

import torch

from madr_spaces.distances import pairwise_distances, quantile_of_sorted
from madr_spaces.seeds import generator_for
from madr_spaces.space import Space


class RandomSpace(Space):
    images_to_fit = 512
    CHANNELS = (32, 64, 128)

    def __init__(self, image_shape, width, seed):
        super().__init__(image_shape)
        self.width, self.seed = width, seed
        generator = generator_for("random-extractor", seed)
        previous = self.image_shape[0]
        for index, channels in enumerate(self.CHANNELS):
            weight = torch.randn([channels, previous, 3, 3], generator=generator) * math.sqrt(2 / (previous * 9))
            self.register_buffer(f"conv{index}", weight)
            previous = channels
        self.register_buffer("projection", torch.randn([2 * previous, width], generator=generator) / math.sqrt(2 * previous))
        self.register_buffer("scale", torch.ones([]))

    def identity(self):
        return dict(name="random", width=self.width, seed=self.seed, channels=list(self.CHANNELS), version=1)

    def forward(self, images):
        x = images.to(self.conv0.dtype)
        for index in range(len(self.CHANNELS)):
            x = torch.nn.functional.leaky_relu(torch.nn.functional.conv2d(x, getattr(self, f"conv{index}"), stride=2, padding=1), 0.2)
        flat = x.flatten(2)
        # The offset keeps the root's derivative finite on constant images.
        deviation = (flat.var(2, unbiased=False) + 1e-6).sqrt()
        return torch.cat([flat.mean(2), deviation], dim=1) @ self.projection * self.scale

    @torch.no_grad()
    def fit(self, images):
        """Only the scale: median real distance 1."""
        distances = pairwise_distances(self(images), generator_for("random-scale", self.seed))
        self.scale.div_(quantile_of_sorted(distances, 0.5).clamp(min=1e-12))
