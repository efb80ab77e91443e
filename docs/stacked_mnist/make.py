"""Turns a run folder into what docs/stacked_mnist/README.md shows: its numbers, its curves, its samples.

    python docs/stacked_mnist/make.py runs/00000-stacked-mnist-tiny-kimg200-noaug-madr

Copies the run's own records beside this file, draws curves.png and samples.png from them and writes the README's table.
"""

import datetime
import json
import os
import platform
import re
import shutil
import sys
from pathlib import Path

import matplotlib
import PIL.Image

matplotlib.use("Agg")
import matplotlib.pyplot as plt

HERE = Path(__file__).resolve().parent
MARK = re.compile(r"(<!-- numbers: begin -->\n).*(<!-- numbers: end -->)", re.DOTALL)


def read_lines(path):
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def draw_curves(stats, modes, path):
    kimg = [line["Progress/kimg"]["mean"] for line in stats]
    value = lambda name: [line[name]["mean"] if name in line else None for line in stats]
    figure, axes = plt.subplots(1, 4, figsize=(16, 3.4), layout="constrained")
    for name, label in [("Loss/G/loss", "G"), ("Loss/D/loss", "D")]:
        axes[0].plot(kimg, value(name), label=label)
    axes[0].set(title="losses", ylabel="nats", xlabel="thousand images")
    for name, label in [("Loss/scores/real", "real"), ("Loss/scores/fake", "fake")]:
        axes[1].plot(kimg, value(name), label=label)
    axes[1].set(title="D's logits", xlabel="thousand images")
    for name, label in [("MADR/coverage", "cell overlap, reals and fakes"), ("MADR/gratio", "gradient ratio, term to adversarial")]:
        axes[2].plot(kimg, value(name), label=label)
    axes[2].set(title="MADR", ylim=(0, 1.05), xlabel="thousand images")
    at = [line["kimg"] for line in modes]
    axes[3].plot(at, [line["results"]["madr_modes"] for line in modes], "o-", label="modes hit (of 1000)")
    axes[3].plot(at, [line["results"]["madr_modes_5hits"] for line in modes], "o-", label="at least 5 times")
    axes[3].set(title="26,000 samples", ylim=(0, 1030), xlabel="thousand images")
    for axis in axes:
        axis.legend(frameon=False, fontsize=8)
        axis.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def draw_samples(run, path):
    """The left upper corner of reals and of fakes at three times, side by side, doubled in size."""
    snapshots = sorted(run.glob("fakes0*.png"))
    chosen = [run / "reals.png", snapshots[1], snapshots[len(snapshots) // 2], snapshots[-1]]
    crops = [PIL.Image.open(file).convert("RGB").crop((0, 0, 256, 256)) for file in chosen]
    sheet = PIL.Image.new("RGB", (4 * 266 - 10, 256), "white")
    for column, crop in enumerate(crops):
        sheet.paste(crop, (column * 266, 0))
    sheet.resize((sheet.width * 3 // 2, sheet.height * 3 // 2), PIL.Image.Resampling.NEAREST).save(path)
    return [file.stem for file in chosen]


def table(stats, modes, names):
    last = stats[-1]
    rows = ["| kimg | modes hit | hit 5 times | KL (nats) |", "|---|---|---|---|"]
    for line in modes:
        results = line["results"]
        rows.append(f"| {line['kimg']} | {results['madr_modes']:.0f} | {results['madr_modes_5hits']:.0f} | {results['madr_modes_kl']:.3f} |")
    results = modes[-1]["results"]
    date = datetime.datetime.fromtimestamp(modes[-1]["timestamp"], datetime.timezone.utc).date()
    hours = last["Timing/total_sec"]["mean"] / 3600
    return "\n".join(
        [
            *rows,
            "",
            f"Floor of the KL for perfect data: {results['madr_modes_floor_kl']:.4f}. Accuracy of the digit classifier on held-out digits: "
            f"{results['madr_modes_classifier_accuracy']:.4f}.",
            "",
            f"{date}, seed {json.loads((HERE / 'training_options.json').read_text())['random_seed']}, one thread of a shared 2-core machine "
            f"({platform.machine()}), {last['Progress/kimg']['mean']:.0f} kimg in {hours:.2f} hours including evaluations. "
            f"Pictures: {', '.join(names)}.",
            "",
        ]
    )


def main(run):
    run = Path(run)
    for name in ["stats.jsonl", "metric-madr_modes.jsonl"]:
        shutil.copy(run / name, HERE / name)
    options = json.loads((run / "training_options.json").read_text())
    options["run_dir"] = os.path.basename(options["run_dir"])
    (HERE / "training_options.json").write_text(json.dumps(options, indent=1) + "\n")
    stats, modes = read_lines(HERE / "stats.jsonl"), read_lines(HERE / "metric-madr_modes.jsonl")
    for line in modes:
        line["kimg"] = int(re.search(r"(\d+)\.pkl", line["snapshot_pkl"]).group(1))
    draw_curves(stats, modes, HERE / "curves.png")
    names = draw_samples(run, HERE / "samples.png")
    readme = HERE / "README.md"
    readme.write_text(MARK.sub(lambda match: match.group(1) + table(stats, modes, names) + match.group(2), readme.read_text()))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
