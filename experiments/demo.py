"""Trains one small GAN twice, plain and with MADR, on two cores at once, and makes a page of both: `make demo`.

    python -m experiments.demo --outdir=out/demo

The same data, seed and number of images for both. Started again it goes on where it was stopped, and leaves out what is done.
Every step is a command of the repository, printed as one would type it.
"""

import contextlib
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import click

from dnnlib import cli, console
from dnnlib.errors import UserError

REPO = Path(__file__).resolve().parent.parent
NAMES = {"plain": "Plain GAN", "madr": "The same with MADR"}
FLAGS = {"plain": ["--madr=0"], "madr": ["--madr=1"]}
SETTING = ["--cfg=tiny", "--aug=noaug", "--tick=2", "--snap=5", "--threads=1"]
NUM_GEN, NUM_REAL = 5000, 3000  # looked at for the page: enough for 1000 modes
SAY_SEC, POLL_SEC = 15, 0.2  # between two lines on how far both are; between two looks
PAGE = "demo.html"
TICK = re.compile(r"^tick \d+ +kimg ([\d.]+)")


def command_line(script, *words):
    """A command as one types it in the repository's folder."""
    return " ".join(["python", script, *map(str, words)])


def start(log, script, *words):
    """Start one of the repository's commands; what it says goes to the file `log`. One thread: on a busy machine two are slower."""
    print(command_line(script, *words), flush=True)
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    with open(log, "w", encoding="utf-8") as out:
        return subprocess.Popen([sys.executable, str(REPO / script), *map(str, words)], stdout=out, stderr=subprocess.STDOUT, env=environment)


def finish(processes, logs, tell=None):
    """Wait for commands that run side by side. processes, logs: {name: ...}. Raises UserError with the end of the log of one that failed.

    Ctrl-C reaches the commands, too: they save what they have, and then this ends.
    """
    try:
        told = time.monotonic()
        while any(process.poll() is None for process in processes.values()):
            time.sleep(POLL_SEC)
            if tell is not None and time.monotonic() >= told + SAY_SEC:
                tell()
                told = time.monotonic()
    except KeyboardInterrupt:
        for process in processes.values():
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=120)
        raise
    for name, process in processes.items():
        if process.returncode != 0:
            end = "\n".join(Path(logs[name]).read_text(encoding="utf-8", errors="replace").strip().splitlines()[-5:])
            raise UserError(
                f"{NAMES.get(name, name)} ended with exit code {process.returncode}; its log is {logs[name]}:\n{end}\nStart the demo again to go on."
            )


def in_turns(starters, logs, tell=None):
    """Run commands side by side where there are as many cores, else one after the other. starters: {name: function that starts it}."""
    groups = [list(starters)] if (os.cpu_count() or 1) >= len(starters) else [[name] for name in starters]
    for group in groups:
        finish({name: starters[name]() for name in group}, logs, tell)


def run_of(folder, kimg, seed):
    """(run folder, whether it is finished) of the newest run in a folder that was begun with this seed, or (None, False)."""
    for options_path in sorted(folder.glob("*/training_options.json"), reverse=True):
        with contextlib.suppress(ValueError, OSError):
            options = json.loads(options_path.read_text(encoding="utf-8"))
            if options.get("random_seed") == seed and options.get("total_kimg") == kimg:
                return options_path.parent, (options_path.parent / f"network-snapshot-{kimg:06d}.pkl").exists()
    return None, False


def reached(log):
    """The kimg of the newest tick line of a log; 0 before the first."""
    lines = [TICK.match(line) for line in Path(log).read_text(encoding="utf-8", errors="replace").splitlines()] if Path(log).exists() else []
    return max((float(line.group(1)) for line in lines if line), default=0.0)


def build_data(outdir):
    """Path of Stacked Digits at 16 pixels, which are half their size, so that a small GAN comes to draw digits within minutes."""
    large, data, log = outdir / "digits32.zip", outdir / "digits16.zip", outdir / "data.log"
    for made, words in ((large, ["--build=stacked-digits"]), (data, [f"--source={large}", "--width=16", "--height=16"])):
        if not data.exists() and not made.exists():
            finish({"data": start(log, "dataset_tool.py", *words, f"--dest={made}")}, {"data": log})
    return data


