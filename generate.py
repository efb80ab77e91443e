"""Draw pictures with a trained network, from seeds or from projected latents: one by one, as a sheet, or as a video from one to the next."""

import os
import time

import click
from click.core import ParameterSource

from dnnlib import cli, console
from dnnlib.errors import UserError
from training.drawing import video
from training.drawing.options import check_drs, drs_options, label_options, network_option, noise_option, trunc_option

DEFAULT_FRAMES = 60
_FLAG_OF = dict(seeds="--seeds", class_texts="--class", label_vectors="--label")


@click.command()
@network_option
@click.option("--seeds", type=cli.NumRange(), help="Seeds to draw, such as 0,3,5-7")
@trunc_option
@label_options(several=True)
@noise_option
@click.option(
    "--projected-w",
    multiple=True,
    help="Draw the latents in this .npz file of projector.py instead of seeds (in a video: before them); may be given several times",
    metavar="FILE",
)
@click.option(
    "--batch",
    type=int,
    default=1,
    show_default=True,
    help="Pictures drawn at a time; more is faster on a GPU and can change the last digit of a pixel",
)
@click.option("--sheet", is_flag=True, help="Write sheet.png: a row for each class (all, or those of --class), a column for each seed")
@click.option("--video", "wants_video", is_flag=True, help="Write video.mp4: from each seed, class, label or projected latent to the next")
@click.option(
    "--frames",
    type=cli.IntRange(min=1),
    metavar="N",
    help=f"Frames from each picture to the next [default: {DEFAULT_FRAMES}]; without --video they are written as numbered PNG files",
)
@click.option("--loop", is_flag=True, help="Let the video end where it begins")
@click.option("--fps", type=cli.IntRange(1, 240), default=30, show_default=True, help="Frames per second of video.mp4")
@drs_options()
@click.option("--outdir", required=True, metavar="DIR", help="Where the pictures go")
@cli.device_option
@cli.trust_option
@click.pass_context
def main(ctx, **flags):
    """Draw pictures with a trained network.

    \b
    generate.py --network=run/network-snapshot-000200.pkl --seeds=0-31 --trunc=0.7 --outdir=out
    generate.py --network=conditional.pkl --seeds=0-31 --class=cat --outdir=out
    generate.py --network=conditional.pkl --seeds=0-7 --sheet --outdir=out
    generate.py --network=run/network-snapshot-000200.pkl --seeds=0-4 --video --loop --outdir=out
    generate.py --network=run/network-snapshot-000200.pkl --projected-w=proj/projected_w.npz --outdir=out
    """
    typed = {name for name in flags if ctx.get_parameter_source(name) is not ParameterSource.DEFAULT}
    _check_flags(flags, typed)
    check_drs(ctx, flags)

    from torch_utils import devices  # Only here: --help and a wrong flag need no torch.
    from training import pictures

    if flags["seeds"] is not None:
        pictures.check_seeds(flags["seeds"])
    device = devices.resolve(flags["device"])
    pictures.prepare_outdir(flags["outdir"])
    generator, facts = pictures.open_generator(flags["network"], device, trust=flags["trust_pickle"])
    flags["sifted"] = _sifted(generator, flags, device) if flags["drs"] else None
    started = time.perf_counter()
    if flags["wants_video"] or flags["frames"] is not None:
        told = _draw_video(generator, facts, flags, device)
    elif flags["sheet"]:
        told = _draw_sheet(generator, facts, flags, device)
    else:
        told = _draw_pictures(generator, facts, flags, device)
    if flags["sifted"] is not None:
        console.result(flags["sifted"].as_text())
    console.result(f"{told} in {flags['outdir']}, {time.perf_counter() - started:.1f} s.")


def _check_flags(flags, typed):
    seeds, projected = flags["seeds"], flags["projected_w"]
    if seeds is None and not projected:
        raise UserError("Give --seeds (such as --seeds=0-9) or --projected-w=FILE: there is nothing to draw.")
    if flags["batch"] < 1:
        raise UserError(f"--batch must be at least 1 (got {flags['batch']}); leave it out for the default")
    has_way = flags["wants_video"] or flags["frames"] is not None
    if flags["drs"]:
        for flag, given, reason in (
            ("--projected-w", projected, "projected latents are drawn as they are"),
            ("--video", has_way, "a video leads through latents that nobody sifts"),
            ("--noise-mode=random", flags["noise_mode"] == "random", "D judges the very picture that is drawn; take --noise-mode=const"),
        ):
            if given:
                raise UserError(f"--drs and {flag} were both given, but {reason}; leave one of the two out")
    if flags["sheet"]:
        for flag, given in (("--video", flags["wants_video"]), ("--frames", flags["frames"] is not None), ("--projected-w", projected)):
            if given:
                raise UserError(f"--sheet and {flag} were both given; a sheet shows seeds, one row for each class: leave one of the two out")
    for name, reason in (("loop", "--video or --frames"), ("fps", "--video")):
        if name in typed and not (flags["wants_video"] or (name == "loop" and has_way)):
            raise UserError(f"--{name} has no effect without {reason}; add it, or leave --{name} out")
    if projected and "trunc" in typed and not (has_way and seeds):
        raise UserError("--trunc has no effect on projected latents, which are drawn as they are; leave out --trunc or --projected-w")


def _sifted(generator, flags, device):
    """The seeds' latents, sifted by the network's D."""
    import legacy
    from torch_utils import rejection_sampling
    from training import trained_network
    from training.drawing import sifting
    from training.gan import drs

    network = legacy.located(flags["network"])
    D = legacy.open_network(network, trust=flags["trust_pickle"], verbose=False)["D"].eval().requires_grad_(False).to(device)
    rejection_sampling.check_networks(generator, D, network)
    loss = drs.loss_of_run(trained_network.training_options(network), network)
    settings = rejection_sampling.Settings(flags["drs_gamma"], flags["drs_percentile"], flags["drs_burn_in"])
    return sifting.Sifted(generator, D, loss, settings, flags["trunc"], flags["noise_mode"], device)


