"""Find the latent of a picture: StyleGAN2 (arXiv:1912.04958), appendix D, 'Projection of images to latent space'.

`project` is the method and can be imported; the rest reads the target and writes the results.
"""

import copy
import importlib.util
import io
import math
import os
import time

import click
import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F

from dnnlib import cli, files
from dnnlib.errors import UserError
from torch_utils import devices
from training import pictures

VIDEO_FRAMES_PER_SEC = 10


# --- Distances: functions from images [N,C,H,W] in [0, 255] to features [N,F]; the distance is the squared difference. ---


def vgg16_features(path=None, device="cpu", verbose=False):
    """The perceptual distance LPIPS with VGG16, on images of at most 256 pixels. path: the TorchScript file, if it is local."""
    from metrics import detectors  # Only here: the pixel distance needs nothing of the metrics.

    source = detectors.find_detector(detectors.VGG16_URL, {"vgg16": path} if path else None, verbose=verbose)
    detector = detectors.load_detector(source, torch.device(device))
    for parameter in detector.parameters():
        parameter.requires_grad_(False)

    def features(images):
        if images.shape[2] > 256:
            images = F.interpolate(images, size=(256, 256), mode="area")
        return detectors.run_detector(detector, source, images, dict(resize_images=False, return_lpips=True))

    return features


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
    *,
    num_steps=1000,
    w_avg_samples=10000,
    initial_learning_rate=0.1,
    initial_noise_factor=0.05,
    lr_rampdown_length=0.25,
    lr_rampup_length=0.05,
    noise_ramp_length=0.75,
    regularize_noise_weight=1e5,
    features=None,
    c=None,
    seed=303,
    verbose=False,
    device="cpu",
):
    """The latents found on the way, [num_steps, num_ws, w_dim]; the last one is the result.

    target: [C,H,W] in [0, 255], of the size that G draws. features: see above; VGG16 if not given. c: [1, c_dim] label,
    needed if G has classes. All randomness comes from `seed`.
    """
    device = torch.device(device)
    _check(G, target, num_steps)
    G = copy.deepcopy(G).eval().requires_grad_(False).to(device)  # Its noise maps are going to change.
    c = pictures.label_of_class(G, None, device) if c is None else c.to(device)
    features = features or vgg16_features(device=device)
    generator = torch.Generator().manual_seed(seed)

    w_avg, w_std = latent_statistics(G, c, w_avg_samples, device)
    if verbose:
        print(f"Spread of the latents from {w_avg_samples} samples: {w_std.item():.3f}", flush=True)
    noise_maps = _NoiseMaps(G, generator)
    with torch.no_grad():
        target_features = features(target.to(device, torch.float32)[None])
    w = w_avg.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([w, *noise_maps.maps], lr=initial_learning_rate, betas=(0.9, 0.999))

    trajectory, started = [], time.perf_counter()
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
    return torch.stack(trajectory).expand(-1, G.num_ws, -1).clone()


def _check(G, target, num_steps):
    expected = (G.img_channels, G.img_resolution, G.img_resolution)
    if tuple(target.shape) != expected:
        raise UserError(f"The target must have the shape {list(expected)} that the network draws (got {list(target.shape)}); resize it first")
    check_num_steps(num_steps)


def check_num_steps(num_steps):
    if num_steps < 1:
        raise UserError(f"--num-steps must be at least 1 (got {num_steps}); the default is 1000")


def _report(step, num_steps, distance, loss, started, verbose):
    if not math.isfinite(loss):
        raise UserError(f"The projection went astray at step {step + 1} (loss {loss}); try another --seed, or check --network with generate.py.")
    if not verbose:
        return
    elapsed_sec = time.perf_counter() - started
    left_sec = elapsed_sec / (step + 1) * (num_steps - step - 1)
    print(f"step {step + 1:>4d}/{num_steps}  distance {distance:<8.4f} loss {loss:<9.3f} {elapsed_sec:.0f} s, {left_sec:.0f} s to go", flush=True)


# --- Files. ---


