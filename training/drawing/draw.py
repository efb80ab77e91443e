"""What generate.py draws: pictures one by one, a sheet of labels, a video. Must not know the command line."""

import contextlib
import json
import os

import numpy as np
import torch

from dnnlib import console, files
from dnnlib.errors import UserError
from training import pictures
from training.drawing import latents, video

MAX_SHEET_PIXELS = 1 << 28  # 0.8 GB of memory in colour
_LINE_INTERVAL_SEC = 5.0  # between the lines of progress in a log: most videos take a minute or two


# ------------------------------------------------------------------------------------------
# Pictures.


def drawn_from_seeds(generator, seeds, label, *, truncation_psi=1.0, noise_mode="const", batch=1, device="cpu", latents_of=None):
    """Yield (seeds of the batch, pixels uint8 [N,H,W,C]). latents_of(seeds, label) -> [N, z_dim], in place of the seeds' own."""
    for start in range(0, len(seeds), batch):
        chosen = seeds[start : start + batch]
        if latents_of is None:
            z = torch.cat([pictures.latent_of_seed(seed, generator.z_dim, device) for seed in chosen])
        else:
            z = latents_of(chosen, label)
        with torch.no_grad():
            ws = generator.mapping(z, label.expand(len(chosen), -1), truncation_psi=truncation_psi)
        yield chosen, pictures.drawn_from_ws(generator, ws, chosen, noise_mode)


def drawn_from_latents(generator, ws, *, noise_mode="const", batch=1, device="cpu"):
    """Yield (indices of the batch, pixels uint8 [N,H,W,C]) for latents [N, num_ws, w_dim]; the noise of each is that of its index."""
    for start in range(0, len(ws), batch):
        chosen = ws[start : start + batch].to(device)
        indices = list(range(start, start + len(chosen)))
        yield indices, pictures.drawn_from_ws(generator, chosen, indices, noise_mode)


# ------------------------------------------------------------------------------------------
# A sheet: one row for each label, one column for each seed.


def check_sheet(num_rows, num_columns, resolution, remedy="draw fewer classes (--class=0-9) or fewer --seeds"):
    """Refuse a sheet that would fill the memory."""
    if num_rows * num_columns * resolution**2 > MAX_SHEET_PIXELS:
        raise UserError(
            f"the sheet would have {num_rows:,} x {num_columns:,} pictures of {resolution} px, more than {MAX_SHEET_PIXELS // 2**20} million pixels; "
            f"{remedy}"
        )


def draw_sheet(generator, seeds, choices, outdir, facts, **options):
    """Write sheet.png, and sheet.json that says what its rows and columns are."""
    rows = []
    for choice in choices:
        cells = np.concatenate([pixels for _, pixels in drawn_from_seeds(generator, seeds, choice.vector, **options)])
        rows.append(np.concatenate(list(cells), axis=1))
        print(f"Row {len(rows) - 1}: {choice.text} ({len(rows)}/{len(choices)})", flush=True)
    pictures.tell_of_replaced(int(pictures.save_png(np.concatenate(rows), os.path.join(outdir, "sheet.png"))), outdir)
    described = [
        dict(label=choice.vector[0].tolist())
        if choice.class_index is None
        else {"class": choice.class_index, "name": facts.name_of(choice.class_index) if facts is not None else None}
        for choice in choices
    ]
    files.atomic_write_text(os.path.join(outdir, "sheet.json"), json.dumps(dict(rows=described, seeds=list(seeds)), indent=1) + "\n")


# ------------------------------------------------------------------------------------------
# A video.


def draw_video(generator, stops, num_between, outdir, *, as_mp4, frames_per_sec, is_loop, blends_labels, noise_seed, options):
    """Write video.mp4 or frame00000.png ... into the folder; returns the number of frames."""
    total = latents.num_frames_of_way(len(stops), num_between, is_loop)
    pictures.check_channels(generator.img_channels, outdir)
    times = video.enlargement(generator.img_resolution) if as_mp4 else 1
    side = times * generator.img_resolution
    if times > 1:
        console.note(
            f"the video has {side} px, each pixel {times} x {times} times: at {generator.img_resolution} px its encoding would mix the colours."
        )
    if as_mp4 and side % 2:
        console.note(f"H.264 needs even sides: the last line and column of {side} px are shown twice.")
    if not as_mp4:
        video.check_no_longer_video(outdir, total)
    way = latents.way_through(
        generator, stops, num_between, is_loop=is_loop, blends_labels=blends_labels, truncation_psi=options.get("truncation_psi", 1.0)
    )
    frames = console.progress(_frames(generator, way, noise_seed, options), total, "Drawing", unit="frame", line_interval_sec=_LINE_INTERVAL_SEC)
    with contextlib.ExitStack() as stack:
        if as_mp4:
            stack.enter_context(_telling_of_no_video())
            taker = stack.enter_context(video.open_mp4(os.path.join(outdir, "video.mp4"), frames_per_sec))
        else:
            taker = video.NumberedPngs(outdir, pictures.save_png)
        for frame in frames:
            taker.add(video.enlarged(frame, times))
    return total


@contextlib.contextmanager
def _telling_of_no_video():
    """Ctrl-C ends a video whole: the sentence at the end must not say that something was kept."""
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted by Ctrl-C; the video was not finished, and nothing of it is kept. --frames=N without --video keeps each frame as it is drawn."
        ) from None


def _frames(generator, way, noise_seed, options):
    for ws in _in_batches(way, options.get("batch", 1)):
        # One draw of noise for all frames: it would flicker otherwise.
        yield from pictures.drawn_from_ws(generator, ws, [noise_seed] * len(ws), options.get("noise_mode", "const"))


def _in_batches(way, batch):
    waiting = []
    for w in way:
        waiting.append(w)
        if len(waiting) == batch:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)
