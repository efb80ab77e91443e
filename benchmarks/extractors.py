"""Which feature space suits a labelled set of images: what madr_plugin.check_extractor prints, in a file.

    python -m madr_plugin.own_extractor --data=emoji64.zip --out=own.safetensors --steps=60 --batch=64
    python benchmarks/extractors.py --data=emoji64.zip --space=pca --space=random --space=own=own.safetensors --space=file:photos.pt

Writes benchmarks/results/extractors.json. Accuracies depend on the data and the files alone; times are of one thread of this machine.
"""

import json
import os
import sys
from pathlib import Path

from madr_spaces.images import data_fingerprint

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import torch

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from experiments import records
from madr_plugin import command, space_fitness
from madr_plugin.reals import real_images
from madr_spaces import registry


@click.command()
@click.option("--data", required=True, help="Zip or folder of labelled images, as dataset_tool.py makes them")
@click.option(
    "--space",
    "spaces",
    multiple=True,
    default=("pca", "random"),
    show_default=True,
    help="As --madr-extractor, with =WEIGHTS where it needs a file; may be repeated",
)
@click.option("--images", "max_images", type=click.IntRange(16, 20000), default=2000, show_default=True)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=REPO / "benchmarks" / "results" / "extractors.json",
    show_default="benchmarks/results/extractors.json",
)
def main(data, spaces, max_images, out):
    """Nearest-neighbour accuracy, spread and time of several feature spaces."""
    torch.set_num_threads(1)
    dataset = command.open_images(data)
    images, class_N = real_images.read_images_and_classes(dataset, np.random.RandomState(0).permutation(len(dataset))[:max_images])
    if not (class_N >= 0).all():
        raise UserError(f"--data={data} has no labels; make it with dataset_tool.py from one folder per class.")
    rows = []
    for space in spaces:
        name, _, weights = space.partition("=")
        extractor = registry.build(name, dataset.image_shape, 0, 0, 0, weights, "").eval().requires_grad_(False)
        rows.append(dict(space="file:" + Path(name).name if name.startswith("file:") else name, **space_fitness.check(extractor, images, class_N)))
        print(rows[-1], flush=True)
    result = dict(
        data=Path(data).name,
        fingerprint=data_fingerprint(dataset),
        image_shape=list(map(int, dataset.image_shape)),
        images=len(images),
        classes=len(class_N.unique()),
        rows=rows,
        seed=0,
        threads=1,
        load_average=round(os.getloadavg()[0], 1),
        **records.machine(),
    )
    atomic_write_text(out, json.dumps(result, indent=1) + "\n")
    print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main)
