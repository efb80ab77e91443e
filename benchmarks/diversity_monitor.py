"""What the diversity monitor costs, and how its alarm does on planted generators and, if given, on real runs.

Cost: CPU seconds of this process for a look per tick, for learning the reals at the start, and for training steps, in one run
of --cfg=tiny per resolution on random images. Alarm: the generators of tests/training/planted_modes.py over many seeds.
Runs: the ticks of stats.jsonl of run folders given with --run. Writes benchmarks/results/diversity_monitor.json and the
figures in docs/diversity_monitor.md.
"""

import collections
import contextlib
import io
import json
import os
import statistics
import sys
import tempfile
import time
import zipfile
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import PIL.Image
import torch

from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from tests.training import planted_modes
from training import config, training_loop
from training.diversity import alarm, monitor as diversity_monitor, watch

HEALTHY_TICKS, LEARNING_TICKS, SICK_TICKS = 60, (3, 10, 40), 10
DEFAULT_KIMG_PER_TICK = 4
RESULTS, PAGE = REPO / "benchmarks" / "results" / "diversity_monitor.json", REPO / "docs" / "diversity_monitor.md"
FIGURES_BEGIN, FIGURES_END = "<!-- figures -->", "<!-- end of figures -->"


# ------------------------------------------------------------------------------------------
# Cost.


