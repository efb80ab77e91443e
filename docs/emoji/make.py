"""What docs/emoji/README.md shows: a comparison of runs with and without MADR by the commands that a user has.

    python docs/emoji/make.py --runs=out/backbone/emoji32 --kimg=20 --metric-space=file:photos.pt

Expects RUNS/plain/* and RUNS/default/* as experiments/backbone.py trains them. Judges every run's snapshot with calc_metrics.py, makes
the table with compare_runs.py, the comparison of one pair with --baseline, one report page per method, and the picture.
"""

import datetime
import json
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

import click
import PIL.Image

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_open, atomic_write_text
from experiments import backbone, pages, records
from metrics import detectors

HERE = Path(__file__).resolve().parent
METHODS = ("plain", "default")
METRIC = "madr_prdc_10k"
CORNER = 256  # pixels of a sample sheet that are shown


def call(script, *arguments):
    """Output of one of the repository's commands."""
    done = subprocess.run([sys.executable, str(REPO / script), *map(str, arguments)], capture_output=True, text=True)
    if done.returncode != 0:
        raise UserError(f"{script} {' '.join(map(str, arguments))} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout


def line_of(network, num_gen, sha256):
    """The newest line of this snapshot with that many images in that space, or None."""
    lines = network.parent / f"metric-{METRIC}.jsonl"
    stated = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()] if lines.exists() else []
    fitting = [
        line
        for line in stated
        if line["snapshot_pkl"] == network.name and sha256 in json.dumps(line["facts"]) and line["facts"].get("num_gen") == num_gen
    ]
    return fitting[-1] if fitting else None


def without_folders(page, folders):
    """Published pages need not tell where things lay."""
    text = page.read_text(encoding="utf-8")
    for folder in folders:
        text = text.replace(folder, "...")
    atomic_write_text(str(page), text)


def picture(networks, path):
    """One corner of the sample sheet of each method and seed: methods in rows, seeds in columns."""
    sheets = {
        key: PIL.Image.open(network.parent / network.name.replace("network-snapshot-", "fakes").replace(".pkl", ".png"))
        .convert("RGB")
        .crop((0, 0, CORNER, CORNER))
        for key, network in networks.items()
    }
    seeds = sorted({seed for _, seed in sheets})
    whole = PIL.Image.new("RGB", (len(seeds) * (CORNER + 8) - 8, len(METHODS) * (CORNER + 8) - 8), "black")
    for (method, seed), sheet in sheets.items():
        whole.paste(sheet, (seeds.index(seed) * (CORNER + 8), METHODS.index(method) * (CORNER + 8)))
    with atomic_open(path) as file:
        whole.save(file, format="png", optimize=True)


def page_text(table, comparison, num_gen, space):
    machine = records.machine()
    return "\n".join(
        [
            f"{num_gen} generated images per network, all real images, features of {space}.",
            "",
            table.strip(),
            "",
            "One pair, seed 0, by `calc_metrics.py --network=<default> --baseline=<plain>`:",
            "",
            "```",
            comparison.strip(),
            "```",
            "",
            f"{datetime.date.fromisoformat(machine['date']):%Y-%m-%d}; {machine['machine']}; PyTorch {machine['torch']}.",
            "",
        ]
    )


@click.command()
@click.option("--runs", type=click.Path(exists=True, file_okay=False, path_type=Path), required=True, help="Folder with plain/ and default/")
@click.option("--kimg", type=click.IntRange(1), default=20, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--num-gen", type=click.IntRange(10), default=5000, show_default=True)
@click.option("--metric-space", "--madr-extractor", "space", required=True, help="Feature space, as for calc_metrics.py")
def main(runs, kimg, seeds, num_gen, space):
    """Write docs/emoji/."""
    networks = {(method, seed): backbone.snapshot_of(runs.parent, runs.name, method, seed, kimg) for method in METHODS for seed in range(seeds)}
    missing = [key for key, network in networks.items() if network is None]
    if missing:
        raise UserError(f"--runs={runs} holds no snapshot at {kimg} kimg of {missing}; train with python -m experiments.backbone.")
    common = [f"--metrics={METRIC}", f"--metric-space={space}", f"--num-gen={num_gen}", "--device=cpu"]
    sha256 = detectors.find_detector(detectors.space_url(space)).sha256
    for network in networks.values():
        if line_of(network, num_gen, sha256) is None:
            call("calc_metrics.py", f"--network={network}", *common)
    options = json.loads((networks["default", 0].parent / "training_options.json").read_text(encoding="utf-8"))
    elsewhere = [str(Path(path).parent) for path in (space.partition(":")[2], options["training_set_kwargs"]["path"]) if Path(path).is_absolute()]
    folders = [network.parent for network in networks.values()]
    table = call("compare_runs.py", *folders, f"--metrics={METRIC}", "--format=markdown")
    comparison = call("calc_metrics.py", f"--network={networks['default', 0]}", f"--baseline={networks['plain', 0]}", *common)
    comparison = "\n".join(line for line in comparison[comparison.index("result  ") :].splitlines() if line and "Exiting" not in line)
    for method in METHODS:
        call(
            "report.py",
            networks[method, 0].parent,
            f"--network={networks[method, 0]}",
            f"--metric-space={space}",
            f"--num-gen={num_gen}",
            f"--dest={HERE / f'report-{method}.html'}",
            "--device=cpu",
        )
        without_folders(HERE / f"report-{method}.html", [str(runs.parent.resolve()), str(REPO), str(Path.home()), *elsewhere])
    picture(networks, HERE / "samples.png")
    pages.write_between(HERE / "README.md", "numbers", page_text(table, comparison, num_gen, Path(space).name))
    print(f"Written: {HERE}")


if __name__ == "__main__":
    cli.run(main)
