"""Compares methods on a ring or grid of Gaussians: plain GAN, published term, default; one table, one picture.

    python toy_2d.py                       ring of 8 in the setting where a plain GAN cycles
    python toy_2d.py --layout=grid --seeds=3
    python toy_2d.py --layout=imbalanced   modes of 1 and 2%: the witness alone against the deficit tilt

About a minute per setting and seed on one core; experiments/toy_2d.py does the work.
"""

from pathlib import Path

import click

from dnnlib import cli
from experiments.toy_methods import FIRST_SEED, METHODS, OWN_METHODS, USUAL_METHODS


@click.command()
@click.option("--layout", type=click.Choice(["ring", "grid", "imbalanced"]), default="ring", show_default=True)
@click.option(
    "--methods",
    help=f"Comma-separated, of {', '.join(OWN_METHODS)}, or names of train.py --list-methods  [default: the first four; with --layout=imbalanced {USUAL_METHODS['imbalanced']}]",
)
@click.option("--seeds", type=click.IntRange(1, 1000), default=1, show_default=True, help="Runs per method, with seeds 0, 1, ...")
@click.option("--first-seed", type=click.IntRange(0), default=FIRST_SEED, show_default=True, help="Start at another seed")
@click.option("--steps", type=click.IntRange(10, 10**7), default=2500, show_default=True)
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), default="out/toy_2d", show_default=True)
def main(layout, methods, seeds, first_seed, steps, outdir):
    """Train tiny GANs on a ring or grid of Gaussians and count the modes that they hold."""
    chosen = (methods or USUAL_METHODS.get(layout, ",".join(list(METHODS)[:4]))).split(",")
    unknown = [method for method in chosen if method not in METHODS]
    if unknown:
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}, not {unknown[0]!r}")
    from experiments import toy_2d as runs  # torch only now: --help and mistakes are answered at once

    runs.study(layout, chosen, range(first_seed, first_seed + seeds), steps, outdir)


if __name__ == "__main__":
    cli.run(main)
