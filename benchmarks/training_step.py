"""Times a training step of G and D on the CPU: in plain PyTorch, with the compiled kernels, in bfloat16, and with further changes.

    python benchmarks/training_step.py

The networks are those of --cfg=tiny, at several sizes and widths (channels at the highest resolution, at most four times as many below).
A step is what training does per batch on average: Gboth, Dmain, a share of R1 by its interval, the optimizers and the moving average.
The variants take turns within each round, in CPU seconds of this process, so that a busy machine slows all of them alike; of the steps
of one round the fastest counts, for other programs only ever add. Every variant starts from the same weights. Beside them stands the
floor: the multiplications of the same step over the fastest convolution and matrix product that were measured here.
Writes benchmarks/results/training_step.json and the tables in docs/performance.md.
"""

import contextlib
import copy
import gc
import json
import logging
import statistics
import sys
import time
from pathlib import Path
from unittest import mock

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

import dnnlib
from benchmarks import marked_tables
from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from torch_utils import devices
from torch_utils.ops import bias_act, plugins
from training import ema, half_precision, phases, presets, setup
from training.loss import StyleGAN2Loss
from training.networks import SynthesisBlock

RESULTS, PAGE = REPO / "benchmarks" / "results" / "training_step.json", REPO / "docs" / "performance.md"

# name -> what is switched on; the first is what the others are compared with.
PLAIN, KERNELS, BFLOAT16 = "plain PyTorch", "with kernels", "with kernels, bfloat16"
VARIANTS = {PLAIN: dict(kernels=False), KERNELS: dict(), BFLOAT16: dict(half=half_precision.BF16)}
# At the first size and width alone.
FURTHER = {
    "plain PyTorch, bfloat16": dict(kernels=False, half=half_precision.BF16),
    "with kernels, channels first": dict(channels_last=False),
    "with kernels, fakes and reals apart": dict(at_once=False),
    "with kernels, Adam tensor by tensor": dict(adam=dict(fused=False)),
    "with kernels, Adam by groups of operators": dict(adam=dict(foreach=True)),
    "with kernels, average over all tensors at once": dict(average_at_once=True),
    "with kernels, grouped convolutions": dict(grouped=True),
    "with kernels, Python's own garbage collection": dict(own_garbage_collection=True),
    "plain PyTorch, D compiled": dict(kernels=False, compile_D=True),
}


class Operations(TorchDispatchMode):
    """Counts what convolutions and matrix products multiply and add. PyTorch's own counter cannot follow a gradient of a gradient."""

    total = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        count = flop_registry.get(function._overloadpacket)
        self.total += count(*args, **(kwargs or {}), out_val=result) if count else 0
        return result