def train_both(outdir, data, kimg, seed):
    """-> {method: run folder}. Finished runs are left as they are, begun ones go on."""
    starters, logs, begun = {}, {}, time.monotonic()
    for method, flags in FLAGS.items():
        folder = outdir / method
        folder.mkdir(parents=True, exist_ok=True)
        run, finished = run_of(folder, kimg, seed)
        if finished:
            print(f"{NAMES[method]}: trained already, {run}", flush=True)
            continue
        has_state = run is not None and any(run.glob("training-state-*.pt"))
        words = [
            f"--outdir={folder}",
            f"--data={data}",
            *SETTING,
            *flags,
            f"--kimg={kimg}",
            f"--seed={seed}",
            *(["--resume=latest"] if has_state else []),
        ]
        logs[method] = outdir / f"{method}-training.log"
        starters[method] = lambda method=method, words=words: start(logs[method], "train.py", *words)

    def tell():
        done = {method: reached(log) for method, log in logs.items()}
        slowest, seconds = min(done.values()), time.monotonic() - begun
        left = f", about {seconds / slowest * (kimg - slowest) / 60:.0f} min left" if slowest > 1 else ""
        print("  ".join(f"{NAMES[method]}: kimg {at:.0f} of {kimg}" for method, at in done.items()) + left, flush=True)

    in_turns(starters, logs, tell)
    return {method: run_of(outdir / method, kimg, seed)[0] for method in FLAGS}


def look_at_both(outdir, runs):
    """What each generator misses: arrays and a page of its own in each run folder. Made again only where it is missing."""
    logs = {method: outdir / f"{method}-report.log" for method in runs}
    in_turns(
        {
            method: (
                lambda method=method, run=run: start(
                    logs[method], "report.py", run, "--no-copies", f"--num-gen={NUM_GEN}", f"--num-real={NUM_REAL}", "--metric-space=random-conv"
                )
            )
            for method, run in runs.items()
        },
        logs,
    )


@click.command()
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), default="out/demo", show_default=True, help="Where everything goes")
@click.option("--kimg", type=click.IntRange(1, 1000), default=40, show_default=True, help="Thousands of images to train on")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
def main(outdir, kimg, seed):
    """Train a small GAN on Stacked Digits without and with MADR, and show both side by side."""
    outdir.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    data = build_data(outdir)
    runs = train_both(outdir, data, kimg, seed)
    print("Looking at what each generator misses...", flush=True)
    look_at_both(outdir, runs)
    from reporting import side_by_side  # numpy and Pillow only now: --help comes at once

    columns = side_by_side.read_columns([(NAMES[method], str(run)) for method, run in runs.items()])
    page, network = outdir / PAGE, next(iter(sorted(runs["madr"].glob("network-snapshot-*.pkl"), reverse=True)))
    commands = [
        (
            "Your own images, as a folder or zip:",
            "python dataset_tool.py --source=photos --dest=photos32.zip --transform=center-crop --width=32 --height=32",
        ),
        ("Train on them with MADR:", "python train.py --outdir=runs --data=photos32.zip --cfg=tiny --madr=1"),
        ("Draw from the network of this demo:", command_line("generate.py", f"--network={network}", "--seeds=0-63", f"--outdir={outdir / 'images'}")),
    ]
    side_by_side.write(page, columns, "What MADR is for: three digits are the colours of one image, 1000 combinations", commands)
    print(f"\nAfter {kimg} kimg, seed {seed}, in {(time.monotonic() - began) / 60:.1f} minutes:")
    for column in columns:
        modes = column.modes
        if modes is None:
            print(f"  {column.name}: its modes were not counted; {outdir} has the logs of both reports")
            continue
        print(f"  {column.name}: {modes['modes']} of {modes['num_modes']} modes, KL {modes['kl']:.2f} (a perfect generator: {modes['floor_kl']:.2f})")
    console.result(f"Open {page} in a browser: both grids, what each misses, and what to type next.")


if __name__ == "__main__":
    cli.run(main)
