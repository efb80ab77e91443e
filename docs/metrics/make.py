"""What docs/metrics.md shows: pictures and numbers of real runs, and the scores of perfect data.

    python docs/metrics/make.py runs/00000-healthy runs/00001-collapsed runs/00002-cycling
    python docs/metrics/make.py --perfect --bench

For each run folder: its own sample sheets over time above the numbers of its snapshots, and the answer of the decision path. Writes the
pictures beside this file and the text between the marks of docs/metrics.md. Works on any run folder of train.py.
"""

import datetime
import json
import shlex
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

import click
import matplotlib
import numpy as np
import PIL.Image
import torch

matplotlib.use("Agg")
import matplotlib.pyplot as plt

import dnnlib
import legacy
from dnnlib import cli
from experiments import pages
from madr_spaces import neighbours
from metrics import diversity, diversity_kernels, given_features, metric_main, requested
from metrics.metric_utils import MetricOptions
from torch_utils.snapshot_names import list_network_snapshots
from training import trained_network

HERE = Path(__file__).resolve().parent
PAGE = REPO / "docs" / "metrics.md"
# The rules of thumb of the decision path; stated in the page.
ALIKE, COVERED, GOOD_IMAGES, CYCLING = 0.5, 0.7, 0.5, 0.3
SIDE = 192  # of the corner of a sample sheet that is shown, in pixels of the sheet


# ----------------------------------------------------------------------------------------------------------------
# Runs.


def evenly(items, count):
    """At most `count` of the items, evenly spread, the first and the last among them."""
    return [items[i] for i in sorted({round(i) for i in np.linspace(0, len(items) - 1, min(count, len(items)))})]


def numbers_of(path, dataset_kwargs, how):
    """{short name: number} of one snapshot."""
    G = legacy.open_network(str(path), verbose=False)["G_ema"].eval().requires_grad_(False)
    # The images are drawn once for both metrics.
    given = MetricOptions(G=G, dataset_kwargs=dict(dataset_kwargs), device="cpu", **how)
    (_, own), (held_out, other) = diversity.spaces_and_features(given, how["num_gen"]).items()

    def calc(metric, pair):
        return metric_main.calc_metric(metric, given=given_features.GivenFeatures(*pair, {}), device="cpu")

    line = calc("madr_prdc_10k", own)
    numbers = {name: line.results[f"madr_prdc_10k_{name}"] for name in diversity.NUMBERS}
    return dict(
        numbers,
        variety=calc("madr_vendi_10k", own).facts["variety"],
        expected_coverage=line.facts["expected_coverage"],
        held_out=calc("madr_coverage_10k", other).results["madr_coverage_10k"],
        held_out_space=held_out,
    )


def cycling_of(run, dataset_kwargs, how):
    """The cycling result of all snapshots of a run, or None where there are not two."""
    newest = trained_network.newest_snapshot(str(run))
    snapshots = requested.openers(trained_network.snapshot_paths(newest), False, torch.device("cpu"))
    if len(snapshots) < 2:
        return None
    return metric_main.calc_metric(
        "madr_cycling", G=snapshots[Path(newest).name](), dataset_kwargs=dict(dataset_kwargs), device="cpu", snapshots=snapshots, **how
    )


def answer(last, cycling):
    """The decision path of docs/metrics.md, on the numbers of the last snapshot and of the whole run."""
    share = last["coverage"] / last["expected_coverage"]
    if last["variety"] < ALIKE:
        return f"collapse: the generated images are alike (variety {last['variety']:.2f} < {ALIKE})"
    if share < COVERED and last["precision"] >= GOOD_IMAGES:
        return f"modes are missing: good images (precision {last['precision']:.2f}), but {share:.0%} of the coverage that perfect data would have"
    if share < COVERED:
        return (
            f"not collapse but bad images: they differ (variety {last['variety']:.2f}) and lie outside the data (precision {last['precision']:.2f}); "
            "train longer or look for what broke"
        )
    if cycling is not None and cycling >= CYCLING:
        return f"cycling: what is found is lost again ({cycling:.2f} >= {CYCLING})"
    return f"diverse: {share:.0%} of the coverage that perfect data would have"