def load_target(path, resolution, channels):
    """uint8 [H,W,C] of the network's size from any picture; says what it changed."""
    try:
        with PIL.Image.open(path) as opened:
            picture = PIL.ImageOps.exif_transpose(opened)
            if picture.mode[0] in "IF":  # Converting would clip them to white.
                raise UserError(f"--target={path} has more than 8 bits per pixel; save it with 8 bits per channel")
            if picture.mode in ("LA", "PA", "RGBA") or "transparency" in picture.info:
                print(f"{path}: transparency is ignored.")
            picture = picture.convert("L" if channels == 1 else "RGB")
    except OSError as error:  # Missing, not a picture, cut short.
        reason = error.strerror or "not a picture that can be read"
        raise UserError(f"--target={path} cannot be opened ({reason}); give a PNG or JPEG picture") from error
    except (SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:
        raise UserError(f"--target={path} cannot be read ({error}); give a PNG or JPEG picture") from error
    width, height = picture.size
    if width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        print(f"{path}: {width}x{height} is not square; using the {side}x{side} in the middle.")
    if picture.size != (resolution, resolution):
        print(f"{path}: resized from {picture.size[0]}x{picture.size[1]} to the network's {resolution}x{resolution}.")
        picture = picture.resize((resolution, resolution), PIL.Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8).reshape(resolution, resolution, channels)


def missing_video_packages():
    """Names of the optional packages that the video needs and that are not installed."""
    return [name for module, name in (("imageio", "imageio"), ("imageio_ffmpeg", "imageio-ffmpeg")) if importlib.util.find_spec(module) is None]


def write_video(generator, trajectory, target_pixels, path):
    """proj.mp4: the target at the left, the picture of each step's latent at the right."""
    import imageio  # Optional; see missing_video_packages.

    # The encoder wants a file of its own with the right ending; the finished video is renamed.
    partial = f"{os.path.splitext(path)[0]}.partial.mp4"
    try:
        with imageio.get_writer(partial, mode="I", fps=VIDEO_FRAMES_PER_SEC, codec="libx264", bitrate="16M", macro_block_size=2) as video:
            for ws in trajectory:
                with torch.no_grad():
                    drawn = pictures.to_pixels(generator.synthesis(ws[None], noise_mode="const"))[0]
                frame = np.concatenate([target_pixels, drawn], axis=1)
                video.append_data(np.repeat(frame, 3, axis=2) if frame.shape[2] == 1 else frame)
        os.replace(partial, path)
    finally:
        if os.path.exists(partial):
            os.unlink(partial)


def _decide_on_video(wanted, explicit):
    """Whether to write the video; asks for the missing packages in a sentence."""
    missing = missing_video_packages() if wanted else []
    if not missing:
        return wanted
    cure = f"the video needs {' and '.join(missing)}: pip install {' '.join(missing)}"
    if explicit:
        raise UserError(f"--save-video=true: {cure}, or use --save-video=false")
    print(f"Going on without proj.mp4; {cure}")
    return False


def _choose_features(distance, detectors, device):
    detectors = dict(detectors)
    unknown = sorted(set(detectors) - {"vgg16"})
    if unknown:
        raise UserError(f"--detector={unknown[0]}=...: the projector uses vgg16 only; write --detector=vgg16=PATH")
    if distance == "pixel":
        print("Distance: pixel (multi-scale L2; needs no download, matches colours and layout better than texture).")
        return pixel_features
    print("Distance: vgg16 (perceptual, LPIPS).", flush=True)
    return vgg16_features(detectors.get("vgg16"), device, verbose=True)


@click.command()
@click.option("--network", help="Network pickle: path or URL", required=True)
@click.option("--target", help="The picture to look for; cropped to a square and resized if need be", required=True, metavar="FILE")
@click.option("--num-steps", type=int, default=1000, show_default=True, help="Optimisation steps")
@click.option("--seed", type=int, default=303, show_default=True, help="Seed of all randomness")
@click.option("--save-video", type=bool, default=True, show_default=True, help="Write proj.mp4, the way to the result")
@click.option(
    "--distance",
    type=click.Choice(["vgg16", "pixel"]),
    default="vgg16",
    show_default=True,
    help="vgg16: perceptual, needs a network of 60 MB once; pixel: multi-scale L2, needs nothing",
)
@click.option("--detector", "detectors", type=cli.NamedPath(), multiple=True, metavar="vgg16=PATH", help="Local file of the VGG16 TorchScript")
@click.option("--class", "class_index", type=int, help="Class of the target, counted from 0; needed if the network has classes")
@click.option("--outdir", required=True, metavar="DIR", help="Where target.png, proj.png, projected_w.npz and proj.mp4 go")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, network, target, num_steps, seed, save_video, distance, detectors, class_index, outdir, device, trust_pickle):
    """Find the latent whose picture is closest to a target.

    \b
    projector.py --network=run/network-snapshot-000200.pkl --target=face.png --outdir=proj
    projector.py --network=run/network-snapshot-000200.pkl --target=face.png --outdir=proj --distance=pixel --num-steps=300
    generate.py --network=run/network-snapshot-000200.pkl --projected-w=proj/projected_w.npz --outdir=out
    """
    check_num_steps(num_steps)
    device = devices.resolve(device)
    explicit = ctx.get_parameter_source("save_video") is not click.core.ParameterSource.DEFAULT
    with_video = _decide_on_video(save_video, explicit)
    pictures.prepare_outdir(outdir)
    generator = pictures.open_generator(network, device, trust=trust_pickle)
    label = pictures.label_of_class(generator, class_index, device)
    target_pixels = load_target(target, generator.img_resolution, generator.img_channels)
    features = _choose_features(distance, detectors, device)

    started = time.perf_counter()
    trajectory = project(
        generator,
        torch.from_numpy(target_pixels.transpose(2, 0, 1).copy()),
        num_steps=num_steps,
        features=features,
        c=label,
        seed=seed,
        verbose=True,
        device=device,
    )
    print(f"Projected in {time.perf_counter() - started:.1f} s.")

    pictures.save_png(target_pixels, os.path.join(outdir, "target.png"))
    with torch.no_grad():
        drawn = pictures.to_pixels(generator.synthesis(trajectory[-1:], noise_mode="const"))[0]
    pictures.save_png(drawn, os.path.join(outdir, "proj.png"))
    buffer = io.BytesIO()
    np.savez(buffer, w=trajectory[-1:].cpu().numpy())
    files.atomic_write_bytes(os.path.join(outdir, "projected_w.npz"), buffer.getvalue())
    if with_video:
        print("Writing proj.mp4...", flush=True)
        write_video(generator, trajectory, target_pixels, os.path.join(outdir, "proj.mp4"))
    print(f"target.png, proj.png, projected_w.npz{' and proj.mp4' if with_video else ''} in {outdir}.")


if __name__ == "__main__":
    cli.run(main)
