"""Times a training step of G and D at --cfg=tiny on the CPU: with the compiled kernels, without them, and with further changes.

    python benchmarks/training_step.py

A step is what training does per batch on average: Gmain, Dmain, a share of the regularisers by their intervals, the optimizers and the
moving average. The variants take turns within each round, in CPU seconds of this process, so that a busy machine slows all of them
alike; of the steps of one round the fastest counts, for other programs only ever add. Every variant starts from the same weights.
Writes benchmarks/results/training_step.json and the table in docs/performance.md.
"""

import copy
import datetime
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import torch

import dnnlib
from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from dnnlib.machine import processor_name
from torch_utils import devices
from torch_utils.ops import bias_act, plugins
from training import ema, phases, presets

RESULTS, PAGE = REPO / "benchmarks" / "results" / "training_step.json", REPO / "docs" / "performance.md"
TABLE_BEGIN, TABLE_END = "<!-- training step: begin -->", "<!-- training step: end -->"

# name -> what is switched on; the first is what the others are compared with. The optimizer and the average cost the same at every
# resolution, so their variants are timed at the first one alone.
VARIANTS = {
    "without kernels": dict(kernels=False),
    "with kernels": dict(),
    "with kernels, channels first": dict(channels_last=False),
    "with kernels, fused Adam": dict(adam=dict(fused=True)),
    "with kernels, Adam over all tensors at once": dict(adam=dict(foreach=True)),
    "with kernels, average over all tensors at once": dict(average_at_once=True),
}


class Training:
    """G, D, their optimizers and a batch, for one variant; seeds are those of every other one."""

    def __init__(self, resolution, kernels=True, channels_last=True, adam=None, average_at_once=False):
        row = presets.base_config("tiny", resolution, 1)
        self.kernels, self.channels_last, self.average_at_once, self.batch = kernels, channels_last, average_at_once, row.batch_size
        torch.manual_seed(0)
        common = dict(channel_base=row.channel_base, channel_max=row.channel_max, num_fp16_res=0, conv_clamp=None)
        shape = dict(c_dim=0, img_resolution=resolution, img_channels=3)
        latents = dict(z_dim=row.latent_dim, w_dim=row.latent_dim)
        self.G = construct("training.networks.Generator", **latents, **shape, mapping_kwargs=dict(num_layers=row.map_depth), synthesis_kwargs=common)
        self.D = construct("training.networks.Discriminator", **shape, **common, epilogue_kwargs=dict(mbstd_group_size=row.mbstd_group))
        self.G_ema = copy.deepcopy(self.G).eval()
        self.loss = construct(
            "training.loss.StyleGAN2Loss", device=torch.device("cpu"), G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D,
            augment_pipe=None, r1_gamma=row.gamma, **dict(row.loss),
        )  # fmt: skip
        adam = dict(class_name="torch.optim.Adam", lr=row.lr, betas=[0, 0.99], eps=1e-8, **(adam or {}))
        self.phases, _ = phases.setup_phases(self.G, self.D, adam, adam, None if dict(row.loss).get("pl_weight") == 0 else 4, 16)
        self.images = torch.rand(self.batch, 3, resolution, resolution) * 2 - 1
        self.position = 0

    def run_phase(self, index):
        """CPU seconds of one phase."""
        z, c = phases.draw_latents(index, 0, self.batch, self.G.z_dim, torch.zeros(1, 0), 0, self.position)
        plugins.choose(self.kernels)
        with mock.patch.object(bias_act, "prefers_channels_last", bias_act.prefers_channels_last if self.channels_last else lambda *_: False):
            start = time.process_time()
            phases.run_phase(self.phases[index], index, self.loss, [(0, self.images, c, z, c)], 0, self.position)
        self.position += self.batch
        return time.process_time() - start

    def update_average(self):
        start = time.process_time()
        if self.average_at_once:
            with torch.no_grad():
                torch._foreach_lerp_(list(self.G_ema.parameters()), list(self.G.parameters()), 0.01)
        else:
            ema.update_ema(self.G_ema, self.G, 0.99)
        return time.process_time() - start

    def step(self):
        """{part: CPU milliseconds of an average step}."""
        parts = {phase.name: self.run_phase(index) / phase.interval for index, phase in enumerate(self.phases)}
        return {name: sec * 1000 for name, sec in dict(parts, average=self.update_average()).items()}


