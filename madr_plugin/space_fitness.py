"""Measures whether a feature space is fit for a data set: neighbours, spread of distances, gradient to the image, time."""

import time

import torch

from madr_plugin.base import view
from madr_spaces.distances import pairwise_distances, squared_distances
from madr_spaces.seeds import generator_for
from madr_spaces.space import check_features

LARGEST_MEMORY = 4 << 30  # bytes
FEWEST_FOR_A_GAIN = 0.02  # accuracy by which a costlier extractor must beat a cheaper one to be recommended


def neighbour_accuracy(features_ND, class_N):
    """Share of images whose nearest other image is of their class; and the share of the largest class, the best guess."""
    squared_NN = squared_distances(features_ND, features_ND).fill_diagonal_(float("inf"))
    correct = (class_N[squared_NN.argmin(1)] == class_N).to(torch.float32).mean()
    return float(correct), float(torch.bincount(class_N).max()) / len(class_N)


def retrieval_accuracy(features_ND, shifted_ND):
    """Share of shifted copies whose nearest image is their own original."""
    own_N = torch.arange(len(features_ND), device=features_ND.device)
    return float((squared_distances(shifted_ND, features_ND).argmin(1) == own_N).to(torch.float32).mean())


def relative_spread(features_ND, generator):
    """Standard deviation over mean of the distances: near 0 all images are equally far apart, and no neighbour means anything."""
    distances = pairwise_distances(features_ND, generator)
    return float(distances.std() / distances.mean().clamp(min=1e-12))


def gradient_share(extractor, images):
    """Share of images that receive a finite gradient other than zero from their own features."""
    with torch.enable_grad():
        x = images.clone().requires_grad_()
        features = extractor(x)
        if not features.requires_grad:
            return 0.0
        # In a direction of its own for each image, not towards another one: copies have no distance, and that says nothing of the space.
        direction = torch.randn(features.shape, generator=generator_for("check-gradient", len(features))).to(features)
        [gradient] = torch.autograd.grad(features, x, direction)
    per_image = gradient.flatten(1)
    return float((torch.isfinite(per_image).all(1) & (per_image.abs().sum(1) > 0)).to(torch.float32).mean())


def milliseconds_per_image(extractor, images):
    """Forward and backward, the better of two."""
    best = float("inf")
    for _ in range(2):
        start = time.perf_counter()
        gradient_share(extractor, images)
        best = min(best, time.perf_counter() - start)
    return best / len(images) * 1000


@torch.no_grad()
def check(extractor, images, class_N, seed=0):
    """-> dict(accuracy, guess, spread, gradient, ms). class_N None: without labels."""
    if extractor.images_to_fit:
        extractor.fit(images[: extractor.images_to_fit])
    features = torch.cat([extractor(part) for part in images.split(64)])
    check_features(features, extractor.identity()["name"])
    if class_N is None:
        shifted = torch.cat([extractor(part) for part in view.apply(images, ("shift",), generator_for("check-view", seed)).split(64)])
        accuracy, guess = retrieval_accuracy(features, shifted), 1 / len(images)
    else:
        accuracy, guess = neighbour_accuracy(features, class_N)
    return dict(
        accuracy=accuracy,
        guess=guess,
        spread=relative_spread(features, generator_for("check", seed)),
        gradient=gradient_share(extractor, images[:64]),
        ms=milliseconds_per_image(extractor, images[:32]),
    )


def faults(result):
    """Reasons not to use an extractor on this data."""
    found = []
    if result["gradient"] < 1:
        found.append(f"only {result['gradient']:.0%} of the images get a gradient")
    if result["spread"] < 0.05:
        found.append("all images are about equally far apart")
    if result["accuracy"] <= 1.2 * result["guess"]:
        found.append("neighbours are hardly better than guessing")
    return found


def recommended(results):
    """Name of the most accurate extractor without a fault; a cheaper one if it is as good within FEWEST_FOR_A_GAIN. None: none is fit."""
    fit = {name: result for name, result in results.items() if not faults(result)}
    if not fit:
        return None
    best = max(result["accuracy"] for result in fit.values())
    good = [name for name, result in fit.items() if result["accuracy"] >= best - FEWEST_FOR_A_GAIN]
    return min(good, key=lambda name: fit[name]["ms"])
