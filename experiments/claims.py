"""What was claimed of memory-augmented replay, and what came of it here: rows, each with the rule of its verdict and the file that decides.

`python -m experiments.tables` writes docs/studies/claims.md from them; every figure is read from a committed file. Rows are in
experiments/claim_rows.py. Must not know pages.
"""

import json
import math
from dataclasses import dataclass
from typing import NamedTuple

from experiments import records

HELD, FAILED, OPEN = "held", "failed", "not decidable here"
USUAL_SEEDS = 10  # where no file says how many would be enough
MOST_SEEDS = 1000  # that a study takes
REPO = records.RESULTS.parent.parent


class Found(NamedTuple):
    """What a file says: the figure in words, the verdict, and how many seeds would surely decide where these do not (None: nobody knows)."""

    figure: str
    verdict: str
    seeds: int | None = None


@dataclass(frozen=True)
class Claim:
    """claim: what is said. by: one of the rules below. decides: what would decide it where it is open, in Markdown; {seeds} stands for how many."""

    claim: str
    by: object
    decides: str = ""

    def found(self):
        """What the rule's file says; open where the file is not there yet."""
        if self.by.path is not None and not self.by.path.exists():
            return Found("not run yet", OPEN)
        return self.by.found()


def _interval(values, digits, sign=""):
    """-> (mean, low, high, words) of the 95% t interval over seeds."""
    mean, half_width = records.mean_and_interval(values)
    low, high = mean - half_width, mean + half_width
    told = [f"{round(value, digits) + 0.0:{sign}.{digits}f}" for value in (mean, low, high)]  # + 0.0: no minus before a zero
    return mean, low, high, f"{told[0]} [{told[1]}, {told[2]}]"


@dataclass(frozen=True)
class Gain:
    """`ours` minus `other`, paired by seed. Held: the 95% interval lies wholly on the better side of zero. Failed: it lies wholly below `least`, the smallest
    gain that counts. Else open."""

    file: str  # below experiments/results/
    ours: str
    other: str
    measure: str
    heading: str
    digits: int
    least: float
    higher_is_better: bool = True

    @property
    def path(self):
        return records.RESULTS / self.file

    @property
    def rule(self):
        better = "more" if self.higher_is_better else "less"
        return f"{self.heading}: surely {better} than `{self.other}`; failed if surely by less than {self.least:g}"

    def found(self):
        runs = records.load(self.path)[1]
        seeds = sorted(set(runs.get(self.ours, ())) & set(runs.get(self.other, ())))
        if len(seeds) < 2:
            return Found("not run yet", OPEN)
        mean, low, high, words = _interval(
            [runs[self.ours][seed][self.measure] - runs[self.other][seed][self.measure] for seed in seeds], self.digits, "+"
        )
        words += f" over {len(seeds)} seeds (`{self.ours}` minus `{self.other}`)"
        worst, best = (low, high) if self.higher_is_better else (-high, -low)
        if worst > 0:
            return Found(words, HELD)
        if best < self.least:
            return Found(words, FAILED)
        # An interval of `least` in all lies on one of the two sides, wherever its middle is.
        return Found(words, OPEN, math.ceil(len(seeds) * ((high - low) / self.least) ** 2))


@dataclass(frozen=True)
class Level:
    """The mean of a measure over seeds. Held: its 95% interval lies wholly on the asked side of `bound` (kind 'at least', 'at most'), or holds it ('equal').
    Failed: wholly on the other side, or does not hold it."""

    file: str
    method: str
    measure: str
    heading: str
    digits: int
    kind: str
    bound: float

    @property
    def path(self):
        return records.RESULTS / self.file

    @property
    def rule(self):
        return f"{self.heading}: {self.kind} {'to ' if self.kind == 'equal' else ''}{self.bound:g}"

    def found(self):
        entries = records.load(self.path)[1][self.method]
        _, low, high, words = _interval([entry[self.measure] for entry in entries.values()], self.digits)
        words += f" over {len(entries)} seeds"
        if self.kind == "equal":
            return Found(words, HELD if low <= self.bound <= high else FAILED)
        low, high = (low, high) if self.kind == "at least" else (-high, -low)
        bound = self.bound if self.kind == "at least" else -self.bound
        return Found(words, HELD if low >= bound else FAILED if high < bound else OPEN)