def random_images(path, num_images, resolution):
    random = np.random.RandomState(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for index in range(num_images):
            buffer = io.BytesIO()
            coarse = random.randint(0, 256, size=[4, 4, 3]).astype(np.uint8)
            PIL.Image.fromarray(coarse).resize([resolution, resolution], PIL.Image.BICUBIC).save(buffer, "PNG")
            archive.writestr(f"img{index:08d}.png", buffer.getvalue())


@contextlib.contextmanager
def cpu_seconds_of(methods):
    """Inside: {name: [CPU seconds of each call]} of the methods, given as {name: (class, attribute)}."""
    seconds, originals = collections.defaultdict(list), {}

    def timed(name, original):
        def call(*args, **kwargs):
            start = time.process_time()
            try:
                return original(*args, **kwargs)
            finally:
                seconds[name].append(time.process_time() - start)

        return call

    for name, (owner, attribute) in methods.items():
        originals[name] = getattr(owner, attribute)
        setattr(owner, attribute, timed(name, originals[name]))
    try:
        yield seconds
    finally:
        for name, (owner, attribute) in methods.items():
            setattr(owner, attribute, originals[name])


def measure_cost(resolution, ticks, steps_per_tick):
    """The shares of one run. The first tick, in which everything is done for the first time, does not count."""
    with tempfile.TemporaryDirectory() as folder:
        random_images(os.path.join(folder, "images.zip"), 2000, resolution)
        options = config.resolve(dict(data=os.path.join(folder, "images.zip"), cfg="tiny", aug="ada", metrics=[])).options
        kimg_per_tick = steps_per_tick * options.batch_size / 1000
        options.update(
            kimg_per_tick=kimg_per_tick,
            total_kimg=(ticks + 1) * kimg_per_tick,
            image_snapshot_ticks=None,
            network_snapshot_ticks=None,
            diversity_monitor=True,
            device="cpu",
            snap_res=128,
            run_dir=folder,
        )
        with (
            cpu_seconds_of(
                dict(step=(training_loop.Trainer, "train_step"), look=(watch.DiversityWatch, "look"), begin=(watch.DiversityWatch, "begin"))
            ) as seconds,
            contextlib.redirect_stdout(io.StringIO()),
        ):
            training_loop.training_loop(**options)
    look, steps = statistics.median(seconds["look"][1:]), seconds["step"][2:]
    per_kimg = statistics.fmean(steps) / options.batch_size * 1000  # mean: lazy regularisation makes steps unlike
    return dict(
        resolution=resolution,
        batch_size=options.batch_size,
        looks=len(seconds["look"]) - 1,
        steps=len(steps),
        cpu_seconds_per_look=round(look, 4),
        cpu_seconds_once=round(seconds["begin"][0], 3),
        cpu_seconds_per_kimg=round(per_kimg, 3),
        percent_at_kimg_per_tick={f"{kimg:g}": round(100 * look / (per_kimg * kimg), 3) for kimg in (1, DEFAULT_KIMG_PER_TICK)},
    )


# ------------------------------------------------------------------------------------------
# Alarm.


def sick(kind, rng, tick):
    everything = range(planted_modes.NUM_MODES)
    return {
        "constant": lambda: planted_modes.images_of([4], np.random.default_rng(0)).expand(diversity_monitor.NUM_FAKES, -1),
        "two of ten modes": lambda: planted_modes.drawn(planted_modes.only(2, 7), rng),
        "four of ten modes": lambda: planted_modes.drawn(planted_modes.only(2, 4, 7, 9), rng),
        "one mode at a time": lambda: planted_modes.drawn(planted_modes.only(tick % planted_modes.NUM_MODES), rng),
        "halves in turn": lambda: planted_modes.drawn(planted_modes.only(*everything[tick % 2 * 5 : tick % 2 * 5 + 5]), rng),
    }[kind]()


SICK = ("constant", "two of ten modes", "four of ten modes", "one mode at a time", "halves in turn")


def healthy_runs(num_seeds):
    """For each speed of learning: false alarms, and how near the numbers came to the rule's limits."""
    rows = []
    for learning_ticks in LEARNING_TICKS:
        runs = []
        for seed in range(num_seeds):
            monitor = planted_modes.fitted_monitor(seed=seed % 10)
            numbers, _ = planted_modes.run_life(monitor, planted_modes.healthy_life(np.random.default_rng(seed), HEALTHY_TICKS, learning_ticks))
            runs.append(numbers)
        rows.append(dict(learning_ticks=learning_ticks, runs=num_seeds, **margins(runs)))
    return rows


def margins(runs):
    """Of runs given as lists of the monitor's numbers: {ticks, alarms, and the extremes after the level was established}."""
    lowest, turnovers, alarms = [1.0], [0.0], 0
    for numbers in runs:
        level, former = 0.0, 0.0
        for tick in numbers:
            if level >= alarm.ESTABLISHED:
                lowest.append(max(tick["diversity"], former) / level)
                turnovers.append(tick["turnover"])
            level, former = max(level, min(tick["diversity"], former)), tick["diversity"]
        alarms += any(tick["alarm"] for tick in numbers)
    return dict(
        ticks=sum(map(len, runs)),
        runs_with_alarm=alarms,
        lowest_part_of_level_two_ticks=round(min(lowest), 3),
        largest_turnover=round(max(turnovers), 3),
    )


def sick_runs(num_seeds):
    """How many ticks after its onset each sickness was told, over the seeds: {ticks: runs}; and as what."""
    rows = []
    for kind in SICK:
        delays, states = collections.Counter(), collections.Counter()
        for seed in range(num_seeds):
            monitor, rng = planted_modes.fitted_monitor(seed=seed % 10), np.random.default_rng(seed)
            planted_modes.run_life(monitor, planted_modes.healthy_life(rng, 12, 3))
            numbers, _ = planted_modes.run_life(monitor, [sick(kind, rng, tick) for tick in range(SICK_TICKS)])
            found = [tick["alarm"] for tick in numbers]
            delay = next((tick + 1 for tick, state in enumerate(found) if state), None)
            delays["never" if delay is None else str(delay)] += 1
            states[alarm.NAMES[int(found[-1])]] += 1
        rows.append(dict(kind=kind, runs=num_seeds, ticks_until_alarm=dict(delays), called=dict(states)))
    return rows


def real_run(path):
    with open(os.path.join(path, "stats.jsonl")) as file:
        lines = [json.loads(line) for line in file]
    numbers = [{name: line[diversity_monitor.PREFIX + name]["mean"] for name in ("diversity", "turnover", "alarm")} for line in lines]
    with open(os.path.join(path, "training_options.json")) as file:
        options = json.load(file)
    return dict(
        name=os.path.basename(os.path.normpath(path)),
        seed=options["random_seed"],
        kimg=round(lines[-1]["Progress/kimg"]["mean"], 1),
        kimg_per_tick=options.get("kimg_per_tick", DEFAULT_KIMG_PER_TICK),
        last_diversity=round(numbers[-1]["diversity"], 3),
        **margins([numbers]),
    )


# ------------------------------------------------------------------------------------------
# The figures of the page.


def listed(counts):
    return ", ".join(f"{name} ({count})" for name, count in sorted(counts.items()))


def figures(report):
    """The tables of docs/diversity_monitor.md, as Markdown."""
    lines = [
        "| generator | runs | ticks | runs with an alarm | lowest diversity in two ticks, part of the level | largest turnover |",
        "|---|---|---|---|---|---|",
    ]
    titles = [f"healthy, learns in {row['learning_ticks']} ticks" for row in report["healthy"]]
    titles += [f"real run {row['name']}, {row['kimg']:g} kimg, {row['kimg_per_tick']:g} per tick" for row in report["real_runs"]]
    for title, row in zip(titles, report["healthy"] + report["real_runs"], strict=True):
        lines.append(
            f"| {title} | {row.get('runs', 1)} | {row['ticks']} | {row['runs_with_alarm']} | {row['lowest_part_of_level_two_ticks']:.2f} | {row['largest_turnover']:.2f} |"
        )
    lines += ["", "| planted after 12 healthy ticks | runs | ticks until the alarm (runs) | called (runs) |", "|---|---|---|---|"]
    lines += [f"| {row['kind']} | {row['runs']} | {listed(row['ticks_until_alarm'])} | {listed(row['called'])} |" for row in report["sick"]]
    lines += [
        "",
        f"Cost with `--cfg=tiny` in CPU seconds ({report['processor']}, {report['threads']} thread(s), {report['date']}):",
        "",
        "| pixels | a look | once, at the start | training, per kimg | a look at 4 kimg per tick | at 1 kimg per tick |",
        "|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {row['resolution']} | {row['cpu_seconds_per_look']:.2f} | {row['cpu_seconds_once']:.2f} | {row['cpu_seconds_per_kimg']:.1f} | "
        f"{row['percent_at_kimg_per_tick']['4']:.2f} % | {row['percent_at_kimg_per_tick']['1']:.2f} % |"
        for row in report["cost"]
    ]
    return "\n".join(lines)


def with_figures(page, report):
    """The page's text with its figures replaced."""
    before, rest = page.split(FIGURES_BEGIN)
    return f"{before}{FIGURES_BEGIN}\n{figures(report)}\n{FIGURES_END}{rest.split(FIGURES_END)[1]}"


@click.command()
@click.option("--seeds", type=cli.IntRange(min=1), default=100, show_default=True, help="Planted runs of each kind.")
@click.option("--ticks", type=cli.IntRange(min=2), default=6, show_default=True, help="Looks per resolution whose cost is measured.")
@click.option("--steps", type=cli.IntRange(min=4), default=32, show_default=True, help="Training steps between them.")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads.")
@click.option("--run", "runs", multiple=True, metavar="DIR", help="Run folder trained with --diversity-monitor=1; may be repeated.")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/diversity_monitor.json", help="The file to write.", metavar="PATH")
def main(seeds, ticks, steps, threads, runs, out):
    """Measure the diversity monitor: its cost, its false alarms, how soon it sees what is planted."""
    torch.set_num_threads(threads)
    report = dict(
        what="cost in CPU seconds of the process; alarm on planted generators; ticks of real runs",
        **circumstances(),
        threads=threads,
        seeds=f"0 to {seeds - 1}",
        fakes_per_look=diversity_monitor.NUM_FAKES,
    )
    for name, rows in (
        ("cost", (measure_cost(resolution, ticks, steps) for resolution in (16, 32, 64))),
        ("healthy", healthy_runs(seeds)),
        ("sick", sick_runs(seeds)),
        ("real_runs", map(real_run, runs)),
    ):
        report[name] = []
        for row in rows:
            print(name, row, flush=True)
            report[name].append(row)
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if Path(out).resolve() == RESULTS:
        atomic_write_text(PAGE, with_figures(PAGE.read_text(encoding="utf-8"), report))
        print(f"Wrote the figures of {PAGE}")


if __name__ == "__main__":
    cli.run(main)
