"""Train the extractor `own` on a data set, without labels and without downloads, in minutes on a CPU.

    python -m madr_plugin.own_extractor --data=images.zip --out=own.safetensors

madr_plugin/own_training.py trains.
"""

import os

import click

from madr_plugin import command
from madr_plugin.base.progress import Progress
from madr_spaces.errors import MADRError


@click.command()
@click.option("--data", required=True, type=command.HomePath(), help="Folder or zip with the training images")
@click.option("--out", required=True, type=command.HomePath(), help="File to write (.safetensors)")
@click.option("--steps", type=click.IntRange(1, 10**6), default=300, show_default=True, help="Training steps")
@click.option("--batch", type=click.IntRange(4, 4096), default=128, show_default=True, help="Images per step")
@click.option("--width", type=click.IntRange(2, 4096), default=64, show_default=True, help="Learned features beside the principal components")
@click.option("--images", "max_images", type=click.IntRange(16, 10**6), default=10000, show_default=True, help="Images to train on at most")
@click.option("--flip", is_flag=True, help="Mirror images count as the same (not for digits or text)")
@click.option("--seed", type=command.SEED, default=0, show_default=True)
def main(data, out, steps, batch, width, max_images, flip, seed):
    """Train a small encoder on your own images, for --madr-extractor=own --madr-weights=OUT."""
    import numpy as np  # these and torch only now: --help and mistakes are answered at once
    import torch

    from madr_plugin.own_training import LARGEST_SIDE, check_writable, save, train
    from madr_plugin.reals import real_images
    from madr_spaces import weights as weight_files

    weight_files.import_safetensors()
    if not out:
        raise MADRError("--out= names no file; give the file to write, such as own.safetensors")
    if os.path.isdir(out):
        raise MADRError(f"--out={out} is a folder; give the file to write, such as {os.path.join(out, 'own.safetensors')}")
    check_writable(out)
    dataset = command.open_images(data)
    rows = np.random.RandomState(seed).permutation(len(dataset))[:max_images]
    if len(rows) < 16:
        raise MADRError(f"--data={data} holds {len(rows)} images; an encoder needs at least 16")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with Progress("images read", len(rows)) as told:
        images = real_images.read_images(dataset, rows, LARGEST_SIDE, told=lambda part: told(len(part)))
    tensors = train(images.to(device), width, steps, min(batch, len(rows)), seed, flip)
    save(out, tensors, dataset)
    print(
        f"Written: {out}. Check it with: python -m madr_plugin.check_extractor --data={data} --madr-extractor=pca --madr-extractor=own --madr-weights={out}"
    )


if __name__ == "__main__":
    command.run(main)
