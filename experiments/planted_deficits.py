"""What the tilt's sensors see of classes that a generator leaves out, without training one: long-tailed grey digits, each rare class left out in turn.

    python -m experiments.planted_deficits [--seeds=3] [--mnist=FOLDER]

12,000 images of 14x14, class d with probability ~ 100^(-d/9): the rarest class has .4% of them. Without --mnist they are scikit-learn's
1,352 training digits, each image one of them turned, sheared, scaled and moved at random. Half of the images stand for the training set, half for
what a generator draws; of these a class is missing, and in half of the rows 30% are blends of two images. Minutes on one core. Writes
experiments/results/planted_deficits.json (with --mnist: planted_deficits_mnist.json).
"""

from pathlib import Path

import click
import numpy as np
import torch

from dnnlib import cli
from experiments import digit_bed, records
from madr_plugin import sensor_fitness
from madr_plugin.memory.knobs import DeficitKnobs
from madr_plugin.tilt.knobs import TiltKnobs
from madr_spaces import registry
from madr_spaces.distances import squared_distances
from training.data import builders

NUM_IMAGES, EXTRACTOR, UNCLEAR, REPEATS = 12_000, "pca", 0.3, 4
WARP = dict(degrees=15.0, shear=0.2, scale=0.12, shift=0.08)  # each at most so much; shift in halves of the side
# Sensor, and largest weight: the tilt's default, and what the study of the imbalanced ring uses.
ROWS = {f"{sensor}, weights up to {largest:g}": (sensor, largest) for largest in (TiltKnobs().tilt_max, 20.0) for sensor in ("cells", "fine")}


def drawn_classes(seed):
    """Class of each image, int64 [NUM_IMAGES]."""
    return np.random.RandomState([seed, 0]).choice(10, size=NUM_IMAGES, p=digit_bed.tail_shares())


def of_each_class(labels, class_N, random):
    """Rows of digits of these classes, drawn with replacement."""
    rows = np.zeros(len(class_N), np.int64)
    for digit in range(10):
        rows[class_N == digit] = random.choice(np.flatnonzero(labels == digit), size=int((class_N == digit).sum()))
    return rows


def small_digits(seed):
    """(images float32 [N, 1, 14, 14] in [-1, 1], classes [N]) from scikit-learn's digits."""
    digits, labels, _ = builders.load_small_digits("train")
    class_N = drawn_classes(seed)
    rows = of_each_class(labels, class_N, np.random.RandomState([seed, 1]))
    images = torch.from_numpy(digits[rows][:, 1:29, 1:29]).to(torch.float32)[:, None] / 255
    return torch.nn.functional.avg_pool2d(warped(images, seed), 2) * 2 - 1, torch.from_numpy(class_N)


def warped(images, seed):
    """Each image turned, sheared, scaled and moved at random, within WARP; outside is dark."""
    generator = torch.Generator().manual_seed(seed)
    within = lambda most: (2 * torch.rand([len(images)], generator=generator) - 1) * most
    angle, scale, shear = within(np.deg2rad(WARP["degrees"])), torch.exp(within(WARP["scale"])), within(WARP["shear"])
    first = torch.stack([angle.cos() * scale, shear - angle.sin() * scale, within(WARP["shift"])], 1)
    second = torch.stack([angle.sin() * scale, angle.cos() * scale, within(WARP["shift"])], 1)
    grid = torch.nn.functional.affine_grid(torch.stack([first, second], 1), list(images.shape), align_corners=False)
    return torch.nn.functional.grid_sample(images, grid, align_corners=False)


def mnist_digits(folder, seed):
    """The same from MNIST's training digits as they are."""
    digits = digit_bed.load_digits(folder, "train")
    class_N = drawn_classes(seed)
    rows = of_each_class(digits.labels, class_N, np.random.RandomState([seed, 1]))
    return torch.from_numpy(digits.images[rows]).to(torch.float32)[:, None] / 127.5 - 1, torch.from_numpy(class_N)


def measured(images, class_N, sensor, largest, seed):
    """One row: means over the rare classes, the rarest class alone, and what the sensor does where nothing is left out."""
    deficits = DeficitKnobs()
    extractor = registry.build(EXTRACTOR, list(images.shape[1:]), 0, seed).eval().requires_grad_(False)
    plans = [
        sensor_fitness.Plan(deficits.deficit_window, deficits.num_cells, deficits.cell_quantile, largest, share, REPEATS, seed, sensor)
        for share in (0.0, UNCLEAR)
    ]
    clear, unclear = (sensor_fitness.measure(extractor, images, class_N, plan) for plan in plans)
    rarest = min(clear["shares"], key=clear["shares"].get)
    alike = alike_neighbours(extractor, images, class_N, rarest)
    mean = lambda values: float(np.mean(list(values.values())))
    return dict(
        clear=mean(clear["ratios"]),
        unclear=mean(unclear["ratios"]),
        rarest_clear=clear["ratios"][rarest],
        rarest_unclear=unclear["ratios"][rarest],
        rarest_share=clear["shares"][rarest],
        rarest_alike=alike,
        at_rest=mean(unclear["at_rest"]),
        moved=unclear["moved"],
        perfect=float(np.mean([sensor_fitness.perfect_ratio(share, largest) for share in clear["shares"].values()])),
        window=clear["window"],
        num_cells=clear["num_cells"],
    )


@torch.no_grad()
def alike_neighbours(extractor, images, class_N, digit):
    """Share of a class's images whose nearest other image is of the class: where it is low, no sensor in this space can tell the class."""
    features_ND = torch.cat([extractor(part).to(torch.float32) for part in images.split(256)])
    rows = (class_N == digit).nonzero()[:, 0]
    squared_nN = squared_distances(features_ND[rows], features_ND)
    squared_nN[torch.arange(len(rows)), rows] = float("inf")
    return float((class_N[squared_nN.argmin(1)] == digit).double().mean())


@click.command()
@click.option("--seeds", type=cli.IntRange(1, 1000), default=3, show_default=True, help="Sets, of seeds 0, 1, ...")
@click.option("--mnist", type=click.Path(file_okay=False, path_type=Path), help="Take MNIST's digits from this folder")
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), default=records.RESULTS, show_default=True)
def main(seeds, mnist, outdir):
    """Measure what each sensor sees."""
    torch.set_num_threads(1)
    facts = dict(
        data="MNIST" if mnist else "scikit-learn's digits",
        num_images=NUM_IMAGES,
        tail_ratio=digit_bed.TAIL_RATIO,
        extractor=EXTRACTOR,
        unclear=UNCLEAR,
        repeats=REPEATS,
        warp=None if mnist else WARP,
    )
    store = records.Store(outdir / ("planted_deficits_mnist.json" if mnist else "planted_deficits.json"), facts)
    if all(store.get(name, seed) for name in ROWS for seed in range(seeds)):
        print(f"Nothing left to do: {store.path} has all of it. For runs of your own give another --outdir.")
    for seed in range(seeds):
        missing = {name: row for name, row in ROWS.items() if store.get(name, seed) is None}
        images, class_N = (mnist_digits(mnist, seed) if mnist else small_digits(seed)) if missing else (None, None)
        for name, (sensor, largest) in missing.items():
            found = measured(images, class_N, sensor, largest, seed)
            store.put(name, seed, found)
            print(f"{name}, seed {seed}: " + ", ".join(f"{key} {value:.3g}" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    cli.run(main)
