"""Turns what the studies wrote (results/) into the tables of docs/studies/ and docs/results.md: python -m experiments.tables

Every number of those pages between marks comes from here. Must not know how the numbers came about.
"""

import click
import numpy as np

from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import claim_rows, claims, default_choice, half_precision, moments, pages, records, strength_curve, toy_2d
from experiments.measures import BACKBONE, DIGITS, EMOJI_PARTS, EXTRA, FORGETTING, PLANTED, STACKED, STACKED32, TOY

STUDIES = records.RESULTS.parent.parent / "docs" / "studies"
PAGE, MOMENTS_PAGE, DEFAULT_PAGE, HALF_PAGE, CLAIMS_PAGE, SENSOR_PAGE = (
    STUDIES / f"{name}.md" for name in ("README", "moments", "default", "half_precision", "claims", "sensors")
)
MONITOR_PAGE = STUDIES.parent / "diversity_monitor.md"


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


def digits_part(file, methods=None):
    """A bed of digits: all methods of the file, or those named."""
    facts, runs = records.load(records.RESULTS / f"{file}.json")
    runs = runs if methods is None else {method: runs[method] for method in methods if method in runs}
    bed = facts["bed"]
    head = (
        f"{facts['steps']} steps of {facts['setting']['batch']} images, {facts['num_samples']} samples, mean of {len(facts['evaluated_at'])} evaluations late in the "
        f"run; digit classifier {facts['classifier_accuracy']:.2%} on MNIST's test digits"
    )
    head += f"; KL of perfect data {facts['floor_kl']:.3f}." if facts["floor_kl"] is not None else "."
    parts = [head, means_table(runs, DIGITS[bed]), *([_cost_line(runs)] if "plain" in runs else [])]
    for ours in ("witness+replay", "witness+moments", default_choice.DEFAULT):
        if ours in runs:
            parts.append(against(runs, ours, without_times(DIGITS[bed])))
    return "\n\n".join([*parts, provenance(runs)])


def _cost_line(runs):
    """CPU time over that of the plain run of the same seed and day: on another day the machine may have been another."""
    ratios = {
        name: [
            entry["seconds"] / plain["seconds"]
            for seed, entry in entries.items()
            if (plain := runs["plain"].get(seed)) and plain["date"] == entry["date"]
        ]
        for name, entries in runs.items()
        if name != "plain"
    }
    told = ", ".join(f"{name} {np.mean(values):.2f}" for name, values in ratios.items() if values)
    return f"CPU time over plain's, same seed and day: {told}." if told else "None ran on plain's day: their times cannot be compared."


def without_times(measures):
    """What can be compared between runs of different days and machines."""
    return [measure for measure in measures if measure[0] not in ("seconds", "seconds_per_kimg")]


def backbone_part(study):
    facts, runs = records.load(records.RESULTS / f"backbone-{study}.json")
    measures = BACKBONE + EXTRA.get(facts["data"], [])
    head = f"{facts['kimg']} kimg with {' '.join(facts['configuration'])}; {facts['num_gen']} generated images; space: {facts['space']}, in which no run was trained."
    entry = next(iter(next(iter(runs.values())).values()))
    if "madr_modes_kl" in entry:
        head += f" KL of perfect data {entry['madr_modes_floor_kl']:.2f}; digit classifier {entry['madr_modes_classifier_accuracy']:.2%} on digits it was not trained on."
    compared = [against(runs, ours, measures) for ours in ("witness+replay", "tilt") if ours in runs]
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


OF_SENSORS = ("colored",)  # beds that stand on the page of the tilt's sensors
PARTS = {
    "what-to-use": (claims.use_table, claim_rows.RECOMMENDED),
    **{f"toy-{layout}": (toy_part, layout) for layout in ("ring", "grid", "imbalanced")},
    "toy-imbalanced-long": (toy_part, "long/imbalanced"),
    **{bed: (digits_part, bed) for bed in DIGITS if bed not in OF_SENSORS},
    **{f"backbone-{study}": (backbone_part, study) for study in ("emoji32-20kimg", "emoji32-40kimg", "stacked-mnist-20kimg")},
}


# ----------------------------------------------------------------------------------------------------------------
# The page of remembered moments.


def _runs_of(file):
    path = records.RESULTS / file
    return records.load(path)[1] if path.exists() else {}


