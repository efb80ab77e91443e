"""Splits a data set into a part to train on and a part that no training sees, class by class:

    python -m experiments.split_data --source=emoji32.zip --train=emoji32-train.zip --held-out=emoji32-held-out.zip

Both keep labels, names of classes and the order of the images. The same source, share and seed give the same bytes.
"""

from pathlib import Path

import click
import numpy as np

from dnnlib import cli
from dnnlib.errors import UserError
from madr_spaces.sampling import stream
from training.data import writer
from training.dataset import ImageFolderDataset

FEWEST = 2  # images of a part: no distance can be taken of fewer


def held_out_rows(class_N, share, seed):
    """Indices, in order, of the images to hold out: of each class its share, but never all of it. class_N: int [N].

    What rounding leaves over of one class is carried to the next, so that the classes together give the share of all.
    """
    chosen, carried = [], 0.0
    for number in np.unique(class_N):
        rows = np.flatnonzero(class_N == number)
        wanted = share * len(rows) + carried
        count = min(int(np.floor(wanted + 0.5)), len(rows) - 1)
        carried = wanted - count
        chosen.append(stream("subsets", seed, int(number)).permutation(rows)[:count])
    return np.sort(np.concatenate(chosen))


def classes_of(dataset):
    """int64 [N]: the class of each image, 0 where there are no classes."""
    if not dataset.has_onehot_labels:
        return np.zeros(len(dataset), np.int64)
    return np.array([int(dataset.get_details(index).raw_label) for index in range(len(dataset))], np.int64)


def write_part(dataset, rows, path, provenance):
    """The images of these rows with their labels, class names and where they come from."""
    with writer.open_writer(str(path)) as part:
        for row in rows.tolist():
            image, _ = dataset[row]
            label = dataset.get_details(row).raw_label.tolist()
            part.add(image[0] if len(image) == 1 else image.transpose(1, 2, 0), label if dataset.has_labels else None)
        part.class_names = dataset.class_names
        part.provenance = provenance


def split(source, train, held_out, share, seed):
    """(number of images to train on, number held out) of the two data sets that it writes."""
    if len({Path(path).resolve() for path in (source, train, held_out)}) < 3:
        raise UserError(f"--source, --train and --held-out must be three different files (got {source}, {train}, {held_out}).")
    for path in (train, held_out):
        writer.check_destination(str(path), str(source))
    dataset = ImageFolderDataset(str(source), use_labels=True)
    kept_out = held_out_rows(classes_of(dataset), share, seed)
    kept = np.setdiff1d(np.arange(len(dataset)), kept_out)
    if min(len(kept), len(kept_out)) < FEWEST:
        raise UserError(
            f"{source} has {len(dataset)} images: with --share={share:g} a part would hold {min(len(kept), len(kept_out))} of them; "
            f"give another --share, or a set of more images."
        )
    made = dict(source=dataset.content_fingerprint(), share=share, seed=seed)
    for part, rows, path in (("train", kept, train), ("held-out", kept_out, held_out)):
        write_part(dataset, rows, path, dict(dataset.provenance or {}, part=dict(made, name=part)))
    return len(kept), len(kept_out)


@click.command()
@click.option("--source", type=click.Path(exists=True), required=True, help="Data set as dataset_tool.py writes it")
@click.option("--train", type=click.Path(), required=True, metavar="PATH", help="Where the part to train on goes")
@click.option("--held-out", type=click.Path(), required=True, metavar="PATH", help="Where the part that no training sees goes")
@click.option("--share", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=1 / 3, show_default="a third", help="Share to hold out")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of the choice")
def main(source, train, held_out, share, seed):
    """Hold out a part of a data set for judging, the same share of every class."""
    kept, kept_out = split(source, train, held_out, share, seed)
    print(f"Written: {train} ({kept} images), {held_out} ({kept_out} images)")


if __name__ == "__main__":
    cli.run(main)
