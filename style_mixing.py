"""Draw pictures that take some of their style layers from one seed or projected picture and the rest from another."""

import os

import click
import numpy as np
from click.core import ParameterSource

from dnnlib import cli, console
from dnnlib.errors import UserError
from training.drawing.options import SeedsOrLatents, label_options, network_option, noise_option, trunc_option

# The default --styles was made for 1024 px: these of 18 layers. A smaller network gives the same share of its layers.
_DEFAULT_SHARE = 7 / 18
MOST_PICTURES = 10_000  # of a sheet


def check_styles(styles, num_ws, chosen_by_user):
    """The layers to take from the column; the default is scaled to the layers that the network has."""
    if num_ws < 2:
        raise UserError(f"this network has {num_ws} style layer, so there is nothing to mix; draw its pictures with generate.py")
    if not chosen_by_user:
        scaled = list(range(max(round(_DEFAULT_SHARE * num_ws), 1)))
        if scaled != styles:
            print(f"This network has {num_ws} style layers: the columns give {_span(scaled)}. Choose others with --styles.")
        return scaled
    styles = sorted(set(styles))
    if styles[-1] >= num_ws:
        raise UserError(f"--styles names layer {styles[-1]}, but this network has the layers 0-{num_ws - 1}; choose among those")
    if len(styles) == num_ws:
        raise UserError(
            f"--styles takes all {num_ws} layers from the column, so that every mixture would be its column; leave the row at least one, "
            f"as --styles=0-{num_ws - 2} does"
        )
    return styles


def _span(layers):
    return "layer 0" if len(layers) == 1 else f"layers 0-{layers[-1]}"


def mixed_pictures(generator, rows, cols, styles, label, *, truncation_psi=1.0, noise_mode="const", device="cpu", ws_of_name=None):
    """Yield ((row, column), pixels uint8 [H,W,C]): first each seed or latent by itself, then every pair.

    rows, cols: seeds, or names in ws_of_name ({name: latent [1, num_ws, w_dim]}). A pair's latent is the row's, with the layers
    `styles` replaced by the column's; random noise is that of the row.
    """
    import torch  # Here and in main: --help needs none.

    from training import pictures

    sources = list(dict.fromkeys([*rows, *cols]))
    ws, noise_seeds = dict(ws_of_name or {}), {}
    for place, source in enumerate(sources):
        noise_seeds[source] = place if source in ws else source
        if source not in ws:
            with torch.no_grad():
                ws[source] = generator.mapping(pictures.latent_of_seed(source, generator.z_dim, device), label, truncation_psi=truncation_psi)
    pairs = [(source, source) for source in sources] + [(row, col) for row in rows for col in cols if row != col]
    for row, col in dict.fromkeys(pairs):
        w = ws[row].to(device).clone()
        w[:, styles] = ws[col].to(device)[:, styles]
        yield (row, col), pictures.drawn_from_ws(generator, w, [noise_seeds[row]], noise_mode)[0]


def arrange_grid(picture_of_pair, rows, cols):
    """uint8 [H,W,C]: the columns' own pictures along the top, the rows' down the left, mixtures inside, the corner black."""
    height, width, channels = next(iter(picture_of_pair.values())).shape
    sheet = np.zeros([(len(rows) + 1) * height, (len(cols) + 1) * width, channels], dtype=np.uint8)
    for y, row in enumerate([None, *rows]):
        for x, col in enumerate([None, *cols]):
            if row is None and col is None:
                continue
            pair = (col, col) if row is None else (row, row) if col is None else (row, col)
            sheet[y * height : (y + 1) * height, x * width : (x + 1) * width] = picture_of_pair[pair]
    return sheet


def load_latents(generator, rows, cols):
    """Name the latents in the files among rows and columns: (rows, columns, {name: latent [1, num_ws, w_dim]}).

    Names are proj00, proj01, ... in the order of their appearance; a file that is named twice is read once.
    """
    from training.drawing import latents

    names_of_path, ws_of_name = {}, {}
    for flag, entries in (("--rows", rows), ("--cols", cols)):
        for path in entries:
            if isinstance(path, str) and path not in names_of_path:
                ws = latents.load_projected_w(path, generator.num_ws, generator.w_dim, flag)
                names_of_path[path] = [f"proj{len(ws_of_name) + index:02d}" for index in range(len(ws))]
                ws_of_name.update(zip(names_of_path[path], ws.split(1)))
                print(f"{', '.join(names_of_path[path])}: {path}")
    named = [[name for entry in entries for name in names_of_path.get(entry, [entry])] for entries in (rows, cols)]
    return *named, ws_of_name


