"""Makes the picture at the top of README.md: plain training against MADR, on a ring of Gaussians and on Stacked Digits.

    python docs/front/make.py

Trains two tiny GANs on the ring (toy_2d.py) and two StyleGAN2 on Stacked Digits at 32 px, counts their modes
and writes front.png and front.json beside this file. Some 15 minutes on one core; what lies in --outdir is not made again.
"""

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import PIL.Image
import torch

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_open, atomic_write_text
from experiments import backbone, records, small_gan, toy_2d
from training import state

HERE = Path(__file__).resolve().parent
OUTDIR = "out/front"
METHODS = {"plain": ("plain GAN", "--madr=0", "#b5402f"), "default": ("with MADR", "--madr=1", "#1f66a8")}  # shown name, flag, colour of the points
SEED, LAYOUT, STEPS, KIMG = 0, "ring", 2500, 20
METRIC = "madr_modes5k"
CPU_SECONDS = "cpu-seconds.txt"  # of a training, beside its run folder
COLUMNS, ROWS, ZOOM, GAP = 11, 5, 3, 4  # of the grid of generated images; pixels on the sheet
RESOLUTION = 32


# ----------------------------------------------------------------------------------------------------------------
# Making what is missing.


def note(commands, outdir, script, *words):
    """Keep a command as one would type it with the default --outdir in one go."""
    commands.append(" ".join(["python", script, *[str(word).replace(str(outdir), OUTDIR) for word in words if word != "--resume=latest"]]))


