"""From seeds and latents to PNG files: what generate.py, style_mixing.py and projector.py have in common.

Conventions that people's notebooks rely on: the latent of a seed is RandomState(seed).randn(1, z_dim), and pixels are
image * 127.5 + 128, clipped and cut off. Must not know about training.
"""

import io
import os
import tempfile

import numpy as np
import PIL.Image
import torch

import legacy
from dnnlib import files
from dnnlib.errors import UserError

NOISE_MODES = ["const", "random", "none"]


def open_generator(network, device, trust=False):
    """The moving-average generator of a network pickle (path or URL), ready to draw on `device`."""
    generator = legacy.open_network(network, trust=trust)["G_ema"]
    return generator.eval().requires_grad_(False).to(device)


def prepare_outdir(outdir):
    """Make the folder and try to write to it now rather than after the work."""
    try:
        os.makedirs(outdir, exist_ok=True)
        with tempfile.TemporaryFile(dir=outdir):
            pass
    except OSError as error:
        raise UserError(f"--outdir={outdir} cannot be written to ({error.strerror or error}); choose another folder") from error


def latent_of_seed(seed, z_dim, device):
    """[1, z_dim] float32."""
    if not 0 <= seed < 2**32:
        raise UserError(f"seeds must lie between 0 and {2**32 - 1} (got {seed}); choose a smaller one")
    # Rounded on the CPU: some devices lack float64.
    return torch.from_numpy(np.random.RandomState(seed).randn(1, z_dim).astype(np.float32)).to(device)


def label_of_class(generator, class_index, device):
    """[1, c_dim] one-hot label of --class; [1, 0] for a network without classes."""
    classes = generator.c_dim
    if classes == 0:
        if class_index is not None:
            raise UserError(f"--class={class_index} was given, but this network was trained without classes; leave --class out")
        return torch.zeros([1, 0], device=device)
    if class_index is None:
        raise UserError(f"this network draws one of {classes} classes; say which with --class=0 ... --class={classes - 1}")
    if not 0 <= class_index < classes:
        raise UserError(f"--class must lie between 0 and {classes - 1} for this network (got {class_index})")
    label = torch.zeros([1, classes], device=device)
    label[:, class_index] = 1
    return label


def to_pixels(images):
    """Images [N,C,H,W] in [-1, 1] -> uint8 [N,H,W,C]."""
    return (images.permute(0, 2, 3, 1) * 127.5 + 128).clamp(0, 255).to(torch.uint8).cpu().numpy()


def save_png(pixels, path):
    """Write uint8 pixels [H,W,C] with one or three channels."""
    if pixels.shape[2] not in (1, 3):
        raise UserError(f"{path}: a picture has 1 or 3 channels, but this network draws {pixels.shape[2]}")
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, format="PNG")
    files.atomic_write_bytes(path, buffer.getvalue())
