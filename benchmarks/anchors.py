"""What k-means anchors lose of a reference, and how long they take to find: python benchmarks/anchors.py

50,000 points of 1000 Gaussian clusters in 64 dimensions; writes benchmarks/results/anchors.json, with which a test compares madr_plugin/README.md.
"""

import json
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import faiss
import torch

from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import records
from madr_plugin.maths import kernels
from madr_plugin.reals import anchors
from madr_spaces.distances import pairwise_distances, quantile_of_sorted
from madr_spaces.seeds import generator_for

NUM_POINTS, NUM_CLUSTERS, WIDTH, SPREAD = 50_000, 1000, 64, 0.3
NUM_ANCHORS = (500, 2000, 5000)
DRAW = 512  # reals that each step draws


def points():
    generator = generator_for("benchmark-anchors")
    centres = torch.randn([NUM_CLUSTERS, WIDTH], generator=generator)
    cluster = torch.randint(NUM_CLUSTERS, [NUM_POINTS], generator=generator)
    return centres[cluster] + SPREAD * torch.randn([NUM_POINTS, WIDTH], generator=generator)


@click.command()
def main():
    """Measure what weighted anchors lose of 50,000 points; write benchmarks/results/anchors.json."""
    torch.set_num_threads(1)
    faiss.omp_set_num_threads(1)
    features_ND = points()
    scale = float(quantile_of_sorted(pairwise_distances(features_ND, generator_for("benchmark-scale")), 0.5))
    kernel = kernels.MixtureKernel(scale)
    rows = []
    for count in NUM_ANCHORS:
        start = time.process_time()
        made = anchors.compress(features_ND, torch.full([NUM_POINTS], -1), count, seed=0)
        seconds = time.process_time() - start
        mmd, mmd_of_one = anchors.kernel_error(features_ND, made["anchors"], made["anchor_of_real"], kernel)
        lost = anchors.quantisation_error(features_ND, made["anchors"], made["anchor_of_real"])
        rows.append(dict(anchors=count, variance_lost=lost, mmd=mmd, mmd_of_a_draw=mmd_of_one / DRAW**0.5, cpu_seconds=seconds))
        print(rows[-1], flush=True)
    result = dict(points=NUM_POINTS, clusters=NUM_CLUSTERS, width=WIDTH, spread=SPREAD, draw=DRAW, rows=rows, threads=1, seed=0, **records.machine())
    atomic_write_text(REPO / "benchmarks" / "results" / "anchors.json", json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
