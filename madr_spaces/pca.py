"""`pca`: the leading principal components of the pixels, fitted on the training set. Nearly free, and good on digits.

The scale is chosen so that the median distance of two training images is 1.
"""

import torch

from madr_spaces.distances import pairwise_distances, quantile_of_sorted
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for
from madr_spaces.space import Space


class PCASpace(Space):
    resize_filter = "area, where it shrinks"
    images_to_fit = 4096
    MAX_SIDE = 32  # larger images are averaged down to this side first

    def __init__(self, image_shape, width, seed):
        super().__init__(image_shape)
        channels, height, side = self.image_shape[0], self.image_shape[1], self.image_shape[2]
        self.size = (min(height, self.MAX_SIDE), min(side, self.MAX_SIDE))
        self.seed = seed
        num_pixels = channels * self.size[0] * self.size[1]
        self.width = min(width, num_pixels)
        self.register_buffer("mean_P", torch.zeros([num_pixels]))
        self.register_buffer("basis_PD", torch.zeros([num_pixels, self.width]))

    def identity(self):
        return dict(name="pca", width=self.width, size=list(self.size), images=self.images_to_fit, seed=self.seed, version=1)

    def pixels(self, images):
        return self.shrunk(images).to(self.mean_P.dtype).flatten(1)

    def shrunk(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images, self.size) if images.shape[-2:] != self.size else images

    def forward(self, images):
        return (self.pixels(images) - self.mean_P) @ self.basis_PD

    @torch.no_grad()
    def fit(self, images):
        pixels_NP = self.pixels(images)
        if len(pixels_NP) < 2:
            raise MADRError("--madr-extractor=pca needs at least 2 training images; add images or choose --madr-extractor=random")
        mean_P = pixels_NP.mean(0)
        centred_NP = pixels_NP - mean_P
        basis_PD = principal_directions(centred_NP, self.width, generator_for("pca", self.seed))
        distances = pairwise_distances(centred_NP @ basis_PD, generator_for("pca-scale", self.seed))
        median = float(quantile_of_sorted(distances, 0.5))
        if median <= 0:
            raise MADRError("--madr-extractor=pca: more than half of the training images are identical; remove the duplicates")
        self.mean_P.copy_(mean_P)
        self.basis_PD.copy_(basis_PD / median)


def principal_directions(centred_NP, width, generator, power_iterations=4, extra=8):
    """Leading right singular vectors by subspace iteration -> [P, width]; zero columns beyond the data's rank."""
    N, P = centred_NP.shape
    columns = min(width + extra, P)
    start_PQ = torch.randn([P, columns], generator=generator, dtype=torch.float32).to(centred_NP.device)
    basis_PQ = torch.linalg.qr(start_PQ).Q
    for _ in range(power_iterations):
        basis_PQ = torch.linalg.qr(centred_NP.T @ (centred_NP @ basis_PQ)).Q
    _, singular, rotation_h = torch.linalg.svd(centred_NP @ basis_PQ, full_matrices=False)
    directions_PQ = basis_PQ @ rotation_h.T
    found = min(width, directions_PQ.shape[1])
    result_PD = torch.zeros([P, width], dtype=torch.float32, device=centred_NP.device)
    result_PD[:, :found] = directions_PQ[:, :found] * (singular[:found] > singular[0] * 1e-6)
    return result_PD
