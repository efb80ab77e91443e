"""A generator without an adversary learns a spiral from small batches: what a memory of moments adds to the witness there.

    python -m experiments.spiral --batches=8,32,128 --seeds=3

Protocol of the toy example of iRDM (vita-epfl/RDM, folder rdm/toy): a spiral of two turns, radius .5 to 2.5, normal noise of .05, embedded in 64 dimensions by a
random orthogonal map; an MLP 2-256x4-64 with ReLU; Adam 1e-3, cosine to 1e-4, gradients clipped at norm 2; 8000 steps. Recall: the share of
60 anchors along the curve with a generated point within .15. Distance: the median distance of generated points to the curve. Writes
experiments/results/spiral.json, resumable.
"""

import math
from pathlib import Path

import click
import numpy as np
import torch

from dnnlib import cli
from experiments import records

DIMENSIONS, TURNS, RADII, NOISE = 64, 2, (0.5, 2.5), 0.05
NUM_REALS, NUM_GENERATED, NUM_ANCHORS, NUM_CURVE, NEAR = 10_000, 4_096, 60, 4_000, 0.15
METHODS = {
    "witness": dict(term="witness"),
    "witness-in-full": dict(term="witness", shrink=0),  # never resting where a batch's gradient may be noise
    "moments": dict(term="moments"),
    "witness+batch-moments": dict(term="witness+moments", moments_horizon="0"),
    "witness+moments": dict(term="witness+moments"),
    "witness+moments-in-full": dict(term="witness+moments", shrink=0, moments_shrink=0),
}


def curve(count):
    """`count` points along the spiral, evenly in its angle -> [count, 2]."""
    t = torch.linspace(0, 1, count, dtype=torch.float64)
    angle, radius = 2 * math.pi * TURNS * t, RADII[0] + (RADII[1] - RADII[0]) * t
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1)


def embedding(seed):
    """A random orthogonal map from the plane -> [2, DIMENSIONS]."""
    square = torch.randn([DIMENSIONS, DIMENSIONS], dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return torch.linalg.qr(square)[0][:2]


def reals(seed):
    """-> float32 [NUM_REALS, DIMENSIONS]."""
    generator = torch.Generator().manual_seed(seed + 1)
    places = torch.rand([NUM_REALS], generator=generator, dtype=torch.float64) * (NUM_CURVE - 1)
    points = curve(NUM_CURVE)[places.round().long()] + NOISE * torch.randn([NUM_REALS, 2], generator=generator, dtype=torch.float64)
    return (points @ embedding(seed)).to(torch.float32)


def make_generator(seed):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        widths = [2, 256, 256, 256, 256, DIMENSIONS]
        layers = [layer for a, b in zip(widths, widths[1:]) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())]
        return torch.nn.Sequential(*layers[:-1])


def measure(generated, seed):
    """dict(recall, distance) of generated points [N, DIMENSIONS]."""
    basis = embedding(seed)
    to_anchors = torch.cdist((curve(NUM_ANCHORS) @ basis), generated.to(torch.float64)).amin(1)
    to_curve = torch.cdist(generated.to(torch.float64), curve(NUM_CURVE) @ basis).amin(1)
    return dict(recall=float((to_anchors < NEAR).double().mean()), distance=float(to_curve.median()))


def train(method, batch, seed, steps):
    import madr_plugin

    generator = make_generator(seed)
    term = madr_plugin.attach(generator, reals(seed), seed=seed, announce=lambda *_, **__: None, **METHODS[method])
    optimizer = torch.optim.Adam(generator.parameters(), 1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, 1e-4)
    latents = torch.Generator().manual_seed(seed + 2)
    for _ in range(steps):
        optimizer.zero_grad(set_to_none=True)
        term(generator(torch.randn([batch, 2], generator=latents))).backward()
        torch.nn.utils.clip_grad_norm_(generator.parameters(), 2.0)
        optimizer.step(), schedule.step(), term.step()
    with torch.no_grad():
        return measure(generator(torch.randn([NUM_GENERATED, 2], generator=latents)), seed)


@click.command()
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Comma-separated")
@click.option("--batches", default="8,32,128", show_default=True, help="Comma-separated numbers of points per step")
@click.option("--seeds", type=click.IntRange(1, 100), default=3, show_default=True, help="Seeds 0, 1, ...")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--steps", type=click.IntRange(1), default=8000, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=records.RESULTS / "spiral.json", show_default="experiments/results/spiral.json"
)
def main(methods, batches, seeds, first_seed, steps, out):
    """Train a generator by MADR alone on a spiral, and tell how much of it is drawn and how exactly."""
    unknown = [method for method in methods.split(",") if method not in METHODS]
    if unknown or not all(part.isdigit() and int(part) >= 2 for part in batches.split(",")):
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}; --batches takes numbers of 2 or more (got {methods!r}, {batches!r})")
    torch.set_num_threads(1)
    store = records.Store(out, dict(study="spiral", steps=steps, protocol="two turns, 64 dimensions", knobs=METHODS))
    for batch in map(int, batches.split(",")):
        for method in methods.split(","):
            found = []
            for seed in range(first_seed, first_seed + seeds):
                name = f"{method}, batch {batch}"
                if store.get(name, seed) is None:
                    store.put(name, seed, train(method, batch, seed, steps))
                found.append(store.get(name, seed))
            recall, distance = (np.mean([entry[key] for entry in found]) for key in ("recall", "distance"))
            print(f"batch {batch:3d}  {method:22s} recall {recall:.2f}  median distance {distance:.3f}  ({len(found)} seeds)", flush=True)


if __name__ == "__main__":
    cli.run(main)
