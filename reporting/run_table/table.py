"""The table itself: per metric and method the mean over seeds, its standard error, and the paired difference to the baseline.

Runs and choices in, rows and sentences out. Must not know how they are written.
"""

import dataclasses
import math
from dataclasses import dataclass, field

import numpy as np

from dnnlib.errors import UserError
from metrics import comparison
from reporting.run_table import likeness, selection

MAX_SENTENCES = 6


@dataclass(frozen=True)
class Choices:
    """baseline: name of a method or None. kimg: None for the largest common one. only: metrics or None for all that there are."""

    policy: str = "last"
    at: str = "kimg"
    kimg: float | None = None
    baseline: str | None = None
    only: tuple | None = None
    force: bool = False


@dataclass(frozen=True)
class Row:
    """One result of one method. difference and interval: None where there are no pairs; interval: None for a single one, too."""

    metric: str
    result: str
    point: str
    method: str
    values: dict  # seed -> value
    kimgs: tuple  # of the snapshots, by seed
    mean: float
    std_error: float | None
    difference: float | None = None
    interval: tuple | None = None
    pairs: int = 0


@dataclass
class Table:
    choices: Choices
    runs: list
    rows: list = field(default_factory=list)
    facts: dict = field(default_factory=dict)  # metric -> {fact: JSON text} that all its lines share
    used: dict = field(default_factory=dict)  # run name -> {metric: kimg of the line that stands for it}
    deciders: dict = field(default_factory=dict)  # metric -> (result, 'highest' or 'lowest') of the best policy
    notes: list = field(default_factory=list)
    forced: list = field(default_factory=list)  # unlike lines that were compared all the same


def make_table(runs, choices, higher_is_better, notes=()):
    """Table of the runs. higher_is_better: function of a metric's name. Raises UserError for unlike lines unless forced."""
    baseline = find_baseline(runs, choices.baseline)
    choices = dataclasses.replace(choices, baseline=baseline)
    table = Table(choices, runs, notes=[*notes, *_notes_on_runs(runs)])
    if baseline is None:
        table.notes.append(_why_no_baseline(runs))
    for metric in _metrics_to_compare(runs, choices):
        _add_metric(table, metric, higher_is_better(metric))
    if not table.rows:
        raise UserError(" ".join(["Nothing is left to compare.", *table.notes]))
    return table


def find_baseline(runs, asked):
    """The method asked for, else the one without MADR if there is exactly one."""
    names = sorted({run.method for run in runs})
    if asked is not None:
        if asked not in names:
            raise UserError(f"--baseline={asked} is none of the methods: {', '.join(names)}.")
        return asked
    plain = [name for name in names if not any(run.uses_plugin for run in runs if run.method == name)]
    return plain[0] if len(plain) == 1 and len(names) > 1 else None


def _why_no_baseline(runs):
    names = sorted({run.method for run in runs})
    if len(names) == 1:
        return f"All runs are of one method, {names[0]}; there is nothing to compare it with."
    return f"No differences: not exactly one method is without MADR; choose one with --baseline (the methods: {', '.join(names)})."


def _metrics_to_compare(runs, choices):
    there = sorted({metric for run in runs for metric in run.lines})
    missing = [metric for metric in choices.only or () if metric not in there]
    if missing:
        raise UserError(f"--metrics={','.join(missing)}: no run has a line of that; there are {', '.join(there)}.")
    return [metric for metric in there if choices.only is None or metric in choices.only]


def _notes_on_runs(runs):
    notes = []
    for run in runs:
        if not run.is_finished:
            reached = "no kimg" if run.kimg is None else f"kimg {run.kimg:g}"
            notes.append(
                f"{run.name} is not finished: it has reached {reached} of {'an unknown number' if run.total_kimg is None else f'{run.total_kimg:g}'}."
            )
    for method in sorted({run.method for run in runs}):
        for option in ("num_gpus", "batch_gpu"):
            stated = {run.name: run.options.get(option) for run in runs if run.method == method}
            if len(set(stated.values())) > 1:
                notes.append(
                    f"The runs of {method} differ in {option}: " + ", ".join(f"{name} {value}" for name, value in sorted(stated.items())) + "."
                )
    return notes


