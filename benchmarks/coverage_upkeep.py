"""What keeping the published coverage scores up to date costs: the incremental sums against computing them anew, and what is left after many updates.

    python benchmarks/coverage_upkeep.py

By default 50,000 reals, a memory of 2,048, 64 entries replaced at each step, 384 features. The ways take turns within each round, in CPU
seconds of this process. Then the incremental sums alone run on to `--updates`, and are compared with float64. Writes
benchmarks/results/coverage_upkeep.json and the table in docs/performance.md.
"""

import json
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import torch

from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import pages
from madr_plugin.maths import coverage, estimators

SIGMA, NEAREST = 1.0, 20
RESULTS, PAGE = REPO / "benchmarks" / "results" / "coverage_upkeep.json", REPO / "docs" / "performance.md"


class Bed:
    """Reals and a memory of one distribution, of median distance about 1.4, and one object for each way."""

    def __init__(self, num_reals, capacity, replaced, width):
        self.generator = torch.Generator().manual_seed(0)
        self.replaced, self.width = replaced, width
        self.real_ND, self.memory_KD = self.drawn(num_reals), self.drawn(capacity)
        self.ways = dict(
            incremental=estimators.build("incremental", self.real_ND),
            anew=estimators.build("exact", self.real_ND),
            faiss=estimators.build("faiss", self.real_ND, k=NEAREST),
        )

    def drawn(self, count):
        return torch.randn([count, self.width], generator=self.generator) / self.width**0.5

    def replace(self):
        rows = torch.randperm(len(self.memory_KD), generator=self.generator)[: self.replaced]
        self.memory_KD[rows] = self.drawn(self.replaced)

    def cpu_seconds(self, way):
        start = time.process_time()
        self.ways[way].scores(self.memory_KD, SIGMA)
        return time.process_time() - start

    def largest_difference(self):
        """Between the incremental scores and those anew in float64, the largest over the reals."""
        expected_N = coverage.kernel_score(self.real_ND.double(), self.memory_KD.double(), SIGMA)
        return float((self.ways["incremental"].scores(self.memory_KD, SIGMA).double() - expected_N).abs().max())


def measure(bed, rounds, updates):
    bed.ways["incremental"].scores(bed.memory_KD, SIGMA)  # the first time all is new
    times = {way: [] for way in bed.ways}
    for _ in range(rounds):
        bed.replace()
        for way, own in times.items():
            own.append(bed.cpu_seconds(way))
    for done in range(rounds, updates):
        bed.replace()
        bed.ways["incremental"].scores(bed.memory_KD, SIGMA)
        if (done + 1) % 1000 == 0:
            print(f"{done + 1} updates", flush=True)
    return dict(
        cpu_ms={way: round(1000 * statistics.median(own), 1) for way, own in times.items()},
        times_anew=round(statistics.median(a / b for a, b in zip(times["anew"], times["incremental"])), 1),
        times_faiss=round(statistics.median(a / b for a, b in zip(times["faiss"], times["incremental"])), 1),
        largest_difference_after_updates=bed.largest_difference(),
    )


def table(report):
    """Markdown."""
    found, names = report["found"], dict(incremental="kept up to date", anew="computed anew", faiss=f"faiss IndexFlatL2, the {NEAREST} nearest")
    faster = dict(incremental="1.0", anew=f"{found['times_anew']:.1f}", faiss=f"{found['times_faiss']:.1f}")
    return "\n".join(
        [
            "| way | CPU ms for each step | times as long as kept up to date |",
            "|---|---|---|",
            *(f"| {names[way]} | {milliseconds:.0f} | {faster[way]} |" for way, milliseconds in found["cpu_ms"].items()),
            "",
            f"{report['reals']:,} reals, memory of {report['capacity']:,}, {report['replaced']} replaced at each step, {report['width']} features; "
            f"largest difference to float64 after {report['updates']:,} updates: {found['largest_difference_after_updates']:.1e}. "
            f"{report['processor']}, {report['threads']} thread(s), PyTorch {report['torch']}, {report['date']}, load average {report['load_average']}; "
            f"medians of {report['rounds']} rounds.",
        ]
    )


@click.command()
@click.option("--reals", type=cli.IntRange(min=2), default=50_000, show_default=True, help="Features of real images")
@click.option("--capacity", type=cli.IntRange(min=2), default=2048, show_default=True, help="Entries of the memory")
@click.option("--replaced", type=cli.IntRange(min=1), default=64, show_default=True, help="Entries replaced at each step")
@click.option("--width", type=cli.IntRange(min=1), default=384, show_default=True, help="Width of the features")
@click.option("--rounds", type=cli.IntRange(min=2), default=9, show_default=True, help="Rounds in which the ways take turns")
@click.option("--updates", type=cli.IntRange(min=1), default=10_000, show_default=True, help="Steps after which the sums are compared")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads")
@click.option(
    "--out", default=str(RESULTS), show_default="benchmarks/results/coverage_upkeep.json", help="Where to write the figures", metavar="PATH"
)
def main(reals, capacity, replaced, width, rounds, updates, threads, out):
    """Times the upkeep of the coverage scores and tells how far they are off after many updates."""
    torch.set_num_threads(threads)
    report = dict(
        what="CPU ms of this process for one update of all scores",
        reals=reals,
        capacity=capacity,
        replaced=replaced,
        width=width,
        rounds=rounds,
        updates=updates,
        threads=threads,
        seed=0,
        **circumstances(),
    )
    report["found"] = measure(Bed(reals, capacity, replaced, width), rounds, updates)
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(table(report))
    if Path(out).resolve() == RESULTS:
        pages.write_between(PAGE, "coverage upkeep", table(report))


if __name__ == "__main__":
    cli.run(main)
