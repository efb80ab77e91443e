"""One run of a study: its folder, its commands, how far it is, and what it came to.

OUTDIR/<study>/<bed>/<method>/seed-<n>/ holds run.json (what the run is), parts.json (each time that it was worked on), log.txt, the run
folder of train.py, trained.json and judged.json; the result goes to OUTDIR/<study>/<bed>/results.json. Every step is taken up where it was left.
Must not know which other runs there are.
"""

import contextlib
import hashlib
import json
import os
import shlex
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch

from dnnlib import files
from dnnlib.errors import UserError
from experiments import commands, records, study_data
from experiments.study import TRAIN, Row, Study
from reporting import run_folder
from reporting.run_table import methods, runs
from torch_utils import distributed, snapshot_names
from torch_utils.process_lock import LockTimeout, ProcessLock
from training import state

FINISHED, STOPPED, FAILED, BUSY = "finished", "stopped", "failed", "busy"  # how execute() ends; busy: another process is at it
RUN, PARTS, LOG, TRAINED, JUDGED = "run.json", "parts.json", "log.txt", "trained.json", "judged.json"
RESULT, RESULTS = "result.json", "results.json"


@dataclass(frozen=True)
class Work:
    """What a run needs beside its row. files: {name: path} that the person gave; threads: its share of the cores; gpu: its number, or None."""

    study: Study
    row: Row
    outdir: str
    files: Mapping[str, str] = field(default_factory=dict)
    threads: int = 1
    gpu: int | None = None

    @property
    def bed(self):
        return self.study.bed(self.row.bed)

    @property
    def kimg(self):
        return self.study.kimg_of(self.bed, self.row.method)

    @property
    def folder(self):
        return Path(self.outdir) / self.study.name / self.row.bed / self.row.method / f"seed-{self.row.seed}"

    @property
    def log(self):
        return self.folder / LOG

    @property
    def known(self):
        """What stands between braces in flags."""
        return {**self.files, **study_data.parts_of(self.study, self.bed, self.outdir)}


@dataclass(frozen=True)
class Outcome:
    """kind: FINISHED, STOPPED, FAILED or BUSY. reason: a sentence where it failed. result: the entry where it finished."""

    row: Row
    kind: str
    reason: str = ""
    log: str = ""
    result: Mapping | None = None


class _Stopped(Exception):
    """The run was asked to stop, and did."""


class _Failed(Exception):
    """A command of the run ended with an error; its argument says why."""


# ----------------------------------------------------------------------------------------------------------------
# What a run is.


def method_flags(work):
    """The flags of train.py that make the run what it is, without places and the seed."""
    return [*work.study.flags, *work.bed.flags, *work.study.methods[work.row.method]]


def train_command(work, resumes=False):
    """The command that trains the run, as a user would type it."""
    given = study_data.filled(work.study, method_flags(work), work.known)
    length = [f"--kimg={work.kimg}", f"--seed={work.row.seed}"]
    if work.bed.script:
        return commands.module(work.bed.script, f"--outdir={work.folder}", *given, *length)
    place = [f"--outdir={work.folder}", f"--data={work.known[TRAIN]}"]
    return commands.python(work.study.train_program, *place, *given, *length, *(["--resume=latest"] if resumes else []))


def judge_command(work, judge, network):
    """The command of one judge of one network; it prints one line of JSON per metric."""
    given = study_data.filled(work.study, judge.flags, work.known)
    return commands.python(work.study.judge_program, f"--network={network}", *given, "--verbose=0", "--quiet")


def store(study, bed, outdir, data):
    """The results of a bed. data: {part: SHA-256}; where parts are missing from it (not built yet, or removed), the results tell of themselves."""
    path = Path(outdir) / study.name / bed.name / RESULTS
    if set(data) != set(bed.build):
        data = _read(path, {}).get("facts", {}).get("data", data)
    facts = dict(
        study=study.name,
        version=study.version,
        bed=bed.name,
        data=data,
        kimg=study.kimg_of(bed),
        flags=[*study.flags, *bed.flags],
        judges=[dict(flags=list(judge.flags), prefix=judge.prefix) for judge in bed.judges],
        curve=study.curve,
        methods={
            method: dict(flags=list(flags), **(dict(kimg=study.lengths[method]) if method in study.lengths else {}))
            for method, flags in study.methods.items()
        },
    )
    return records.Store(path, facts)


