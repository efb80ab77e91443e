"""`ensemble:a+b+c`: several feature spaces as one. Must not know which they are."""

import math

import torch

from madr_spaces.seeds import generator_for
from madr_spaces.space import Space


class EnsembleSpace(Space):
    """Each part's features are L2-normalised; together they are projected to `width` by a seeded, fixed matrix.

    The projection is random on purpose and never trained: nothing here would give it a gradient worth having.
    """

    def __init__(self, parts, image_shape, width, seed):
        super().__init__(image_shape)
        self.parts, self.width, self.seed = torch.nn.ModuleList(parts), width, seed
        self.images_to_fit = max(part.images_to_fit for part in parts)
        self.resize_filter = " / ".join(part.resize_filter for part in parts)
        self.default_view = "shift" if any(part.default_view == "shift" for part in parts) else "none"
        with torch.no_grad():
            total = self.joined(torch.zeros([2, *self.image_shape])).shape[1]
        self.register_buffer("projection", torch.randn([total, width], generator=generator_for("ensemble", seed)) / math.sqrt(width))

    def identity(self):
        return dict(name="ensemble", parts=[part.identity() for part in self.parts], width=self.width, seed=self.seed, version=1)

    def tensors(self):
        return [self.projection, *(tensor for part in self.parts for tensor in part.tensors())]

    def joined(self, images):
        return torch.cat([torch.nn.functional.normalize(part(images), dim=1, eps=1e-6) for part in self.parts], dim=1)

    def forward(self, images):
        return self.joined(images) @ self.projection

    def fit(self, images):
        for part in self.parts:
            if part.images_to_fit:
                part.fit(images[: part.images_to_fit])
