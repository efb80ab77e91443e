"""Writes the table of results at the top of README.md from the files that the studies wrote.

    python docs/front/table.py

Fills docs/front/results.md, and README.md between `<!-- results -->` and `<!-- /results -->`. Every number comes from
experiments/results/. Must not know how the numbers came about.
"""

import dataclasses
import re
import sys
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np

from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from experiments import records, tables
from experiments.default_choice import DEFAULT
from experiments.moments import PHOTO_ATTEMPT

PAGE = Path(__file__).resolve().parent / "results.md"
README = REPO / "README.md"
MARKED = re.compile(r"(<!-- results -->\n).*?(<!-- /results -->)", re.DOTALL)
NONE = "not run"


@dataclass(frozen=True)
class Bed:
    """A row: where its runs lie, what is read from them, and which method stands in which column."""

    name: str
    file: str
    measure: str
    heading: str
    digits: int
    higher_is_better: bool = True
    memory_free: str = "witness"
    ours: str = DEFAULT


_DIGITS = "backbone-stacked-digits-20kimg.json"
_TO_HELD_OUT = "Frechet distance to held-out emoji, MobileNetV2, less is better"
EMOJI = Bed("StyleGAN2 on emoji, 40 kimg", "backbone-emoji32-train-40kimg.json", "frechet", _TO_HELD_OUT, 1, False)
EMOJI_RANDOM = dataclasses.replace(
    EMOJI, name="the same", measure="held_out_coverage", heading="coverage of held-out emoji, random convolutions", digits=3, higher_is_better=True
)
BROUGHT_BACK = 0.6  # of the rare classes' share, as was asked of it
LONG_TAIL = Bed("Long-tailed MNIST", "longtail.json", "rare_share", "share of rare classes, 1 is right", 2)
COLOURS = Bed("Digits, one in a hundred of another colour", "colored.json", "minority_share", "share of the rare colour, 1 is right", 2)
MNIST = Bed(
    "StyleGAN2 on Stacked MNIST, 40 kimg", "backbone-stacked-mnist-40kimg.json", "madr_modes", "modes hit, of 1000", 0, ours="witness+moments"
)
# The moments with memory and without: rows of a sentence, not of the table.
_TWINS = dict(memory_free="witness+batch-moments", ours="witness+moments")
MODES = Bed("StyleGAN2 on Stacked Digits, 20 kimg", _DIGITS, "madr_modes", "modes hit, of 1000", 0, **_TWINS)
MODES_OF_64 = Bed("Stacked MNIST, 14 px", "weak-d/stacked.json", "modes", "modes hit, of 1000", 0, **_TWINS)
MODES_OF_MNIST = dataclasses.replace(MNIST, **_TWINS)
COVERAGE = dataclasses.replace(EMOJI_RANDOM, **_TWINS)
BEDS = (
    Bed("Ring of 8 Gaussians", "toy/ring.json", "modes", "modes held, of 8", 1),
    Bed("Ring with modes of 1 and 2%", "toy/imbalanced.json", "modes", "modes held, of 8", 1),
    EMOJI,
    EMOJI_RANDOM,
    dataclasses.replace(EMOJI, name="the same, led by a photographs' network", ours=PHOTO_ATTEMPT),
    dataclasses.replace(
        EMOJI,
        name="the same",
        measure="coverage",
        heading="coverage of held-out emoji, MobileNetV2",
        digits=3,
        higher_is_better=True,
        ours=PHOTO_ATTEMPT,
    ),
    LONG_TAIL,
    dataclasses.replace(LONG_TAIL, name="the same", measure="classes", heading="classes held, of 10", digits=1),
    MNIST,
    Bed("StyleGAN2 on Stacked Digits, 20 kimg", _DIGITS, "madr_modes", "modes hit, of 1000", 0),
    Bed("the same", _DIGITS, "digits_frechet", "Frechet distance in a digit classifier, less is better", 1, False),
    Bed("the same", _DIGITS, "recall", "recall of held-out digits, random convolutions", 3),
)


def runs_of(bed):
    """{method: {seed: {measure: number}}} of a row; {} where it was not run yet."""
    path = records.RESULTS / bed.file
    return records.load(path)[1] if path.exists() else {}


def mean(runs, method, bed):
    """A cell: the mean over seeds with the half width of its 95% t interval."""
    return tables.cell([entry[bed.measure] for entry in runs[method].values()], bed.digits) if method in runs else NONE


def difference(runs, ours, other, bed):
    """-> (mean, lower end, upper end) of ours minus other, paired by seed, with its 95% t interval; None where they share no two seeds."""
    seeds = sorted(set(runs.get(ours, ())) & set(runs.get(other, ())))
    if len(seeds) < 2:
        return None
    middle, half_width = records.mean_and_interval([runs[ours][seed][bed.measure] - runs[other][seed][bed.measure] for seed in seeds])
    return middle, middle - half_width, middle + half_width


def sure(found):
    """Whether the interval leaves zero out."""
    return found[1] > 0 or found[2] < 0


def told(found, bed):
    """A difference as a cell, with the word for it."""
    if found is None:
        return NONE
    word = "open" if not sure(found) else "better" if (found[0] > 0) == bed.higher_is_better else "worse"
    middle, low, high = (f"{value:+.{bed.digits}f}" for value in found)
    return f"{middle} [{low}, {high}] {word}"