def check_version(study, outdir):
    """Refuse a folder that holds runs of another version of the study."""
    path = Path(outdir) / study.name / "study.json"
    if path.exists():
        version = _read(path, {}).get("version")
        if version != study.version:
            raise UserError(
                f"{path.parent} holds runs of version {version} of the study {study.name}, and this is version {study.version}; their numbers "
                "cannot be mixed: give another --outdir, or move that folder away."
            )


def note_version(study, outdir):
    path = Path(outdir) / study.name / "study.json"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        files.atomic_write_text(path, json.dumps(dict(study=study.name, version=study.version)) + "\n")


def check_folder(work, data):
    """Refuse a folder whose run was begun with other options. data: SHA-256 of what it learns from, None if not known yet."""
    noted = _read(work.folder / RUN, None)
    if noted is None:
        return
    now = _identity(work, noted["data"] if data is None else data)
    differing = [f"{name} was {noted.get(name)}, now {now[name]}" for name in now if noted.get(name) != now[name]]
    if differing:
        raise UserError(
            f"{work.folder} holds a run of other options than the study {work.study.name} gives to {work.row}: {'; '.join(differing)}. Give another "
            f"--outdir, or move that folder and its entry in {work.folder.parent.parent / RESULTS} away; if the rows of the study were changed, raise its version."
        )


def _identity(work, data):
    return dict(study=work.study.name, version=work.study.version, flags=" ".join(method_flags(work)), kimg=work.kimg, seed=work.row.seed, data=data)


# ----------------------------------------------------------------------------------------------------------------
# Doing it.


def execute(work, data, stop):
    """Everything that is left to do of a run -> Outcome. data: {part: SHA-256}. stop(): as commands.run_command asks it.

    Raises UserError for a folder of another run, before anything is changed.
    """
    check_folder(work, data.get(TRAIN))
    results = store(work.study, work.bed, work.outdir, data)
    work.folder.mkdir(parents=True, exist_ok=True)
    try:
        with ProcessLock(work.folder / ".lock", limit_sec=0, say=lambda _text: None) as lock:
            if results.get(work.row.method, work.row.seed) is None:
                files.atomic_write_text(work.folder / RUN, json.dumps(_identity(work, data.get(TRAIN)), indent=1) + "\n")
                results.put(work.row.method, work.row.seed, _come_to(work, stop, lock))
            return Outcome(work.row, FINISHED, log=str(work.log), result=results.get(work.row.method, work.row.seed))
    except LockTimeout:
        return Outcome(work.row, BUSY, log=str(work.log))
    except _Stopped:
        return Outcome(work.row, STOPPED, log=str(work.log))
    except _Failed as error:
        return Outcome(work.row, FAILED, reason=str(error), log=str(work.log))


def _come_to(work, stop, lock):
    """The entry of the run, after all that is left to do of it."""
    if work.bed.script:
        _command(work, train_command(work), "training", stop, lock)
        result = _read(work.folder / RESULT, None)
        if result is None:
            raise _Failed(f"{work.bed.script} ended without {RESULT}")
        return _complete(work, result, options="")
    run_dir = _train(work, stop, lock)
    return _entry(work, run_dir, _judge(work, run_dir, stop, lock))


def _train(work, stop, lock):
    """Train what is left -> the run folder of train.py."""
    trained = _read(work.folder / TRAINED, None)
    if trained is None:
        resumes = any(state.latest_state(path) for path in _run_dirs(work))
        _command(work, train_command(work, resumes), "training", stop, lock)
        networks = {path: snapshot_names.list_network_snapshots(path) for path in _run_dirs(work)}
        done = [path for path, saved in networks.items() if saved and saved[-1][0] >= work.kimg]
        if not done:
            raise _Failed(f"it ended without a network at {work.kimg} kimg")
        trained = dict(run=done[-1].name)
        files.atomic_write_text(work.folder / TRAINED, json.dumps(trained) + "\n")
    return work.folder / trained["run"]


def _run_dirs(work):
    """Folders that train.py has made, oldest first."""
    return sorted(path for path in work.folder.iterdir() if path.is_dir() and path.name[:5].isdecimal())


