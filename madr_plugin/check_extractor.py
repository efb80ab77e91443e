"""Is a feature space fit for a data set? Look before the loss is blamed.

    python -m madr_plugin.check_extractor --data=images.zip [--madr-extractor=dino ...]

For each extractor: nearest-neighbour accuracy over the labels (without labels: over shifted copies), concentration of
distances, gradient to the image, time; and which one to take.
"""

import time

import click
import numpy as np
import torch

from madr_plugin import command
from madr_plugin.base import view
from madr_plugin.base.progress import Progress
from madr_plugin.reals import real_images
from madr_spaces import names as space_names, registry
from madr_spaces.distances import pairwise_distances, squared_distances
from madr_spaces.errors import MADRError
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
        [gradient] = torch.autograd.grad((features - features.detach().roll(1, 0)).square().sum(), x)
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


@click.command()
@click.option("--data", required=True, type=command.HomePath(), help="Folder or zip with the training images")
@click.option("--madr-extractor", "names", multiple=True, default=("pca", "random"), show_default=True, help="Extractor to look at; may be repeated")
@click.option("--madr-weights", "weights", type=command.HomePath(), default="", help="Its file of weights (for all named extractors that take one)")
@click.option("--madr-width", "width", type=click.IntRange(0, 65536), default=0, help="As in training")
@click.option("--madr-input-size", "input_size", type=click.IntRange(0, 4096), default=0, help="As in training")
@click.option("--images", "max_images", type=click.IntRange(16, 20000), default=2000, show_default=True, help="Images to look at")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(data, names, weights, width, input_size, max_images, seed):
    """Check which feature space suits your images."""
    dataset = command.open_images(data)
    rows = np.random.RandomState(seed).permutation(len(dataset))[:max_images]
    if len(rows) < 16:
        raise MADRError(f"--data={data} holds {len(rows)} images; the check needs at least 16")
    # All of them are kept, in float32.
    affordable = max(LARGEST_MEMORY // (4 * int(np.prod(dataset.image_shape))), 16)
    if len(rows) > affordable:
        print(f"Looking at {affordable} images: more of this size would take over {LARGEST_MEMORY >> 30} GiB.")
        rows = rows[:affordable]
    with Progress("images read", len(rows)) as told:
        images, class_N = real_images.read_images_and_classes(dataset, rows, told=lambda part: told(len(part)))
    class_N = class_N if (class_N >= 0).all() and len(class_N.unique()) > 1 else None
    what = "same label" if class_N is not None else "own shifted copy"
    print(f"{len(images)} images; accuracy: share of nearest neighbours with the {what}\n")
    print("| extractor | accuracy | by guessing | spread of distances | gradient | ms per image | fault |\n|---|---|---|---|---|---|---|")
    results = {}
    for name in names:
        extractor = (
            registry.build(name, dataset.image_shape, width, seed, input_size, weights if space_names.takes_weights(name) else "")
            .eval()
            .requires_grad_(False)
        )
        result = results[name] = check(extractor, images, class_N, seed)
        print(
            f"| {name} | {result['accuracy']:.3f} | {result['guess']:.3f} | {result['spread']:.2f} | {result['gradient']:.0%} | {result['ms']:.2f} "
            f"| {'; '.join(faults(result)) or '-'} |",
            flush=True,
        )
    choice = recommended(results)
    print(
        f"\nTake --madr-extractor={choice}."
        if choice
        else "\nNone of these suits the images. Train one on them: python -m madr_plugin.own_extractor --data=<images> --out=own.safetensors"
    )


if __name__ == "__main__":
    command.run(main)
