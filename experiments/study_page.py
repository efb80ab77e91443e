"""The page of a study: tables and plots from its results, and what was asked of it before.

Statistics are those of experiments/records.py, tables.py and moments.py. Must not know how runs are made.
"""

import io

import numpy as np
import scipy.stats

from dnnlib.errors import UserError
from experiments import moments, records, study as studies, tables

COMMAND = "python -m experiments.run {name} --outdir=OUTDIR{files}"
REPORT = "python -m experiments.report {name} --outdir=OUTDIR"
NOTHING = "Not run yet."
_LINE_WIDTH = 160


def skeleton(study):
    """A page for a study that has none: question, marks, commands, and the places of what is filled in."""
    asked_files = "".join(f" --file {name}=PATH" for name in study.files)
    commands = [COMMAND.format(name=study.name, files=asked_files), REPORT.format(name=study.name)]
    parts = [
        f"# {study.question}",
        "What is asked was written before the runs. ± is the half width of the 95% t interval over seeds; differences are paired by seed, and "
        '"better" and "worse" stand where that interval excludes zero, each row on its own: with so many of them one in twenty would by chance.',
        "\n".join(f"    {command}" for command in commands),
    ]
    if study.files:
        parts.append("\n".join(f"- `{name}`: {what}" for name, what in study.files.items()))
    parts += ["## What is asked", _places(f"{study.name}-rows"), _places(f"{study.name}-marks")]
    for bed in study.beds:
        parts += [f"## {bed.name}", _places(f"{study.name}-{bed.name}")]
    return "\n\n".join(parts) + "\n"


def _places(mark):
    return f"<!-- {mark}: begin -->\n<!-- {mark}: end -->"


def parts_of(study, results):
    """{mark: text} of the page. results: {bed: (facts, {method: {seed: entry}})}, without beds that have none."""
    parts = {f"{study.name}-rows": rows_part(study), f"{study.name}-marks": marks_part(study, results)}
    for bed in study.beds:
        parts[f"{study.name}-{bed.name}"] = bed_part(study, bed, *results[bed.name]) if bed.name in results else NOTHING
    return parts


def rows_part(study):
    """What is compared: methods with their flags, seeds, beds with their primary figure."""
    lines = ["| method | flags | seeds |", "|---|---|---|"]
    for name, flags in study.methods.items():
        told = " ".join([*flags, *([f"--kimg={study.lengths[name]}"] if name in study.lengths else [])])
        lines.append(f"| {name} | `{told or '(none)'}` | {', '.join(map(str, study.seeds_of(name)))} |")
    beds = ["| bed | length | primary figure | flags | data | judged by | without |", "|---|---|---|---|---|---|---|"]
    for bed in study.beds:
        built = "; ".join(f"{part}: `dataset_tool.py {' '.join(flags)}`" for part, flags in bed.build.items())
        judged = "; ".join(f"`{' '.join(judge.flags)}`" for judge in bed.judges) or f"`{bed.script}`"
        flags = " ".join([*study.flags, *bed.flags]) or "(none)"
        cells = [bed.name, f"{study.kimg_of(bed)} kimg", bed.measure(bed.primary).heading, f"`{flags}`", built or "its own", judged]
        beds.append(f"| {' | '.join([*cells, ', '.join(bed.without)])} |")
    published = [study.published] if study.published else []
    return "\n\n".join([f"Version {study.version} of the study.", "\n".join(lines), "\n".join(beds), *published])


# ----------------------------------------------------------------------------------------------------------------
# Marks.


def marks_part(study, results):
    """Each mark with what was found; the verdicts are those of experiments/moments.py."""
    if not study.marks:
        return "No mark was set: the tables tell what there is."
    lines = ["| bed | method | measure | asked | found, with its 95% interval | verdict |", "|---|---|---|---|---|---|"]
    for mark in study.marks:
        measure = study.bed(mark.bed).measure(mark.measure)
        found, verdict = _verdict(study, mark, measure, results.get(mark.bed, ({}, {}))[1])
        lines.append(f"| {mark.bed} | {mark.method} | {measure.heading} | {_as_moments_mark(mark, measure, 0).asked} | {found} | {verdict} |")
    return "\n".join(lines)


