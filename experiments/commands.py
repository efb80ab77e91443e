"""Runs one command of a study as a process of its own: its output into a log, its share of the cores, its CPU time; and stops it.

Must not know studies.
"""

import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
GO_ON, SAVE_AND_STOP, STOP_AT_ONCE = 0, 1, 2  # what stop() answers
_POLL_SEC = 0.05
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Ended:
    """How a command ended. cpu_seconds: with those of its own children; None where the system does not tell."""

    code: int
    cpu_seconds: float | None
    wall_seconds: float


def cores():
    """Cores that this process may use: a batch system often gives fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def threads_of(jobs, available=None):
    """Threads for each of several jobs, so that together they ask for no more than there is."""
    return max((available or cores()) // jobs, 1)


def environment(threads, gpu=None):
    """Variables of a child. gpu: number of the one that it gets; None: what this process sees."""
    path = os.pathsep.join(filter(None, [str(REPO), os.environ.get("PYTHONPATH")]))
    variables = dict(os.environ, **{name: str(threads) for name in _THREAD_VARIABLES}, PYTHONUNBUFFERED="1", PYTHONPATH=path)
    if gpu is not None:
        visible = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        variables["CUDA_VISIBLE_DEVICES"] = visible[gpu] if gpu < len(visible) else str(gpu)
    return variables


def run_command(command, log_path, variables, stop, stdout=None, held=()):
    """Run to the end -> Ended. Output goes to the end of the log, stdout elsewhere if given (an open file).

    stop() is asked all the time: SAVE_AND_STOP asks the command to end by SIGTERM, STOP_AT_ONCE kills it and its children. The
    command is in a session of its own, so that Ctrl-C in a terminal reaches it through stop() alone. held: descriptors of
    locks, which the command then holds as long as it lives, even if this process is killed.
    """
    begun = time.monotonic()
    with open(log_path, "ab") as log:
        log.write(f"$ {shlex.join(command)}\n".encode("utf-8", "backslashreplace"))
        log.flush()
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout or log, stderr=log, env=variables, start_new_session=True, pass_fds=held
        )
    asked, cpu_seconds = GO_ON, None
    try:
        while True:
            code, cpu_seconds = _poll(process)
            if code is not None:
                return Ended(code, cpu_seconds, time.monotonic() - begun)
            if stop() > asked:
                asked = stop()
                _signal(process, signal.SIGTERM if asked == SAVE_AND_STOP else signal.SIGKILL, whole_group=asked == STOP_AT_ONCE)
            time.sleep(_POLL_SEC)
    except BaseException:
        _signal(process, signal.SIGKILL, whole_group=True)
        process.wait()
        raise


def _poll(process):
    """(exit code or None, CPU seconds or None)"""
    if not hasattr(os, "wait4"):
        return process.poll(), None
    pid, status, usage = os.wait4(process.pid, os.WNOHANG)
    if pid == 0:
        return None, None
    process.returncode = os.waitstatus_to_exitcode(status)  # or its destructor would wait for somebody else's process of that number
    return process.returncode, usage.ru_utime + usage.ru_stime


def _signal(process, number, whole_group):
    try:
        os.killpg(process.pid, number) if whole_group else os.kill(process.pid, number)
    except ProcessLookupError:
        pass  # it ended by itself in the same moment


def python(program, *arguments):
    """The command line of a program of this repository, or of one elsewhere."""
    return [sys.executable, str(REPO / program), *arguments]


def module(name, *arguments):
    """The command line of a module of this repository."""
    return [sys.executable, "-m", name, *arguments]
