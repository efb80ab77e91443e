"""How long one waits before anything happens: `--help`, `train.py --dry-run`, and the classifier that counts the modes of the demo.

    python benchmarks/start_up.py

Each command in a process of its own, in seconds by the clock; one call before the first that counts, since Python then compiles what it
imports. Writes benchmarks/results/start_up.json and the table in docs/performance.md.
"""

import json
import os
import statistics
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
from dnnlib.files import atomic_write_text

RESULTS, PAGE = REPO / "benchmarks" / "results" / "start_up.json", REPO / "docs" / "performance.md"
TOOLS = ("train.py", "calc_metrics.py", "dataset_tool.py", "generate.py", "report.py", "compare_runs.py")
ASKED = {"--help": 1.0, "--dry-run": 3.0, "classifier": 20.0}  # seconds
CLASSIFIER = """
import sys
from metrics import digit_network
from training.dataset import ImageFolderDataset
digit_network.obtain(ImageFolderDataset(path=sys.argv[1], use_labels=True), "cpu", use_cache=False)
"""


def commands(digits):
    """{name: (what is asked of it, arguments of python)}. digits: zip of Stacked Digits at 16 pixels."""
    dry = ["train.py", "--dry-run", "--outdir=runs", f"--data={digits}"]
    return {
        **{f"{tool} --help": ("--help", [tool, "--help"]) for tool in TOOLS},
        "train.py --dry-run --cfg=tiny": ("--dry-run", [*dry, "--cfg=tiny"]),
        "train.py --dry-run --cfg=tiny --madr=1": ("--dry-run", [*dry, "--cfg=tiny", "--madr=1"]),
        "train.py --dry-run --cfg=auto": ("--dry-run", [*dry, "--cfg=auto"]),
        "digit classifier of the demo, trained": ("classifier", ["-c", CLASSIFIER, str(digits)]),
    }


def seconds(arguments, environment):
    start = time.monotonic()
    subprocess.run([sys.executable, *arguments], cwd=REPO, env=environment, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def measure(rounds):
    environment = dict(os.environ, PYTHONPATH=str(REPO))
    with tempfile.TemporaryDirectory() as folder:
        large, digits = Path(folder) / "digits32.zip", Path(folder) / "digits16.zip"
        seconds(["dataset_tool.py", "--build=stacked-digits", f"--dest={large}"], environment)
        seconds(["dataset_tool.py", f"--source={large}", "--width=16", "--height=16", f"--dest={digits}"], environment)
        environment["DNNLIB_CACHE_DIR"] = folder
        found = {}
        for name, (asked, arguments) in commands(digits).items():
            times = [seconds(arguments, environment) for _ in range(rounds + 1)][1:]
            found[name] = dict(seconds=round(statistics.median(times), 2), longest=round(max(times), 2), asked=ASKED[asked])
            print(f"{name}: {found[name]['seconds']:.2f} s", flush=True)
    return found


def table(report):
    """Markdown."""
    rows = [
        [f"`{name}`" if ".py" in name else name, f"{row['seconds']:.2f} ({row['longest']:.2f})", f"{row['asked']:g}"]
        for name, row in report["found"].items()
    ]
    text = marked_tables.markdown(["command", "seconds (longest)", "asked"], rows)
    told = f"{report['processor']}, {report['cpu_count']} cores, PyTorch {report['torch']}, {report['date']}, load average {report['load_average']}"
    return f"{text}\n\n{told}; medians of {report['rounds']} calls."


@click.command()
@click.option("--rounds", type=cli.IntRange(min=1), default=5, show_default=True, help="Calls of each command that count")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default="benchmarks/results/start_up.json")
def main(rounds, out):
    """Times what comes before training."""
    report = dict(what="seconds by the clock, of a process of its own", rounds=rounds, **circumstances(), found=measure(rounds))
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    if out.resolve() == RESULTS:
        marked_tables.write(PAGE, "start-up", table(report))


if __name__ == "__main__":
    cli.run(main)