def moments_marks(_):
    found = moments.rows(_runs_of)
    lines = ["| bed | measure | asked of `witness+moments` | found, with its 95% interval | verdict |", "|---|---|---|---|---|"]
    lines += [f"| {bed} | {heading} | {asked} | {told} | {verdict} |" for bed, heading, asked, told, verdict in found]
    return "\n".join([*lines, "", moments.conclusion(found)])


def photo_marks(_):
    lines = [f"| measure | asked of `{moments.PHOTO_ATTEMPT}` | found, with its 95% interval | verdict |", "|---|---|---|---|"]
    return "\n".join([*lines, *(f"| {' | '.join(cells)} |" for cells in moments.photo_rows(_runs_of))])


def moments_part(argument):
    bed, measures = argument
    facts, runs = records.load(records.RESULTS / bed.file)
    chosen = moments.of_the_study(runs, bed)
    ours = next((method for method in (moments.OURS, moments.SECOND_ATTEMPT) if method in chosen), None)
    if ours is None:
        raise FileNotFoundError(f"{bed.file} holds no run of {moments.OURS}")
    parts = [_length_of(facts), means_table(chosen, measures), against(chosen, ours, without_times(measures)), provenance(chosen)]
    return "\n\n".join(parts[:1] + _what_training_images_get(runs, measures) + parts[1:])


def ablations_part(argument):
    """Ours beside what differs from it in one thing, and which of those are missing."""
    bed, measures = argument
    facts, runs = records.load(records.RESULTS / bed.file)
    chosen = moments.of_the_ablations(runs, bed)
    if moments.OURS not in chosen:
        raise FileNotFoundError(f"{bed.file} does not hold all runs of {moments.OURS}")
    left_out = [f"`{method}`" for method in moments.ABLATIONS if method not in chosen]
    told = [f"Not run here: {', '.join(left_out)}."] if left_out else []
    compared = against(chosen, moments.OURS, without_times(measures))
    return "\n\n".join([*told, _length_of(facts), means_table(chosen, measures), compared, provenance(chosen)])


def horizons_part(argument):
    """Ours beside shorter and longer memories, on seeds on which nothing is judged."""
    file, measures = argument
    facts, runs = records.load(records.RESULTS / file)
    chosen = {method: runs[method] for method in (moments.TWIN, *moments.HORIZONS, moments.OURS) if method in runs}
    seeds = sorted({seed for entries in chosen.values() for seed in entries})
    head = f"Seeds {', '.join(map(str, seeds))}. {_length_of(facts)}"
    return "\n\n".join([head, means_table(chosen, measures), against(chosen, moments.OURS, without_times(measures)), provenance(chosen)])


def equal_time_part(argument):
    """Rivals that trained for longer, by as much as ours takes more time, beside ours."""
    rivals, bed, measures, unit = argument
    chosen = {}
    for method, longer in rivals.items():
        facts, runs = records.load(records.RESULTS / longer.file)
        chosen[f"{method}, {facts[unit]} {unit}"] = {seed: entry for seed, entry in runs[method].items() if seed < longer.seeds}
    facts, runs = records.load(records.RESULTS / bed.file)
    seeds = min(longer.seeds for longer in rivals.values())
    ours = f"{moments.OURS}, {facts[unit]} {unit}"
    chosen[ours] = {seed: entry for seed, entry in runs[moments.OURS].items() if seed < seeds}
    return "\n\n".join([means_table(chosen, measures), against(chosen, ours, without_times(measures)), provenance(chosen)])


def _length_of(facts):
    """How long the runs of a file were, and against what they are judged."""
    if "kimg" not in facts:
        return f"{facts['steps']} steps, mean ± half width of the 95% interval over seeds."
    text = f"{facts['kimg']} kimg with {' '.join(facts['configuration'])}; {facts['num_gen']} generated images; space: {facts['space']}"
    if "held_out" not in facts:
        return text + "; reals: those of the training."
    return text + f"; judged against {facts['held_out']['num_images']} images held out, trained on {facts['training']['num_images']}."


def _what_training_images_get(runs, measures):
    """The scale on which to read the table; [] where it was not measured."""
    [entry] = runs.get(records.TRAINING_IMAGES, {}).values() or [{}]
    if not entry:
        return []
    figures = [f"{heading} {entry[name]:.{digits}f}" for name, heading, digits, _ in measures if name in entry]
    text = f"{entry['num_images']} training images in place of generated ones get: {', '.join(figures)}."
    if "held_out_part_authenticity" in entry:
        text += f" Authenticity of the held-out images: {entry['held_out_part_authenticity']:.1f}%."
    return [text]