class Training:
    """G, D, their optimizers and a batch, for one variant; seeds are those of every other one."""

    def __init__(
        self,
        resolution,
        channels=16,
        kernels=True,
        half=None,
        channels_last=True,
        at_once=True,
        adam=None,
        average_at_once=False,
        grouped=False,
        compile_D=False,
        own_garbage_collection=False,
    ):
        row = presets.base_config("tiny", resolution, 1)
        self.kernels, self.channels_last, self.average_at_once, self.batch = kernels, channels_last, average_at_once, row.batch_size
        self.grouped, self.compiles, self.own_garbage_collection = grouped, compile_D, own_garbage_collection
        self.choose()
        torch.manual_seed(0)
        resolutions, clamp = (presets.HALF_RES, presets.HALF_CLAMP) if half else (0, None)
        common = dict(channel_base=channels * resolution, channel_max=4 * channels, num_fp16_res=resolutions, conv_clamp=clamp)
        shape, last = dict(c_dim=0, img_resolution=resolution, img_channels=3), dict(fp16_channels_last=bool(half))
        latents, mapping = dict(z_dim=row.latent_dim, w_dim=row.latent_dim), dict(num_layers=row.map_depth)
        self.G = construct("training.networks.Generator", **latents, **shape, mapping_kwargs=mapping, synthesis_kwargs=dict(common, **last))
        mbstd = dict(mbstd_group_size=row.mbstd_group)
        self.D = construct("training.networks.Discriminator", **shape, **common, block_kwargs=last, epilogue_kwargs=mbstd)
        self.G_ema = copy.deepcopy(self.G).eval()
        half_precision.begin(half, [self.G, self.D], torch.device("cpu"))
        self.loss = StyleGAN2Loss(torch.device("cpu"), self.G.mapping, self.G.synthesis, self.D, r1_gamma=row.gamma, **dict(row.loss))
        self.loss.judges_at_once = at_once
        adam = setup.on_this_device(dict(class_name="torch.optim.Adam", lr=row.lr, betas=[0, 0.99], eps=1e-8, **(adam or {})), torch.device("cpu"))
        self.phases, _ = phases.setup_phases(self.G, self.D, adam, adam, None if dict(row.loss).get("pl_weight") == 0 else 4, 16)
        self.images = torch.rand(self.batch, 3, resolution, resolution) * 2 - 1
        self.position = 0
        for network in (self.G, self.D):
            network.train().requires_grad_(False)
        if compile_D:  # what differentiates a gradient cannot be compiled, so R1 keeps the ordinary D
            logging.getLogger("torch").setLevel(logging.ERROR)  # it tells of each layer that it compiles anew
            self.plain_D, self.compiled_D = self.D, torch.compile(self.D)

    def choose(self):
        """Switch the kernels of this process to those of the variant."""
        plugins.choose(self.kernels)

    def run_phase(self, index):
        """CPU seconds of one phase."""
        z, c = phases.draw_latents(index, 0, self.batch, self.G.z_dim, torch.zeros(1, 0), 0, self.position)
        self.choose()
        if self.compiles:
            self.loss.D = self.plain_D if self.phases[index].name == "Dreg" else self.compiled_D
        prefers_last = bias_act.prefers_channels_last if self.channels_last else lambda *_: False
        with mock.patch.object(bias_act, "prefers_channels_last", prefers_last), self.modulation():
            start = time.process_time()
            phases.run_phase(self.phases[index], index, self.loss, [(0, self.images, c, z, c)], 0, self.position)
        self.position += self.batch
        return time.process_time() - start

    def modulation(self):
        """The context in which G convolves in groups, if the variant does."""
        return mock.patch.object(SynthesisBlock, "_prefers_fused", lambda *_: True) if self.grouped else contextlib.nullcontext()

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
        if self.own_garbage_collection:
            gc.set_threshold(700, 10, 10)
            gc.unfreeze()
        parts = {phase.name: self.run_phase(index) / phase.interval for index, phase in enumerate(self.phases)}
        if self.own_garbage_collection:
            gc.set_threshold(*setup.GARBAGE_THRESHOLDS)
            gc.freeze()
        return {name: sec * 1000 for name, sec in dict(parts, average=self.update_average()).items()}

    def operations(self):
        """Multiplications and additions of an average step's convolutions and matrix products."""
        total = 0.0
        for index, phase in enumerate(self.phases):
            with Operations() as counter:
                self.run_phase(index)
            total += counter.total / phase.interval
        return total


def construct(class_name, **kwargs):
    return dnnlib.util.construct_class_by_name(class_name=class_name, **kwargs)


def cpu_seconds(function, repeats=20):
    """CPU seconds of the fastest of some calls."""
    taken = []
    for _ in range(repeats):
        start = time.process_time()
        function()
        taken.append(time.process_time() - start)
    return min(taken)


def peaks():
    """{type: operations per CPU second of the faster of a large matrix product and a large convolution, in units of 1e9}."""
    found = {}
    for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
        if name == "bfloat16" and not devices.bf16_instructions("cpu"):
            continue
        square = torch.randn(1024, 1024).to(dtype)
        x, weight = (torch.randn(shape).to(dtype, memory_format=torch.channels_last) for shape in ((16, 128, 32, 32), (128, 128, 3, 3)))
        with torch.no_grad():
            product = 2 * 1024**3 / cpu_seconds(lambda square=square: square @ square)
            convolution = 2 * 16 * 32**2 * 128**2 * 9 / cpu_seconds(lambda x=x, weight=weight: torch.nn.functional.conv2d(x, weight, padding=1))
        found[name] = round(max(product, convolution) / 1e9, 1)
    return found


def measure(resolution, channels, variants, rounds, steps):
    """{variant: {part or 'step': median CPU milliseconds per step}}, after a round that counts for nothing."""
    trainings = {name: Training(resolution, channels, **settings) for name, settings in variants.items()}
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
    return report, trainings[PLAIN].operations()


