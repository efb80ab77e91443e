"""What MADR costs: CPU time of a training step of the plain GAN against the presets, in two beds.

    python benchmarks/madr_cost.py

Beds: a 14-pixel DCGAN with a weak discriminator (a few milliseconds per step, where every overhead shows) and StyleGAN2 of
--cfg=tiny at 32 pixels with lazy R1. The methods take turns within each round, in CPU seconds of this process, so that a busy
machine slows all of them alike; the memory is full before the first round. Writes benchmarks/results/madr_cost.json and the table in
docs/performance.md.
"""

import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import torch

from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import pages
from madr_plugin.loss import MADRLoss
from training.loss import StyleGAN2Loss
from training.networks import Discriminator, Generator

METHODS = {
    "plain": None,
    "witness": dict(preset="witness"),
    "witness+replay": dict(preset="replay"),
    "witness+moments": dict(preset="moments"),
    "default": dict(preset="default"),
    "paper": dict(preset="paper", extractor="pca"),
}
WARM_UP_STEPS = 12
RESULTS, PAGE = REPO / "benchmarks" / "results" / "madr_cost.json", REPO / "docs" / "performance.md"


class Triples:
    """`count` images of three random digits each, one per channel, drawn once; a data set of the StyleGAN2-ADA kind."""

    def __init__(self, side, count, seed=0):
        from sklearn.datasets import load_digits

        random = np.random.RandomState(seed)
        digits = torch.nn.functional.interpolate(torch.from_numpy(load_digits().images).float()[:, None] / 16, size=[side, side], mode="bilinear")
        digits = (digits[:, 0] * 255).round().to(torch.uint8).numpy()
        self.images = digits[random.randint(0, len(digits), [count, 3])]
        self.image_shape, self.label_shape = [3, side, side], [0]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index], np.zeros([0], np.float32)


class SmallGenerator(torch.nn.Module):
    """z [N, 64] -> [N, 3, 14, 14]: a DCGAN of two transposed convolutions with batch norm."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Linear(64, 32 * 7 * 7),
            torch.nn.Unflatten(1, [32, 7, 7]),
            torch.nn.BatchNorm2d(32),
            torch.nn.ReLU(),
            torch.nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            torch.nn.BatchNorm2d(16),
            torch.nn.ReLU(),
            torch.nn.Conv2d(16, 3, 3, padding=1),
            torch.nn.Tanh(),
        )

    def forward(self, z, c):
        return self.body(z)


class WeakDiscriminator(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(
            torch.nn.Conv2d(3, 8, 4, stride=2, padding=1),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Conv2d(8, 16, 4, stride=2, padding=1),
            torch.nn.LeakyReLU(0.2),
            torch.nn.Flatten(),
            torch.nn.Linear(16 * 3 * 3, 1),
        )

    def forward(self, img, c):
        return self.body(img)


class PlainLoss:
    """Non-saturating, no regulariser."""

    def __init__(self, device, G, D, augment_pipe=None):
        self.G, self.D = G, D

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        if phase == "Gmain":
            loss = torch.nn.functional.softplus(-self.D(self.G(gen_z, gen_c), gen_c))
        else:
            with torch.no_grad():
                fake = self.G(gen_z, gen_c)
            loss = torch.nn.functional.softplus(self.D(fake, gen_c)) + torch.nn.functional.softplus(-self.D(real_img, real_c))
        loss.mean().mul(gain).backward()


class Run:
    """One method in one bed: networks, loss, optimizers."""

    def __init__(self, bed, data, madr):
        torch.manual_seed(0)
        self.data = torch.from_numpy(data.images).float() / 127.5 - 1
        self.step_index = 0
        if bed == "dcgan":
            G, D, self.batch, self.phases = SmallGenerator(), WeakDiscriminator(), 64, {"Gmain": 1, "Dmain": 1}
            base, kwargs, learning = PlainLoss, dict(G=G), dict(lr=1e-3, betas=(0.5, 0.999))
        else:
            G = Generator(
                z_dim=64,
                c_dim=0,
                w_dim=64,
                img_resolution=32,
                img_channels=3,
                mapping_kwargs=dict(num_layers=2),
                synthesis_kwargs=dict(channel_base=512, channel_max=64, num_fp16_res=0),
            )
            D = Discriminator(
                c_dim=0, img_resolution=32, img_channels=3, channel_base=512, channel_max=64, num_fp16_res=0, epilogue_kwargs=dict(mbstd_group_size=4)
            )
            self.batch, self.phases = 16, {"Gmain": 1, "Dmain": 1, "Dreg": 16}
            base, kwargs, learning = (
                StyleGAN2Loss,
                dict(G_mapping=G.mapping, G_synthesis=G.synthesis, pl_weight=0, r1_gamma=1.0),
                dict(lr=5e-3, betas=(0.0, 0.99)),
            )
        self.networks = dict(G=G, D=D)
        self.opts = {name: torch.optim.Adam(network.parameters(), **learning) for name, network in self.networks.items()}
        if madr is None:
            self.loss = base(device=torch.device("cpu"), D=D, **kwargs)
        else:
            self.loss = MADRLoss(torch.device("cpu"), D=D, base_class_name=f"{base.__module__}.{base.__name__}", madr=madr, **kwargs)
            self.loss.attach(dict(training_set=data, random_seed=0))

    def step(self):
        for phase, interval in self.phases.items():
            if self.step_index % interval:
                continue
            for name, network in self.networks.items():
                network.requires_grad_(name == phase[0])
            opt = self.opts[phase[0]]
            opt.zero_grad(set_to_none=True)
            real = self.data[torch.randint(len(self.data), [self.batch])]
            z, c = torch.randn([self.batch, 64]), torch.zeros([self.batch, 0])
            self.loss.accumulate_gradients(phase, real, c, z, c, sync=True, gain=interval)
            opt.step()
        self.step_index += 1

    def warm_up(self):
        """A few steps; then the memory's entries are offered again until it is full, since its size decides what a step costs."""
        self.cpu_milliseconds(WARM_UP_STEPS)
        engine = getattr(self.loss, "engine", None)
        while engine is not None and engine.memory.count and engine.memory.count < engine.memory.capacity:
            entries = {name: engine.memory.filled(name).clone() for name in engine.memory.FIELDS}
            engine.memory.offer(entries, engine.step, engine.nimg, torch.Generator().manual_seed(0))

    def cpu_milliseconds(self, steps):
        """Per step."""
        start = time.process_time()
        for _ in range(steps):
            self.step()
        return (time.process_time() - start) * 1000 / steps


