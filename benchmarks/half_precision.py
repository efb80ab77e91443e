"""What half precision buys on a CPU: a training step in float32 and in bfloat16, without the compiled kernels and with them, MADR on.

    python benchmarks/half_precision.py

StyleGAN2 at several image sizes and widths (channels at the highest resolution, four times as many at the lowest). The ways of one
case have the same weights, images and latents; each is first checked against float32, then they take turns, phase by phase, in CPU
seconds of this process, so that a busy machine slows all of them alike. A step is Gmain + Dmain + Dreg / 16, as lazy R1 has it. Where
the time goes is told apart by PyTorch's profiler in one more step. bfloat16 is measured where the CPU multiplies it (--emulate: anywhere).
Writes benchmarks/results/half_precision.json and the table in docs/performance.md.
"""

import contextlib
import io
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
import torch

from benchmarks import marked_tables
from benchmarks.circumstances import circumstances, load_average
from benchmarks.madr_cost import Triples
from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from madr_plugin.loss import MADRLoss
from torch_utils import devices
from torch_utils.ops import plugins
from training import half_precision, phases, setup
from training.networks import Discriminator, Generator
from training.tracing import silent_libraries

RESULTS, PAGE = REPO / "benchmarks" / "results" / "half_precision.json", REPO / "docs" / "performance.md"
BATCH = {32: 16, 64: 8, 128: 4}  # images per step, so that every case takes about as long
D_REG_INTERVAL = 16
ADAM = dict(class_name="torch.optim.Adam", lr=0.002, betas=[0, 0.99], eps=1e-8)
REFERENCE = "float32 contiguous"
# name -> (what the blocks of half precision compute in, how many of the highest resolutions (None: all above 4x4), with the kernels)
WAYS = {
    REFERENCE: (None, 0, False),
    "float32 channels-last": ("float32", None, False),
    "float32, kernels": (None, 0, True),
    "bfloat16 channels-last": ("bfloat16", None, False),
    "bfloat16, kernels": ("bfloat16", None, True),
    "bfloat16, kernels, highest resolution": ("bfloat16", 1, True),
    "bfloat16, kernels, 2 highest resolutions": ("bfloat16", 2, True),
}
# What an operator's name begins with, first match: where its own time is counted.
KINDS = {
    "convolutions": ("aten::mkldnn_convolution", "aten::convolution_backward", "aten::_slow_conv2d", "aten::slow_conv", "aten::thnn_conv"),
    "matrix products (resampling, styles)": ("aten::mm", "aten::bmm", "aten::addmm", "aten::matmul", "aten::baddbmm"),
    "copies and casts": ("aten::copy_", "aten::_to_copy", "aten::clone", "aten::contiguous", "aten::cat", "aten::flip"),
    "bias, activation, modulation": ("aten::leaky_relu", "aten::clamp", "aten::hardtanh", "_PiecewiseLinear", "_BiasAct", "bias_act"),
    "resampling by a kernel": ("_Resample",),
    "optimizer": ("Optimizer.", "aten::_fused_adam", "aten::addcdiv", "aten::lerp"),
    "other arithmetic": ("aten::mul", "aten::add", "aten::sub", "aten::div", "aten::sum", "aten::mean", "aten::pow", "aten::sqrt", "aten::rsqrt"),
}
MOST_ERROR = {"float32": 1e-3, "bfloat16": 0.1}  # of images and logits, relative to float32's norm