MOMENTS_PARTS = {
    "moments-marks": (moments_marks, None),
    "moments-stacked-digits": (moments_part, (moments.DIGITS, STACKED32)),
    "moments-stacked-digits-constant-rate": (moments_part, (moments.FIRST_ATTEMPT, STACKED32)),
    "moments-ablations-stacked-digits": (ablations_part, (moments.DIGITS, STACKED32)),
    "moments-ablations-weak-14": (ablations_part, (moments.WEAK14, STACKED)),
    "moments-horizons-stacked-digits": (horizons_part, ("horizons/stacked-digits.json", STACKED32)),
    "moments-horizons-weak-14": (horizons_part, ("horizons/stacked.json", STACKED)),
    "moments-equal-time": (equal_time_part, (moments.EQUAL_TIME, moments.DIGITS, STACKED32, "kimg")),
    "moments-equal-time-weak-14": (equal_time_part, (moments.EQUAL_TIME_WEAK, moments.WEAK14, STACKED, "steps")),
    "moments-strength": (strength_curve.part, strength_curve.RESULT_FILE),
    "moments-photo-marks": (photo_marks, None),
    "moments-emoji": (moments_part, (moments.EMOJI, EMOJI_PARTS)),
    "moments-stacked-mnist": (moments_part, (moments.MNIST, STACKED32)),
    "moments-weak-14": (moments_part, (moments.WEAK14, STACKED)),
    "moments-weak-28": (moments_part, (moments.WEAK28, STACKED)),
    "moments-ring": (moments_part, (moments.RING, TOY)),
    "moments-grid": (moments_part, (moments.GRID, TOY)),
    "moments-imbalanced": (moments_part, (moments.IMBALANCED, TOY)),
}


# ----------------------------------------------------------------------------------------------------------------
# The page of the default.


def default_choice_part(_):
    found, words = default_choice.rows(_runs_of), {moments.MET: "yes", moments.MISSED: "no"}
    lines = ["| method | bed | primary figure | minus | found, with its 95% interval | not worse | better |", "|---|---|---|---|---|---|---|"]
    for candidate, of_beds in found.items():
        lines += [
            f"| `{candidate}` | {bed} | {figure} | `{other}` | {told} | {words.get(not_worse, not_worse)} | {words.get(better, better)} |"
            for bed, figure, other, told, not_worse, better in of_beds
        ]
    return "\n".join([*lines, "", default_choice.conclusion(found)])


def candidates_part(argument):
    """The measures of one bed of the choice, for every method that has run there."""
    file, measures = argument
    facts, runs = records.load(records.RESULTS / file)
    chosen = {method: entries for method, entries in runs.items() if method != records.TRAINING_IMAGES}
    compared = against(chosen, default_choice.DEFAULT, without_times(measures))
    return "\n\n".join([_length_of(facts), *_what_training_images_get(runs, measures), means_table(chosen, measures), compared, provenance(chosen)])


def of_the_choice(file):
    return digits_part(file, (default_choice.FORMER, *reversed(default_choice.CANDIDATES)))


DEFAULT_PARTS = {
    "default-choice": (default_choice_part, None),
    "default-emoji": (candidates_part, (moments.EMOJI.file, EMOJI_PARTS)),
    "default-stacked": (of_the_choice, "weak-d/stacked"),
    "default-stacked28": (of_the_choice, "weak-d/stacked28"),
}


# ----------------------------------------------------------------------------------------------------------------
# The page of half precision.


def half_marks(_):
    found = half_precision.rows(_runs_of(half_precision.BED.file))
    lines = ["| method | measure | asked | found, with its 95% interval | verdict |", "|---|---|---|---|---|"]
    lines += [f"| `{method}` | {heading} | {asked} | {told} | {verdict} |" for method, heading, asked, told, verdict in found]
    return "\n".join([*lines, "", half_precision.conclusion(found)])


def half_part(measures):
    facts, runs = records.load(records.RESULTS / half_precision.BED.file)
    chosen = {method: runs[method] for pair in half_precision.PAIRS.items() for method in reversed(pair) if method in runs}
    compared = [
        against({method: chosen[method] for method in pair if method in chosen}, pair[0], measures)
        for pair in half_precision.PAIRS.items()
        if pair[0] in chosen
    ]
    return "\n\n".join([_length_of(facts), means_table(chosen, measures), *compared, provenance(chosen)])


HALF_PARTS = {"half-precision-marks": (half_marks, None), "half-precision-stacked-digits": (half_part, STACKED32)}