def _latents_of(flags):
    return None if flags["sifted"] is None else flags["sifted"].latents_of


def _drawing_options(flags, device):
    return dict(noise_mode=flags["noise_mode"], batch=flags["batch"], device=device)


def _choices(generator, facts, flags, device):
    from training.drawing import labels

    return labels.choose(generator, facts, flags["class_texts"], flags["label_vectors"], device)


def _projected(generator, flags, names):
    """The latents of all files [N, num_ws, w_dim]; says which of `names`, flags that act on seeds alone, have no effect on them."""
    import torch

    from training.drawing import latents

    for name in names:
        if flags[name]:
            console.note(f"{_FLAG_OF[name]} has no effect beside --projected-w.")
    return torch.cat([latents.load_projected_w(path, generator.num_ws, generator.w_dim) for path in flags["projected_w"]])


def _draw_pictures(generator, facts, flags, device):
    from training import pictures
    from training.drawing import draw

    if flags["projected_w"]:
        ws = _projected(generator, flags, ("seeds", "class_texts", "label_vectors"))
        drawn = draw.drawn_from_latents(generator, ws, **_drawing_options(flags, device))
        total, name, kind = len(ws), "proj{:02d}.png", "latent"
    else:
        chosen = _choices(generator, facts, flags, device)
        if len(chosen) > 1:
            raise UserError(f"{len(chosen)} labels were given, and a picture has one; add --sheet or --video, or draw them one by one")
        if chosen[0].text:
            print(f"Drawing {chosen[0].text}.")
        drawn = draw.drawn_from_seeds(
            generator,
            flags["seeds"],
            chosen[0].vector,
            truncation_psi=flags["trunc"],
            latents_of=_latents_of(flags),
            **_drawing_options(flags, device),
        )
        total, name, kind = len(flags["seeds"]), "seed{:04d}.png", "seed"
    done, written, num_replaced = 0, set(), 0
    try:
        for numbers, pixels in drawn:
            for number, picture in zip(numbers, pixels):
                path = os.path.join(flags["outdir"], name.format(number))
                num_replaced += pictures.save_png(picture, path) and path not in written  # a seed may be given twice
                written.add(path)
                done += 1
                print(f"Drawing {kind} {number} ({done}/{total})", flush=True)
    finally:
        pictures.tell_of_replaced(num_replaced, flags["outdir"])
    return pictures.counted(done, "picture")


def _draw_sheet(generator, facts, flags, device):
    from training import pictures
    from training.drawing import draw, labels

    given = flags["class_texts"] or flags["label_vectors"]
    choices = _choices(generator, facts, flags, device) if given else labels.all_classes(generator, facts, device)
    pictures.check_channels(generator.img_channels, flags["outdir"])
    draw.check_sheet(len(choices), len(flags["seeds"]), generator.img_resolution)
    options = dict(truncation_psi=flags["trunc"], latents_of=_latents_of(flags), **_drawing_options(flags, device))
    draw.draw_sheet(generator, flags["seeds"], choices, flags["outdir"], facts, **options)
    return f"sheet.png and sheet.json ({pictures.counted(len(choices), 'row')}, {pictures.counted(len(flags['seeds']), 'column')})"


def _draw_video(generator, facts, flags, device):
    from training.drawing import draw, latents

    stops, num_between, seeds = [], flags["frames"] or DEFAULT_FRAMES, flags["seeds"] or []
    if flags["projected_w"]:
        ws = _projected(generator, flags, () if seeds else ("class_texts", "label_vectors"))
        stops += latents.stops_of_ws(ws, [f"proj{index:02d}" for index in range(len(ws))], device)
    if seeds:
        stops += latents.stops_of_seeds(seeds, _choices(generator, facts, flags, device), generator.z_dim, device)
    if len(stops) < 2:
        raise UserError(
            "A video leads from one picture to the next, and here is one; give several --seeds (such as --seeds=0-3), several times --class or "
            "--label, or a --projected-w of several latents."
        )
    as_mp4 = flags["wants_video"]
    if as_mp4 and video.missing_packages():
        as_mp4 = False
        console.note(
            f"{video.PACKAGE} is not installed, so the frames are written as numbered PNG files; for video.mp4: pip install {video.PACKAGE}, "
            f"or of the files: ffmpeg -framerate {flags['fps']} -i frame%05d.png -pix_fmt yuv420p video.mp4"
        )
    total = latents.num_frames_of_way(len(stops), num_between, flags["loop"])
    way = " -> ".join([stop.text for stop in stops[:4]] + (["..."] if len(stops) > 4 else []))
    print(f"{total} frames" + (f", {total / flags['fps']:.1f} s" if as_mp4 else "") + f": {way}{' -> back' if flags['loop'] else ''}", flush=True)
    draw.draw_video(
        generator,
        stops,
        num_between,
        flags["outdir"],
        as_mp4=as_mp4,
        frames_per_sec=flags["fps"],
        is_loop=flags["loop"],
        blends_labels=bool(flags["label_vectors"]) and not (facts is not None and facts.are_classes),
        noise_seed=seeds[0] if seeds else 0,
        options=dict(truncation_psi=flags["trunc"], **_drawing_options(flags, device)),
    )
    return f"video.mp4 of {total} frames" if as_mp4 else f"{total} frames"


if __name__ == "__main__":
    cli.run(main)