def _as_moments_mark(mark, measure, num_seeds):
    bed = moments.Bed(mark.bed, "", num_seeds)
    return moments.Mark(bed, *measure.row, mark.kind, bound=mark.bound, other=mark.other)


def _verdict(study, mark, measure, runs):
    """(what was found, verdict), from the seeds that the study gives to all methods of the mark."""
    names = [name for name in (mark.method, mark.other) if name]
    seeds = [seed for seed in study.seeds_of(mark.method) if all(seed in study.seeds_of(name) for name in names)]
    # There a mark is of one method's name and of seeds from 0 on.
    numbered = lambda name: {number: runs[name][seed] for number, seed in enumerate(seeds) if seed in runs.get(name, {})}
    renamed = {mark.other: numbered(mark.other), moments.OURS: numbered(mark.method)}
    return moments.verdict(_as_moments_mark(mark, measure, len(seeds)), renamed)


# ----------------------------------------------------------------------------------------------------------------
# A bed.


def bed_part(study, bed, facts, runs):
    """Tables of a bed: means, ranks and differences at equal steps and, with curves, at equal time; what is missing; where it was run."""
    runs = in_order(study, runs)
    check_alike(bed, runs)
    lengths = ", or the method's own length" if study.lengths else ""
    parts = [f"{facts['kimg']} kimg{lengths}." + missing(study, bed, runs)]
    if not runs:
        return "\n\n".join(parts)
    measures = [measure.row for measure in bed.measures]
    heading = "Of the lengths above:" if study.lengths else "At equal steps:"
    parts += [heading, *_comparison(study, runs, [*measures, *_time_row(study, runs)], measures)]
    if study.curve:
        at_time, told = at_equal_time(runs, study.time)
        parts += [told, *(_comparison(study, at_time, [("kimg", "kimg", 1, True), *measures], measures) if at_time else [])]
        parts.append(f"![{bed.name}: {bed.measure(bed.primary).heading} over the training]({picture_name(study, bed)})")
    return "\n\n".join([*parts, provenance(runs)])


def provenance(runs):
    """When, on what and with how many threads the runs were made."""
    entries = [entry for _, _, entry in _each(runs)]
    threads = " or ".join(str(count) for count in sorted({entry["threads"] for entry in entries}))
    gpus = sorted({entry["gpu"] for entry in entries if entry["gpu"]})
    told = "; ".join([f"{threads} {'thread' if threads == '1' else 'threads'} per run", *gpus])
    return tables.provenance(runs).replace("one thread per run", told)


def _comparison(study, runs, shown, measures):
    told = [tables.means_table(runs, shown)]
    if len(runs) > 1:
        told.append(ranks_table(runs, measures))
    if study.ours in runs and len(runs) > 1:
        told.append(tables.against(runs, study.ours, measures))
    return told


def in_order(study, runs):
    """Methods and seeds that the study has, in its order, as far as there are results."""
    chosen = {name: {seed: runs[name][seed] for seed in study.seeds_of(name) if seed in runs.get(name, {})} for name in study.methods}
    return {name: entries for name, entries in chosen.items() if entries}


def check_alike(bed, runs):
    """Refuse runs of one method whose training options differ: a default of train.py has changed between them."""
    for method, entries in runs.items():
        of_options = {}
        for seed, entry in entries.items():
            of_options.setdefault(entry.get("options"), []).append(str(seed))
        if len(of_options) > 1:
            groups = " and ".join(f"seeds {', '.join(seeds)}" for seeds in of_options.values())
            raise UserError(
                f"The runs of {method} on {bed.name} were trained with different options ({groups}), though by the same flags: a default has changed "
                "between them. Move the older runs and their entries in results.json away and run the study again."
            )


def missing(study, bed, runs):
    """A sentence on the runs that have no result; '' if all have."""
    absent = [f"{name} {seed}" for name in study.methods_of(bed) for seed in study.seeds_of(name) if seed not in runs.get(name, {})]
    return f" Without a result so far (method and seed): {', '.join(absent)}." if absent else ""


def _time_row(study, runs):
    known = all(entry.get(study.time) is not None for entries in runs.values() for entry in entries.values())
    return [(study.time, f"{studies.TIMES[study.time]}, s", 0, False)] if known else []


