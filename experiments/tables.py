"""Turns what the studies wrote (results/) into the tables of docs/studies/README.md: python -m experiments.tables

Every number of that page between marks comes from here. Must not know how the numbers came about.
"""

import sys

import numpy as np

from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from experiments import pages, records, toy_2d

PAGE = records.RESULTS.parent.parent / "docs" / "studies" / "README.md"
# Measures of each study: (name in the file, heading, digits, whether more is better).
_STACKED = [
    ("modes", "modes of 1000", 0, True),
    ("modes_5hits", "hit 5 times", 0, True),
    ("kl", "KL (nats)", 2, False),
    ("frechet", "Frechet distance", 1, False),
    ("confidence", "confidence", 2, True),
    ("seconds", "CPU s", 0, False),
]
DIGITS = {
    "stacked": _STACKED,
    "stacked28": _STACKED,
    "longtail": [
        ("classes", "classes held, of 10", 1, True),
        ("rare_classes", "rare ones, of 4", 1, True),
        ("rare_share", "rare share / true", 2, True),
        ("clear", "clear images", 2, True),
        ("frechet", "Frechet distance", 1, False),
        ("seconds", "CPU s", 0, False),
    ],
}
BACKBONE = [
    ("coverage", "coverage", 3, True),
    ("recall", "recall", 3, True),
    ("precision", "precision", 3, True),
    ("frechet", "Frechet distance", 1, False),
    ("held_out_coverage", "coverage, random conv.", 3, True),
    ("held_out_frechet", "Frechet, random conv.", 3, False),
]
EXTRA = {
    "emoji32": [("rare_share", "rare share / true", 2, True)],
    "stacked-mnist": [("madr_modes", "modes of 1000", 0, True), ("madr_modes_kl", "KL (nats)", 2, False)],
}


def means_table(runs, measures):
    """{method: {seed: entry}} -> Markdown: means with the half width of their 95% t interval."""
    lines = ["| method | seeds | " + " | ".join(heading for _, heading, _, _ in measures) + " |", "|---" * (len(measures) + 2) + "|"]
    for method, entries in runs.items():
        cells = [cell([entry[name] for entry in entries.values()], digits) for name, _, digits, _ in measures]
        lines.append(f"| {method} | {len(entries)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(values, digits):
    mean, half_width = records.mean_and_interval(values)
    return f"{mean:.{digits}f}" if np.isnan(half_width) else f"{mean:.{digits}f} ± {half_width:.{digits}f}"


def against(runs, ours, measures):
    """Ours against every other method: mean of the differences by seed with its 95% interval; a verdict where that excludes zero."""
    lines = [f"| {ours} minus | " + " | ".join(heading for _, heading, _, _ in measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for method in runs:
        seeds = sorted(set(runs[method]) & set(runs[ours]))
        if method == ours or not seeds:
            continue
        cells = []
        for name, _, digits, higher_is_better in measures:
            difference = [runs[ours][seed][name] - runs[method][seed][name] for seed in seeds]
            mean, half_width = records.mean_and_interval(difference)
            sure = not np.isnan(half_width) and abs(mean) > half_width
            verdict = (" better" if (mean > 0) == higher_is_better else " worse") if sure else ""
            cells.append(f"{mean:+.{digits}f} ± {half_width:.{digits}f}{verdict}" if not np.isnan(half_width) else f"{mean:+.{digits}f}")
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(lines)


def provenance(runs):
    entries = [entry for by_seed in runs.values() for entry in by_seed.values()]
    machines, dates = sorted({entry["machine"] for entry in entries}), sorted({entry["date"] for entry in entries})
    return f"{dates[0]}{'' if len(dates) == 1 else ' to ' + dates[-1]}; {'; '.join(machines)}; one thread per run; PyTorch {entries[0]['torch']}."


def digits_part(bed):
    facts, runs = records.load(records.RESULTS / f"{bed}.json")
    head = (
        f"{facts['steps']} steps of {facts['setting']['batch']} images, {facts['num_samples']} samples, mean of {len(facts['evaluated_at'])} evaluations late in the "
        f"run; digit classifier {facts['classifier_accuracy']:.2%} on MNIST's test digits"
    )
    head += f"; KL of perfect data {facts['floor_kl']:.3f}." if facts["floor_kl"] is not None else "."
    costs = {
        name: np.mean([runs[name][seed]["seconds"] / runs["plain"][seed]["seconds"] for seed in runs[name] if seed in runs["plain"]])
        for name in runs
        if "plain" in runs
    }
    cost_line = "CPU time over plain's, same seed: " + ", ".join(f"{name} {value:.2f}" for name, value in costs.items() if name != "plain") + "."
    parts = [head, means_table(runs, DIGITS[bed]), cost_line]
    if "default" in runs:
        parts.append(against(runs, "default", [row for row in DIGITS[bed] if row[0] != "seconds"]))
    return "\n\n".join([*parts, provenance(runs)])


def backbone_part(study):
    facts, runs = records.load(records.RESULTS / f"backbone-{study}.json")
    measures = BACKBONE + EXTRA.get(facts["data"], [])
    head = f"{facts['kimg']} kimg with {' '.join(facts['configuration'])}; {facts['num_gen']} generated images; space: {facts['space']}, in which no run was trained."
    entry = next(iter(next(iter(runs.values())).values()))
    if "madr_modes_kl" in entry:
        head += f" KL of perfect data {entry['madr_modes_floor_kl']:.2f}; digit classifier {entry['madr_modes_classifier_accuracy']:.2%} on digits it was not trained on."
    compared = [against(runs, ours, measures) for ours in ("default", "tilt") if ours in runs]
    return "\n\n".join([head, means_table(runs, measures), *compared, provenance(runs)])


def toy_part(layout):
    facts, runs = records.load(records.RESULTS / "toy" / f"{layout}.json")
    seeds = sorted({len(entries) for entries in runs.values()})
    return "\n\n".join(
        [
            f"{facts['steps']} steps, {' to '.join(map(str, seeds[:: max(len(seeds) - 1, 1)]))} seeds, mean ± half width of the 95% interval over seeds.",
            toy_2d.table(runs, len(toy_2d.mode_layout(facts["layout"])[0])),
            provenance(runs),
        ]
    )


PARTS = {
    **{f"toy-{layout}": (toy_part, layout) for layout in ("ring", "grid", "imbalanced")},
    "toy-imbalanced-long": (toy_part, "long/imbalanced"),
    **{bed: (digits_part, bed) for bed in DIGITS},
    **{f"backbone-{study}": (backbone_part, study) for study in ("emoji32-20kimg", "emoji32-40kimg", "stacked-mnist-20kimg")},
}


def fill(text):
    """(the page with every part made anew whose study has results, names of the others: those parts stay as they are)."""
    missing = []
    for name, (make, argument) in PARTS.items():
        try:
            text = pages.replaced(text, name, make(argument), PAGE)
        except FileNotFoundError:
            missing.append(name)
    return text, missing


def main():
    text, missing = fill(PAGE.read_text(encoding="utf-8"))
    atomic_write_text(PAGE, text)
    print(f"Written: {PAGE}")
    if missing:
        print(f"Left as they were, since their studies have no results yet: {', '.join(missing)}")


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"Error: {error}")
