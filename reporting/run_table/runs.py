"""Run folders as a table of them needs them: method, seed, one line per metric and snapshot, training time.

What cannot be used is left out with a sentence. Nothing depends on the order of the folders or on the files' times.
"""

import fnmatch
import math
import os
from dataclasses import dataclass, field

from dnnlib.errors import UserError
from reporting import run_folder
from reporting.run_table import methods


@dataclass
class Run:
    """lines: {metric: {kimg: run_folder.MetricLine}}. seconds: [(kimg, training seconds until then)], in order."""

    name: str
    method: str
    seed: int
    uses_plugin: bool
    options: dict
    kimg: float | None
    total_kimg: float | None
    lines: dict = field(default_factory=dict)
    seconds: list = field(default_factory=list)

    @property
    def is_finished(self):
        return self.kimg is not None and self.total_kimg is not None and self.kimg >= self.total_kimg

    def seconds_at(self, kimg):
        """Training seconds until a snapshot: of the tick that it was written after, else between the ticks around; None when unknown."""
        named_apart = bool(self.options.get("snapshots_apart"))  # then a whole number is the first within its kimg
        ticks = [seconds for tick_kimg, seconds in self.seconds if _is_at(tick_kimg, kimg)]
        if ticks:
            return ticks[0 if named_apart else -1]
        before = [tick for tick in self.seconds if tick[0] < kimg]
        after = [tick for tick in self.seconds if tick[0] > kimg]
        if not before or not after:
            return None
        (kimg_a, sec_a), (kimg_b, sec_b) = before[-1], after[0]
        return sec_a + (sec_b - sec_a) * (kimg - kimg_a) / (kimg_b - kimg_a)


def _is_at(tick_kimg, kimg):
    """Whether a snapshot's name, of whole kimg or of thousandths, may be that of a tick."""
    return int(tick_kimg) == kimg or round(tick_kimg * 1000) == round(kimg * 1000)


def read_runs(paths, groups=()):
    """(runs in order of method and seed, sentences on what was left out). groups: (name, pattern) pairs that name methods."""
    folders, notes = _open_folders(paths)
    names = _short_names(list(folders))
    usable = []
    for path, folder in folders.items():
        reason = _why_unusable(folder)
        if reason:
            notes.append(f"{names[path]} left out: {reason}")
        else:
            usable.append(path)
            notes += [f"{names[path]}: {problem}" for problem in folder.problems]
    if not usable:
        raise UserError(" ".join(["No run to compare; give the folders that train.py made, such as runs/*.", *notes]))
    given = _given_methods({path: names[path] for path in folders}, groups)
    inferred = dict(zip(usable, methods.names_of([folders[path].options for path in usable])))
    runs = []
    for path in usable:
        lines, its_notes = _lines_by_kimg(folders[path])
        notes += [f"{names[path]}: {note}" for note in its_notes]
        options = folders[path].options
        runs.append(
            Run(
                names[path],
                given.get(path, inferred[path]),
                options[methods.SEED],
                methods.plugin_options(options) is not None,
                options,
                folders[path].last("Progress/kimg"),
                folders[path].total_kimg,
                lines,
                training_seconds(folders[path]),
            )
        )
    runs.sort(key=lambda run: (run.method, run.seed, run.name))
    _check_each_once(runs)
    return runs, sorted(notes)


def names_of(paths, groups=()):
    """Name each run for a reader: by the group whose pattern its folder matches, else by its folder, the same parts left out. In the order of `paths`."""
    names = _short_names(list(paths))
    given = _given_methods(names, groups)
    return [given.get(path, names[path]) for path in paths]


def _open_folders(paths):
    """({path: RunFolder}, sentences) in order of the path, each folder once however it is spelt."""
    folders, notes, seen = {}, [], set()
    for path in sorted({os.path.normpath(path) for path in paths}):
        real = os.path.realpath(path)
        if real in seen:
            continue
        seen.add(real)
        try:
            folders[path] = run_folder.read_run(path)
        except UserError as error:
            notes.append(f"{path} left out: {str(error).rstrip('.')}.")
    return folders, notes


def _short_names(paths):
    """{path: its last part, or all of it where two runs share that}."""
    last = [os.path.basename(os.path.abspath(path)) for path in paths]
    return {path: name if last.count(name) == 1 else path.replace(os.sep, "/") for path, name in zip(paths, last)}


def _why_unusable(folder):
    seed = folder.options.get(methods.SEED)
    if not folder.options:
        return f"{run_folder.OPTIONS_FILE} is missing or damaged, so its method and seed are not known."
    if not isinstance(seed, int) or isinstance(seed, bool):
        return f"{run_folder.OPTIONS_FILE} states no whole number as {methods.SEED} (got {seed!r})."
    if not any(folder.metrics.values()):
        return "it has no metric lines; compute some with calc_metrics.py --run."
    return None


def _given_methods(names, groups):
    """{path: method} by --group; refuses a pattern without a run and a run of two methods. names: {path: short name}."""
    given = {}
    for method, pattern in methods.parse_groups(groups):
        matching = [
            path for path, name in names.items() if fnmatch.fnmatchcase(name, pattern) or fnmatch.fnmatchcase(path.replace(os.sep, "/"), pattern)
        ]
        if not matching:
            raise UserError(f"--group {method}={pattern} matches none of the runs: {', '.join(sorted(names.values()))}.")
        for path in matching:
            if given.get(path, method) != method:
                raise UserError(f"--group puts {names[path]} into both {given[path]} and {method}; make the patterns narrower.")
            given[path] = method
    return given


def _check_each_once(runs):
    for first, second in zip(runs, runs[1:]):
        if (first.method, first.seed) == (second.method, second.seed):
            raise UserError(
                f"{first.name} and {second.name} are both method {first.method!r}, seed {first.seed}; leave one out, or tell the "
                "methods apart with --group NAME=GLOB."
            )


def _lines_by_kimg(folder):
    """({metric: {kimg: line}}, sentences): of several lines of one snapshot the newest."""
    by_metric, notes = {}, []
    for metric, lines in sorted(folder.metrics.items()):
        placed, repeated, homeless = {}, set(), 0
        for line in lines:
            if line.kimg is None:
                homeless += 1
                continue
            if line.kimg in placed:
                repeated.add(line.kimg)
            placed[line.kimg] = line
        if repeated:
            notes.append(f"{metric} was computed more than once at kimg {', '.join(map(str, sorted(repeated)))}; the newest line counts.")
        if homeless:
            notes.append(f"{metric} has {homeless} line(s) that name no network-snapshot-*.pkl; left out.")
        if placed:
            by_metric[metric] = placed
    return by_metric, notes


# ----------------------------------------------------------------------------------------------------------------
# Time.


def training_seconds(folder):
    """[(kimg, seconds)] of the ticks: total time less what snapshots and evaluations took."""
    maintenance = dict(folder.series.get("Timing/maintenance_sec", []))
    found, spent = [], 0.0
    for kimg, total in folder.series.get("Timing/total_sec", []):
        pause = maintenance.get(kimg, 0.0)
        spent += pause if math.isfinite(pause) else 0.0
        if math.isfinite(total):
            found.append((kimg, total - spent))
    return found
