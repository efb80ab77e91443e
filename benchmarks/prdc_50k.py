"""Precision, recall, density and coverage of 50,000 real and 50,000 generated features of 384 dimensions: time and memory.

Each way runs in a process of its own, so that its peak memory is its own; at the full size only ours does, at a smaller one the
alternatives too, whose numbers are compared. Features are drawn from a seed: 200 clusters, of which the generated ones miss 20.
Writes benchmarks/results/prdc_50k.json.
"""

import json
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np

from benchmarks.circumstances import circumstances

NUMBERS = ("precision", "recall", "density", "coverage")
K = 5  # of all four, since the prdc package knows one k only
NUM_CLUSTERS, NUM_MISSED, INNER_DIMS = 200, 20, 24


def draw(num_items, dims, seed):
    """(reals, generated) float32 [num_items, dims]: clusters in a subspace, and a little noise in all directions."""
    rng = np.random.default_rng(seed)
    basis = rng.standard_normal((INNER_DIMS, dims), dtype=np.float32)
    centres = 2 * rng.standard_normal((NUM_CLUSTERS, INNER_DIMS), dtype=np.float32)

    def of(clusters):
        x = np.empty((num_items, dims), np.float32)
        for start in range(0, num_items, 5000):  # the benchmark's own copies must not make the peak
            count = min(5000, num_items - start)
            inner = centres[rng.integers(clusters, size=count)] + rng.standard_normal((count, INNER_DIMS), dtype=np.float32)
            x[start : start + count] = inner @ basis + 0.3 * rng.standard_normal((count, dims), dtype=np.float32)
        return x

    return of(NUM_CLUSTERS), of(NUM_CLUSTERS - NUM_MISSED)


# ------------------------------------------------------------------------------------------
# Ways. Each imports what it needs itself: memory is counted from there.


def ours():
    """The very function that the metrics call, with their progress lines."""
    from madr_spaces import neighbours
    from metrics import diversity
    from metrics.metric_utils import MetricOptions
    from metrics.progress import ProgressMonitor

    neighbours.K_PRECISION_RECALL = neighbours.K_DENSITY_COVERAGE = K

    def compute(real, fake):
        opts = MetricOptions(device="cpu", strict_ties=True, progress=ProgressMonitor(verbose=True))
        return {name: float(values.mean()) for name, (_, values) in diversity.per_item_numbers(opts, real, fake, NUMBERS).items()}

    return compute


def ours_in_float64():
    from madr_spaces import rounded_products

    rounded_products.FEWEST_ITEMS = 1 << 60
    return ours()


def full_matrices_in_float32():
    """All distances at once by one matrix product, as is often done."""
    import torch

    def compute(real, fake):
        real, fake = torch.from_numpy(real), torch.from_numpy(fake)
        radius = lambda x: torch.cdist(x, x, compute_mode="use_mm_for_euclid_dist").kthvalue(K + 1, dim=1).values  # column 0: the item itself
        between = torch.cdist(fake, real, compute_mode="use_mm_for_euclid_dist")
        in_real, in_fake = between < radius(real)[None], between < radius(fake)[:, None]
        return dict(
            precision=float(in_real.any(1).double().mean()),
            recall=float(in_fake.any(0).double().mean()),
            density=float(in_real.sum() / (K * len(fake))),
            coverage=float(in_real.any(0).double().mean()),
        )

    return compute


def prdc_package():
    import prdc

    return lambda real, fake: prdc.compute_prdc(real, fake, nearest_k=K)


WAYS = {"ours": ours, "ours in float64 alone": ours_in_float64, "full matrices in float32": full_matrices_in_float32, "prdc package": prdc_package}


def peak_megabytes():
    """The largest resident set that this process ever had, all that it imported included; in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 10 if sys.platform == "linux" else 1 << 20)


def run_here(way, num_items, dims, seed):
    compute = WAYS[way]()
    after_import = peak_megabytes()
    real, fake = draw(num_items, dims, seed)
    after_data = peak_megabytes()
    wall, cpu = time.monotonic(), time.process_time()
    numbers = compute(real, fake)
    wall, cpu = time.monotonic() - wall, time.process_time() - cpu
    return dict(
        way=way,
        items=num_items,
        cpu_sec=round(cpu, 2),
        wall_sec=round(wall, 1),
        peak_mb=round(peak_megabytes()),
        peak_mb_after_import=round(after_import),
        peak_mb_after_data=round(after_data),
        numbers={name: float(numbers[name]) for name in NUMBERS},
    )


def run_in_child(way, num_items, dims, seed, threads):
    environment = dict(os.environ, **{f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")})
    command = [sys.executable, __file__, "--way", way, "--items", str(num_items), "--dims", str(dims), "--seed", str(seed)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if not line.startswith("{"):
                print("   " + line.rstrip(), flush=True)
    if child.returncode != 0:
        raise SystemExit(f"{way} ended with code {child.returncode}")
    result = json.loads(line)
    print(
        f"{way}, {num_items} items: {result['cpu_sec']} CPU s, {result['wall_sec']} s, peak {result['peak_mb']} MB, {result['numbers']}", flush=True
    )
    return result


@click.command()
@click.option("--items", type=click.IntRange(100), default=50_000, show_default=True, help="Real features, and as many generated ones.")
@click.option("--small", type=click.IntRange(100), default=10_000, show_default=True, help="Size at which the ways are compared.")
@click.option("--dims", type=click.IntRange(1), default=384, show_default=True, help="Feature dimensions.")
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True, help="Threads within an operator.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Seed of the features.")
@click.option("--way", type=click.Choice(list(WAYS)), help="Run one way here and print its line.")
@click.option(
    "--out",
    default=str(REPO / "benchmarks" / "results" / "prdc_50k.json"),
    show_default="benchmarks/results/prdc_50k.json",
    help="The file to write.",
    metavar="PATH",
)
def main(items, small, dims, threads, seed, way, out):
    """Time and memory of the nearest-neighbour metrics at full size."""
    if way:
        print(json.dumps(run_here(way, items, dims, seed)), flush=True)
        return
    compared = [run_in_child(name, small, dims, seed, threads) for name in WAYS]
    for result in compared:
        result["largest_difference_to_ours"] = max(abs(result["numbers"][name] - compared[0]["numbers"][name]) for name in NUMBERS)
    full = run_in_child("ours", items, dims, seed, threads)

    from dnnlib.files import atomic_write_text

    report = dict(
        what="seconds of the computation alone; peak resident set (MiB) of a whole process, imports and the features themselves included; k 5, ties ignored (<)",
        **circumstances(),
        threads=threads,
        seed=seed,
        dims=dims,
        clusters=NUM_CLUSTERS,
        missed=NUM_MISSED,
        full=full,
        compared=compared,
    )
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")


if __name__ == "__main__":
    main()
