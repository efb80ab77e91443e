"""From seeds and latents to PNG files: what generate.py, style_mixing.py and projector.py have in common.

Conventions that people's notebooks rely on: the latent of a seed is RandomState(seed).randn(1, z_dim), and pixels are
image * 127.5 + 128, clipped and cut off. Must not know about training.
"""

import contextlib
import io
import os

import numpy as np
import PIL.Image
import torch

import legacy
from dnnlib import console, files
from dnnlib.errors import UserError
from training import label_facts


def open_generator(network, device, trust=False):
    """The moving-average generator of a network pickle (path or URL), ready to draw on `device`, and what is known of its labels.

    The second is a LabelFacts, or None where the network has no labels or nobody knows what they are.
    """
    snapshot = legacy.open_network(network, trust=trust)
    facts = label_facts.of_snapshot(snapshot)
    return snapshot["G_ema"].eval().requires_grad_(False).to(device), facts


def prepare_outdir(outdir):
    """Make the folder before the work begins. Raises UserError."""
    try:
        files.make_writable(outdir)
    except OSError as error:
        raise UserError(f"--outdir={outdir} cannot be written to ({error.strerror or error}); choose another folder") from error


def check_seeds(seeds):
    """Refuse seeds that no latent is drawn from, before anything is."""
    for seed in seeds:
        if not 0 <= seed < 2**32:
            raise UserError(f"seeds must lie between 0 and {2**32 - 1} (got {seed}); choose a smaller one")


def latent_of_seed(seed, z_dim, device):
    """[1, z_dim] float32."""
    check_seeds([seed])
    # Rounded on the CPU: some devices lack float64.
    return torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim).astype(np.float32)).to(device)


@contextlib.contextmanager
def seeded_noise(seed, device):
    """Inside the block the network's random noise comes from `seed` alone; afterwards the process's own goes on as if nothing was drawn."""
    with torch.random.fork_rng(devices=[device] if torch.device(device).type == "cuda" else []):
        torch.manual_seed(seed)
        yield


@torch.no_grad()
def drawn_from_ws(generator, ws, noise_seeds, noise_mode="const"):
    """Pixels uint8 [N,H,W,C] of latents [N, num_ws, w_dim] on the generator's device.

    noise_seeds: one for each picture. Random noise is drawn picture by picture, so that it depends on the seed and on nothing else.
    """
    if noise_mode != "random":
        return to_pixels(generator.synthesis(ws, noise_mode=noise_mode))
    drawn = []
    for w, seed in zip(ws, noise_seeds):
        with seeded_noise(seed, ws.device):
            drawn.append(to_pixels(generator.synthesis(w[None], noise_mode=noise_mode)))
    return np.concatenate(drawn)


def to_pixels(images):
    """Images [N,C,H,W] in [-1, 1] -> uint8 [N,H,W,C]."""
    if not torch.isfinite(images).all():  # they would come out black
        raise UserError(
            "The network draws values that are not finite numbers; check --trunc and --label, or take an earlier snapshot of the run: "
            "this one may be of a run that went astray"
        )
    return (images.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy()


def check_channels(channels, what="a picture"):
    """Refuse what no PNG and no video can show."""
    if channels not in (1, 3):
        raise UserError(f"{what}: a picture has 1 or 3 channels, but this network draws {channels}")


def save_png(pixels, path):
    """Write uint8 pixels [H,W,C] with one or three channels; returns whether another picture of that name was replaced."""
    check_channels(pixels.shape[2], path)
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    data = buffer.getvalue()
    has_replaced = _holds_other(path, data)
    files.atomic_write_bytes(path, data)
    return has_replaced


def _holds_other(path, data):
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        return file.read() != data


def tell_of_replaced(num_replaced, outdir):
    """Warn of pictures that were there before; names of files hold the seed alone, as everywhere in the family."""
    if num_replaced:
        console.warn(
            f"{counted(num_replaced, 'picture')} of the same name in {outdir}, drawn otherwise (class, label, network or options), "
            f"{'was' if num_replaced == 1 else 'were'} replaced; give each kind an --outdir of its own."
        )


def counted(num, noun):
    """'1 picture', '2 pictures'."""
    return f"{num} {noun}{'' if num == 1 else 's'}"
