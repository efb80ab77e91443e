"""Perceptual path length (Karras et al. 2018, section 4.1; 2019, section 3): how far images move per step in latent space.

ppl = E |f(G(t)) - f(G(t + eps))|^2 / eps^2, f the LPIPS features of VGG16, the outliers at both ends left out.
"""

import functools

import numpy as np
import torch

from madr_spaces import sampling
from metrics import kernels, metric_utils
from metrics.detectors import VGG16_URL, detector_facts, run_detector
from metrics.metric import Group, Metric, Reals

_MAPPING_KWARGS = ("truncation_psi", "truncation_cutoff")
_DETECTOR_KWARGS = dict(resize_images=False, return_lpips=True)
_DETECTOR_SIZE = 256


def slerp(a, b, t):
    """Spherical interpolation of the directions of a and b [..., D] (2018, appendix); unit length, arc share t."""
    a = a / a.norm(dim=-1, keepdim=True)
    b = b / b.norm(dim=-1, keepdim=True)
    cosine = (a * b).sum(dim=-1, keepdim=True)
    tangent = b - cosine * a
    tangent = tangent / tangent.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    angle = t * torch.acos(cosine.clamp(-1, 1))
    direction = a * torch.cos(angle) + tangent * torch.sin(angle)
    return direction / direction.norm(dim=-1, keepdim=True)


class PPLSampler(torch.nn.Module):
    """Draws paths and measures them: forward(c) -> one squared distance per eps^2 for each label.

    space: 'z' (slerp of the inputs) or 'w' (straight line between mapped latents). sampling: 'full' (anywhere on the path) or
    'end' (at its start). crop: only the centre that the 2018 paper measured faces in. Draws from torch's own generator.
    """

    def __init__(self, G, G_kwargs, epsilon, space, sampling, crop, vgg16):
        assert space in ["z", "w"] and sampling in ["full", "end"]
        super().__init__()
        self.G = G
        self.G_kwargs = G_kwargs
        self.epsilon = epsilon
        self.space = space
        self.sampling = sampling
        self.crop = crop
        self.vgg16 = vgg16

    def forward(self, c):
        z = torch.randn([2, len(c), self.G.z_dim], device=c.device)
        return self.measure(z[0], z[1], c)

    def measure(self, z_from, z_to, c):
        """The same for given ends of the paths."""
        t = torch.rand([len(c)], device=c.device) * (1 if self.sampling == "full" else 0)
        self._renew_fixed_noise()
        images = self._images(self._path_points(z_from, z_to, c, t))
        images = self._as_detector_input(images)
        near, far = self.vgg16(images, **_DETECTOR_KWARGS).chunk(2)
        return (near - far).square().sum(dim=1) / self.epsilon**2

    def _map(self, z, c):
        kwargs = {key: value for key, value in self.G_kwargs.items() if key in _MAPPING_KWARGS}
        return self.G.mapping(z=z, c=c, **kwargs)

    def _path_points(self, z_from, z_to, c, t):
        """ws at t and at t + eps, one after the other: [2 N, num_ws, w_dim]."""
        steps = torch.cat([t, t + self.epsilon])
        if self.space == "w":
            w_from, w_to = self._map(torch.cat([z_from, z_to]), torch.cat([c, c])).chunk(2)
            return torch.cat([w_from, w_from]).lerp(torch.cat([w_to, w_to]), steps[:, None, None])
        z = slerp(torch.cat([z_from, z_from]), torch.cat([z_to, z_to]), steps[:, None])
        return self._map(z, torch.cat([c, c]))

    def _renew_fixed_noise(self):
        # Both ends of a step must see one noise image, but not all paths the same one.
        for name, buffer in self.G.named_buffers():
            if name.endswith("noise_const"):
                buffer.copy_(torch.randn_like(buffer))

    def _images(self, ws):
        kwargs = {key: value for key, value in self.G_kwargs.items() if key not in (*_MAPPING_KWARGS, "noise_mode", "force_fp32")}
        return self.G.synthesis(ws=ws, noise_mode="const", force_fp32=True, **kwargs)

    def _as_detector_input(self, images):
        """Float images in [0, 255] of at most 256 pixels, three channels."""
        if self.crop:
            assert images.shape[2] == images.shape[3]
            eighth = images.shape[2] // 8
            images = images[:, :, 3 * eighth : 7 * eighth, 2 * eighth : 6 * eighth]
        factor = self.G.img_resolution // _DETECTOR_SIZE
        if factor > 1:
            images = torch.nn.functional.avg_pool2d(images, factor)
        images = (images + 1) * (255 / 2)
        return images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images


