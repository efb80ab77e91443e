"""Is a feature space fit for a data set? Look before the loss is blamed.

    python -m madr_plugin.check_extractor --data=images.zip [--madr-extractor=dino ...]

For each extractor: nearest-neighbour accuracy over the labels (without labels: over shifted copies), concentration of
distances, gradient to the image, time; and which one to take. madr_plugin/space_fitness.py measures.
"""

import click

from madr_plugin import command
from madr_plugin.base.progress import Progress
from madr_spaces.errors import MADRError


@click.command()
@click.option("--data", required=True, type=command.HomePath(), help="Folder or zip with the training images")
@click.option("--madr-extractor", "names", multiple=True, default=("pca", "random"), show_default=True, help="Extractor to look at; may be repeated")
@click.option("--madr-weights", "weights", type=command.HomePath(), default="", help="Its file of weights (for all named extractors that take one)")
@click.option("--madr-width", "width", type=click.IntRange(0, 65536), default=0, help="As in training")
@click.option("--madr-input-size", "input_size", type=click.IntRange(0, 4096), default=0, help="As in training")
@click.option("--images", "max_images", type=click.IntRange(16, 20000), default=2000, show_default=True, help="Images to look at")
@click.option("--seed", type=command.SEED, default=0, show_default=True)
def main(data, names, weights, width, input_size, max_images, seed):
    """Check which feature space suits your images."""
    import numpy as np  # these and torch only now: --help and mistakes are answered at once

    from madr_plugin.reals import real_images
    from madr_plugin.space_fitness import LARGEST_MEMORY, check, faults, recommended
    from madr_spaces import names as space_names, registry

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
