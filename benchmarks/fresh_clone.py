"""How long the two commands of the README take on a machine that has nothing yet: `make demo` and `make test` in a fresh clone, with an empty home.

    python benchmarks/fresh_clone.py

What is committed is cloned, each command gets an environment of its own made (packages come from pip's index), and nothing of this user's
caches is seen. In seconds by the clock. Writes benchmarks/results/fresh_clone.json and the table in docs/performance.md.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click

from benchmarks import marked_tables
from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text

RESULTS, PAGE = REPO / "benchmarks" / "results" / "fresh_clone.json", REPO / "docs" / "performance.md"
COMMANDS = {"demo": "make demo", "test": "make test"}


def cloned(folder):
    """A clone of what is committed, without a byte of this checkout's environment."""
    clone = Path(folder) / "clone"
    subprocess.run(["git", "clone", "--quiet", str(REPO), str(clone)], check=True)
    return clone


def run(command, clone, home):
    """dict(seconds, last: what the command said last). Raises UserError where it fails, with the end of what it said."""
    home.mkdir()
    path = os.pathsep.join(["/usr/local/bin", "/usr/bin", "/bin", str(Path(shutil.which("python3")).parent)])
    start = time.monotonic()
    done = subprocess.run(
        command.split(), cwd=clone, env=dict(HOME=str(home), PATH=path), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    lines = [line.strip() for line in done.stdout.splitlines() if line.strip()]
    if done.returncode:
        raise UserError(f"{command} ended with {done.returncode}:\n" + "\n".join(lines[-25:]))
    return dict(seconds=round(time.monotonic() - start, 1), last=lines[-1])


def table(report):
    """Markdown."""
    rows = [[f"`{COMMANDS[name]}`", minutes(row["seconds"]), row["last"]] for name, row in report["found"].items()]
    text = marked_tables.markdown(["command, in a fresh clone with an empty home", "minutes", "its last words"], rows)
    told = f"Commit {report['commit']}; {report['processor']}, {report['cpu_count']} cores, {report['date']}, load average before {report['load_average']}."
    return f"{text}\n\n{told}"


def minutes(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02d}"


@click.command()
@click.option("--only", type=click.Choice(list(COMMANDS)), help="One of the two commands alone")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default="benchmarks/results/fresh_clone.json")
def main(only, out):
    """Times the README's two commands as a newcomer gives them."""
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=REPO, check=True, text=True, stdout=subprocess.PIPE).stdout.strip()
    report = dict(what="seconds by the clock, set-up included", commit=commit, **circumstances(), found={})
    for name, command in COMMANDS.items():
        if only in (None, name):
            with tempfile.TemporaryDirectory() as folder:
                report["found"][name] = run(command, cloned(folder), Path(folder) / "home")
            print(f"{command}: {minutes(report['found'][name]['seconds'])}, {report['found'][name]['last']}", flush=True)
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    if out.resolve() == RESULTS and not only:
        marked_tables.write(PAGE, "fresh clone", table(report))


if __name__ == "__main__":
    cli.run(main)
