"""What a run folder says about its run, read without touching it.

Every file may be missing, half written or still growing: what cannot be read is counted and named, never guessed.
Must not know HTML, and opens neither network pickles nor training states.
"""

import json
import math
import os
import re
import time
from dataclasses import dataclass, field

from dnnlib.errors import UserError
from reporting import diversity_file
from torch_utils import snapshot_names
from training import provenance, snapshots, state

OPTIONS_FILE, STATS_FILE, LOG_FILE = "training_options.json", "stats.jsonl", "log.txt"
METRIC_REGEX = re.compile(r"^metric-(.+)\.jsonl$")
SPEED_TICKS = 10  # ticks that the present speed is taken from
SILENT_TICKS = 4  # a run that has written nothing for so many ticks' time ...
SILENT_SEC = 120  # ... and for so long is taken for dead
LOG_TAIL_BYTES = 200_000


@dataclass
class MetricLine:
    """One evaluation: results {name: number or None}, kimg of its snapshot or None, and the whole line as it was written."""

    metric: str
    results: dict
    kimg: float | None
    snapshot: str | None
    line: dict


@dataclass
class RunFolder:
    """Everything that the sections of the page draw on. now: the time of the report, in seconds since 1970."""

    path: str
    now: float
    options: dict = field(default_factory=dict)
    series: dict = field(default_factory=dict)  # name of stats.jsonl -> [(kimg, mean or NaN)]
    ticks: list = field(default_factory=list)  # lines of stats.jsonl in order
    metrics: dict = field(default_factory=dict)  # metric -> [MetricLine], in the order written
    fakes: list = field(default_factory=list)  # [(kimg or None for untrained, file name)]
    networks: list = field(default_factory=list)  # [(kimg, file name)], oldest first
    states: list = field(default_factory=list)  # [(kimg, file name)], oldest first
    log_tail: list = field(default_factory=list)  # the last lines of log.txt
    problems: list = field(default_factory=list)  # sentences
    last_write: float | None = None
    provenance: dict = field(default_factory=dict)  # what the run noted of its data and versions when it last started
    diversity: diversity_file.DiversityFile | None = None  # what report.py found out, of the newest snapshot that it looked at

    @property
    def name(self):
        return os.path.basename(os.path.abspath(self.path))

    @property
    def total_kimg(self):
        total = self.options.get("total_kimg")
        return total if is_number(total) and total > 0 else None

    def part(self, name):
        """A group of options such as loss_kwargs; {} when there is none."""
        value = self.options.get(name)
        return value if isinstance(value, dict) else {}

    def last(self, name):
        """Newest finite value of a statistic, or None."""
        return next((value for _, value in reversed(self.series.get(name, [])) if math.isfinite(value)), None)


def is_number(value):
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def read_run(path, now=None):
    """RunFolder of a folder; raises UserError when it is none."""
    check_is_run(path)
    run = RunFolder(path=path, now=time.time() if now is None else now)
    run.options = _read_options(path, run.problems)
    lines = read_json_lines(os.path.join(path, STATS_FILE), run.problems)
    run.ticks = _valid_ticks(lines)
    run.series = _series(run.ticks)
    names = sorted(os.listdir(path))
    for name in names:
        match = METRIC_REGEX.match(name)
        if match:
            run.metrics[match.group(1)] = _metric_lines(match.group(1), os.path.join(path, name), run.problems)
    run.fakes = sorted((snapshot_names.kimg_of(match), match.group(0)) for match in map(snapshots.SAMPLES_REGEX.match, names) if match)
    if "fakes_init.png" in names:
        run.fakes.insert(0, (None, "fakes_init.png"))
    run.networks = snapshot_names.list_network_snapshots(path)
    run.states = [(kimg, os.path.basename(state_path)) for kimg, state_path in state.list_states(path)]
    run.provenance = provenance.newest(path)
    run.diversity = diversity_file.newest(path, run.problems)
    run.log_tail = _log_tail(os.path.join(path, LOG_FILE))
    run.last_write = max((os.path.getmtime(os.path.join(path, name)) for name in (STATS_FILE, LOG_FILE) if name in names), default=None)
    return run


def check_is_run(path):
    if not os.path.isdir(path):
        raise UserError(f"{path} is not a folder; give the run folder that train.py made, such as runs/00000-...")
    if _looks_like_run(path):
        return
    runs = sorted(name for name in os.listdir(path) if os.path.isdir(os.path.join(path, name)) and _looks_like_run(os.path.join(path, name)))
    hint = (
        f"it contains runs, name one of them: {', '.join(os.path.join(path, name) for name in runs[-3:])}"
        if runs
        else "give the folder that train.py made, such as runs/00000-..."
    )
    raise UserError(f"{path} is not a run folder (it has neither {OPTIONS_FILE} nor {STATS_FILE}); {hint}")


def _looks_like_run(path):
    return any(os.path.isfile(os.path.join(path, name)) for name in (OPTIONS_FILE, STATS_FILE))


# ----------------------------------------------------------------------------------------------------------------
# Files.


def read_json_lines(path, problems):
    """The lines of a .jsonl file that are JSON objects; others are counted into `problems`. A missing file has no lines."""
    lines, bad = [], 0
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            for text in file:
                if not text.strip():
                    continue
                try:
                    line = json.loads(text)
                except ValueError:  # cut off: the process was killed while it wrote, or is writing now
                    line = None
                if isinstance(line, dict):
                    lines.append(line)
                else:
                    bad += 1
    except FileNotFoundError:
        return []
    except OSError as error:
        problems.append(f"{os.path.basename(path)} could not be read: {error.strerror}.")
    if bad:
        problems.append(f"{os.path.basename(path)}: {bad} line{'s are' if bad > 1 else ' is'} cut off or damaged and left out.")
    return lines