def draw(run, kimgs, numbers, path):
    """Sample sheets of the run's own pictures over the numbers of its snapshots."""
    sheets = [(kimg, run / f"fakes{kimg:06d}.png") for kimg in kimgs]
    sheets = [("real", run / "reals.png"), *((f"{kimg} kimg", file) for kimg, file in sheets)]
    sheets = [(title, file) for title, file in sheets if file.is_file()]
    figure = plt.figure(figsize=(2.1 * len(sheets), 4.7), layout="constrained")
    above, below = figure.subfigures(2, 1, height_ratios=[2.2, 2.5])
    for axis, (title, file) in zip(np.atleast_1d(above.subplots(1, len(sheets))), sheets):
        axis.imshow(PIL.Image.open(file).convert("RGB").crop((0, 0, SIDE, SIDE)), interpolation="nearest")
        axis.set_title(title, fontsize=9)
        axis.set_axis_off()
    axis = below.subplots()
    for name, style in (("coverage", "o-"), ("recall", "s-"), ("precision", "^-"), ("variety", "d--")):
        axis.plot(kimgs, [line[name] for line in numbers], style, label=name, markersize=4)
    axis.plot(kimgs, [line["expected_coverage"] for line in numbers], ":", color="grey", label="coverage of perfect data")
    axis.set(xlabel="thousand images", ylim=(-0.03, 1.25))
    axis.grid(alpha=0.3)
    axis.legend(frameon=False, fontsize=8, ncols=5, loc="upper center")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def section(run, number, how):
    """Markdown of one run; its picture is written beside this file."""
    options = json.loads((run / "training_options.json").read_text())
    snapshots = evenly(list_network_snapshots(str(run)), 5)
    dataset_kwargs = dnnlib.EasyDict(options["training_set_kwargs"], use_labels=False)
    numbers = [numbers_of(run / name, dataset_kwargs, how) for _, name in snapshots]
    cycling = cycling_of(run, dataset_kwargs, how)
    kimgs = [kimg for kimg, _ in snapshots]
    picture = HERE / f"run{number}.png"
    draw(run, kimgs, numbers, picture)
    rows = [
        f"| {kimg} | {line['precision']:.3f} | {line['recall']:.3f} | {line['density']:.3f} | {line['coverage']:.3f} | {line['held_out']:.3f} | {line['variety']:.3f} |"
        for kimg, line in zip(kimgs, numbers)
    ]
    # What chance alone makes of a few images per snapshot does not count.
    value = cycling.results["madr_cycling"] - cycling.facts.get("floor", {}).get("cycling", 0) if cycling is not None else None
    over_time = (
        f"madr_cycling {cycling.results['madr_cycling']:.3f}: mean {cycling.results['madr_cycling_mean']:.3f} and union {cycling.results['madr_cycling_union']:.3f} of "
        f"{cycling.facts['num_modes']} modes ({cycling.facts['modes']}), {cycling.results['madr_cycling_lost_and_found']:.0f} lost and found again. "
        if cycling is not None
        else ""
    )
    print(f"{run.name}: {answer(numbers[-1], value)}", flush=True)
    return "\n".join(
        [
            f"**{run.name}**",
            "",
            f"![samples and numbers over time of {run.name}](metrics/{picture.name})",
            "",
            f"| kimg | precision | recall | density | coverage | held-out coverage ({numbers[0]['held_out_space']}) | variety |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            f"{over_time}Coverage of perfect data with these counts: {numbers[-1]['expected_coverage']:.3f}. By the path: **{answer(numbers[-1], value)}**.",
            "",
        ]
    )


# ----------------------------------------------------------------------------------------------------------------
# Perfect data.