def _command(work, command, what, stop, lock, stdout=None):
    """One command, its time noted; raises what ends the run. The time of a part that nobody saw end stays unknown."""
    parts = _read(work.folder / PARTS, [])
    part = dict(what=what, begun=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), cpu_seconds=None, wall_seconds=None)
    files.atomic_write_text(work.folder / PARTS, json.dumps([*parts, part], indent=1) + "\n")
    ended = commands.run_command(command, work.log, commands.environment(work.threads, work.gpu), stop, stdout, held=[lock.fileno()])
    part.update(cpu_seconds=ended.cpu_seconds, wall_seconds=ended.wall_seconds)
    files.atomic_write_text(work.folder / PARTS, json.dumps([*parts, part], indent=1) + "\n")
    if ended.code == distributed.EXIT_STOPPED or (ended.code != 0 and stop()):
        raise _Stopped
    if ended.code != 0:
        raise _Failed(f"{what} ended with code {ended.code}: {study_data.last_error(work.log)}")


def _judge(work, run_dir, stop, lock):
    """{network: {judge: results}} of the last network, or of all with a curve; what was judged already is kept."""
    networks = [name for kimg, name in snapshot_names.list_network_snapshots(run_dir) if kimg > 0]
    judged = _read(work.folder / JUDGED, {})
    for network in networks if work.study.curve else networks[-1:]:
        for judge in work.bed.judges:
            of_network = judged.setdefault(network, {})
            if shlex.join(judge.flags) not in of_network:
                of_network[shlex.join(judge.flags)] = _judge_once(work, judge, run_dir / network, stop, lock)
                files.atomic_write_text(work.folder / JUDGED, json.dumps(judged, indent=1) + "\n")
    return judged


def _judge_once(work, judge, network, stop, lock):
    with tempfile.TemporaryFile() as printed:
        _command(work, judge_command(work, judge, network), f"judging {network.name}", stop, lock, stdout=printed)
        printed.seek(0)
        lines = [json.loads(line) for line in printed.read().decode("utf-8").splitlines() if line.startswith("{")]
    results = {name: value for line in lines for name, value in line["results"].items()}
    if not results:
        raise _Failed(f"judging {network.name} printed no result")
    return results


def _entry(work, run_dir, judged):
    """What the run came to: the results of its last network, its curve, its times."""
    folder = run_folder.read_run(str(run_dir))
    timed = runs.Run("", "", work.row.seed, False, folder.options, None, None, seconds=runs.training_seconds(folder))
    parts = _read(work.folder / PARTS, [])
    total = timed.seconds[-1][1] if timed.seconds else None
    cpu = _sum(part["cpu_seconds"] for part in parts if part["what"] == "training")
    curve = []
    for kimg, name in snapshot_names.list_network_snapshots(run_dir):
        if name in judged:
            results = {judge.prefix + key: value for judge in work.bed.judges for key, value in judged[name][shlex.join(judge.flags)].items()}
            seconds = timed.seconds_at(kimg)
            share = seconds / total if seconds is not None and total else None
            curve.append(dict(results, kimg=kimg, seconds=seconds, cpu_seconds=None if share is None or cpu is None else cpu * share))
    last = dict(curve[-1], seconds=total, cpu_seconds=cpu, **(dict(curve=curve) if work.study.curve else {}))
    options = json.dumps(sorted((list(place), value) for place, value in methods.signature(folder.options).items()))
    return _complete(work, last, hashlib.sha256(options.encode()).hexdigest()[:12])


def _complete(work, result, options):
    """A result with what every entry tells; refuses one that lacks a measure. options: hash of the training options."""
    missing = [measure.name for measure in work.bed.measures if result.get(measure.name) is None]
    if missing:
        raise _Failed(f"it gave no {', '.join(missing)}, but {', '.join(sorted(result))}")
    ran_on = dict(threads=work.threads, gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None)
    return dict(result, **ran_on, wall_seconds=_sum(part["wall_seconds"] for part in _read(work.folder / PARTS, [])), options=options)


def _sum(values):
    """The sum of what is known; None if one is not."""
    values = list(values)
    return None if not values or None in values else sum(values)


def _read(path, otherwise):
    """The JSON of a file, or what stands for it if there is none."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return otherwise
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); move the folder {Path(path).parent} away, and its run will begin anew.") from error


# ----------------------------------------------------------------------------------------------------------------
# How far it is.


def reached_kimg(work):
    """Thousands of images that the run has trained for by now, 0 if it has not begun."""
    reached = 0.0
    with contextlib.suppress(FileNotFoundError):
        for path in _run_dirs(work):
            for line in run_folder.read_json_lines(os.path.join(path, run_folder.STATS_FILE), [])[-1:]:
                reached = max(reached, line.get("Progress/kimg", {}).get("mean") or 0.0)
    return reached