def ranks(runs, measure):
    """{method: mean of its ranks over the seeds that all methods share}, 1 the best, equals sharing; {} where they share none.

    measure: as experiments/tables.py takes it.
    """
    name, _, _, higher_is_better = measure
    shared = sorted(set.intersection(*(set(entries) for entries in runs.values())))
    if not shared:
        return {}
    values_MS = np.array([[entries[seed][name] for seed in shared] for entries in runs.values()], np.float64)
    ranks_MS = scipy.stats.rankdata(-values_MS if higher_is_better else values_MS, axis=0)
    return dict(zip(runs, ranks_MS.mean(axis=1).tolist()))


def ranks_table(runs, measures):
    """Markdown: mean rank per measure and over all of them, methods in order of the first measure's."""
    by_measure = {measure[1]: ranks(runs, measure) for measure in measures}
    if not all(by_measure.values()):
        return "No ranks: the methods have no seed in common."
    lines = [f"| mean rank of {len(runs)} | {' | '.join(by_measure)} | all |", "|---" * (len(measures) + 2) + "|"]
    first = next(iter(by_measure.values()))
    for method in sorted(runs, key=first.get):
        own = [of_measure[method] for of_measure in by_measure.values()]
        lines.append(f"| {method} | {' | '.join(f'{rank:.1f}' for rank in own)} | {np.mean(own):.1f} |")
    return "\n".join(lines)


# ----------------------------------------------------------------------------------------------------------------
# Equal time.


def at_equal_time(runs, time):
    """({method: {seed: entry of its curve}}, sentence): the last point of each run within the time that the quickest run took in all."""
    timed = {(method, seed): [point for point in entry.get("curve", []) if point.get(time) is not None] for method, seed, entry in _each(runs)}
    unknown = [f"{method} {seed}" for (method, seed), points in timed.items() if not points]
    known = {key: points for key, points in timed.items() if points}
    left_out = f" Without a known time: {', '.join(unknown)}." if unknown else ""
    if not known:
        return {}, f"No comparison at equal time: no run has a curve with times.{left_out}"
    budget = min(points[-1][time] for points in known.values())
    chosen, late = {}, []
    for (method, seed), points in known.items():
        within = [point for point in points if point[time] <= budget]
        if within:
            chosen.setdefault(method, {})[seed] = {**runs[method][seed], **within[-1]}
        else:
            late.append(f"{method} {seed}")
    told = f"At equal {studies.TIMES[time]} ({budget:.0f} s, what the quickest run took; each run counts with its last judged network until then):"
    return chosen, told + left_out + (f" Not judged that early: {', '.join(late)}." if late else "")


def _each(runs):
    return [(method, seed, entry) for method, entries in runs.items() for seed, entry in entries.items()]


# ----------------------------------------------------------------------------------------------------------------
# Pictures.


def picture_name(study, bed):
    return f"{study.name}-{bed.name}.png"


def mean_curve(entries, name):
    """(kimg [P], mean [P], half width of the 95% interval [P], nan for one seed) of a measure, at the kimg that all seeds have."""
    curves = [{point["kimg"]: point[name] for point in entry["curve"]} for entry in entries.values()]
    shared = sorted(set.intersection(*(set(curve) for curve in curves)))
    found = [records.mean_and_interval([curve[kimg] for curve in curves]) for kimg in shared]
    return np.array(shared), np.array([mean for mean, _ in found]), np.array([half for _, half in found])


def draw(study, bed, runs):
    """PNG: each measure over the training, mean and 95% interval by method."""
    from matplotlib.figure import Figure

    runs = in_order(study, runs)
    figure = Figure(figsize=(4.2 * len(bed.measures), 3.6))
    for axes, measure in zip(np.atleast_1d(figure.subplots(1, len(bed.measures))), bed.measures):
        for number, (method, entries) in enumerate(runs.items()):
            kimg, mean, half = mean_curve(entries, measure.name)
            style = dict(color=f"C{number % 10}", linestyle=("-", "--", ":")[number // 10 % 3])
            axes.plot(kimg, mean, label=method, **style)
            axes.fill_between(kimg, mean - half, mean + half, color=style["color"], alpha=0.15, linewidth=0)
        axes.set(title=measure.heading, xlabel="kimg")
    figure.axes[0].legend(fontsize="small")
    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=100)
    return buffer.getvalue()
