"""How strong MADR's terms are over a long run: at full strength on noise late in training they would cost quality for nothing.

    python -m experiments.strength_curve RUN_FOLDER

reads what the run logged (stats.jsonl) and writes experiments/results/strength.json; `python -m experiments.tables` shows it.
"""

import json
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from experiments import records

RESULT_FILE = records.RESULTS / "strength.json"
POINTS = 10  # of the curve, evenly over the run
MEASURES = {  # name in the log -> (heading, digits)
    "MADR/lambda": ("factor on the gradient at the image", 1),
    "MADR/signal": ("witness: share of what it sees that is no noise", 2),
    "MADR/signal_moments": ("moments: the same", 2),
    "MADR/frechet": ("Frechet distance, features of the term", 3),
    "MADR/gratio": ("gradient over the adversarial one's; 2 is full strength", 2),
}


def curve_of(lines):
    """[{kimg, measure: value}] at POINTS even lengths of a run, from what it logged: one dict per tick."""
    ticks = [line for line in lines if all(name in line for name in MEASURES)]
    if len(ticks) < POINTS:
        raise UserError(
            f"only {len(ticks)} of the run's ticks tell {', '.join(MEASURES)}; {POINTS} are needed: train for longer, with --madr=1 and moments"
        )
    chosen = [ticks[round((point + 1) * len(ticks) / POINTS) - 1] for point in range(POINTS)]
    return [dict(kimg=tick["Progress/kimg"]["mean"], **{name: tick[name]["mean"] for name in MEASURES}) for tick in chosen]


def part(path):
    """The table of the page, from what main() wrote."""
    found = json.loads(path.read_text(encoding="utf-8"))
    lines = ["| kimg | " + " | ".join(heading for heading, _ in MEASURES.values()) + " |", "|---" * (len(MEASURES) + 1) + "|"]
    for point in found["curve"]:
        cells = [f"{point[name]:.{digits}f}" for name, (_, digits) in MEASURES.items()]
        lines.append(f"| {point['kimg']:.0f} | {' | '.join(cells)} |")
    told = f"{found['kimg']} kimg, seed {found['seed']}. {found['date']}; {found['machine']}; PyTorch {found['torch']}."
    return "\n".join([*lines, "", told])


@click.command()
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULT_FILE, show_default="experiments/results/strength.json")
def main(run, out):
    """Write the strength of MADR's terms over the training of RUN, a run folder."""
    try:
        lines = [json.loads(line) for line in (run / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
        options = json.loads((run / "training_options.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{run}: no run folder with stats.jsonl and training_options.json: {error}") from error
    found = dict(
        kimg=options["total_kimg"],
        seed=options["random_seed"],
        madr=options["loss_kwargs"].get("madr", {}),
        curve=curve_of(lines),
        **records.machine(),
    )
    atomic_write_text(out, json.dumps(found, indent=1) + "\n")
    print(f"Written: {out}")


if __name__ == "__main__":
    cli.run(main)
