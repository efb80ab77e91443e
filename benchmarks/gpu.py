"""Times what a CUDA device does: both operators, whole training steps with the kernels and without, MADR, the upkeep of its coverage.

    python benchmarks/gpu.py              # everything; --only=TEXT for a part
    python benchmarks/gpu.py --dry-run    # what it would time, on any machine

The ways of one case are timed in turn, round by round, by events of the device; operators are first checked to give the same
numbers. Writes gpu.json and gpu.md into benchmarks/results/, with the card, its driver and the date. Without a CUDA device it says
so and ends with exit code 3.
"""

import datetime
import gc
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click

from benchmarks.gpu_cases import DEVICE, all_cases
from dnnlib import cli, console
from dnnlib.files import atomic_write_text

NO_DEVICE = 3  # exit code
# How far the ways may be apart, as a share of the whole tensor's length. At a kink, rounding decides which slope an element has; what
# is wrong is off by more than this. Exact comparisons are those of tests/gpu.
TOLERANCE = {"float32": 1e-3, "float16": 3e-2, "bfloat16": 1e-1}


# ------------------------------------------------------------------------------------------
# Timing.


def milliseconds(function, calls):
    """Of one call, by the device's clock."""
    import torch

    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / calls


def check_alike(ways, dtype):
    """Refuse to time ways that compute something else."""
    first, *others = [function().double() for function in ways.values()]
    for other in others:
        difference = ((other - first).norm() / first.norm()).item()
        if not difference <= TOLERANCE[dtype]:
            raise click.ClickException(f"the ways are {difference:.2g} apart, more than rounding in {dtype} makes")


def measure(case, rounds, calls):
    """{way: median milliseconds}, after a round that counts for nothing."""
    ways = case.ways()
    if case.alike:
        check_alike(ways, case.alike)
    calls = 1 if case.per_call > 1 else calls
    times = {name: [] for name in ways}
    for round_index in range(rounds + 1):
        for name, function in ways.items():
            elapsed = milliseconds(function, calls) / case.per_call
            if round_index > 0:
                times[name].append(elapsed)
    return {name: round(statistics.median(values), 4) for name, values in times.items()}


def measure_all(cases, rounds, calls):
    """{section: {case: {way: milliseconds}}}; a case that the card's memory is too small for says so."""
    import torch

    from torch_utils.ops import plugins

    results = {}
    for case in cases:
        plugins.choose(True)
        try:
            found = measure(case, rounds, calls)
        except torch.cuda.OutOfMemoryError:
            found = "needs more memory than the card has"
        gc.collect()
        torch.cuda.empty_cache()
        results.setdefault(case.section, {})[case.name] = found
        console.result(f"{case.section}: {case.name}: {found if isinstance(found, str) else as_row(found)}")
    return results


def as_row(found):
    return ", ".join(f"{way} {cell}" for way, cell in cells(found).items())


def cells(found):
    """{way: 'milliseconds (how many times as fast as the last way)'}"""
    last = list(found.values())[-1]
    return {way: f"{value:.3f} ({last / max(value, 1e-6):.2f}x)" for way, value in found.items()}


# ------------------------------------------------------------------------------------------
# Telling.


def machine():
    """The card and all that its figures depend on."""
    import torch

    from torch_utils.ops import plugins

    properties = torch.cuda.get_device_properties(0)
    return dict(
        card=properties.name,
        memory_gib=round(properties.total_memory / 2**30, 1),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=driver_version(),
        cuda=torch.version.cuda,
        torch=torch.__version__,
        python=platform.python_version(),
        date=datetime.date.today().isoformat(),
        kernels={name: plugins.describe(name, DEVICE) for name in plugins.OPERATORS},
    )


def driver_version():
    try:
        command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        return subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.split("\n")[0].strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown (no nvidia-smi)"


def as_markdown(report):
    """A table per section."""
    facts = report["machine"]
    lines = [f"{facts['card']}, driver {facts['driver']}, PyTorch {facts['torch']}, {facts['date']}."]
    lines += ["Median milliseconds by the device's clock; in brackets, how many times as fast as the last column."]
    for section, rows in report["results"].items():
        ways = list(dict.fromkeys(way for found in rows.values() if not isinstance(found, str) for way in found))
        lines += ["", f"## {section}", "", "| case | " + " | ".join(ways) + " |", "|---" * (len(ways) + 1) + "|"]
        for name, found in rows.items():
            row = dict.fromkeys(ways, found) if isinstance(found, str) else cells(found)
            lines.append(f"| {name} | " + " | ".join(row.get(way, "") for way in ways) + " |")
    return "\n".join(lines) + "\n"


@click.command()
@click.option("--batch", type=cli.IntRange(min=4), default=16, show_default=True, help="Images of a training step, a multiple of 4.")
@click.option("--rounds", type=cli.IntRange(min=1), default=9, show_default=True, help="Rounds in which the ways take turns.")
@click.option("--calls", type=cli.IntRange(min=1), default=20, show_default=True, help="Calls of an operator within a round.")
@click.option("--only", default="", help="Only cases whose section or name holds this text.", metavar="TEXT")
@click.option("--out", default=str(REPO / "benchmarks" / "results"), show_default="benchmarks/results", help="Folder to write to.", metavar="DIR")
@click.option("--dry-run", is_flag=True, help="List what would be timed, and end.")
def main(batch, rounds, calls, only, out, dry_run):
    """Time operators, training steps, MADR and its coverage on a CUDA device."""
    if batch % 4:
        raise click.ClickException(f"--batch must be a multiple of 4, the group of the minibatch statistics (got {batch})")
    cases = [case for case in all_cases(batch) if only in f"{case.section}: {case.name}"]
    if not cases:
        raise click.ClickException(f"--only={only} fits no case; --dry-run lists them")
    if dry_run:
        for case in cases:
            console.result(f"{case.section}: {case.name}")
        console.result(f"{len(cases)} cases, {rounds} rounds each; to be written: {out}/gpu.json and gpu.md")
        return
    import torch

    if not torch.cuda.is_available():
        console.result("not run: no CUDA device")
        sys.exit(NO_DEVICE)
    from torch_utils.ops import plugins

    if not plugins.prepare(DEVICE):
        raise click.ClickException(f"the kernels are not built ({plugins.describe('bias_act', DEVICE)}); `python doctor.py` says what is missing")
    report = dict(machine=machine(), batch=batch, rounds=rounds, calls=calls, results=measure_all(cases, rounds, calls))
    atomic_write_text(Path(out) / "gpu.json", json.dumps(report, indent=1) + "\n")
    atomic_write_text(Path(out) / "gpu.md", as_markdown(report))
    console.result("\n" + as_markdown(report))


if __name__ == "__main__":
    cli.run(main)