# ----------------------------------------------------------------------------------------------------------------
# One metric.


def _add_metric(table, metric, higher_is_better):
    having = [run for run in table.runs if metric in run.lines]
    table.notes += [f"{run.name} left out of {metric}: it has no line of that." for run in table.runs if metric not in run.lines]
    found, notes = selection.candidates(having, metric, table.choices.policy, table.choices.at, table.choices.kimg)
    table.notes += notes
    if found is None:
        return
    _check_alike(table, metric, [(name, line.line) for name, lines in found.lines.items() for line in lines])
    every_line = [line for lines in found.lines.values() for line in lines]
    decider = selection.deciding_result(every_line)
    if table.choices.policy == "best":
        table.deciders[metric] = decider, "highest" if higher_is_better else "lowest"
    chosen = {name: selection.pick(lines, decider, higher_is_better) for name, lines in found.lines.items()}
    for name, line in chosen.items():
        table.used.setdefault(name, {})[metric] = line.kimg
    table.facts[metric] = likeness.shared_facts([line.line for line in chosen.values()])
    for result in sorted({name for line in chosen.values() for name in line.results}):
        _add_result(table, metric, result, found.point, [(run, chosen[run.name]) for run in having if run.name in chosen])


def _check_alike(table, metric, named_lines):
    unlike, noted = likeness.differences(named_lines)
    table.notes += [f"{metric}: {sentence}." for sentence in noted]
    if not all(isinstance(line.get("facts"), dict) for _, line in named_lines):
        table.notes.append(f"{metric}: not every line states what its numbers depend on; whether they are comparable is not known.")
    if unlike and not table.choices.force:
        further = f" (and {len(unlike) - MAX_SENTENCES} more)" if len(unlike) > MAX_SENTENCES else ""
        raise UserError(
            f"The lines of {metric} cannot be compared: {'; '.join(unlike[:MAX_SENTENCES])}{further}. Compute them alike with "
            "calc_metrics.py, leave runs out, or compare them all the same with --force."
        )
    table.forced += [f"{metric}: {sentence}" for sentence in unlike]


def _add_result(table, metric, result, point, chosen):
    by_method = {}
    for run, line in chosen:
        value = line.results.get(result)
        if value is None:
            table.notes.append(f"{run.name} left out of {result}: its line holds no number there.")
            continue
        if not math.isfinite(value):
            table.notes.append(f"{run.name} has {result} = {value} at kimg {line.kimg}: no mean can be taken with it.")
        by_method.setdefault(run.method, {})[run.seed] = value, line.kimg
    baseline = table.choices.baseline
    for method, found in sorted(by_method.items(), key=lambda item: (item[0] != baseline, item[0])):
        values = {seed: value for seed, (value, _) in sorted(found.items())}
        mean, std_error = mean_and_error(list(values.values()))
        compared = {}
        if baseline in by_method and method != baseline:
            compared = paired(values, {seed: value for seed, (value, _) in by_method[baseline].items()})
            alone = sorted(set(values) ^ set(by_method[baseline]))
            if alone:
                table.notes.append(
                    f"{result}: {method} and {baseline} share {compared.get('pairs', 0)} seeds; not paired: {', '.join(map(str, alone))}."
                )
        kimgs = tuple(kimg for _, (_, kimg) in sorted(found.items()))
        table.rows.append(Row(metric, result, point, method, values, kimgs, mean, std_error, **compared))


def mean_and_error(values):
    """(mean, standard error s / sqrt n with n - 1 under s; None for one value or one that is not finite)."""
    values_N = np.asarray(values, np.float64)
    if not np.isfinite(values_N).all():
        return float(values_N.sum()), None  # inf or NaN, as they are
    return float(values_N.mean()), float(values_N.std(ddof=1) / len(values_N) ** 0.5) if len(values_N) > 1 else None


def paired(ours, theirs):
    """Mean difference over the seeds of both and its t interval, as fields of a Row; {} without a common seed."""
    differences = [ours[seed] - theirs[seed] for seed in sorted(set(ours) & set(theirs))]
    if not differences or not np.isfinite(differences).all():
        return dict(pairs=len(differences))
    return dict(difference=float(np.mean(differences)), interval=comparison.t_interval(differences), pairs=len(differences))
