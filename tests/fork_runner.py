"""Runs Python in fresh processes that see what they are given and nothing else of this project, in a tenth of the time.

One process imports torch and waits; each command runs in a copy of it (os.fork), so that only the first pays for the import.
Started as a program it is that process: a line of JSON comes in for each command, a line with its exit code goes out.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path


class Runner:
    """run(args, folder, on_path) as `python args` in a folder, with these folders on the path. close() ends the waiting process."""

    def __init__(self, folder):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        self.waiting = subprocess.Popen(
            [sys.executable, str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=dict(environment, OMP_NUM_THREADS="1"),
        )

    def run(self, args, folder, on_path):
        with tempfile.TemporaryDirectory() as results:
            places = [str(Path(results) / name) for name in ("out", "err")]
            environment = dict(os.environ, PYTHONPATH=str(on_path), OMP_NUM_THREADS="1")
            order = dict(args=[str(arg) for arg in args], folder=str(folder), on_path=str(on_path), places=places, environment=environment)
            self.waiting.stdin.write(json.dumps(order) + "\n")
            self.waiting.stdin.flush()
            code = int(self.waiting.stdout.readline())
            out, err = (Path(place).read_text() for place in places)
        return subprocess.CompletedProcess(args, code, out, err)

    def close(self):
        self.waiting.stdin.close()
        self.waiting.wait(timeout=60)
        self.waiting.stdout.close()


def _run(order):
    """In the copy: become `python args`. Returns the exit code."""
    import runpy
    import traceback

    os.environ.clear()
    os.environ.update(order["environment"])
    os.chdir(order["folder"])
    kind, *rest = order["args"]
    first = {"-m": order["folder"], "-c": ""}.get(kind, os.path.dirname(kind))
    sys.path[:] = [first, order["on_path"], *sys.path[1:]]  # the first was the folder of this file
    sys.argv = rest if kind in ("-m", "-c") else [kind, *rest]
    try:
        if kind == "-m":
            runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
        elif kind == "-c":
            sys.argv = ["-c", *rest[1:]]
            exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
        else:
            runpy.run_path(kind, run_name="__main__")
    except SystemExit as leaving:
        if leaving.code is None or isinstance(leaving.code, int):
            return leaving.code or 0
        print(leaving.code, file=sys.stderr)
        return 1
    except BaseException:
        if sys.excepthook is sys.__excepthook__:
            traceback.print_exc()
        else:
            sys.excepthook(*sys.exc_info())
        return 1
    return 0


def _wait():
    for line in sys.stdin:
        order = json.loads(line)
        copy = os.fork()
        if copy == 0:
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            for number, place in zip((1, 2), order["places"]):
                os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), number)
            code = 1
            try:
                code = _run(order)
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(copy, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    import click  # noqa: F401  what every copy begins with
    import numpy  # noqa: F401
    import torch._dynamo  # noqa: F401  optimizers import it

    _wait()