def _label(generator, facts, class_text, label_vector, has_seeds, device):
    """The label of the seeds; latents have none."""
    from training.drawing import labels

    if not has_seeds:
        for flag, value in (("--class", class_text), ("--label", label_vector)):
            if value is not None:
                console.note(f"{flag} has no effect on projected latents.")
        return None
    choice = labels.choose_one(generator, facts, class_text, label_vector, device)
    if choice.text:
        print(f"Drawing {choice.text}.")
    return choice.vector


@click.command()
@network_option
@click.option(
    "--rows", type=SeedsOrLatents(), required=True, metavar="SEEDS", help="Seeds of the rows, such as 85,100,75; also .npz files of projector.py"
)
@click.option("--cols", type=SeedsOrLatents(), required=True, metavar="SEEDS", help="Seeds of the columns, such as 55,821; also .npz files")
@click.option(
    "--styles",
    type=cli.NumRange(),
    default="0-6",
    show_default="0-6 at 1024 px, else that share of the layers",
    help="Style layers taken from the columns",
)
@trunc_option
@noise_option
@label_options(several=False)
@click.option("--outdir", required=True, metavar="DIR", help="Where the pictures go")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, network, rows, cols, styles, trunc, noise_mode, class_text, label_vector, outdir, device, trust_pickle):
    """Draw every pair of row and column: the style layers --styles come from the column.

    \b
    style_mixing.py --network=run/network-snapshot-000200.pkl --rows=85,100,75 --cols=55,821,1789 --outdir=out
    style_mixing.py --network=run/network-snapshot-000200.pkl --rows=proj/projected_w.npz --cols=55,821 --outdir=out
    """
    seeds = [entry for entry in [*rows, *cols] if not isinstance(entry, str)]
    if not seeds and ctx.get_parameter_source("trunc") is not ParameterSource.DEFAULT:
        raise UserError("--trunc has no effect on projected latents, which are drawn as they are; leave it out")

    if len(rows) * len(cols) > MOST_PICTURES:
        raise UserError(
            f"--rows and --cols ask for {len(rows) * len(cols):,} pictures of one sheet; {MOST_PICTURES:,} is the most, so draw fewer rows or columns"
        )

    from torch_utils import devices
    from training import pictures
    from training.drawing import draw

    pictures.check_seeds(seeds)
    device = devices.resolve(device)
    pictures.prepare_outdir(outdir)
    generator, facts = pictures.open_generator(network, device, trust=trust_pickle)
    styles = check_styles(styles, generator.num_ws, ctx.get_parameter_source("styles") is not ParameterSource.DEFAULT)
    pictures.check_channels(generator.img_channels, outdir)
    rows, cols, ws_of_name = load_latents(generator, rows, cols)
    # With the pictures of the rows and columns themselves. The limit above counts pictures, which may be large.
    draw.check_sheet(len(rows) + 1, len(cols) + 1, generator.img_resolution, "draw fewer --rows or --cols")
    if ws_of_name and trunc != 1:
        console.note("--trunc acts on the seeds alone; projected latents are drawn as they are.")
    label = _label(generator, facts, class_text, label_vector, bool(seeds), device)

    picture_of_pair, num_replaced = {}, 0
    options = dict(truncation_psi=trunc, noise_mode=noise_mode, device=device, ws_of_name=ws_of_name)
    for (row, col), picture in mixed_pictures(generator, rows, cols, styles, label, **options):
        picture_of_pair[row, col] = picture
        num_replaced += pictures.save_png(picture, os.path.join(outdir, f"{row}-{col}.png"))
        print(f"Drawing {row}-{col} ({len(picture_of_pair)})", flush=True)
    pictures.save_png(arrange_grid(picture_of_pair, rows, cols), os.path.join(outdir, "grid.png"))
    pictures.tell_of_replaced(num_replaced, outdir)
    console.result(f"{pictures.counted(len(picture_of_pair), 'picture')} and grid.png in {outdir}.")


if __name__ == "__main__":
    cli.run(main)