class _CheckedDetector(torch.nn.Module):
    """A detector whose faults are told in sentences."""

    def __init__(self, detector, source):
        super().__init__()
        self.detector, self.source = detector, source

    def forward(self, images, **kwargs):
        return run_detector(self.detector, self.source, images, kwargs)


def compute_ppl(opts, num_samples, epsilon, space, sampling, crop, batch_size, jit=False):
    """The trimmed mean of num_samples path steps. jit is accepted and ignored, as in metric_utils."""
    num_samples = opts.num_gen if opts.num_gen is not None else num_samples
    batch_size = opts.batch_size or batch_size
    vgg16, source = opts.detector(VGG16_URL)
    metric_utils.record_sampling(opts, num_samples, batch_size)
    opts.record(
        detector=dict(
            detector_facts(source, _DETECTOR_KWARGS),
            input="float in [0, 255], not resized by the detector",
            resize_filter=f"box, to {_DETECTOR_SIZE} pixels; smaller images stay",
        ),
        epsilon=epsilon,
        space=space,
        sampling=sampling,
        crop=crop,
        noise_mode="const",
        trimmed_percent=[1, 99],
    )
    sampler = PPLSampler(
        metric_utils.frozen_copy(opts.G, opts.device), opts.G_kwargs, epsilon, space, sampling, crop, _CheckedDetector(vgg16, source)
    )
    distances = _sample_distances(opts, sampler, num_samples, batch_size)
    return kernels.trimmed_mean(distances) if opts.rank == 0 else float("nan")


def _sample_distances(opts, sampler, num_samples, batch_size):
    """Path i has ends z_2i and z_2i+1 of the seed's latents; everything else follows (seed, global batch)."""
    labels = metric_utils.LabelSource(opts)
    stats = metric_utils.FeatureStats(capture_all=True, max_items=num_samples)
    progress = opts.progress.sub(tag="path length", num_items=num_samples)
    for first_round in range(0, num_samples, batch_size * opts.num_gpus):
        first = first_round + opts.rank * batch_size
        z = torch.from_numpy(sampling.latents(opts.seed, 2 * first, 2 * batch_size, sampler.G.z_dim)).to(opts.device)
        with torch.no_grad(), sampling.noise(opts.device, opts.seed, first // batch_size):
            distances = sampler.measure(z[0::2], z[1::2], labels.take(first, batch_size))
        stats.append_torch(distances[:, None], num_gpus=opts.num_gpus, rank=opts.rank)
        progress.update(stats.num_items)
    return np.squeeze(stats.get_all(), axis=1)


def _ppl(space, sampling, crop):
    def function(opts, name, **counts):
        return {name: compute_ppl(opts, epsilon=1e-4, space=space, sampling=sampling, crop=crop, batch_size=2, **counts)}

    return function


def _older(space, sampling):
    meaning = f"Perceptual path length in {space}, {'along whole paths' if sampling == 'full' else 'at the ends of the paths'}, cropped to the middle"
    return _PPL(f"ppl_{space}{sampling}", _ppl(space, sampling, crop=True), meaning, Group.OLDER, reals=Reals.AS_TRAINED)


_PPL = functools.partial(Metric, counts=dict(num_samples=50_000), detector="vgg16", higher_is_better=False, compares_with_reals=False)
METRICS = [
    _PPL(
        "ppl2_wend", _ppl("w", "end", crop=False), "Perceptual path length in w, at the ends of the paths", Group.RECOMMENDED, reals=Reals.AS_TRAINED
    ),
    *(_older(space, sampling) for sampling in ("full", "end") for space in ("z", "w")),
]