def sizes_table(report):
    """The variants at every size and width, with the floor."""
    names, types = [name for name in VARIANTS if name in next(iter(report["cases"].values()))["variants"]], list(report["peaks"])
    header = ["networks", *[f"{name}, CPU ms (times as fast)" for name in names], "10^9 operations", *[f"floor in {name}, ms" for name in types]]
    rows = []
    for case, figures in report["cases"].items():
        cells = [f"{figures['variants'][name]['step']:.0f} ({figures['variants'][name]['times as fast']:.2f})" for name in names]
        floors = [f"{figures['operations'] / report['peaks'][name] / 1e6:.0f}" for name in types]
        rows.append([case, *cells, f"{figures['operations'] / 1e9:.2f}", *floors])
    return marked_tables.markdown(header, rows) + "\n\n" + about(report)


def variants_table(report):
    """All variants at the first size and width."""
    case, figures = next(iter(report["cases"].items()))
    header = [f"variant, at {case}", "CPU ms", "times as fast"]
    return marked_tables.markdown(
        header, [[name, f"{parts['step']:.1f}", f"{parts['times as fast']:.2f}"] for name, parts in figures["variants"].items()]
    )


def about(report):
    """Where and how the figures came about."""
    peak = ", ".join(f"{value:.0f}e9 operations per second in {name}" for name, value in report["peaks"].items())
    return (
        f"{report['processor']}, {report['threads']} thread(s), PyTorch {report['torch']}, {report['date']}, load average {report['load_average']}; "
        f"medians of {report['rounds']} rounds. Measured peak: {peak}."
    )


@click.command()
@click.option("--resolutions", default="32,64,128", show_default=True, help="Pixels, comma-separated.", metavar="LIST")
@click.option("--channels", default="16,32,64", show_default=True, help="Channels at the highest resolution, comma-separated.", metavar="LIST")
@click.option("--rounds", type=cli.IntRange(min=1), default=5, show_default=True, help="Rounds, of which the median counts.")
@click.option(
    "--steps", type=cli.IntRange(min=1), default=6, show_default=True, help="Steps per round at the first size, of which the fastest counts."
)
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="Threads within an operator.")
@click.option("--further/--no-further", default=True, show_default=True, help="The further variants at the first size.")
@click.option("--out", default=str(RESULTS), show_default="benchmarks/results/training_step.json", metavar="PATH")
def main(resolutions, channels, rounds, steps, threads, further, out):
    """Time a training step with and without kernels."""
    torch.set_num_threads(threads)
    devices.keep_freed_memory()
    if not plugins.prepare("cpu"):
        raise UserError("the kernels could not be had, see above; there is nothing to compare")
    cases = [(size, count) for size in map(int, resolutions.split(",")) for count in map(int, channels.split(","))]
    variants = {name: settings for name, settings in VARIANTS.items() if "half" not in settings or devices.bf16_instructions("cpu")}
    report = dict(
        what="CPU milliseconds of the process per training step: median over rounds of the fastest step; the variants timed in turn",
        **circumstances(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        bf16_instructions=devices.bf16_instructions("cpu"),
        threads=threads,
        rounds=rounds,
        peaks=peaks(),
        cases={},
    )
    print(f"Peak: {report['peaks']}")
    with setup.rare_garbage_collection():
        for index, (size, count) in enumerate(cases):
            fewer = max(1, round(steps * (cases[0][0] / size) ** 2 * cases[0][1] / count))
            more = (
                {}
                if index or not further
                else {name: settings for name, settings in FURTHER.items() if "half" not in settings or variants.keys() >= {BFLOAT16}}
            )
            figures, operations = measure(size, count, variants | more, rounds, fewer)
            report["cases"][f"{size} px, {count} channels"] = dict(operations=operations, variants=figures)
            print(f"{size} px, {count} channels: {operations / 1e9:.2f}e9 operations")
            for name, parts in figures.items():
                print("   " + "".join(f"{part} {value:7.2f}   " for part, value in parts.items()) + name, flush=True)
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if Path(out) == RESULTS:
        marked_tables.write(PAGE, "training step", sizes_table(report))
        marked_tables.write(PAGE, "variants of a step", variants_table(report))
        print(f"Wrote {PAGE}")


if __name__ == "__main__":
    cli.run(main)
