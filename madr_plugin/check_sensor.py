"""Does the count of cells see what a generator leaves out? Look before the tilt or the replay is trusted.

    python -m madr_plugin.check_sensor --data=images.zip [--madr-extractor=own --madr-weights=own.safetensors ...]

Deficits are planted: each rare class (without labels: each group of alike images) is left out in turn, and the share of its
reals that a tilt would draw is printed over their true share: 1 is blind. No training, seconds on a CPU.
madr_plugin/sensor_fitness.py measures.
"""

import click

from madr_plugin import command
from madr_plugin.base.progress import Progress
from madr_plugin.memory.knobs import DeficitKnobs
from madr_plugin.tilt.knobs import TiltKnobs
from madr_spaces.errors import MADRError

_DEFAULT = DeficitKnobs()


@click.command()
@click.option("--data", required=True, type=command.HomePath(), help="Folder or zip with the training images")
@click.option("--madr-extractor", "names", multiple=True, default=("pca", "random"), show_default=True, help="Extractor to look at; may be repeated")
@click.option("--madr-weights", "weights", type=command.HomePath(), default="", help="Its file of weights (for all named extractors that take one)")
@click.option("--madr-width", "width", type=click.IntRange(0, 65536), default=0, help="As in training")
@click.option("--madr-input-size", "input_size", type=click.IntRange(0, 4096), default=0, help="As in training")
@click.option(
    "--madr-deficit-window", "window", type=click.IntRange(16, 10**6), default=_DEFAULT.deficit_window, show_default=True, help="As in training"
)
@click.option("--madr-cells", "num_cells", type=click.IntRange(0, 100_000), default=_DEFAULT.cells, help="As in training; 0: window / 10")
@click.option("--madr-tilt-max", "largest", type=click.FloatRange(1, 1000), default=TiltKnobs().tilt_max, show_default=True, help="As in training")
@click.option(
    "--madr-tilt-sensor",
    "sensors",
    type=click.Choice(["cells", "fine"]),
    multiple=True,
    default=("cells", "fine"),
    show_default=True,
    help="May be repeated",
)
@click.option(
    "--madr-tilt-rarest", "rarest", type=click.FloatRange(1e-5, 0.5), default=TiltKnobs().tilt_rarest, show_default=True, help="As in training"
)
@click.option("--unclear", type=click.FloatRange(0, 0.95), default=0.3, show_default=True, help="Share of blends of two images in the second column")
@click.option("--repeats", type=click.IntRange(1, 1000), default=8, show_default=True, help="Windows drawn for each deficit")
@click.option("--images", "max_images", type=click.IntRange(32, 100_000), default=12_000, show_default=True, help="Images to look at")
@click.option("--seed", type=command.SEED, default=0, show_default=True)
def main(data, names, weights, width, input_size, window, num_cells, largest, sensors, rarest, unclear, repeats, max_images, seed):
    """Plant deficits and print how far the count of cells sees them."""
    import numpy as np  # these and torch only now: --help and mistakes are answered at once

    from madr_plugin.reals import real_images
    from madr_plugin.sensor_fitness import Plan, groups_of_pixels, measure
    from madr_plugin.space_fitness import LARGEST_MEMORY
    from madr_spaces import names as space_names, registry

    dataset = command.open_images(data)
    affordable = max(LARGEST_MEMORY // (4 * int(np.prod(dataset.image_shape))), 32)
    rows = np.random.RandomState(seed).permutation(len(dataset))[: min(max_images, affordable)]
    if len(rows) < 32:
        raise MADRError(f"--data={data} holds {len(rows)} images; the check needs at least 32")
    num_cells = DeficitKnobs(deficit_window=window, cells=num_cells).num_cells
    if len(rows) // 2 < 2 * num_cells:
        raise MADRError(
            f"{len(rows) // 2} reals (half of the images looked at) are few for {num_cells} cells; use --madr-cells={max(len(rows) // 40, 2)} or more --images"
        )
    with Progress("images read", len(rows)) as told:
        images, class_N = real_images.read_images_and_classes(dataset, rows, told=lambda part: told(len(part)))
    labelled = bool((class_N >= 0).all()) and len(class_N.unique()) > 1
    if not labelled:
        class_N = groups_of_pixels(images, seed)
    results = {}
    for name in names:
        extractor = registry.build(name, dataset.image_shape, width, seed, input_size, weights if space_names.takes_weights(name) else "")
        extractor = extractor.eval().requires_grad_(False)
        for sensor in dict.fromkeys(sensors):
            plans = [Plan(window, num_cells, _DEFAULT.cell_quantile, largest, share, repeats, seed, sensor, rarest) for share in (0.0, unclear)]
            results[name, sensor] = [measure(extractor, images, class_N, plan) for plan in plans]
    what = "class" if labelled else "group of alike images"
    print(f"{len(rows)} images, half of them as the generator's; weights up to {largest:g}; {_counted(results)}; each {what} left out in turn\n")
    _print(results, unclear, largest, window, list(getattr(dataset, "class_names", None) or []) if labelled else [])


def _counted(results):
    """What each sensor counts in, and over how many images."""
    told = {sensor: f"{sensor}: {plain['num_cells']} cells, window of {plain['window']}" for (_, sensor), (plain, _) in results.items()}
    return ", ".join(told.values())


def _print(results, unclear, largest, window, class_names):
    from madr_plugin.sensor_fitness import perfect_ratio, window_for

    print(
        f"| extractor | sensor | left out | true share | drawn over truth | with {unclear:.0%} unclear images | nothing left out | a perfect sensor |\n|---|---|---|---|---|---|---|---|"
    )
    for (name, sensor), (plain, blurred) in results.items():
        shares = plain["shares"]
        for group, share in shares.items():
            label = class_names[group] if group < len(class_names) else str(group)
            print(
                f"| {name} | {sensor} | {label} | {share:.2%} | {plain['ratios'][group]:.2f} | {blurred['ratios'][group]:.2f} | {plain['at_rest'][group]:.2f} | "
                f"{perfect_ratio(share, largest):.2f} |"
            )
        mean = lambda values: sum(values.values()) / len(values)
        perfect = sum(perfect_ratio(share, largest) for share in shares.values()) / len(shares)
        print(
            f"| {name} | {sensor} | mean of {len(shares)} | {mean(shares):.2%} | {mean(plain['ratios']):.2f} | {mean(blurred['ratios']):.2f} | {mean(plain['at_rest']):.2f} | {perfect:.2f} |",
            flush=True,
        )
    rarest = min(next(iter(results.values()))[0]["shares"].values())
    needed = window_for(rarest, largest)
    if needed > window and any(sensor == "cells" for _, sensor in results):
        print(
            f"\nThe sensor of cells: a window of {window} expects {rarest * window:.1f} images of the rarest one, so that its reals' weight cannot reach {largest:g}: "
            f"--madr-deficit-window={needed} would be needed at least."
        )
    best = max(results, key=lambda name: sum(results[name][1]["ratios"].values()))
    seen = sum(results[best][1]["ratios"].values()) / len(results[best][1]["ratios"])
    best, sensor = best
    told = f"with --madr-tilt-sensor={sensor} sees most with unclear images: {seen:.2f} times the truth, where 1 is blind"
    print(
        f"\n--madr-extractor={best} {told}."
        if seen > 1.2
        else f"\nNone sees the deficits among unclear images ({best} with {sensor}: {seen:.2f}, where 1 is blind)."
    )


if __name__ == "__main__":
    command.run(main)
