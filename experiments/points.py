"""One run on a ring or grid of Gaussians in PacGAN's setting (Lin et al. 2018, 1712.04086, section 4.1), with the methods of train.py:

    python -m experiments.points --layout=ring --gan=wgan-gp --method=pacgan:m=2 --kimg=1000 --seed=0 --outdir=out/points

Ring: 8 modes on a circle of radius 1, standard deviation .01; grid: 25 modes at {-4, -2, 0, 2, 4}^2, .05; 100,000 fixed points, 100 to a step. G: 2-400-400-2 with
batch norm and ReLU; D: 2-200 with the largest of 5 linear pieces each, and a linear layer. Adam with rate .001, betas .5 and .999, where the
method brings none. kimg counts thousands of points at 100 to a step: all methods of one kimg take equally many steps. Writes OUTDIR/result.json
with its curve over 20 evaluations of 2,500 samples. Minutes on a core. A script of the study `methods`.
"""

import json
import time
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.errors import UserError
from madr_plugin import options as madr

# Whatever imports torch is imported inside the functions, so that --help comes at once.

LAYOUTS = {"ring": "small-ring", "grid": "grid"}  # -> of experiments/toy_2d.py
BATCH, LATENTS, NUM_POINTS, NUM_SAMPLES, EVALUATIONS = 100, 2, 100_000, 2500, 20
R1_GAMMA = 0.04  # of a method that brings R1 without a weight: 1 on the points, which are images times toy_2d.EXTENT
GENERATOR, DISCRIMINATOR = "experiments.point_networks.PointGenerator", "experiments.point_networks.PointDiscriminator"


def options_of(flags):
    """The training options of train.py that a run on points has, after the methods have changed them. flags: by name, without None."""
    import dnnlib
    from training import config
    from training.gan import choosing

    adam = dict(class_name="torch.optim.Adam", lr=0.001, betas=[0.5, 0.999], eps=1e-8)
    options = dnnlib.EasyDict(
        num_gpus=1,
        batch_size=BATCH,
        batch_gpu=BATCH,
        random_seed=flags["seed"],
        total_kimg=flags["kimg"],
        training_set_kwargs=dnnlib.EasyDict(
            class_name="experiments.toy_2d.PointSet", layout=LAYOUTS[flags["layout"]], count=NUM_POINTS, use_labels=False
        ),
        G_kwargs=dnnlib.EasyDict(class_name=GENERATOR, z_dim=LATENTS),
        D_kwargs=dnnlib.EasyDict(class_name=DISCRIMINATOR, epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=1)),
        G_opt_kwargs=dnnlib.EasyDict(adam),
        D_opt_kwargs=dnnlib.EasyDict(adam),
        loss_kwargs=dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=R1_GAMMA, pl_weight=0, style_mixing_prob=0),
        augment_kwargs=None,
        ema_kimg=0,
        ema_rampup=None,
        G_reg_interval=None,
        D_reg_interval=None,
    )
    resolved = config.Resolved(options=options, name_parts=[], reasons=[], image_shape=(2, 1, 1))
    chosen = {"gan": flags["gan"], "method": flags["method"]}
    choosing.apply(resolved, dnnlib.EasyDict({name: value for name, value in chosen.items() if value}))
    options.batch_gpu = options.batch_size
    made = options.G_kwargs.get("base_class_name", options.G_kwargs.class_name), options.D_kwargs.class_name
    if made != (GENERATOR, DISCRIMINATOR):
        raise UserError(f"--method={' --method='.join(flags['method'])} changes the networks, and points have their own; leave it out here.")
    madr.apply(options, flags)
    options.augment_kwargs = None  # points are judged as they are
    return options