def _read_options(path, problems):
    try:
        with open(os.path.join(path, OPTIONS_FILE), encoding="utf-8") as file:
            options = json.load(file)
    except FileNotFoundError:
        problems.append(f"{OPTIONS_FILE} is missing: settings and the end of the run are not known.")
        return {}
    except (OSError, ValueError) as error:
        problems.append(f"{OPTIONS_FILE} could not be read ({error}): settings and the end of the run are not known.")
        return {}
    if not isinstance(options, dict):
        problems.append(f"{OPTIONS_FILE} holds no options: settings and the end of the run are not known.")
        return {}
    return options


def _log_tail(path):
    try:
        with open(path, "rb") as file:
            file.seek(max(0, os.path.getsize(path) - LOG_TAIL_BYTES))
            return file.read().decode("utf-8", errors="replace").replace("\r", "\n").splitlines()
    except OSError:
        return []


# ----------------------------------------------------------------------------------------------------------------
# Ticks and metrics.


def mean_of(entry):
    """Mean of a statistic {num, mean, std} or of a plain number; None when nothing was reported in the tick."""
    if isinstance(entry, dict):
        if entry.get("num") == 0:
            return None
        entry = entry.get("mean")
    return float(entry) if is_number(entry) else None


def _valid_ticks(lines):
    """Ticks in order of kimg. Where a run was set back (a resume that kept later lines), what came after counts."""
    ticks = []
    for line in lines:
        kimg = mean_of(line.get("Progress/kimg"))
        if kimg is None or not math.isfinite(kimg):
            continue
        while ticks and mean_of(ticks[-1]["Progress/kimg"]) >= kimg:
            ticks.pop()
        ticks.append(line)
    return ticks


def _series(ticks):
    """{name: [(kimg, mean)]}; a mean that was not finite stays, so that it can be shown as a gap."""
    series = {}
    for tick in ticks:
        kimg = mean_of(tick["Progress/kimg"])
        for name, entry in tick.items():
            value = mean_of(entry)
            if value is not None and name != "timestamp":
                series.setdefault(name, []).append((kimg, value))
    return series


def _metric_lines(metric, path, problems):
    found = []
    for line in read_json_lines(path, problems):
        results = line.get("results")
        if not isinstance(results, dict):
            continue
        results = {name: float(value) if is_number(value) else None for name, value in results.items()}
        stated = line.get("snapshot_pkl")
        snapshot = os.path.basename(stated) if isinstance(stated, str) else None
        match = snapshot_names.NETWORK_SNAPSHOT_REGEX.match(snapshot or "")
        found.append(MetricLine(metric, results, snapshot_names.kimg_of(match) if match else None, snapshot, line))
    return found


# ----------------------------------------------------------------------------------------------------------------
# How the run stands.


@dataclass
class Status:
    """kind: finished | aborted | stopped | going | silent | waiting; sentence: for people."""

    kind: str
    sentence: str


def seconds_per_kimg(run):
    """Seconds per kimg with all maintenance, over the last ticks; None before two ticks."""
    times = run.series.get("Timing/total_sec", [])[-SPEED_TICKS - 1 :]
    times = [(kimg, sec) for kimg, sec in times if math.isfinite(sec)]
    if len(times) < 2 or times[-1][1] <= times[0][1]:
        return None
    return (times[-1][1] - times[0][1]) / (times[-1][0] - times[0][0])


def remaining_sec(run):
    """Estimated seconds to the end at the present speed; None when unknown."""
    speed, kimg = seconds_per_kimg(run), run.last("Progress/kimg")
    if speed is None or kimg is None or run.total_kimg is None:
        return None
    return max(run.total_kimg - kimg, 0) * speed


def status(run):
    """Where the run stands, from its log, its last tick and the time since it last wrote."""
    starts = [index for index, line in enumerate(run.log_tail) if line.startswith("Training for ")]
    ending = run.log_tail[starts[-1] :] if starts else run.log_tail
    kimg = run.last("Progress/kimg")
    if kimg is not None and run.total_kimg is not None and kimg >= run.total_kimg:
        return Status("finished", f"Finished: all {run.total_kimg:g} kimg were shown.")
    saved = next((line for line in reversed(ending) if line.startswith("Saved at kimg ")), None)
    if saved:
        return Status("stopped", f"Stopped on request. {saved}")
    if "Aborting..." in ending:
        return Status("aborted", "Aborted by the program that started it.")
    if "Exiting..." in ending:
        return Status("finished", "Finished.")
    if kimg is None:
        return Status("waiting", "No tick has been finished yet.")
    silence = max(run.now - run.last_write, 0) if run.last_write is not None else 0.0
    tick_sec = (run.last("Timing/sec_per_tick") or 0) + max(
        [value for _, value in run.series.get("Timing/maintenance_sec", [])[-50:] if math.isfinite(value)], default=0
    )
    if silence > max(SILENT_TICKS * tick_sec, SILENT_SEC):
        return Status(
            "silent", "Not finished, and silent for longer than its ticks take: it was probably killed or hit an error (see where it was started)."
        )
    return Status("going", "Going on when this page was made.")


def last_tick_line(run):
    """The last tick line of the log, or None."""
    return next((line for line in reversed(run.log_tail) if line.startswith("tick ")), None)