def construct(class_name, **kwargs):
    return dnnlib.util.construct_class_by_name(class_name=class_name, **kwargs)


def variants_at(resolution, first_resolution):
    return {name: changes for name, changes in VARIANTS.items() if resolution == first_resolution or not {"adam", "average_at_once"} & changes.keys()}


def measure(resolution, variants, rounds, steps):
    """{variant: {part or 'step': median CPU milliseconds per step}}, after a round that counts for nothing."""
    trainings = {name: Training(resolution, **settings) for name, settings in variants.items()}
    for training in trainings.values():
        for network in (training.G, training.D):
            network.train().requires_grad_(False)
    measured = {name: [] for name in trainings}
    for round_idx in range(rounds + 1):
        for name, training in trainings.items():
            taken = [training.step() for _ in range(steps)]
            if round_idx > 0:
                measured[name].append({part: min(step[part] for step in taken) for part in taken[0]})
    report = {}
    for name, by_round in measured.items():
        report[name] = {part: round(statistics.median(values[part] for values in by_round), 2) for part in by_round[0]}
        report[name]["step"] = round(statistics.median(sum(values.values()) for values in by_round), 2)
    plain = next(iter(measured.values()))
    for name, by_round in measured.items():  # within a round, for the load of the machine changes between rounds
        ratios = [sum(before.values()) / sum(values.values()) for before, values in zip(plain, by_round)]
        report[name]["times as fast"] = round(statistics.median(ratios), 2)
    return report


def table(report):
    """The results as Markdown."""
    sizes = list(report["resolutions"])
    lines = ["| variant | " + " | ".join(f"{size}, CPU ms | times as fast" for size in sizes) + " |", "|---" * (1 + 2 * len(sizes)) + "|"]
    for name in report["resolutions"][sizes[0]]:
        of_sizes = [report["resolutions"][size].get(name) for size in sizes]
        cells = [f"{parts['step']:.0f} | {parts['times as fast']:.2f}" if parts else "- | -" for parts in of_sizes]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    about = f"{report['processor']} ({report['cpu_capability']}), {report['threads']} thread(s), PyTorch {report['torch']}, {report['date']}"
    return "\n".join([*lines, "", f"{about}, load average {report['load_average']}; medians of {report['rounds']} rounds."])


def with_table(page, report):
    """The page's text with its table replaced."""
    before, rest = page.split(TABLE_BEGIN)
    return f"{before}{TABLE_BEGIN}\n{table(report)}\n{TABLE_END}{rest.split(TABLE_END)[1]}"


@click.command()
@click.option("--resolutions", default="32,64", show_default=True, help="Pixels, comma-separated.", metavar="LIST")
@click.option("--rounds", type=cli.IntRange(min=1), default=5, show_default=True, help="Rounds, of which the median counts.")
@click.option("--steps", type=cli.IntRange(min=1), default=4, show_default=True, help="Steps of a variant per round, of which the fastest counts.")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="Threads within an operator.")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/training_step.json", metavar="PATH")
def main(resolutions, rounds, steps, threads, out):
    """Time a training step with and without kernels."""
    torch.set_num_threads(threads)
    devices.keep_freed_memory()
    if not plugins.prepare("cpu"):
        raise UserError("the kernels could not be had, see above; there is nothing to compare")
    measured = {}
    sizes = [int(size) for size in resolutions.split(",")]
    for resolution in sizes:
        measured[f"{resolution} px"] = measure(resolution, variants_at(resolution, sizes[0]), rounds, steps)
        print(f"{resolution} px")
        for name, parts in measured[f"{resolution} px"].items():
            print("   " + "".join(f"{part} {value:7.2f}   " for part, value in parts.items()) + name, flush=True)
    report = dict(
        what="CPU milliseconds of the process per training step of --cfg=tiny: median over rounds of the fastest step; the variants timed in turn",
        date=datetime.date.today().isoformat(),
        processor=processor_name(),
        cpu_count=os.cpu_count(),
        system=platform.system(),
        python=platform.python_version(),
        torch=torch.__version__,
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        rounds=rounds,
        steps=steps,
        load_average=round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        resolutions=measured,
    )
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if Path(out) == RESULTS:
        atomic_write_text(PAGE, with_table(PAGE.read_text(encoding="utf-8"), report))
        print(f"Wrote {PAGE}")


if __name__ == "__main__":
    cli.run(main)