def perfect_scores(dims, num_items, seed):
    """All numbers of two independent samples of one standard normal distribution."""
    rng = np.random.default_rng([seed, dims])
    real, fake = (rng.standard_normal((num_items, dims)).astype(np.float32) for _ in range(2))
    precision, recall = neighbours.precision_recall(real, fake, 3)
    density, coverage = neighbours.density_coverage(real, fake, 5)
    centres = diversity_kernels.k_means(real, 100, np.random.default_rng(seed))
    share, jsd = diversity_kernels.different_bins(*(diversity_kernels.count_bins(x, centres) for x in (real, fake)))
    return dict(
        precision=precision,
        recall=recall,
        density=density,
        coverage=coverage,
        smooth_recall=diversity_kernels.smooth_recall_per_real(real, fake).mean(),
        vendi=diversity_kernels.vendi_score(fake) / diversity_kernels.vendi_score(real),
        authenticity=100 * diversity_kernels.authentic_fakes(real, fake).mean(),
        ndb=share,
        ndb_jsd=jsd,
    )


def perfect_table(num_items=3000, dimensions=(2, 16, 64), num_seeds=3):
    columns = {dims: [perfect_scores(dims, num_items, seed) for seed in range(num_seeds)] for dims in dimensions}
    names = list(columns[dimensions[0]][0])
    rows = [
        f"| {name} | "
        + " | ".join(f"{np.mean([scores[name] for scores in columns[dims]]):.{1 if name == 'authenticity' else 3}f}" for dims in dimensions)
        + " |"
        for name in names
    ]
    return "\n".join(
        [
            "| number | " + " | ".join(f"{dims} dimensions" for dims in dimensions) + " |",
            "|---|" + "---|" * len(dimensions),
            *rows,
            "",
            f"Two samples of {num_items} from one normal distribution, mean over {num_seeds} seeds. The formula's coverage for these counts: "
            f"{neighbours.expected_coverage(num_items, num_items, 5):.4f}.",
            "",
        ]
    )


def benchmark_table(report):
    """Markdown of what benchmarks/prdc_50k.py wrote."""
    rows = [
        f"| {line['way']} | {line['items']:,} | {line['cpu_sec']} | {line['peak_mb']} | {line.get('largest_difference_to_ours', 0):.6f} |"
        for line in [report["full"], *report["compared"]]
    ]
    return "\n".join(
        [
            "| way | items on each side | CPU seconds | peak resident MiB | largest difference of the four numbers |",
            "|---|---|---|---|---|",
            *rows,
            "",
            f"`python benchmarks/prdc_50k.py`, {report['dims']} dimensions, float32, {report['threads']} thread(s) on {report['processor']} ({report['cpu_count']} cores, load "
            f"{report['load_average']}), {report['date']}, seed {report['seed']}. Peaks are those of whole processes: importing torch ({report['full']['peak_mb_after_import']} MiB) and the "
            "features themselves included. While it runs the metric prints its progress and the time left.",
            "",
        ]
    )


@click.command()
@click.argument("runs", nargs=-1, type=click.Path(exists=True, file_okay=False))
@click.option("--perfect", is_flag=True, help="Write the table of perfect data")
@click.option("--bench", is_flag=True, help="Write the table of benchmarks/results/prdc_50k.json")
@click.option("--metric-space", "--madr-extractor", "space", default="pixels", show_default=True, help="Feature space of the runs' numbers")
@click.option("--num-gen", type=click.IntRange(100), default=2000, show_default=True, help="Generated images per snapshot")
@click.option("--num-real", type=click.IntRange(100), default=2000, show_default=True, help="Real images")
def main(runs, perfect, bench, space, num_gen, num_real):
    """Make the pictures and tables of docs/metrics.md."""
    if perfect:
        pages.write_between(PAGE, "perfect", perfect_table())
    if bench:
        pages.write_between(PAGE, "bench", benchmark_table(json.loads((REPO / "benchmarks" / "results" / "prdc_50k.json").read_text())))
    if runs:
        how = dict(space=space, num_gen=num_gen, num_real=num_real)
        command = shlex.join(
            [
                "python",
                "docs/metrics/make.py",
                *(Path(run).name for run in runs),
                f"--metric-space={space}",
                f"--num-gen={num_gen}",
                f"--num-real={num_real}",
            ]
        )
        sections = [section(Path(run), number, how) for number, run in enumerate(runs, start=1)]
        pages.write_between(PAGE, "pictures", "\n".join([*sections, f"{datetime.date.today().isoformat()}, one seed each, by `{command}`.", ""]))


if __name__ == "__main__":
    cli.run(main)
