"""Find the latent of a picture: StyleGAN2 (arXiv:1912.04958), appendix D, 'Projection of images to latent space'.

The method alone. Must not know files or the command line.
"""

import copy
import math
import time

import numpy as np
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from training.drawing import labels
from training.drawing.options import check_num_steps

# --- Distances: functions from images [N,C,H,W] in [0, 255] to features [N,F]; the distance is the squared difference. ---


def pixel_features(images):
    """Multi-scale L2: the distance is the mean over scales (halved down to 4 pixels) of the mean squared difference."""
    images = images / 127.5
    scales = [images]
    while min(scales[-1].shape[2:]) >= 8:
        scales.append(F.avg_pool2d(scales[-1], 2))
    return torch.cat([scale.flatten(1) / math.sqrt(scale[0].numel() * len(scales)) for scale in scales], dim=1)


# --- The method. ---


def learning_rate(progress, initial, rampdown, rampup):
    """Linear rise in the first share `rampup` of the steps, cosine fall in the last share `rampdown`; progress in [0, 1)."""
    fall = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1 - progress) / rampdown))
    return initial * fall * min(1.0, progress / rampup)


def noise_correlation(noise):
    """Sum over scales of the squared correlation of a noise map [H,W] with itself, shifted by one pixel along each axis.

    Appendix D: signal that hides in the noise shows as correlation. Halving the size averages 2x2 pixels times 2, which
    keeps the variance of white noise.
    """
    level, total = noise[None, None], 0
    while True:
        for axis in (2, 3):
            total = total + (level * level.roll(1, dims=axis)).mean().square()
        if level.shape[2] <= 8:
            return total
        level = F.avg_pool2d(level, 2) * 2


def latent_statistics(G, c, num_samples, device):
    """Centre [1, 1, w_dim] of the intermediate latents, and the square root of their mean squared distance from it."""
    z = np.random.RandomState(123).randn(num_samples, G.z_dim).astype(np.float32)
    with torch.no_grad():
        w = torch.cat([G.mapping(part.to(device), c.expand(len(part), -1))[:, :1] for part in torch.from_numpy(z).split(1000)])
        w_avg = w.mean(dim=0, keepdim=True)
        return w_avg, (w - w_avg).square().sum(dim=(1, 2)).mean().sqrt()


class _NoiseMaps:
    """The constant noise inputs of a generator, to be optimised along with the latent and kept like noise."""

    def __init__(self, G, generator):
        self.maps = [buffer for name, buffer in G.synthesis.named_buffers() if name.endswith("noise_const")]
        for noise in self.maps:
            noise.copy_(torch.randn(noise.shape, generator=generator).to(noise.device))
            noise.requires_grad_(True)

    def correlation(self):
        return sum(noise_correlation(noise) for noise in self.maps) if self.maps else 0

    @torch.no_grad()
    def normalize(self):
        """Mean 0 and variance 1 again, so that a step cannot trade contrast for correlation."""
        for noise in self.maps:
            noise -= noise.mean()
            noise *= noise.square().mean().clamp(min=1e-12).rsqrt()


def project(
    G,
    target,
    features,
    *,
    num_steps=1000,
    w_avg_samples=10000,
    initial_learning_rate=0.1,
    initial_noise_factor=0.05,
    lr_rampdown_length=0.25,
    lr_rampup_length=0.05,
    noise_ramp_length=0.75,
    regularize_noise_weight=1e5,
    c=None,
    seed=303,
    verbose=False,
    device="cpu",
    found=None,
):
    """The latents found on the way, [num_steps, num_ws, w_dim]; the last one is the result.

    target: [C,H,W] in [0, 255], of the size that G draws. features: a distance, see above. c: [1, c_dim] label,
    needed if G has classes. All randomness comes from `seed`. found: a list that takes each step's latent [1, w_dim], for whoever
    may be interrupted.
    """
    device = torch.device(device)
    _check(G, target, num_steps)
    G = copy.deepcopy(G).eval().requires_grad_(False).to(device)  # Its noise maps are going to change.
    c = labels.choose_one(G, None, device=device).vector if c is None else c.to(device)
    generator = torch.Generator().manual_seed(seed)

    w_avg, w_std = latent_statistics(G, c, w_avg_samples, device)
    if verbose:
        print(f"Spread of the latents from {w_avg_samples} samples: {w_std.item():.3f}", flush=True)
    noise_maps = _NoiseMaps(G, generator)
    with torch.no_grad():
        target_features = features(target.to(device, torch.float32)[None])
    w = w_avg.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w, *noise_maps.maps], lr=initial_learning_rate, betas=(0.9, 0.999))

    trajectory, started = [] if found is None else found, time.perf_counter()
    for step in range(num_steps):
        progress = step / num_steps
        optimizer.param_groups[0]["lr"] = learning_rate(progress, initial_learning_rate, lr_rampdown_length, lr_rampup_length)
        # Noise on the latent explores at first and dies away.
        spread = w_std * initial_noise_factor * max(0.0, 1 - progress / noise_ramp_length) ** 2
        ws = w + torch.randn(w.shape, generator=generator).to(device) * spread
        images = G.synthesis(ws.expand(-1, G.num_ws, -1), noise_mode="const") * 127.5 + 128
        distance = (features(images) - target_features).square().sum()
        loss = distance + regularize_noise_weight * noise_maps.correlation()

        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        noise_maps.normalize()
        trajectory.append(w.detach()[0].clone())
        if step % max(num_steps // 20, 1) == 0 or step == num_steps - 1:  # Not every step: reading a number waits for the device.
            _report(step, num_steps, distance.item(), loss.item(), started, verbose)
    return whole_latents(trajectory, G.num_ws)


def whole_latents(trajectory, num_ws):
    """[steps, num_ws, w_dim] of the steps' latents [1, w_dim]: every layer gets the same one."""
    return torch.stack(trajectory).expand(-1, num_ws, -1).clone()


def _check(G, target, num_steps):
    expected = (G.img_channels, G.img_resolution, G.img_resolution)
    if tuple(target.shape) != expected:
        raise UserError(f"The target must have the shape {list(expected)} that the network draws (got {list(target.shape)}); resize it first")
    check_num_steps(num_steps)


def _report(step, num_steps, distance, loss, started, verbose):
    if not math.isfinite(loss):
        raise UserError(f"The projection went astray at step {step + 1} (loss {loss}); try another --seed, or check --network with generate.py.")
    if not verbose:
        return
    elapsed_sec = time.perf_counter() - started
    left_sec = elapsed_sec / (step + 1) * (num_steps - step - 1)
    print(f"step {step + 1:>4d}/{num_steps}  distance {distance:<8.4f} loss {loss:<9.3f} {elapsed_sec:.0f} s, {left_sec:.0f} s to go", flush=True)
