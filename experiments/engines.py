"""Where the runs of a study are worked on: processes of this machine, Ray, or a SLURM array that the person submits.

Each engine hands rows to one_run.execute; which are left and what comes of them is run.py's business.
"""

import dataclasses
import os
import queue
import shlex
import threading
import uuid
from pathlib import Path

from dnnlib import cli, files
from dnnlib.errors import UserError
from experiments import commands, one_run, study

LOOK_SEC = 1.0  # between two looks at how far the runs are
NEEDS_RAY = "--engine=ray needs the package ray: pip install ray==2.60.0 (the extra `ray` of pyproject.toml), or leave it out to run on this machine."


# ----------------------------------------------------------------------------------------------------------------
# This machine.


def run_locally(todo, prepared, jobs, stop, board):
    """Work on the runs, `jobs` at a time -> [Outcome]. todo: [Work] in order; prepared: {bed: {part: SHA-256}}; stop(): see commands.

    A run that another process is at is left to it. A refused folder ends that run alone.
    """
    waiting, outcomes, told = queue.SimpleQueue(), [], queue.SimpleQueue()
    for work in todo:
        waiting.put(work)
    workers = [threading.Thread(target=_worker, args=(waiting, prepared, slot, stop, told)) for slot in range(min(jobs, len(todo)))]
    for worker in workers:
        worker.start()
    while any(worker.is_alive() for worker in workers) or not told.empty():
        try:
            event, value = told.get(timeout=LOOK_SEC)
        except queue.Empty:
            board.look()
            continue
        if event == "begin":
            board.begin(value)
        else:
            outcomes.append(value)
            tell_end(board, todo[0].study, value)
    return outcomes


def _worker(waiting, prepared, slot, stop, told):
    """One place: takes the next run until none is left or a stop is asked for."""
    while not stop():
        try:
            work = waiting.get_nowait()
        except queue.Empty:
            return
        told.put(("begin", work.row))
        told.put(("end", attempt(_on_gpu(work, slot), prepared[work.row.bed], stop)))


def _on_gpu(work, slot):
    """The work with a GPU of its place, where there are any: jobs take turns on them."""
    import torch

    count = torch.cuda.device_count()
    return dataclasses.replace(work, gpu=slot % count) if count else work


def attempt(work, data, stop):
    """execute(), with whatever goes wrong as an Outcome: one run must not end the others."""
    try:
        return one_run.execute(work, data, stop)
    except Exception as error:
        return one_run.Outcome(work.row, one_run.FAILED, cli.user_sentence(error) or f"{type(error).__name__}: {error}", str(work.log))


def tell_end(board, of_study, outcome):
    """The line of a run that has ended."""
    if outcome.kind == one_run.FINISHED:
        bed = of_study.bed(outcome.row.bed)
        measure = bed.measure(bed.primary)
        told = f"{measure.heading} {outcome.result[measure.name]:.{measure.digits}f}"
        board.end(outcome.row, outcome.kind, told, outcome.result["wall_seconds"], is_done=True)
    else:
        board.end(outcome.row, outcome.kind, outcome.reason)


# ----------------------------------------------------------------------------------------------------------------
# Ray.


def import_ray():
    try:
        import ray
    except ImportError as error:
        raise UserError(NEEDS_RAY) from error
    return ray


def run_on_ray(spec, todo, prepared, jobs, stop, board):
    """The same on the cluster of RAY_ADDRESS, or one of `jobs` workers on this machine. --outdir must be the same folder everywhere.

    spec: the study as the person named it, for the workers to read.
    """
    ray = import_ray()
    threads = todo[0].threads if todo else 1
    where = {} if os.environ.get("RAY_ADDRESS") else dict(num_cpus=jobs * threads)
    python_path = os.pathsep.join(filter(None, [str(commands.REPO), os.environ.get("PYTHONPATH")]))
    ray.init(**where, include_dashboard=False, log_to_driver=False, runtime_env=dict(env_vars=dict(PYTHONPATH=python_path)))
    stop_file = Path(todo[0].outdir).resolve() / todo[0].study.name / f".stop-{uuid.uuid4().hex}"
    try:
        remote = ray.remote(num_cpus=threads, num_gpus=min(1, ray.cluster_resources().get("GPU", 0)), max_retries=0)(_ray_task)
        pending = {}
        for work in todo:
            given = (spec, work.row, os.path.abspath(work.outdir), dict(work.files), work.threads, prepared[work.row.bed], str(stop_file))
            pending[remote.remote(*given)] = work
        return _follow(ray, pending, stop, stop_file, board)
    finally:
        stop_file.unlink(missing_ok=True)
        ray.shutdown()


def _follow(ray, pending, stop, stop_file, board):
    """Wait for the tasks, tell of them, and hand on a stop -> [Outcome]."""
    outcomes, begun, told = [], set(), commands.GO_ON
    while pending:
        if stop() > told:
            told = stop()
            files.atomic_write_text(stop_file, str(told))
        done, _ = ray.wait(list(pending), num_returns=1, timeout=LOOK_SEC)
        for reference, work in pending.items():
            if work.row not in begun and (reference in done or _begun_file(work, stop_file).exists()):
                begun.add(work.row)
                board.begin(work.row)
        for reference in done:
            work = pending.pop(reference)
            outcome = _outcome_of(ray, reference, work)
            _begun_file(work, stop_file).unlink(missing_ok=True)
            outcomes.append(outcome)
            tell_end(board, work.study, outcome)
        board.look()
    return outcomes


def _begun_file(work, stop_file):
    """Tells the process that waits that a worker has begun a run; its name is that of one engine's start."""
    return work.folder / f".begun{stop_file.name}"


def _outcome_of(ray, reference, work):
    """What a task came to."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:  # its worker or its machine died
        return one_run.Outcome(work.row, one_run.FAILED, f"the Ray worker died ({type(error).__name__})", str(work.log))


def _ray_task(spec, row, outdir, given, threads, data, stop_file):
    """One run on a worker, which reads the study for itself. The stop comes by a file in the shared folder."""
    stop_file = Path(stop_file)
    stop = lambda: int(stop_file.read_text()) if stop_file.exists() else commands.GO_ON
    work = one_run.Work(study.load(spec), row, outdir, given, threads)
    if stop():
        return one_run.Outcome(row, one_run.STOPPED, log=str(work.log))
    work.folder.mkdir(parents=True, exist_ok=True)
    _begun_file(work, stop_file).touch()
    return attempt(work, data, stop)


# ----------------------------------------------------------------------------------------------------------------
# SLURM.


def slurm_script(spec, study_name, outdir, num_runs, jobs, threads, more):
    """An sbatch script for an array of this command, a run per task, at most `jobs` at once. more: further arguments, --file and --only."""
    command = ["python", "-m", "experiments.run", spec, f"--outdir={outdir}", "--jobs=1", *more]
    typed = shlex.join(command)
    return f"""#!/bin/bash
# {num_runs} runs of the study {study_name}. First, once: {typed} --prepare
# Then: sbatch THIS_FILE. Submit it again after a time limit or a failure: finished runs are not repeated, others go on where they were.
#SBATCH --job-name={study_name}
#SBATCH --array=0-{num_runs - 1}%{jobs}
#SBATCH --cpus-per-task={threads}
#SBATCH --output="{outdir}/{study_name}-%a.log"
#SBATCH --signal=B:TERM@300
# On a cluster with GPUs add: #SBATCH --gpus-per-task=1
cd {shlex.quote(str(commands.REPO))} || exit 1
exec {typed} --index=$SLURM_ARRAY_TASK_ID
"""