def built(options):
    """(data, G, D, loss, phases) of a run."""
    import torch

    import dnnlib
    from training import phases, setup

    data = dnnlib.util.construct_class_by_name(**{name: value for name, value in options.training_set_kwargs.items() if name != "use_labels"})
    common = dict(c_dim=0, img_channels=2, img_resolution=1)
    torch.manual_seed(phases.derived_seed(options.random_seed, 0))
    G = dnnlib.util.construct_class_by_name(**{**common, **options.G_kwargs})
    D = dnnlib.util.construct_class_by_name(**{**common, **options.D_kwargs})
    loss = setup.build_loss(options.loss_kwargs, G, D, None, torch.device("cpu"))
    rows, _ = phases.setup_phases(
        G, D, options.G_opt_kwargs, options.D_opt_kwargs, options.G_reg_interval, options.D_reg_interval, options.get("n_critic", 1)
    )
    names = ("num_gpus", "training_set_kwargs", "random_seed", "batch_size", "batch_gpu")
    loss.attach(
        dnnlib.EasyDict(
            **{name: options[name] for name in names},
            rank=0,
            device=torch.device("cpu"),
            run_dir=None,
            G=G,
            D=D,
            G_ema=G,
            training_set=data,
            keeps_state=True,
        )
    )
    return data, G, D, loss, rows


def train(options, steps, each):
    """`steps` steps of all phases; calls each(step, G, CPU seconds without those of `each`) after every one."""
    import torch

    from experiments.toy_2d import EXTENT
    from training import phases

    data, G, _D, loss, rows = built(options)
    points = torch.from_numpy(data.points)[:, :, None, None] / EXTENT
    no_labels, seconds = torch.zeros([options.batch_size, 0]), 0.0
    for step in range(steps):
        begun, cur_nimg = time.process_time(), step * options.batch_size
        generator = torch.Generator().manual_seed(phases.derived_seed(options.random_seed, cur_nimg, 3))
        reals = points[torch.randint(len(points), [options.batch_size], generator=generator)]
        for number, phase in enumerate(rows):
            if step % phase.interval == 0:
                z, _ = phases.draw_latents(number, 0, options.batch_size, LATENTS, no_labels, options.random_seed, cur_nimg)
                loss.begin_phase(phase.name, cur_nimg)
                phases.run_phase(phase, number, loss, [(0, reals, no_labels, z, no_labels)], options.random_seed, cur_nimg)
                loss.end_phase(phase.name)
        seconds += time.process_time() - begun
        each(step + 1, G, seconds)
    loss.close()


def measures_of(G, layout):
    """Modes with a sample of high quality, share of those samples, KL to the true masses, of 2,500 samples of fixed latents."""
    import torch

    from experiments import toy_2d

    was_training = G.training
    G.eval()
    with torch.no_grad():
        z = torch.randn([NUM_SAMPLES, LATENTS], generator=torch.Generator().manual_seed(0))
        points = (G(z, torch.zeros([NUM_SAMPLES, 0]))[:, :, 0, 0] * toy_2d.EXTENT).numpy()
    G.train(was_training)
    found = toy_2d.measure(points, LAYOUTS[layout])
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

    flags["method"] = list(flags["method"])
    options, steps, curve = options_of(flags), flags["kimg"] * 1000 // BATCH, []
    due = {round(steps * number / EVALUATIONS) for number in range(1, EVALUATIONS + 1)}
    begun = time.monotonic()

    def each(step, G, cpu_seconds):
        if step in due:
            kimg = step * BATCH / 1000
            curve.append(dict(measures_of(G, flags["layout"]), kimg=kimg, cpu_seconds=cpu_seconds, seconds=time.monotonic() - begun))
            print(f"kimg {kimg:g}: modes {curve[-1]['modes']}, high quality {curve[-1]['quality']:.3f}, KL {curve[-1]['kl']:.3f}", flush=True)

    train(options, steps, each)
    outdir.mkdir(parents=True, exist_ok=True)
    atomic_write_text(outdir / "result.json", json.dumps(dict(curve[-1], curve=curve), indent=1) + "\n")


if __name__ == "__main__":
    cli.run(main)
