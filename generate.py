"""Draw pictures with a trained network, from seeds or from projected latents."""

import os
import time
import zipfile
import zlib

import click
import numpy as np
import torch

from dnnlib import cli
from dnnlib.errors import UserError
from torch_utils import devices
from training import pictures


def load_projected_w(path, num_ws, w_dim):
    """Latents [N, num_ws, w_dim] float32 from the `w` of an .npz file, as projector.py writes it."""
    remedy = "give the projected_w.npz that projector.py wrote"
    try:
        content = np.load(path)
        if isinstance(content, np.ndarray):
            raise UserError(f"--projected-w={path} is one bare array and not an .npz file; {remedy}")
        with content:
            if "w" not in content.files:
                raise UserError(f"--projected-w={path} holds no array named 'w'; {remedy}")
            ws = content["w"]
    except OSError as error:
        raise UserError(f"--projected-w={path} cannot be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"--projected-w={path} is not an .npz file of numbers; {remedy}") from error
    if ws.ndim == 2:
        ws = ws[None]
    if ws.ndim != 3 or ws.shape[1:] != (num_ws, w_dim) or len(ws) == 0:
        raise UserError(
            f"--projected-w={path} has the shape {list(ws.shape)}, but this network takes [any number, {num_ws}, {w_dim}]; "
            "project the picture with the same network"
        )
    if not (np.issubdtype(ws.dtype, np.number) and np.isfinite(ws).all()):
        raise UserError(f"--projected-w={path} holds values that are not finite numbers; project the picture again")
    return torch.from_numpy(ws.astype(np.float32))


def drawn_from_seeds(generator, seeds, label, *, truncation_psi=1.0, noise_mode="const", batch=1, device="cpu"):
    """Yield (seeds of the batch, pixels uint8 [N,H,W,C])."""
    for start in range(0, len(seeds), batch):
        chosen = seeds[start : start + batch]
        z = torch.cat([pictures.latent_of_seed(seed, generator.z_dim, device) for seed in chosen])
        with torch.no_grad():
            images = generator(z, label.expand(len(chosen), -1), truncation_psi=truncation_psi, noise_mode=noise_mode)
        yield chosen, pictures.to_pixels(images)


def drawn_from_ws(generator, ws, *, noise_mode="const", batch=1, device="cpu"):
    """Yield (indices of the batch, pixels uint8 [N,H,W,C]) for latents [N, num_ws, w_dim]."""
    for start in range(0, len(ws), batch):
        chosen = ws[start : start + batch].to(device)
        with torch.no_grad():
            images = generator.synthesis(chosen, noise_mode=noise_mode)
        yield list(range(start, start + len(chosen))), pictures.to_pixels(images)


@click.command()
@click.option("--network", help="Network pickle: path or URL", required=True)
@click.option("--seeds", type=cli.NumRange(), help="Seeds to draw, such as 0,3,5-7")
@click.option("--trunc", type=float, default=1, show_default=True, help="Truncation psi: below 1 less varied and more typical")
@click.option("--class", "class_index", type=int, help="Class to draw, counted from 0; needed if the network has classes")
@click.option("--noise-mode", type=click.Choice(pictures.NOISE_MODES), default="const", show_default=True, help="Noise inside the network")
@click.option("--projected-w", help="Draw the latents in this .npz file of projector.py instead of seeds", metavar="FILE")
@click.option(
    "--batch",
    type=int,
    default=1,
    show_default=True,
    help="Pictures drawn at a time; more is faster on a GPU and can change the last digit of a pixel",
)
@click.option("--outdir", required=True, metavar="DIR", help="Where the pictures go")
@cli.device_option
@cli.trust_option
def main(network, seeds, trunc, class_index, noise_mode, projected_w, batch, outdir, device, trust_pickle):
    """Draw pictures with a trained network.

    \b
    generate.py --network=run/network-snapshot-000200.pkl --seeds=0-31 --trunc=0.7 --outdir=out
    generate.py --network=conditional.pkl --seeds=0-31 --class=3 --outdir=out
    generate.py --network=run/network-snapshot-000200.pkl --projected-w=proj/projected_w.npz --outdir=out
    """
    if seeds is None and projected_w is None:
        raise UserError("Give --seeds (such as --seeds=0-9) or --projected-w=FILE: there is nothing to draw.")
    if batch < 1:
        raise UserError(f"--batch must be at least 1 (got {batch}); leave it out for the default")
    device = devices.resolve(device)
    pictures.prepare_outdir(outdir)
    generator = pictures.open_generator(network, device, trust=trust_pickle)

    if projected_w is not None:
        for flag, value in (("--seeds", seeds), ("--class", class_index)):
            if value is not None:
                print(f"Note: {flag} has no effect beside --projected-w.")
        ws = load_projected_w(projected_w, generator.num_ws, generator.w_dim)
        drawn = drawn_from_ws(generator, ws, noise_mode=noise_mode, batch=batch, device=device)
        total, name, kind = len(ws), "proj{:02d}.png", "latent"
    else:
        label = pictures.label_of_class(generator, class_index, device)
        drawn = drawn_from_seeds(generator, seeds, label, truncation_psi=trunc, noise_mode=noise_mode, batch=batch, device=device)
        total, name, kind = len(seeds), "seed{:04d}.png", "seed"

    started, done = time.perf_counter(), 0
    for numbers, pixels in drawn:
        for number, picture in zip(numbers, pixels):
            pictures.save_png(picture, os.path.join(outdir, name.format(number)))
            done += 1
            print(f"Drawing {kind} {number} ({done}/{total})", flush=True)
    print(f"{done} pictures in {outdir}, {time.perf_counter() - started:.1f} s.")


if __name__ == "__main__":
    cli.run(main)
