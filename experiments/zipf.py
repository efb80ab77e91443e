"""A generator without an adversary learns a mixture whose masses fall as 1/rank: do remembered debts bring the modes to their shares?

    python -m experiments.zipf --batches=64,16 --seeds=5

50 normal distributions of deviation .1 about standard normal centres in 8 dimensions, masses 1/rank; 8,000 reals. An MLP 16-128-128-8 with ReLU; Adam 1e-3 (the last
three tenths 2e-4), betas .5 and .99, 2000 steps by madr_plugin.attach() alone. Variation: half the sum of |share - true share| over the modes, of 20,000 points by
their nearest centre; KL: of these shares from the true ones; quality: the part of the points within 3 x .1 x sqrt(8) of a centre. Writes
experiments/results/zipf.json, resumable, and the table in docs/studies/debts.md.
"""

from pathlib import Path

import click
import torch

from dnnlib import cli
from experiments import pages, records

MODES, WIDTH, SPREAD, NUM_REALS, NUM_GENERATED, LATENTS = 50, 8, 0.1, 8_000, 20_000, 16
RESULTS, PAGE = records.RESULTS / "zipf.json", records.RESULTS.parent.parent / "docs" / "studies" / "debts.md"
MEASURES = [("variation", "total variation", 3, False), ("kl", "KL (nats)", 3, False), ("quality", "quality", 2, True)]
METHODS = {
    "witness": dict(term="witness"),
    "witness+batch-debt": dict(term="witness", debt="batch"),
    "witness+debt": dict(term="witness", debt="potentials"),
    "witness+moments": {},
    "witness+moments+batch-debt": dict(debt="batch"),
    "witness+moments+debt": dict(debt="potentials"),
}


def true_shares():
    """-> float64 [MODES], falling as 1/rank."""
    share_M = 1 / torch.arange(1, MODES + 1, dtype=torch.float64)
    return share_M / share_M.sum()


def centres():
    return torch.randn([MODES, WIDTH], generator=torch.Generator().manual_seed(7))


def reals():
    """The same for all seeds -> float32 [NUM_REALS, WIDTH]."""
    mode_N = torch.multinomial(true_shares(), NUM_REALS, replacement=True, generator=torch.Generator().manual_seed(8))
    return centres()[mode_N] + SPREAD * torch.randn([NUM_REALS, WIDTH], generator=torch.Generator().manual_seed(9))


def measure(points_ND):
    """Judge generated points -> dict(variation, kl, quality)."""
    distance_N, mode_N = torch.cdist(points_ND.double(), centres().double()).min(1)
    share_M, true_M = torch.bincount(mode_N, minlength=MODES).double() / len(points_ND), true_shares()
    kl = torch.where(share_M > 0, share_M * (share_M.clamp(min=1e-12) / true_M).log(), 0).sum()
    return dict(
        variation=float((share_M - true_M).abs().sum() / 2), kl=float(kl), quality=float((distance_N < 3 * SPREAD * WIDTH**0.5).double().mean())
    )


def train(method, batch, seed, steps):
    import madr_plugin

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [torch.nn.Linear(LATENTS, 128), torch.nn.ReLU(), torch.nn.Linear(128, 128), torch.nn.ReLU(), torch.nn.Linear(128, WIDTH)]
    network, generator = torch.nn.Sequential(*layers), torch.Generator().manual_seed(seed)
    term = madr_plugin.attach(network, reals(), seed=0, announce=lambda *_, **__: None, **METHODS[method])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3, betas=(0.5, 0.99))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 1e-3 if step < 0.7 * steps else 2e-4
        optimizer.zero_grad(set_to_none=True)
        term(network(torch.randn([batch, LATENTS], generator=generator))).backward()
        optimizer.step(), term.step()
    with torch.no_grad():
        return measure(network(torch.randn([NUM_GENERATED, LATENTS], generator=torch.Generator().manual_seed(5))))


def table(path):
    """Write Markdown of a result file: means over seeds, and what debts differ by from the same term without them and from their twin, paired."""
    from experiments import tables

    facts, runs = records.load(path)
    parts = [f"{facts['steps']} steps, mean ± half width of the 95% interval over seeds.", tables.means_table(runs, MEASURES)]
    for name in runs:
        method, _, batch = name.partition(", ")
        if method.endswith("+debt"):
            others = (method.removesuffix("+debt"), method.replace("+debt", "+batch-debt"))
            compared = {f"{other}, {batch}": runs[f"{other}, {batch}"] for other in others if f"{other}, {batch}" in runs}
            if compared:
                parts.append(tables.against({name: runs[name], **compared}, name, MEASURES))
    return "\n\n".join([*parts, tables.provenance(runs)])


@click.command()
@click.option("--methods", default=",".join(METHODS), show_default=True, help="Comma-separated")
@click.option("--batches", default="64,16", show_default=True, help="Comma-separated numbers of points per step")
@click.option("--seeds", type=click.IntRange(1, 100), default=5, show_default=True, help="Seeds 0, 1, ...")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Start at another seed")
@click.option("--steps", type=click.IntRange(1), default=2000, show_default=True)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), default=RESULTS, show_default="experiments/results/zipf.json", help="Result file"
)
def main(methods, batches, seeds, first_seed, steps, out):
    """Train a generator by MADR alone on a mixture of unequal masses, and tell how far its shares are off."""
    unknown = [method for method in methods.split(",") if method not in METHODS]
    if unknown or not all(part.isdigit() and int(part) >= 2 for part in batches.split(",")):
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}; --batches takes numbers of 2 or more (got {methods!r}, {batches!r})")
    torch.set_num_threads(1)
    store = records.Store(out, dict(study="zipf", steps=steps, knobs=METHODS))
    for seed in range(first_seed, first_seed + seeds):
        for batch in map(int, batches.split(",")):
            for method in methods.split(","):
                name = f"{method}, batch {batch}"
                if store.get(name, seed) is None:
                    store.put(name, seed, train(method, batch, seed, steps))
                    found = store.get(name, seed)
                    print(
                        f"{name}, seed {seed}: variation {found['variation']:.3f}, KL {found['kl']:.3f}, quality {found['quality']:.2f}", flush=True
                    )
    print(table(out))
    if out == RESULTS:
        pages.write_between(PAGE, "zipf", table(out))


if __name__ == "__main__":
    cli.run(main)