# ----------------------------------------------------------------------------------------------------------------
# The page of claims.


def claims_part(rows):
    return "\n\n".join([f"{claims.in_numbers(rows).capitalize()}.", claims.table(rows), claims.provenance(rows)])


CLAIMS_PARTS = {
    "claims-paper": (claims_part, claim_rows.PAPER),
    "claims-remedies": (claims_part, claim_rows.REMEDIES),
    "claims-here": (claims_part, claim_rows.HERE),
}
# The page of the tilt's sensors, and what the meter of forgetting says on the page of the diversity monitor.


def planted_part(file):
    facts, runs = records.load(records.RESULTS / file)
    entries = [entry for by_seed in runs.values() for entry in by_seed.values()]
    share, alike = (np.mean([entry[name] for entry in entries]) for name in ("rarest_share", "rarest_alike"))
    counted = "; ".join(
        f"{name}: {entry['num_cells']} cells, {entry['window']} images" for name, entry in ((m, next(iter(r.values()))) for m, r in runs.items())
    )
    head = (
        f"{facts['num_images']} images of {facts['data']} in `{facts['extractor']}`, ± over sets; unclear: {facts['unclear']:.0%} blends of two. {counted}. The rarest class has "
        f"{share:.2%} of the images; of its images {alike:.0%} have one of their own class as nearest neighbour."
    )
    return "\n\n".join([head, means_table(runs, PLANTED), provenance(runs)])


def forgetting_part(file):
    facts, runs = records.load(records.RESULTS / file)
    head = f"Ring of 8, {facts['steps']} steps, mean of the second half, ± half width of the 95% interval over seeds."
    return "\n\n".join([head, means_table(runs, FORGETTING), provenance(runs)])


TILTS = ("witness", "tilt", "tilt-logits", "tilt-fine", "witness+moments", "witness+moments+tilt-fine")


def tilts_part(file):
    """The tilt with each of its sensors, and what they bring to the same run without."""
    facts, runs = records.load(records.RESULTS / file)
    chosen = {method: runs[method] for method in TILTS if method in runs}
    compared = [against(chosen, ours, without_times(TOY)) for ours in ("tilt-fine", "witness+moments+tilt-fine") if ours in chosen]
    return "\n\n".join([f"{facts['steps']} steps, ± over seeds.", means_table(chosen, TOY), *compared, provenance(chosen)])


SENSOR_PARTS = {
    "planted-deficits": (planted_part, "planted_deficits.json"),
    "planted-deficits-mnist": (planted_part, "planted_deficits_mnist.json"),
    "tilt-sensors": (tilts_part, "toy/imbalanced.json"),
    **{bed: (digits_part, bed) for bed in OF_SENSORS},
}
MONITOR_PARTS = {"forgetting": (forgetting_part, "toy/forgetting.json")}


def fill(text, parts=None, page=PAGE):
    """(the page with every part made anew whose study has results, names of the others: those parts stay as they are)."""
    missing = []
    for name, (make, argument) in (PARTS if parts is None else parts).items():
        try:
            text = pages.replaced(text, name, make(argument), page)
        except FileNotFoundError:
            missing.append(name)
    return text, missing


@click.command()
def main():
    """Write every table of docs/studies/, docs/results.md and the README anew from experiments/results/."""
    from experiments import results_page  # which takes its tables from here

    pages_of_parts = [
        (PAGE, PARTS),
        (MOMENTS_PAGE, MOMENTS_PARTS),
        (DEFAULT_PAGE, DEFAULT_PARTS),
        (HALF_PAGE, HALF_PARTS),
        (CLAIMS_PAGE, CLAIMS_PARTS),
        (SENSOR_PAGE, SENSOR_PARTS),
        (MONITOR_PAGE, MONITOR_PARTS),
        (results_page.PAGE, results_page.PARTS),
    ]
    if f"<!-- {results_page.RIVALS_MARK}: begin -->" in results_page.README.read_text(encoding="utf-8"):
        pages_of_parts.append((results_page.README, {results_page.RIVALS_MARK: results_page.PARTS[results_page.RIVALS_MARK]}))
    for page, parts in pages_of_parts:
        text, missing = fill(page.read_text(encoding="utf-8"), parts, page)
        atomic_write_text(page, text)
        print(f"Written: {page}")
        if missing:
            print(f"Left as they were, since their studies have no results yet: {', '.join(missing)}")


if __name__ == "__main__":
    cli.run(main)