def call(commands, outdir, script, *words):
    """Run one of the repository's commands and note it."""
    words = [str(word) for word in words]
    note(commands, outdir, script, *words)
    print(commands[-1], flush=True)
    done = subprocess.run([sys.executable, str(REPO / script), *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UserError(
            f"{script} {' '.join(words)} failed; start docs/front/make.py again to go on after mending this:\n{done.stderr.strip()[-2000:]}"
        )


def ring_run(outdir, method):
    """-> generated points [N, 2] after the last step; trained only if the file in --outdir is of other options."""
    path = outdir / f"ring-{method}.npz"
    stated = json.dumps(dict(layout=LAYOUT, seed=SEED, steps=STEPS, options=small_gan.resolved(toy_2d.METHODS[method])), sort_keys=True)
    if path.exists():
        with np.load(path) as kept:
            if str(kept["stated"]) == stated:
                return kept["samples"]
    print(f"ring, {METHODS[method][0]}", flush=True)
    samples = toy_2d.train(method, LAYOUT, SEED, STEPS)["samples"]
    with atomic_open(path) as file:
        np.savez(file, samples=samples, stated=stated)
    return samples


def once(commands, outdir, done, script, *words):
    """Note the command, and run it unless its work is done."""
    (note if done else call)(commands, outdir, script, *words)


@contextlib.contextmanager
def cpu_time_kept(path):
    """Add to the number in a file the CPU seconds of the commands called inside, also of those that end early: on a busy machine the clock says little."""

    def used():
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    before = used()
    try:
        yield
    finally:
        atomic_write_text(str(path), str(used() - before + (float(path.read_text(encoding="utf-8")) if path.exists() else 0)))


def digits_run(commands, outdir, data, method):
    """-> (network, folder of its drawn images); every step that has been done is left out."""
    runs = backbone.folder_of(outdir, "digits", method)
    network = backbone.snapshot_of(outdir, "digits", method, SEED, KIMG)
    begun = network is None and any(state.latest_state(str(run)) for run in runs.glob("*/"))
    setting = f"--cfg=tiny {METHODS[method][1]} --aug=noaug --kimg={KIMG} --tick=1 --snap=4 --threads=1 --half=off --seed={SEED}".split()
    runs.mkdir(parents=True, exist_ok=True)
    with cpu_time_kept(runs / CPU_SECONDS):
        once(
            commands, outdir, network is not None, "train.py", f"--outdir={runs}", f"--data={data}", *setting, *(["--resume=latest"] if begun else [])
        )
    network = backbone.snapshot_of(outdir, "digits", method, SEED, KIMG)
    if network is None:
        raise UserError(f"{runs} holds a run of other options or one that is not finished; move that folder away and start docs/front/make.py again.")
    once(commands, outdir, counted(network) is not None, "calc_metrics.py", f"--metrics={METRIC}", f"--network={network}")
    images = network.parent / "images"
    complete = (images / f"seed{COLUMNS * ROWS - 1:04d}.png").exists()  # the last one
    once(commands, outdir, complete, "generate.py", f"--network={network}", f"--seeds=0-{COLUMNS * ROWS - 1}", f"--outdir={images}")
    return network, images


def counted(network):
    """The newest line of the metric for this snapshot, or None."""
    lines = network.parent / f"metric-{METRIC}.jsonl"
    stated = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    return next((line for line in reversed(stated) if line["snapshot_pkl"] == network.name), None)


# ----------------------------------------------------------------------------------------------------------------
# Figures.


def ring_figures(samples):
    found = toy_2d.measure(samples, LAYOUT)
    return dict(
        modes_hit=found["hit"], modes_held=found["modes"], of=len(found["shares"]), near_a_mode=found["quality"], kl=found["kl"], points=len(samples)
    )


def digits_figures(network, cpu_seconds):
    line = counted(network)
    names = {METRIC: "modes", f"{METRIC}_5hits": "modes_5hits", f"{METRIC}_kl": "kl", f"{METRIC}_floor_kl": "floor_kl"}
    results = {short: line["results"][name] for name, short in names.items()}
    return dict(
        results, of=line["facts"]["num_modes"], images=line["facts"]["num_gen"], confidence=line["facts"]["confidence"], cpu_minutes=cpu_seconds / 60
    )


# ----------------------------------------------------------------------------------------------------------------
# The picture.


def sheet(images, rows):
    """Images in a grid on white, enlarged without smoothing."""
    step = RESOLUTION * ZOOM + GAP
    whole = PIL.Image.new("RGB", (COLUMNS * step - GAP, rows * step - GAP), "white")
    for index, image in enumerate(images):
        whole.paste(
            image.convert("RGB").resize((RESOLUTION * ZOOM,) * 2, PIL.Image.Resampling.NEAREST), (index % COLUMNS * step, index // COLUMNS * step)
        )
    return np.asarray(whole)


def drawn(folder):
    return [PIL.Image.open(folder / f"seed{seed:04d}.png") for seed in range(COLUMNS * ROWS)]


def real(run):
    """The first images of the sheet that a run keeps of its training set."""
    with PIL.Image.open(run / "reals.png") as whole:
        return [whole.crop((RESOLUTION * index, 0, RESOLUTION * (index + 1), RESOLUTION)) for index in range(COLUMNS)]


def panel(figure, left, top, width, height):
    """Axes without ticks at inches from the left and from the top."""
    total_width, total_height = figure.get_size_inches()
    axes = figure.add_axes([left / total_width, 1 - (top + height) / total_height, width / total_width, height / total_height])
    axes.set(xticks=[], yticks=[])
    return axes


def heading(figure, middle, title, text):
    """Two sizes of text at the top, around `middle` inches from the left."""
    width, height = figure.get_size_inches()
    figure.text(middle / width, 1 - 0.06 / height, title, ha="center", va="top", fontsize=12, weight="bold")
    figure.text(middle / width, 1 - 0.31 / height, text, ha="center", va="top", fontsize=8.5, linespacing=1.25)


def draw_ring(axes, points, found, name, colour):
    axes.scatter(*toy_2d.PointSet(LAYOUT, count=2500).points.T, s=7, c="#c4c4c4", linewidths=0)
    axes.scatter(*points.T, s=3, c=colour, alpha=0.6, linewidths=0)
    axes.set(xlim=(-3.7, 3.7), ylim=(-3.7, 3.7))
    axes.set_xlabel(f"{found['modes_hit']} of {found['of']} modes hit, {found['near_a_mode']:.0%} of points near one", fontsize=9)
    axes.set_ylabel(name, fontsize=12, weight="bold", color=colour)


def draw_images(axes, images, rows, text=""):
    axes.imshow(sheet(images, rows), interpolation="nearest", aspect="auto")
    axes.set_xlabel(text, fontsize=9)
    for spine in axes.spines.values():
        spine.set_visible(False)


def picture(samples, figures, folders, reals, path):
    """Rows: plain, MADR. Columns: ring, digits. Twice the 900 pixels at which a page shows it."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 6.94), facecolor="white")
    side, left, grid_width, grid_left, top = 2.5, 0.42, 5.5, 3.38, 1.28  # inches
    ring, digits = figures["ring"], figures["digits"]
    minutes = np.mean([digits[method]["cpu_minutes"] for method in METHODS])
    heading(
        figure,
        left + side / 2,
        f"Ring of {ring['plain']['of']} Gaussians",
        f"grey: real points\ncolour: {ring['plain']['points']:,} generated ones\nafter {STEPS:,} steps, seed {SEED}",
    )
    heading(
        figure,
        grid_left + grid_width / 2,
        f"Stacked Digits, {digits['plain']['of']} modes",
        f"Three digits are the colours of one image. First row: real; below: generated\nby a small StyleGAN2 after {KIMG} kimg, about {minutes:.0f} minutes on one core, seed {SEED}",
    )
    draw_images(panel(figure, grid_left, 0.7, grid_width, 0.48), real(reals), 1)
    for row, (method, (name, _, colour)) in enumerate(METHODS.items()):
        down = top + row * (side + 0.36)
        draw_ring(panel(figure, left, down, side, side), samples[method], ring[method], name, colour)
        found = digits[method]
        draw_images(
            panel(figure, grid_left, down, grid_width, side),
            drawn(folders[method]),
            ROWS,
            f"{found['modes']:.0f} of {found['of']} modes hit by {found['images']:,} images, KL {found['kl']:.2f} (perfect data: {found['floor_kl']:.2f})",
        )
    with atomic_open(path) as file:
        figure.savefig(file, format="png", dpi=200)


@click.command()
@click.option(
    "--outdir",
    type=click.Path(file_okay=False, path_type=Path),
    default=OUTDIR,
    show_default=True,
    help="Where runs lie; what is there is not made again",
)
@click.option(
    "--dest", type=click.Path(file_okay=False, path_type=Path), default=HERE, show_default="docs/front", help="Where front.png and front.json go"
)
def main(outdir, dest):
    """Make docs/front/front.png and front.json."""
    torch.set_num_threads(1)  # tensors this small gain nothing from more
    outdir.mkdir(parents=True, exist_ok=True)
    samples = {method: ring_run(outdir, method) for method in METHODS}
    commands, data = [], outdir / "digits.zip"
    once(commands, outdir, data.exists(), "dataset_tool.py", "--build=stacked-digits", f"--dest={data}")
    runs = {method: digits_run(commands, outdir, data, method) for method in METHODS}
    seconds = {method: float((network.parent.parent / CPU_SECONDS).read_text(encoding="utf-8")) for method, (network, _) in runs.items()}
    figures = dict(
        ring={method: ring_figures(samples[method]) for method in METHODS},
        digits={method: digits_figures(network, seconds[method]) for method, (network, _) in runs.items()},
    )
    picture(samples, figures, {method: images for method, (_, images) in runs.items()}, runs["plain"][0].parent, dest / "front.png")
    ring_command = f"python toy_2d.py --layout={LAYOUT} --methods={','.join(METHODS)} --seeds=1 --steps={STEPS}"
    told = dict(
        made_by="python docs/front/make.py",
        commands=[ring_command, *commands],
        seed=SEED,
        latents=f"seeds 0-{COLUMNS * ROWS - 1}, the same for both",
        **figures,
        **records.machine(),
    )
    atomic_write_text(str(dest / "front.json"), json.dumps(told, indent=1) + "\n")
    print(f"Written: {dest / 'front.png'}, {dest / 'front.json'}")


if __name__ == "__main__":
    cli.run(main)
