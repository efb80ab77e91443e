"""One run on a ring or grid of Gaussians in PacGAN's setting (Lin et al. 2018, 1712.04086, section 4.1), with the methods of train.py:

    python -m experiments.points --layout=ring --gan=wgan-gp --method=pacgan:m=2 --kimg=1000 --seed=0 --outdir=out/points

Ring: 8 modes on a circle of radius 1, standard deviation .01; grid: 25 modes at {-4, -2, 0, 2, 4}^2, .05; 100,000 fixed points, 100 to a step. G: 2-400-400-2 with
batch norm and ReLU; D: 2-200 with the largest of 5 linear pieces each, and a linear layer. Adam with rate .001, betas .5 and .999, where the
method brings none. kimg counts thousands of points at 100 to a step: all methods of one kimg take equally many steps. Writes OUTDIR/result.json
with its curve over 20 evaluations of 2,500 samples. Minutes on a core. Ctrl-C or SIGTERM saves OUTDIR/state.pt; the same command goes on.
A script of the study `methods`.
"""

import json
import time
from pathlib import Path

import click

from dnnlib import cli
from experiments.run import StopSignals
from madr_plugin import options as madr

# Whatever imports torch is imported inside the functions, so that --help comes at once.

LAYOUTS = {"ring": "small-ring", "grid": "grid"}  # -> of experiments/toy_2d.py
BATCH, LATENTS, NUM_POINTS, NUM_SAMPLES, EVALUATIONS = 100, 2, 100_000, 2500, 20
R1_GAMMA = 0.04  # of a method that brings R1 without a weight: 1 on the points, which are images times toy_2d.EXTENT
IMAGE_SHAPE = (2, 1, 1)
GENERATOR, DISCRIMINATOR = "experiments.point_networks.PointGenerator", "experiments.point_networks.PointDiscriminator"
MIXTURE = "experiments.point_networks.PointMixture"  # of gm-gan


def options_of(flags):
    """The training options of train.py that a run on points has, after the methods have changed them. flags: by name, without None."""
    import dnnlib
    from experiments import row_runs

    adam = dict(class_name="torch.optim.Adam", lr=0.001, betas=[0.5, 0.999], eps=1e-8)
    data = dict(class_name="experiments.toy_2d.PointSet", layout=LAYOUTS[flags["layout"]], count=NUM_POINTS)
    of_D = dnnlib.EasyDict(class_name=DISCRIMINATOR, epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=1))
    networks = dnnlib.EasyDict(class_name=GENERATOR, z_dim=LATENTS), of_D
    options = row_runs.options_of(BATCH, flags["kimg"], flags["seed"], data, (adam, adam), R1_GAMMA, networks)
    row_runs.choose(options, flags, IMAGE_SHAPE)
    row_runs.keep_networks(options, (GENERATOR, DISCRIMINATOR), flags["method"], MIXTURE)
    return options


def built(options):
    """(data, row_runs.Run) of a run."""
    import dnnlib
    from experiments import row_runs

    data = dnnlib.util.construct_class_by_name(**{name: value for name, value in options.training_set_kwargs.items() if name != "use_labels"})
    return data, row_runs.Run(options, data, IMAGE_SHAPE)


def train(run, data, steps, layout, curve, path, own, stop):
    """Go on to `steps`, with a point of the curve and a state at each evaluation. -> whether it came to the end."""
    import torch

    from experiments.toy_2d import EXTENT

    points = torch.from_numpy(data.points)[:, :, None, None] / EXTENT
    due = {round(steps * number / EVALUATIONS) for number in range(1, EVALUATIONS + 1)}
    begun = time.monotonic() - (curve[-1]["seconds"] if curve else 0)
    while run.steps < steps:
        if stop():
            run.keep(path, own, curve)
            return False
        run.step(lambda count, generator: points[torch.randint(len(points), [count], generator=generator)])
        if run.steps in due:
            kimg = run.steps * BATCH / 1000
            curve.append(dict(measures_of(run, layout), kimg=kimg, cpu_seconds=run.seconds, seconds=time.monotonic() - begun))
            run.keep(path, own, curve)
            print(f"kimg {kimg:g}: modes {curve[-1]['modes']}, high quality {curve[-1]['quality']:.3f}, KL {curve[-1]['kl']:.3f}", flush=True)
    return True


def measures_of(run, layout):
    """Modes with a sample of high quality, share of those samples, KL to the true masses, of 2,500 samples of fixed latents."""
    import torch

    from experiments import toy_2d

    z = torch.randn([NUM_SAMPLES, LATENTS], generator=torch.Generator().manual_seed(0))
    found = toy_2d.measure((run.sample(z)[:, :, 0, 0] * toy_2d.EXTENT).numpy(), LAYOUTS[layout])
    return dict(modes=found["hit"], quality=found["quality"], kl=found["kl"])


@click.command(context_settings=dict(max_content_width=140))
@click.option("--layout", type=click.Choice(list(LAYOUTS)), default="ring", show_default=True)
@click.option("--gan", metavar="NAME", help="Adversarial loss, as train.py --gan  [default: non-saturating]", default="non-saturating")
@click.option("--method", multiple=True, metavar="NAME[:KEY=VALUE,...]", help="A method, as train.py --method; may be repeated")
@click.option("--kimg", type=cli.IntRange(min=1), default=1000, show_default=True, help="Thousands of points at 100 to a step")
@click.option("--seed", type=cli.IntRange(0, 2**32 - 1), default=0, show_default=True)
@click.option("--outdir", type=click.Path(file_okay=False, path_type=Path), required=True)
@madr.madr_options
def main(outdir, **flags):
    """Train on points and write what came of it."""
    from dnnlib.files import atomic_write_text
    from experiments import row_runs
    from torch_utils import distributed

    flags["method"] = list(flags["method"])
    options, steps = options_of(flags), flags["kimg"] * 1000 // BATCH
    data, run = built(options)
    path, own = outdir / row_runs.STATE, row_runs.identity(options, data, length=steps)
    curve = run.resumed(path, own)
    with StopSignals() as stop:
        finished = train(run, data, steps, flags["layout"], curve, path, own, stop)
    run.close()
    if not finished:
        print(f"Stopped after {run.steps} steps; the same command goes on. Exit code {distributed.EXIT_STOPPED}.")
        return distributed.EXIT_STOPPED
    outdir.mkdir(parents=True, exist_ok=True)
    atomic_write_text(outdir / "result.json", json.dumps(dict(curve[-1], curve=curve), indent=1) + "\n")
    return None


if __name__ == "__main__":
    cli.run(main)
