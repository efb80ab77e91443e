"""Does the meter of forgetting tell cycling from collapse? GANs on the ring of toy_2d.py, looked at by madr_plugin/memory/forgetting.py.

    python -m experiments.forgetting [--seeds=3]

The same meter for all, fed with 32 new points of G at each look, also where MADR takes no part. Beside its mean over the second half of the looks:
the cycling of toy_2d.py over the same time (1 - modes at once over modes ever), for which the modes have to be known, and the modes held.
Minutes on one core. Writes experiments/results/toy/forgetting.json.
"""

from pathlib import Path

import click
import numpy as np
import torch

from dnnlib import cli
from experiments import records, small_gan, toy_2d
from experiments.point_networks import EXTENT
from experiments.toy_methods import METHODS
from madr_plugin.host.discriminator_access import DiscriminatorAccess
from madr_plugin.memory import forgetting
from madr_spaces.seeds import generator_for

LAYOUT, STEPS, USUAL = "ring", 2500, "plain,r1,witness"


def train(method, seed, steps=STEPS):
    """One run -> dict(forgetting: mean over the second half of the looks, forgetting_curve, cycling, modes)."""
    data, history, curve = toy_2d.PointSet(LAYOUT), [], []
    networks = dict(toy_2d.NETWORKS[0], z_dim=toy_2d.Z_DIM), toy_2d.NETWORKS[1]
    gan = small_gan.build(METHODS[method], networks, data, seed, batch=64, lr_G=2e-3, lr_D=5e-4, betas=(0.5, 0.9), mixture=toy_2d.MIXTURE)
    meter, asked = forgetting.ForgettingMeter(), DiscriminatorAccess(gan.D)

    def each(step):
        if step % forgetting.EVERY:
            return
        z = torch.randn([forgetting.GROUP_SIZE, toy_2d.Z_DIM], generator=generator_for("forgetting-study", seed, step))
        no_labels = torch.zeros([len(z), 0])
        with torch.no_grad():
            meter.look(gan.G(z, no_labels), no_labels, asked.logits)
        curve.append(meter.value)
        history.append(toy_2d.measure(toy_2d.sample(gan.G, 2500), LAYOUT))

    small_gan.train(gan, torch.from_numpy(data.points)[:, :, None, None] / EXTENT, seed, steps, each)
    summary = toy_2d.summary(history)
    late = [value for value in curve[len(curve) // 2 :] if value is not None]
    return dict(forgetting=float(np.mean(late)), forgetting_curve=curve, cycling=summary["cycling"], modes=summary["modes"])


@click.command()
@click.option("--seeds", type=cli.IntRange(1, 1000), default=3, show_default=True, help="Runs per method, with seeds 0, 1, ...")
@click.option("--methods", default=USUAL, show_default=True, help="Comma-separated, as those of toy_2d.py")
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), default=records.RESULTS / "toy", show_default=True)
def main(seeds, methods, outdir):
    """Train and look."""
    chosen = methods.split(",")
    unknown = [method for method in chosen if method not in METHODS]
    if unknown:
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}, not {unknown[0]!r}")
    torch.set_num_threads(1)
    facts = dict(layout=LAYOUT, steps=STEPS, every=forgetting.EVERY, methods={name: small_gan.resolved(METHODS[name]) for name in chosen})
    store = records.Store(outdir / "forgetting.json", facts)
    for seed in range(seeds):
        for method in chosen:
            if store.get(method, seed) is None:
                found = train(method, seed)
                store.put(method, seed, found)
                print(
                    f"{method} seed {seed}: forgetting {found['forgetting']:+.3f}, cycling {found['cycling']:.2f}, modes {found['modes']:.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    cli.run(main)