def row(bed):
    runs = runs_of(bed)
    cells = [
        bed.name,
        bed.heading,
        mean(runs, "plain", bed),
        mean(runs, bed.memory_free, bed),
        mean(runs, bed.ours, bed),
        told(difference(runs, bed.ours, "plain", bed), bed),
        told(difference(runs, bed.ours, bed.memory_free, bed), bed),
        str(len(runs.get(bed.ours, ()))),
    ]
    return f"| {' | '.join(cells)} |"


def not_yet():
    """What does not work, in a sentence that the numbers bear out; refused once they no longer do."""
    runs, emoji = runs_of(LONG_TAIL), difference(runs_of(EMOJI), EMOJI.ours, EMOJI.memory_free, EMOJI)
    tail = difference(runs, LONG_TAIL.ours, "plain", LONG_TAIL)
    if sure(emoji) or (tail is not None and np.mean([entry[LONG_TAIL.measure] for entry in runs[LONG_TAIL.ours].values()]) >= BROUGHT_BACK):
        raise UserError(f"The sentence on what does not work yet no longer follows from {records.RESULTS}; write it anew in {Path(__file__).name}.")
    rare = (
        "whether rare classes of a long tail are brought back was not run"
        if tail is None
        else f"rare classes of a long tail are not brought back: of their share MADR makes {mean(runs, LONG_TAIL.ours, LONG_TAIL)}, the plain GAN "
        f"{mean(runs, 'plain', LONG_TAIL)} ({told(tail, LONG_TAIL)})"
    )
    colours = runs_of(COLOURS)
    if colours:
        rare += (
            f". Of a colour that one image in a hundred has MADR draws {mean(colours, COLOURS.ours, COLOURS)} of its share, "
            f"the plain GAN {mean(colours, 'plain', COLOURS)}"
        )
    return f"What does not work yet: {rare}. On emoji the default, led by pixels' components, is level with the witness in the features of a photographs' network ({told(emoji, EMOJI)})."


def what_memory_adds():
    """The remembered moments against their memory-free twin, in a sentence that the numbers bear out; refused once they no longer do."""
    beds = (MODES, MODES_OF_64, COVERAGE, MODES_OF_MNIST)
    small, large, coverage, of_mnist = (difference(runs_of(bed), bed.ours, bed.memory_free, bed) for bed in beds)
    shorter = difference(runs_of(MODES_OF_64), "horizon-0.2", MODES_OF_64.ours, MODES_OF_64)
    if small[1] < 0 or large[2] > 0 or shorter[1] < 0 or coverage[1] < 0:
        raise UserError(f"The sentence on what memory adds no longer follows from {records.RESULTS}; write it anew in {Path(__file__).name}.")
    return (
        "What the memory of moments adds to the same term with the moments of each batch alone (`--madr-moments-horizon=0`), in modes of 1000. On Stacked Digits, where a step sees 16 "
        f"images: {told(small, MODES)}; on Stacked MNIST, 3 seeds: {told(of_mnist, MODES_OF_MNIST)}. On Stacked MNIST at 14 px, where it sees 64: "
        f"{told(large, MODES_OF_64)}; a shorter memory (`--madr-moments-horizon=0.2`, picked among three on these seeds) against the usual one: "
        f"{told(shorter, MODES_OF_64)}. In coverage of held-out emoji, random convolutions: {told(coverage, COVERAGE)}. The whole comparison: "
        "`docs/studies/moments.md`."
    )


def text():
    """The whole text between the marks."""
    head = ["test bed", "measure", "plain GAN", "without memory", "MADR", "MADR minus plain", "MADR minus without memory", "seeds"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(row, BEDS)]
    note = (
        'Means over seeds ± half the width of the 95% interval. Differences are paired by seed, with their 95% interval; "open": the interval holds zero. '
        "MADR is `--madr=1`; led by a photographs' network: `--madr=1 --madr-preset=moments --madr-extractor=file:NETWORK.pt`, EfficientNet-Lite0, which takes twice as long and is no better "
        "in random convolutions. Without memory: the witness alone (`--madr-preset=witness`). "
        "On Stacked MNIST MADR is `--madr-preset=moments`, which has no tilt. On Stacked Digits plain and the witness, on Stacked MNIST plain and the "
        "twin below, on emoji the twin and the runs led by photographs are of another machine than the rest: there equal seeds mean no more than equal "
        "first weights, and an interval of paired differences may be narrower by chance than those of the means."
    )
    note += "\n\n" + what_memory_adds()
    return "\n".join([*lines, "", note, "", not_yet()]) + "\n"


def filled(readme):
    """README.md's text with the present table between its marks."""
    if not MARKED.search(readme):
        raise UserError(f"{README} has no marks '<!-- results -->' and '<!-- /results -->' any more; put them back where the table belongs.")
    return MARKED.sub(lambda match: match.group(1) + text() + match.group(2), readme)


@click.command()
def main():
    """Write docs/front/results.md and the table in README.md."""
    atomic_write_text(str(PAGE), text())
    atomic_write_text(str(README), filled(README.read_text(encoding="utf-8")))
    print(f"Written: {PAGE}, {README}")


if __name__ == "__main__":
    cli.run(main)