@dataclass(frozen=True)
class StepTime:
    """Time of a training step over the plain one's. Held: the upper quartile over rounds is at most `bound`; failed: the lower one is above it."""

    bed: str
    method: str
    bound: float

    path = REPO / "benchmarks" / "results" / "madr_cost.json"

    @property
    def rule(self):
        return f"time of a step over plain's: at most {self.bound:g}"

    def found(self):
        figures = json.loads(self.path.read_text(encoding="utf-8"))["beds"][self.bed][self.method]
        low, high = figures["quartiles"]
        words = f"{figures['times_plain']:.2f}, quartiles {low:.2f} to {high:.2f}"
        return Found(words, HELD if high <= self.bound else FAILED if low > self.bound else OPEN)


@dataclass(frozen=True)
class Speed:
    """How many times as fast one way of keeping the coverage scores is as computing them anew; medians of rounds in turn."""

    way: str
    bound: float

    path = REPO / "benchmarks" / "results" / "coverage_upkeep.json"

    @property
    def rule(self):
        return f"at least {self.bound:g} times as fast as all pairs"

    def found(self):
        found = json.loads(self.path.read_text(encoding="utf-8"))["found"]
        milliseconds, ratio = found["cpu_ms"], found["times_anew"] / (1 if self.way == "incremental" else found[f"times_{self.way}"])
        return Found(
            f"{ratio:.1f} times ({milliseconds[self.way]:.0f} ms against {milliseconds['anew']:.0f})", HELD if ratio >= self.bound else FAILED
        )


@dataclass(frozen=True)
class NotMeasured:
    """Nothing here decides it. why: what lacks."""

    why: str
    path = None
    rule, heading = "none yet", "not run"

    def found(self):
        return Found(self.why, OPEN)


# ----------------------------------------------------------------------------------------------------------------
# Words.


def file_of(claim):
    """The file that decides, from the repository's root; None where there is none (yet)."""
    return claim.by.path.relative_to(REPO).as_posix() if claim.by.path is not None and claim.by.path.exists() else None


def what_decides(claim, found):
    """What would settle an open claim, in words; '' where nothing is open."""
    if found.verdict != OPEN:
        return ""
    if (found.seeds or 0) > MOST_SEEDS:
        return f"no study: at this spread it would take {found.seeds} seeds"
    return claim.decides.replace("{seeds}", str(found.seeds or USUAL_SEEDS))


def table(claims):
    """Markdown: a row per claim."""
    lines = ["| claim | rule of the verdict | found | verdict | file, or what would decide |", "|---|---|---|---|---|"]
    for claim in claims:
        found = claim.found()
        told = [f"`{file_of(claim)}`" if file_of(claim) else "", what_decides(claim, found)]
        lines.append(f"| {claim.claim} | {claim.by.rule} | {found.figure} | **{found.verdict}** | {'; '.join(filter(None, told))} |")
    return "\n".join(lines)


def in_numbers(claims):
    """How many of each verdict, in a sentence."""
    verdicts = [claim.found().verdict for claim in claims]
    return ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in (HELD, FAILED, OPEN))


def provenance(claims):
    """Machines and dates of the files that decide."""
    dates, machines = set(), set()
    for path in {claim.by.path for claim in claims if file_of(claim)}:
        document = json.loads(path.read_text(encoding="utf-8"))
        for entry in document.get("entries", [document]):
            dates.add(entry["date"])
            machines.add(entry.get("machine") or entry["processor"])
    named = [name for name in sorted(machines) if not any(name in other for other in machines - {name})]
    when = min(dates) if len(dates) == 1 else f"{min(dates)} to {max(dates)}"
    return f"Measured {when} on {'; '.join(named)}. Each file states its seeds, settings and versions."


def use_table(recommendations):
    """Markdown of (case, what to use, Claim): the claim's figure and verdict."""
    heading = lambda rule: getattr(rule, "heading", rule.rule)
    lines = ["| your case | use | what was found | verdict |", "|---|---|---|---|"]
    for case, use, claim in recommendations:
        found = claim.found()
        lines.append(f"| {case} | {use} | {heading(claim.by)}: {found.figure} | {found.verdict} |")
    return "\n".join(lines)
