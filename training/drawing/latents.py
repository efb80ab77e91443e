"""Latents of seeds and of projected pictures, and the way from one to the next.

Must not know files other than projector.py's, nor what becomes of the pictures.
"""

import zipfile
import zlib
from dataclasses import dataclass

import numpy as np
import torch

from dnnlib.errors import UserError
from training import pictures


def load_projected_w(path, num_ws, w_dim, flag="--projected-w"):
    """Latents [N, num_ws, w_dim] float32 from the `w` of an .npz file, as projector.py writes it."""
    remedy = "give the projected_w.npz that projector.py wrote"
    try:
        content = np.load(path)
        if isinstance(content, np.ndarray):
            raise UserError(f"{flag}={path} is one bare array and not an .npz file; {remedy}")
        with content:
            if "w" not in content.files:
                raise UserError(f"{flag}={path} holds no array named 'w'; {remedy}")
            ws = content["w"]
    except OSError as error:
        raise UserError(f"{flag}={path} cannot be read ({error.strerror or error}); {remedy}") from error
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{flag}={path} is not an .npz file of numbers; {remedy}") from error
    if ws.ndim == 2:
        ws = ws[None]
    if ws.ndim != 3 or ws.shape[1:] != (num_ws, w_dim) or len(ws) == 0:
        raise UserError(
            f"{flag}={path} has the shape {list(ws.shape)}, but this network takes [any number, {num_ws}, {w_dim}]; "
            "project the picture with the same network"
        )
    if not (np.issubdtype(ws.dtype, np.number) and np.isfinite(ws).all()):
        raise UserError(f"{flag}={path} holds values that are not finite numbers; project the picture again")
    return torch.from_numpy(ws.astype(np.float32))


@dataclass(frozen=True)
class Stop:
    """A picture that a way leads through: a latent `w` [1, num_ws, w_dim], or a seed's z [1, z_dim] with a label [1, c_dim]."""

    text: str
    w: torch.Tensor | None = None
    z: torch.Tensor | None = None
    label: torch.Tensor | None = None


def stops_of_ws(ws, texts, device):
    """One Stop for each latent [num_ws, w_dim]."""
    return [Stop(text, w=w[None].to(device)) for text, w in zip(texts, ws)]


def stops_of_seeds(seeds, choices, z_dim, device):
    """Seeds with one label, one seed with several labels, or as many of one as of the other, in pairs."""
    if len(seeds) > 1 and len(choices) > 1 and len(seeds) != len(choices):
        raise UserError(
            f"the video has {len(seeds)} seeds and {len(choices)} labels, which cannot be paired; give as many of one as of the other, or one seed or one label"
        )
    num = max(len(seeds), len(choices))
    seeds, choices = (list(many) * (num if len(many) == 1 else 1) for many in (seeds, choices))
    return [
        Stop(", ".join(filter(None, [f"seed {seed}", choice.text])), z=pictures.latent_of_seed(seed, z_dim, device), label=choice.vector)
        for seed, choice in zip(seeds, choices)
    ]


def num_frames_of_way(num_stops, num_between, is_loop):
    """`num_between` frames from each stop to the next, the stop itself among them; the last stop is shown too, unless it leads back."""
    return num_between * num_stops if is_loop else num_between * (num_stops - 1) + 1


@torch.no_grad()
def way_through(generator, stops, num_between, *, is_loop=False, blends_labels=False, truncation_psi=1.0):
    """Yield latents [1, num_ws, w_dim], straight lines from stop to stop; every stop is met exactly.

    blends_labels: between two labels the network is asked for the labels in between, which it knows where labels are numbers of one
    scale. Between classes there is none; there the line lies in the space of w.
    """

    def latent(stop, label):
        return stop.w if stop.w is not None else generator.mapping(stop.z, label, truncation_psi=truncation_psi)

    ends = [*stops, stops[0]] if is_loop else stops
    here = latent(ends[0], ends[0].label)
    for begin, end in zip(ends, ends[1:]):
        there = latent(end, end.label)
        has_labels_between = blends_labels and begin.z is not None and end.z is not None and not torch.equal(begin.label, end.label)
        for step in range(num_between):
            share = step / num_between
            if has_labels_between and step > 0:
                label = torch.lerp(begin.label, end.label, share)
                yield torch.lerp(latent(begin, label), latent(end, label), share)
            else:
                yield torch.lerp(here, there, share)
        here = there
    if not is_loop:
        yield here