class Run:
    """One way of one case."""

    def __init__(self, networks, told, uses_kernels, data, batch):
        self.G, self.D = networks
        self.uses_kernels = uses_kernels
        plugins.choose(uses_kernels)
        for network in networks:
            for block in half_precision.blocks_of(network):
                block.half_type = told
            network.train().requires_grad_(False)
        self.loss = MADRLoss(
            torch.device("cpu"),
            G_mapping=self.G.mapping,
            G_synthesis=self.G.synthesis,
            D=self.D,
            base_class_name="training.loss.StyleGAN2Loss",
            madr={},
            pl_weight=0,
            r1_gamma=1.0,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # MADR says what its reference is, for every way of every case
            self.loss.attach(dict(training_set=data, random_seed=0))
        adam = setup.on_this_device(ADAM, torch.device("cpu"))
        self.phases, _ = phases.setup_phases(self.G, self.D, adam, adam, None, D_REG_INTERVAL)
        # Gmain has no lazy regulariser here.
        self.phases[0] = phases.Phase("Gmain", self.G, self.phases[0].opt, 1)
        self.images = torch.from_numpy(data.images[:batch]).float() / 127.5 - 1

    def phase(self, index, position=0):
        plugins.choose(self.uses_kernels)
        z, c = phases.draw_latents(index, 0, len(self.images), self.G.z_dim, torch.zeros([1, 0]), 0, position)
        phases.run_phase(self.phases[index], index, self.loss, [(0, self.images, c, z, c)], 0, position)

    def cpu_milliseconds(self, index, position):
        start = time.process_time()
        self.phase(index, position)
        return (time.process_time() - start) * 1000

    def outputs(self):
        plugins.choose(self.uses_kernels)
        with torch.no_grad():
            z, c = torch.randn([4, self.G.z_dim], generator=torch.Generator().manual_seed(0)), torch.zeros([4, 0])
            return self.G(z, c, noise_mode="const"), self.D(self.images[:4], c)

    def shares(self):
        """{kind of work: share of one step's time}, R1 apart; what belongs to none is the rest."""
        with silent_libraries(), torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            self.phase(0)
            self.phase(1)
        events = profile.key_averages()
        total, found = sum(event.self_cpu_time_total for event in events), {}
        for event in events:
            kind = next((kind for kind, beginnings in KINDS.items() if event.key.startswith(beginnings)), "the rest, Python among it")
            found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / total
        return {kind: round(share, 3) for kind, share in sorted(found.items(), key=lambda item: -item[1])}


def networks_of(size, channels, num_fp16_res):
    """(G, D) with the same weights for every num_fp16_res."""
    torch.manual_seed(0)
    common = dict(channel_base=channels * size, channel_max=4 * channels, num_fp16_res=num_fp16_res, conv_clamp=256 if num_fp16_res else None)
    last = bool(num_fp16_res)
    G = Generator(64, 0, 64, size, 3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=dict(common, fp16_channels_last=last))
    D = Discriminator(0, size, 3, **common, block_kwargs=dict(fp16_channels_last=last), epilogue_kwargs=dict(mbstd_group_size=4))
    return G, D


def check(name, told, run, reference):
    """Refuse to time what computes something else."""
    for value, wanted in zip(run.outputs(), reference.outputs()):
        error = float((value - wanted).norm() / wanted.norm())
        if not error <= MOST_ERROR[told or "float32"]:
            raise SystemExit(f"{name} differs from {REFERENCE} by {error:.3g} of the norm; its time would mean nothing")


def measure(size, channels, ways, rounds):
    """{way: milliseconds per phase and step, ratio to float32 contiguous, shares of the time}"""
    data = Triples(size, 2000)
    runs = {}
    for name in ways:
        told, count, uses_kernels = WAYS[name]
        networks = networks_of(size, channels, 8 if count is None else count)
        runs[name] = Run(networks, told, uses_kernels, data, BATCH[size])
        check(name, told, runs[name], runs[REFERENCE])
    names = [phase.name for phase in next(iter(runs.values())).phases]
    times = {way: {name: [] for name in names} for way in runs}
    for round_index in range(rounds + 1):  # the first one warms up
        for index, name in enumerate(names):
            for way, run in runs.items():
                elapsed = run.cpu_milliseconds(index, round_index)
                if round_index:
                    times[way][name].append(elapsed)
    report = {}
    for way, by_phase in times.items():
        steps = [sum(by_phase[name][i] / (D_REG_INTERVAL if name == "Dreg" else 1) for name in names) for i in range(rounds)]
        base = report[REFERENCE]["steps"] if report else steps
        report[way] = dict(
            cpu_ms={name: round(statistics.median(values), 2) for name, values in by_phase.items()},
            cpu_ms_per_step=round(statistics.median(steps), 2),
            times_as_fast=round(statistics.median(theirs / mine for theirs, mine in zip(base, steps)), 2),
            steps=[round(step, 2) for step in steps],
            shares=runs[way].shares(),
        )
    return report


@click.command()
@click.option("--sizes", type=cli.CommaList(), default="32,64,128", show_default=True, help="Image sizes, of 32, 64, 128")
@click.option("--channels", type=cli.CommaList(), default="16,32,64", show_default=True, help="Channels at the highest resolution")
@click.option("--rounds", type=cli.IntRange(min=1), default=5, show_default=True, help="Rounds in which the ways take turns")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads")
@click.option("--emulate", is_flag=True, help="Measure bfloat16 even where the CPU has no instructions for it")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/half_precision.json", help="Where to write the figures")
def main(sizes, channels, rounds, threads, emulate, out):
    """Times a training step in float32 and bfloat16."""
    unknown = [size for size in sizes if size not in map(str, BATCH)] + [count for count in channels if not count.isdecimal() or not int(count)]
    if unknown:
        raise click.UsageError(f"--sizes knows {', '.join(map(str, BATCH))} and --channels whole numbers from 1 on, neither knows {unknown[0]!r}")
    torch.set_num_threads(threads)
    devices.keep_freed_memory()
    if not plugins.prepare("cpu"):
        raise UserError("the kernels could not be had, see above; there is nothing to compare")
    instructions = devices.bf16_instructions("cpu")
    ways = [name for name, (told, *_) in WAYS.items() if told != "bfloat16" or instructions or emulate]
    if len(ways) < len(WAYS):
        print("bfloat16 is not measured: this CPU has no instructions for it (--emulate measures it all the same)")
    report = dict(
        what="median CPU milliseconds of the process; the ways of one case take turns",
        **circumstances(),
        bf16_instructions=instructions,
        bf16="measured" if len(ways) == len(WAYS) else "not measured: the processor has no instructions for it",
        threads=threads,
        rounds=rounds,
        cases={},
    )
    with tempfile.TemporaryDirectory() as cache, setup.rare_garbage_collection():
        os.environ["DNNLIB_CACHE_DIR"] = cache
        for size in map(int, sizes):
            for count in map(int, channels):
                case = report["cases"][f"{size} px, {count} channels, batch {BATCH[size]}"] = measure(size, count, ways, rounds)
                for way, figures in case.items():
                    by_phase = "  ".join(f"{name} {value:8.1f}" for name, value in figures["cpu_ms"].items())
                    print(
                        f"{size:4d} px {count:3d} ch  {way:46s} {figures['cpu_ms_per_step']:9.1f} ms  x{figures['times_as_fast']:.2f}   {by_phase}",
                        flush=True,
                    )
                    print("              " + ", ".join(f"{kind} {share:.0%}" for kind, share in figures["shares"].items()), flush=True)
    report["load_average_after"] = load_average()
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if Path(out) == RESULTS:
        marked_tables.write(PAGE, "half precision", table(report))
        print(f"Wrote {PAGE}")


def table(report):
    """The results as Markdown: how many times as fast as the reference every way is."""
    ways = list(next(iter(report["cases"].values())))[1:]
    rows = []
    for case, figures in report["cases"].items():
        rows.append([case, f"{figures[REFERENCE]['cpu_ms_per_step']:.0f}", *[f"{figures[way]['times_as_fast']:.2f}" for way in ways]])
    about = (
        f"{report['processor']} ({report['bf16_instructions'] or 'no bfloat16'}), {report['threads']} thread(s), PyTorch {report['torch']}, "
        f"{report['date']}, load average {report['load_average']} to {report['load_average_after']}; medians of {report['rounds']} rounds."
    )
    return marked_tables.markdown(["networks", f"{REFERENCE}, CPU ms", *ways], rows) + "\n\n" + about


if __name__ == "__main__":
    cli.run(main)
