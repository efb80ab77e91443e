"""Find the latent of a picture, and write it with its picture and a video of the way to it. The method is in training/drawing/projection.py."""

import io
import os
import time

import click
import numpy as np
import PIL.Image

from dnnlib import cli, console, files
from dnnlib.errors import UserError
from training.drawing import video
from training.drawing.options import check_noise_seed, check_num_steps, label_options, network_option

VIDEO_FRAMES_PER_SEC = 10


def __getattr__(name):
    """The parts of the method, which need torch, only when they are asked for."""
    if name.startswith("__"):
        raise AttributeError(name)
    from training.drawing import projection

    return getattr(projection, name)


def vgg16_features(path=None, device="cpu", verbose=False):
    """The perceptual distance LPIPS with VGG16, on images of at most 256 pixels. path: the TorchScript file, if it is local."""
    import torch

    from metrics import detectors  # Only here: the pixel distance needs nothing of the metrics.

    otherwise = "--distance=pixel, which needs no file"
    source = detectors.find_detector(detectors.VGG16_URL, {"vgg16": path} if path else None, verbose=verbose, otherwise=otherwise)
    detector = detectors.load_detector(source, torch.device(device))
    for parameter in detector.parameters():
        parameter.requires_grad_(False)

    def features(images):
        if images.shape[2] > 256:
            images = torch.nn.functional.interpolate(images, size=(256, 256), mode="area")
        return detectors.run_detector(detector, source, images, dict(resize_images=False, return_lpips=True))

    return features


def project(G, target, *, features=None, device="cpu", **options):
    """The latents found on the way, [num_steps, num_ws, w_dim]; see projection.project. features: VGG16 if not given."""
    from training.drawing import projection

    return projection.project(G, target, features or vgg16_features(device=device), device=device, **options)


def load_target(path, resolution, channels):
    """uint8 [H,W,C] of the network's size from any picture, judged and mended as dataset_tool.py --fix does it; says what it changed."""
    return _fitted(path, *_mended_pixels(path), resolution, channels)


def _fitted(path, pixels, notes, resolution, channels):
    for text in notes:
        console.note(text)
    picture = PIL.Image.fromarray(pixels).convert("L" if channels == 1 else "RGB")
    width, height = picture.size
    if width != height:
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        picture = picture.crop((left, top, left + side, top + side))
        console.note(f"{path}: {width}x{height} is not square; using the {side}x{side} in the middle.")
    if picture.size != (resolution, resolution):
        console.note(f"{path}: resized from {picture.size[0]}x{picture.size[1]} to the network's {resolution}x{resolution}.")
        picture = picture.resize((resolution, resolution), PIL.Image.Resampling.LANCZOS)
    return np.asarray(picture, dtype=np.uint8).reshape(resolution, resolution, channels)


def _mended_pixels(path):
    """uint8 [H,W] or [H,W,3], and sentences of what was mended. One rule with the training data: else a transparent picture would be looked for on another background."""
    from training.data import image_check, sources

    try:
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise UserError(f"--target={path} cannot be opened ({error.strerror or error}); give a PNG or JPEG picture") from error
    pixels, faults = image_check.examine(sources.SourceImage(path, data=data))
    if any(fault.kind in ("16-bit", "float") for fault in faults):  # one picture does not tell the range that its numbers have
        raise UserError(
            f"--target={path} has more than 8 bits per channel, and one picture does not tell which range they fill. This puts the pictures of its "
            f"folder into 8 bits: dataset_tool.py --source={os.path.dirname(path) or '.'} --dest=PICTURES --range=LOW,HIGH --transform=center-crop "
            "--width=N --height=N (N: the network's size; the range of 12 bits is 0,4095, of 16 bits 0,65535, of fractions 0,1); then give the "
            "picture in PICTURES as --target"
        )
    if pixels is None:
        raise UserError(f"--target={path} cannot be read ({faults[-1].detail or faults[-1].kind}); give a whole PNG or JPEG picture")
    mends = [(fault.text(), image_check.FAULT_KINDS[fault.kind].mend) for fault in faults]
    return pixels, [f"{text}{f': {mend}, as by dataset_tool.py --fix' if mend else ''}." for text, mend in mends]


def missing_video_packages():
    """Names of the optional packages that the video needs and that are not installed."""
    return video.missing_packages()


def write_video(generator, trajectory, target_pixels, path):
    """proj.mp4: the target at the left, the picture of each step's latent at the right."""
    from training import pictures

    with video.open_mp4(path, VIDEO_FRAMES_PER_SEC) as mp4:
        for ws in trajectory:
            drawn = pictures.drawn_from_ws(generator, ws[None], [0])[0]
            mp4.add(np.concatenate([target_pixels, drawn], axis=1))


