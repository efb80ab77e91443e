"""One run of the study `finish`: a plain network is trained, then trained on for a short while at a small learning rate that falls to 0, with given flags.

    python -m experiments.finish --data=digits.zip --held-out=digits-eval.zip --kimg=6 --seed=0 --outdir=out/finish/moments/seed-0 --madr=1 --madr-preset=moments

The plain network of a seed is trained once, in the folder `begun` two above OUTDIR, and shared by all methods. Flags that are not listed here go to
train.py for the second part. Writes OUTDIR/result.json. A script of the study `finish`: experiments/studies/finish.py.
"""

import json
import os
import re
import tempfile
from pathlib import Path

import click

from dnnlib import cli

# Whatever imports torch is imported inside the functions, so that --help comes at once.

SETTING = ("--cfg=tiny", "--aug=noaug", "--threads=1", "--tick=2", "--snap=10", "--half=off")
LED_BY = "pca"  # the space of MADR's term in this study
METRICS = "madr_modes5k,madr_fdr_10k,madr_swr_10k,madr_coverage_ratio_10k"
LOCK_SEC = 24 * 3600  # another process may be training the plain network


class CommandFailed(Exception):
    """A command of the run ended without success; its argument is the exit code."""


def last_network(folder, kimg):
    """Path of the network at `kimg` in the newest run folder below `folder`, None if there is none."""
    found = sorted(Path(folder).glob(f"[0-9]*-*/network-snapshot-{kimg:06d}.pkl"))
    return found[-1] if found else None


def run(words, log, stop, stdout=None):
    """One command of this repository -> its CPU seconds. Raises CommandFailed."""
    from experiments import commands

    threads = int(os.environ.get("OMP_NUM_THREADS", "1"))
    ended = commands.run_command(commands.python(*words), log, commands.environment(threads), stop, stdout)
    if ended.code != 0:
        raise CommandFailed(ended.code)
    return ended.cpu_seconds


def trained(folder, kimg, words, stop):
    """(the network at `kimg`, CPU seconds of this training or None) after what is left to train of the one run in `folder`. words: flags of train.py."""
    folder.mkdir(parents=True, exist_ok=True)
    if last_network(folder, kimg) is not None:
        return last_network(folder, kimg), None
    going_on = ["--resume=latest"] if list(folder.glob("[0-9]*-*/training-state-*.pt")) else []
    flags = [word for word in words if not (going_on and word.startswith("--resume="))]
    seconds = run(["train.py", f"--outdir={folder}", *flags, f"--kimg={kimg}", *going_on], folder / "log.txt", stop)
    return last_network(folder, kimg), None if going_on else seconds


def judged(network, data, held_out, log, stop):
    """{measure: value} of a network against the training images and against the held-out ones; *_unled: of spaces that led no method, alone."""
    from madr_spaces import names

    with tempfile.TemporaryFile() as printed:
        words = ["calc_metrics.py", f"--network={network}", f"--data={data}", f"--held-out={held_out}", f"--metrics={METRICS}", "--metric-space=pca"]
        run([*words, "--verbose=0", "--quiet"], log, stop, stdout=printed)
        printed.seek(0)
        lines = [json.loads(line) for line in printed.read().decode("utf-8").splitlines() if line.startswith("{")]
    results = {name: value for line in lines for name, value in line["results"].items()}
    for line in lines:
        ratios = [row["ratio"] for space, row in line.get("facts", {}).get("per_space", {}).items() if not names.led_by(space, LED_BY)]
        if ratios:
            results[f"{line['metric']}_unled"] = sum(ratios) / len(ratios)
    return {re.sub(r"_10k\b|_10k(?=_)", "", name): value for name, value in results.items()}


@click.command(context_settings=dict(max_content_width=140, ignore_unknown_options=True))
@click.option("--data", type=click.Path(exists=True), required=True, help="Images to train on")
@click.option("--held-out", type=click.Path(exists=True), required=True, help="Images that nobody trains on")
@click.option("--begin-kimg", type=cli.IntRange(min=1), default=20, show_default=True, help="Length of the plain training before")
@click.option("--kimg", type=cli.IntRange(min=1), default=6, show_default=True, help="Length of the second part")
@click.option("--seed", type=cli.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of both parts")
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True)
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def main(data, held_out, begin_kimg, kimg, seed, outdir, flags):
    """Train a plain network on with the given FLAGS of train.py, and write what came of it."""
    from dnnlib.files import atomic_write_text
    from experiments.run import StopSignals
    from torch_utils.process_lock import ProcessLock

    begun, common = outdir.parent.parent / "begun" / f"seed-{seed}", [f"--data={data}", *SETTING, f"--seed={seed}"]
    begun.mkdir(parents=True, exist_ok=True)
    outdir.mkdir(parents=True, exist_ok=True)
    try:
        with StopSignals() as stop:
            with ProcessLock(begun / ".lock", limit_sec=LOCK_SEC, say=print):
                before, _ = trained(begun, begin_kimg, [*common, "--madr=0"], stop)
            after, seconds = trained(outdir, kimg, [*common, f"--resume={before}", *flags], stop)
            found = judged(after, data, held_out, outdir / "log.txt", stop)
    except CommandFailed as error:
        return error.args[0]
    facts = dict(kimg=kimg, begin_kimg=begin_kimg, seconds=seconds, cpu_seconds=seconds)
    atomic_write_text(outdir / "result.json", json.dumps(dict(found, **facts), indent=1) + "\n")
    return None


if __name__ == "__main__":
    cli.run(main)
