"""Draw pictures that take some of their style layers from one seed and the rest from another."""

import os

import click
import numpy as np
import torch
from click.core import ParameterSource

from dnnlib import cli
from dnnlib.errors import UserError
from torch_utils import devices
from training import pictures


def check_styles(styles, num_ws, chosen_by_user):
    """The layers to take from the column; the default is cut down to the layers that a small network has."""
    available = [layer for layer in styles if layer < num_ws]
    if len(available) < len(styles):
        if chosen_by_user:
            raise UserError(f"--styles names layer {max(styles)}, but this network has the layers 0-{num_ws - 1}; choose among those")
        print(f"This network has {num_ws} style layers: the columns give layers {available[0]}-{available[-1]}.")
    return available


def mixed_pictures(generator, rows, cols, styles, label, *, truncation_psi=1.0, noise_mode="const", device="cpu"):
    """Yield ((row seed, column seed), pixels uint8 [H,W,C]): first each seed by itself, then every pair.

    A pair's latent is the row's, with the layers `styles` replaced by the column's.
    """
    seeds = list(dict.fromkeys([*rows, *cols]))
    with torch.no_grad():
        w_of_seed = {
            seed: generator.mapping(pictures.latent_of_seed(seed, generator.z_dim, device), label, truncation_psi=truncation_psi) for seed in seeds
        }
        pairs = [(seed, seed) for seed in seeds] + [(row, col) for row in rows for col in cols if row != col]
        for row, col in dict.fromkeys(pairs):
            w = w_of_seed[row].clone()
            w[:, styles] = w_of_seed[col][:, styles]
            yield (row, col), pictures.to_pixels(generator.synthesis(w, noise_mode=noise_mode))[0]


def arrange_grid(picture_of_pair, rows, cols):
    """uint8 [H,W,C]: column seeds along the top, row seeds down the left, mixtures inside, the corner black."""
    height, width, channels = next(iter(picture_of_pair.values())).shape
    sheet = np.zeros([(len(rows) + 1) * height, (len(cols) + 1) * width, channels], dtype=np.uint8)
    for y, row in enumerate([None, *rows]):
        for x, col in enumerate([None, *cols]):
            if row is None and col is None:
                continue
            pair = (col, col) if row is None else (row, row) if col is None else (row, col)
            sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture_of_pair[pair]
    return sheet


@click.command()
@click.option("--network", help="Network pickle: path or URL", required=True)
@click.option("--rows", type=cli.NumRange(), required=True, help="Seeds of the rows, such as 85,100,75")
@click.option("--cols", type=cli.NumRange(), required=True, help="Seeds of the columns, such as 55,821")
@click.option("--styles", type=cli.NumRange(), default="0-6", show_default=True, help="Style layers taken from the columns")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi: below 1 less varied and more typical")
@click.option("--noise-mode", type=click.Choice(pictures.NOISE_MODES), default="const", show_default=True, help="Noise inside the network")
@click.option("--class", "class_index", type=int, help="Class to draw, counted from 0; needed if the network has classes")
@click.option("--outdir", required=True, metavar="DIR", help="Where the pictures go")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, network, rows, cols, styles, trunc, noise_mode, class_index, outdir, device, trust_pickle):
    """Draw every pair of row seed and column seed: the style layers --styles come from the column.

    \b
    style_mixing.py --network=run/network-snapshot-000200.pkl --rows=85,100,75 --cols=55,821,1789 --outdir=out
    """
    device = devices.resolve(device)
    pictures.prepare_outdir(outdir)
    generator = pictures.open_generator(network, device, trust=trust_pickle)
    styles = check_styles(styles, generator.num_ws, ctx.get_parameter_source("styles") is not ParameterSource.DEFAULT)
    label = pictures.label_of_class(generator, class_index, device)

    picture_of_pair = {}
    for (row, col), picture in mixed_pictures(generator, rows, cols, styles, label, truncation_psi=trunc, noise_mode=noise_mode, device=device):
        picture_of_pair[row, col] = picture
        pictures.save_png(picture, os.path.join(outdir, f"{row}-{col}.png"))
        print(f"Drawing {row}-{col} ({len(picture_of_pair)})", flush=True)
    pictures.save_png(arrange_grid(picture_of_pair, rows, cols), os.path.join(outdir, "grid.png"))
    print(f"{len(picture_of_pair)} pictures and grid.png in {outdir}.")


if __name__ == "__main__":
    cli.run(main)