def _decide_on_video(wanted, explicit):
    """Whether to write the video; asks for the missing packages in a sentence."""
    missing = missing_video_packages() if wanted else []
    if not missing:
        return wanted
    cure = f"the video needs {' and '.join(missing)}: pip install {' '.join(missing)}"
    if explicit:
        raise UserError(f"--save-video=true: {cure}, or use --save-video=false")
    console.note(f"going on without proj.mp4; {cure}.")
    return False


def _choose_features(distance, detectors, device):
    from training.drawing import projection

    detectors = dict(detectors)
    unknown = sorted(set(detectors) - {"vgg16"})
    if unknown:
        raise UserError(f"--detector={unknown[0]}=...: the projector uses vgg16 only; write --detector=vgg16=PATH")
    if distance == "pixel":
        if detectors:
            console.note("--detector has no effect on --distance=pixel, which needs no file.")
        print("Distance: pixel (multi-scale L2; needs no download, matches colours and layout better than texture).")
        return projection.pixel_features
    print("Distance: vgg16 (perceptual, LPIPS).", flush=True)
    return vgg16_features(detectors.get("vgg16"), device, verbose=True)


def _write_results(generator, trajectory, target_pixels, outdir):
    """target.png, proj.png and projected_w.npz of the last latent of the trajectory."""
    from training import pictures

    drawn = {"target.png": target_pixels, "proj.png": pictures.drawn_from_ws(generator, trajectory[-1:], [0])[0]}
    pictures.tell_of_replaced(sum(pictures.save_png(pixels, os.path.join(outdir, name)) for name, pixels in drawn.items()), outdir)
    buffer = io.BytesIO()
    np.savez(buffer, w=trajectory[-1:].cpu().numpy())
    files.atomic_write_bytes(os.path.join(outdir, "projected_w.npz"), buffer.getvalue())


def _project(generator, target_pixels, outdir, **options):
    """The trajectory; after Ctrl-C the latent found so far is written before the program ends."""
    import torch

    from training.drawing import projection

    found = []
    target = torch.from_numpy(target_pixels.transpose(2, 0, 1).copy())
    try:
        return project(generator, target, found=found, verbose=True, **options)
    except KeyboardInterrupt:
        if found:
            _write_results(generator, projection.whole_latents(found, generator.num_ws), target_pixels, outdir)
            console.result(f"The latent after {len(found)} of {options['num_steps']} steps is in {outdir}.")
            raise
        raise KeyboardInterrupt("interrupted by Ctrl-C; no step was finished, and nothing is kept.") from None


@click.command()
@network_option
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
@label_options(several=False)
@click.option("--outdir", required=True, metavar="DIR", help="Where target.png, proj.png, projected_w.npz and proj.mp4 go")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, network, target, num_steps, seed, save_video, distance, detectors, class_text, label_vector, outdir, device, trust_pickle):
    """Find the latent whose picture is closest to a target.

    \b
    projector.py --network=run/network-snapshot-000200.pkl --target=face.png --outdir=proj
    projector.py --network=run/network-snapshot-000200.pkl --target=face.png --outdir=proj --distance=pixel --num-steps=300
    generate.py --network=run/network-snapshot-000200.pkl --projected-w=proj/projected_w.npz --outdir=out
    """
    check_num_steps(num_steps)
    check_noise_seed(seed)
    explicit = ctx.get_parameter_source("save_video") is not click.core.ParameterSource.DEFAULT
    with_video = _decide_on_video(save_video, explicit)

    from torch_utils import devices  # Only here: --help and a wrong flag need no torch.
    from training import pictures
    from training.drawing import labels

    device = devices.resolve(device)
    mended = _mended_pixels(target)  # before the folder is made and the network is read, which takes seconds
    pictures.prepare_outdir(outdir)
    generator, facts = pictures.open_generator(network, device, trust=trust_pickle)
    pictures.check_channels(generator.img_channels, outdir)
    choice = labels.choose_one(generator, facts, class_text, label_vector, device)
    target_pixels = _fitted(target, *mended, generator.img_resolution, generator.img_channels)
    features = _choose_features(distance, detectors, device)

    started = time.perf_counter()
    options = dict(num_steps=num_steps, features=features, c=choice.vector, seed=seed, device=device)
    trajectory = _project(generator, target_pixels, outdir, **options)
    print(f"Projected{f' as {choice.text}' if choice.text else ''} in {time.perf_counter() - started:.1f} s.")
    _write_results(generator, trajectory, target_pixels, outdir)
    if with_video:
        print("Writing proj.mp4...", flush=True)
        write_video(generator, trajectory, target_pixels, os.path.join(outdir, "proj.mp4"))
    elif os.path.exists(os.path.join(outdir, "proj.mp4")):
        console.warn(f"proj.mp4 in {outdir} is of an earlier projection and does not show this one.")
    console.result(f"target.png, proj.png, projected_w.npz{' and proj.mp4' if with_video else ''} in {outdir}.")


if __name__ == "__main__":
    cli.run(main)