def measure(bed, rounds, steps, num_reals):
    """{method: dict(ms per step, ratio to plain: median over rounds and their quartiles)}"""
    data = Triples(14 if bed == "dcgan" else 32, num_reals)
    runs = {name: Run(bed, data, madr) for name, madr in METHODS.items()}
    for run in runs.values():
        run.warm_up()
    times = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            times[name].append(run.cpu_milliseconds(steps))
    report = {}
    for name, own in times.items():
        ratios = [mine / plain for mine, plain in zip(own, times["plain"])]
        quartiles = statistics.quantiles(ratios, n=4)
        report[name] = dict(
            cpu_ms_per_step=round(statistics.median(own), 3),
            times_plain=round(statistics.median(ratios), 3),
            quartiles=[round(quartiles[0], 3), round(quartiles[2], 3)],
        )
    return report


def table(report):
    """Markdown."""
    beds = dict(dcgan="14 px", tiny="StyleGAN2, 32 px")
    lines = [
        "| method | " + " | ".join(f"{beds[bed]}, CPU ms | times plain (quartiles)" for bed in report["beds"]) + " |",
        "|---|" + "---|---|" * len(report["beds"]),
    ]
    for method in METHODS:
        cells = [
            f"{own['cpu_ms_per_step']:.1f} | {own['times_plain']:.2f} ({own['quartiles'][0]:.2f} to {own['quartiles'][1]:.2f})"
            for own in (report["beds"][bed][method] for bed in report["beds"])
        ]
        lines.append(f"| {method} | {' | '.join(cells)} |")
    return "\n".join(
        [
            *lines,
            "",
            f"{report['processor']}, {report['threads']} thread(s), PyTorch {report['torch']}, {report['num_reals']:,} reals, {report['date']}, load average "
            f"{report['load_average']}; medians of {report['rounds']} rounds of {report['steps_per_round']} steps.",
        ]
    )


@click.command()
@click.option("--rounds", type=cli.IntRange(min=2), default=25, show_default=True, help="Rounds in which the methods take turns")
@click.option("--steps", type=cli.IntRange(min=1), default=16, show_default=True, help="Training steps of each method per round")
@click.option("--reals", type=cli.IntRange(min=64), default=50000, show_default=True, help="Images of the data set")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads")
@click.option("--bed", type=click.Choice(["dcgan", "tiny", "both"]), default="both", show_default=True, help="Which networks")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/madr_cost.json", help="Where to write the figures")
def main(rounds, steps, reals, threads, bed, out):
    """Times a training step of the plain GAN and of MADR's presets."""
    torch.set_num_threads(threads)
    report = dict(**circumstances(), threads=threads, rounds=rounds, steps_per_round=steps, num_reals=reals, beds={})
    with tempfile.TemporaryDirectory() as cache:
        os.environ["DNNLIB_CACHE_DIR"] = cache
        for name in ("dcgan", "tiny") if bed == "both" else (bed,):
            report["beds"][name] = measure(name, rounds, steps, reals)
            for method, figures in report["beds"][name].items():
                print(
                    f"{name:6s} {method:34s} {figures['cpu_ms_per_step']:8.2f} ms  x{figures['times_plain']:.2f}  ({figures['quartiles'][0]:.2f}-{figures['quartiles'][1]:.2f})"
                )
            Path(out).parent.mkdir(parents=True, exist_ok=True)
            atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    if Path(out).resolve() == RESULTS and bed == "both":
        pages.write_between(PAGE, "madr cost", table(report))


if __name__ == "__main__":
    cli.run(main)
