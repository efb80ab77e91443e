"""Trains the encoder of the feature space `own` without labels.

Two mild views of an image shall lie closer together than any two images (normalised temperature-scaled cross entropy).
"""

import contextlib
import json
import os
import time
from pathlib import Path

import torch

from madr_plugin.base import view
from madr_plugin.base.progress import Progress
from madr_spaces import own, weights as weight_files
from madr_spaces.distances import pairwise_distances, quantile_of_sorted
from madr_spaces.errors import MADRError
from madr_spaces.images import data_fingerprint, image_fingerprint
from madr_spaces.pca import PCASpace
from madr_spaces.seeds import generator_for

LINE_SEC = 30  # between two lines on the training's progress, at most
LARGEST_SIDE = 128  # images are kept at this side at most: the encoder sees 32 pixels of them, the views a little more


def contrastive_loss(first_BD, second_BD, temperature=0.2):
    """-mean log softmax_j(cos(a_i, b_j) / t)_i, in both directions: every other image of the batch is a negative."""
    first_BD, second_BD = (torch.nn.functional.normalize(x, dim=1, eps=1e-6) for x in (first_BD, second_BD))
    logits_BB = first_BD @ second_BD.T / temperature
    target_B = torch.arange(len(logits_BB), device=logits_BB.device)
    return (torch.nn.functional.cross_entropy(logits_BB, target_B) + torch.nn.functional.cross_entropy(logits_BB.T, target_B)) / 2


def mild_view(images, generator, flip):
    """Crop to 7/8, shift by 1/8 (and a flip if asked), other contrast and brightness, a little noise."""
    x = view.apply(images, ("flip", "shift", "crop") if flip else ("shift", "crop"), generator)
    contrast, brightness = torch.rand([2, len(x), 1, 1, 1], generator=generator).to(x.device)
    noise = torch.randn(x.shape, generator=generator).to(x.device)
    return x * (0.7 + 0.6 * contrast) + 0.4 * (brightness - 0.5) + 0.05 * noise


def train(images, width, steps, batch_size, seed, flip=False, announce=print):
    """images [N, C, H, W] in [-1, 1], on the device of choice -> {name: tensor}: encoder, its scale, and the PCA."""
    weights = {
        name: value.to(images.device).requires_grad_()
        for name, value in own.initial_weights(images.shape[1], width, generator_for("own-weights", seed)).items()
    }
    opt = torch.optim.AdamW(weights.values(), lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(opt, 2e-3, total_steps=steps + 1)
    generator, start = generator_for("own-batches", seed), time.monotonic()
    spoken = start
    with Progress("steps", steps, announce=len) as told:  # a bar alone: the lines here say more
        for step in range(steps):
            batch = images[torch.randperm(len(images), generator=generator)[:batch_size].to(images.device)]
            loss = contrastive_loss(*(own.encode(mild_view(batch, generator, flip), weights) for _ in range(2)))
            opt.zero_grad(set_to_none=True)
            loss.backward()
            opt.step()
            schedule.step()
            if step == 0 or (step + 1) % max(steps // 5, 1) == 0 or time.monotonic() - spoken > LINE_SEC:
                spoken = time.monotonic()
                announce(f"step {step + 1:5d} / {steps}  loss {float(loss.detach()):.3f}  {time.monotonic() - start:.0f} s")
            told()
    return _finished({name: value.detach() for name, value in weights.items()}, images, seed)


@torch.no_grad()
def _finished(weights, images, seed):
    """Add the PCA and the median real distance of the encoder's features."""
    sample = images[:4096]
    features_ND = torch.cat([own.encode(part, weights) for part in sample.split(256)])
    scale = quantile_of_sorted(pairwise_distances(features_ND, generator_for("own-scale", seed)), 0.5)
    if not torch.isfinite(scale) or float(scale) <= 0:
        raise MADRError("the encoder gives more than half of the images the same features; remove duplicates, or use fewer --steps")
    pca = PCASpace(images.shape[1:], 64, seed).to(images.device)
    pca.fit(sample)
    tensors = {**weights, "scale": scale, **{f"pca.{name}": value for name, value in pca.state_dict().items()}}
    return {name: value.cpu().contiguous() for name, value in tensors.items()}


def save(path, tensors, dataset):
    """Write the file atomically, with the fingerprints of the data that it was trained on."""
    about = dict(
        format=own.FORMAT,
        image_shape=list(map(int, dataset.image_shape)),
        pca_width=tensors["pca.basis_PD"].shape[1],
        data_fingerprint=data_fingerprint(dataset),
        image_fingerprint=image_fingerprint(dataset),
    )
    temporary = _beside(path)
    try:
        weight_files.import_safetensors().torch.save_file(tensors, temporary, metadata=dict(madr=json.dumps(about)))
        os.replace(temporary, path)
    except Exception as error:  # the library's own errors are neither OSError nor ValueError
        raise MADRError(f"cannot write {path} ({error}); make room, or name another place") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def check_writable(path):
    """Refuse before hours of training what could not be written after them."""
    temporary = _beside(path)
    try:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(b"")
        temporary.unlink()
    except OSError as error:
        raise MADRError(f"cannot write {path} ({error.strerror}); name another place") from error


def _beside(path):
    return Path(path).with_name(f"{Path(path).name}.{os.getpid()}.tmp")
