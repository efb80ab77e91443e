"""Which metric line stands for a run: the last or the best one, up to equal kimg or equal training time.

Runs in, lines out. Must not compute any statistic.
"""

import math
from dataclasses import dataclass

POLICIES = ("last", "best")
POINTS = ("kimg", "time")
FORMATS = ("markdown", "csv", "latex")


@dataclass(frozen=True)
class Candidates:
    """lines: {run name: [MetricLine] in order of kimg}, a single one with the last policy. point: in words."""

    lines: dict
    point: str


def candidates(runs, metric, policy, at, kimg=None):
    """(Candidates or None, sentences). runs: those with lines of this metric; each may fall out with a sentence."""
    by_time = at == "time"
    chosen, point, notes = _by_time(runs, metric) if by_time else _by_kimg(runs, metric, kimg)
    if not chosen:
        return None, notes
    counts = {name: len(lines) for name, lines in chosen.items()}
    if policy == "best" and len(set(counts.values())) > 1:
        notes.append(
            f"{metric}: the best comes from unequal numbers of lines ({', '.join(f'{name} {count}' for name, count in sorted(counts.items()))}); "
            "the more there are to choose from, the better the best looks."
        )
    return Candidates({name: lines if policy == "best" else lines[-1:] for name, lines in chosen.items()}, point), notes


def _by_kimg(runs, metric, kimg):
    if kimg is None:
        common = set.intersection(*(set(run.lines[metric]) for run in runs))
        if not common:
            having = "; ".join(f"{run.name}: {', '.join(map(str, sorted(run.lines[metric])))}" for run in runs)
            return (
                {},
                "",
                [
                    f"{metric} left out: no kimg has a line in every run ({having}). Compute the missing ones with calc_metrics.py, leave runs "
                    "out, or choose with --kimg."
                ],
            )
        kimg = max(common)
    chosen, notes = {}, []
    for run in runs:
        if kimg in run.lines[metric]:
            chosen[run.name] = [line for its_kimg, line in sorted(run.lines[metric].items()) if its_kimg <= kimg]
        else:
            notes.append(f"{run.name} left out of {metric}: it has no line at kimg {kimg} (only {', '.join(map(str, sorted(run.lines[metric])))}).")
    return chosen, f"kimg {kimg}", notes


def _by_time(runs, metric):
    timed, notes = {}, []
    for run in runs:
        times = [(run.seconds_at(kimg), line) for kimg, line in sorted(run.lines[metric].items())]
        known = [(seconds, line) for seconds, line in times if seconds is not None]
        if known:
            timed[run.name] = known
        if len(known) < len(times):
            notes.append(
                f"{run.name}: the training time of {len(times) - len(known)} of its {len(times)} lines of {metric} is not in stats.jsonl; left out."
            )
    if not timed:
        return {}, "", notes
    budget = min(known[-1][0] for known in timed.values())
    chosen = {}
    for name, known in timed.items():
        within = [line for seconds, line in known if seconds <= budget]
        if within:
            chosen[name] = within
        else:
            notes.append(
                f"{name} left out of {metric}: its first line comes after {known[0][0]:.0f} s of training, later than the {budget:.0f} s of the others."
            )
    return chosen, f"{budget:.0f} s of training", notes


# ----------------------------------------------------------------------------------------------------------------
# The one that stands for a run.


def deciding_result(lines):
    """The result that 'best' goes by: that of the metric's own name, else the first by the alphabet."""
    names = sorted({name for line in lines for name in line.results})
    return lines[0].metric if lines[0].metric in names or not names else names[0]


def pick(lines, result, higher_is_better):
    """Of several lines the one with the best value; the earliest of equals. Values that are no numbers lose."""

    def goodness(line):
        value = line.results.get(result)
        if value is None or math.isnan(value):
            return -math.inf
        return value if higher_is_better else -value

    return max(lines, key=goodness)
