"""Times the plain-PyTorch operators on the CPU: forward, with first and with second derivatives, each against its alternatives.

The alternatives of one case are timed in turn, round by round, in CPU seconds of this process, so that a busy machine slows all
of them alike. Every alternative is first checked to give the same numbers. Writes benchmarks/results/ops_cpu.json.
"""

import json
import statistics
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import torch
import torch.nn.functional as F

from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from torch_utils.ops import bias_act, conv2d_resample, plugins, upfirdn2d

FILTER = upfirdn2d.setup_filter([1, 3, 3, 1])
TAPS = FILTER.sum(dim=0)
PASSES = ("forward", "first", "second")


# ------------------------------------------------------------------------------------------
# upfirdn2d: how else the same resampling could be written.


def spread(x, up):
    """up - 1 zeros after each pixel."""
    return x if up == 1 else F.pad(x[:, :, :, None, :, None], [0, up - 1, 0, 0, 0, up - 1]).flatten(4, 5).flatten(2, 3)


def fir_depthwise(x, up, down, padding, gain):
    """One depthwise 4x4 convolution of the padded image."""
    channels = x.shape[1]
    return F.conv2d(F.pad(spread(x, up), padding), (FILTER * gain).expand(channels, 1, 4, 4), stride=down, groups=channels)


def fir_two_depthwise(x, up, down, padding, gain):
    """A depthwise 1x4, then a depthwise 4x1."""
    channels = x.shape[1]
    taps = TAPS * gain**0.5
    x = F.conv2d(F.pad(spread(x, up), padding), taps.expand(channels, 1, 1, 4), stride=[1, down], groups=channels)
    return F.conv2d(x, taps[:, None].expand(channels, 1, 4, 1), stride=[down, 1], groups=channels)


def fir_shift_and_add(x, up, down, padding, gain):
    """Eight shifted copies, weighted and added."""
    x = F.pad(spread(x, up), padding)
    for axis in (2, 3):
        count = (x.shape[axis] - 4) // down + 1
        index = [slice(None)] * 4
        total = 0
        for shift, tap in enumerate((TAPS * gain**0.5).tolist()):
            index[axis] = slice(shift, shift + (count - 1) * down + 1, down)
            total = total + x[tuple(index)] * tap
        x = total
    return x


def fir_ours(x, up, down, padding, gain):
    return upfirdn2d.upfirdn2d(x, FILTER, up=up, down=down, padding=padding, gain=gain, impl="ref")


def fir_kernel(x, up, down, padding, gain):
    return upfirdn2d.upfirdn2d(x, FILTER, up=up, down=down, padding=padding, gain=gain)


FIR_WAYS = {
    "ours (matrix products)": fir_ours,
    "ours (C++ kernel, if it is built)": fir_kernel,
    "one depthwise convolution": fir_depthwise,
    "two depthwise convolutions": fir_two_depthwise,
    "shift and add": fir_shift_and_add,
}
FIR_KINDS = {
    "filter": dict(up=1, down=1, padding=[2, 1, 2, 1], gain=1),
    "enlarge": dict(up=2, down=1, padding=[2, 1, 2, 1], gain=4),
    "shrink": dict(up=1, down=2, padding=[1, 1, 1, 1], gain=1),
}


# ------------------------------------------------------------------------------------------
# bias_act and conv2d_resample likewise.


def activate_ours(x, b, clamp):
    return bias_act.bias_act(x, b, act="lrelu", clamp=clamp, impl="ref")


def activate_kernel(x, b, clamp):
    return bias_act.bias_act(x, b, act="lrelu", clamp=clamp)


def activate_step_by_step(x, b, clamp):
    x = F.leaky_relu(x + b.reshape(1, -1, 1, 1), 0.2) * 2**0.5
    return x if clamp is None else x.clamp(-clamp, clamp)


def folded_kernel(w, gain):
    """The 6x6 kernel that filters and convolves at once."""
    out_channels, in_channels = w.shape[:2]
    spread_w = F.pad(w.reshape(-1, 1, 3, 3), [3] * 4)
    return F.conv2d(spread_w, (FILTER * gain)[None, None]).reshape(out_channels, in_channels, 6, 6)


def enlarge_ours(x, w):
    return conv2d_resample.conv2d_resample(x, w, FILTER, up=2, padding=1)


def enlarge_in_sequence(x, w):
    return F.conv2d(fir_ours(x, 2, 1, [3, 2, 3, 2], 4), w)


def enlarge_folded_transposed(x, w):
    return F.conv_transpose2d(x, folded_kernel(w, 4).transpose(0, 1).flip([2, 3]), stride=2, padding=2)


def enlarge_folded_shuffled(x, w):
    """The 6x6 kernel's four phases as one 3x3 convolution with four times the channels."""
    out_channels, in_channels = w.shape[:2]
    phases = folded_kernel(w, 4).reshape(out_channels, in_channels, 3, 2, 3, 2).flip([3, 5]).permute(0, 3, 5, 1, 2, 4)
    return F.pixel_shuffle(F.conv2d(x, phases.reshape(out_channels * 4, in_channels, 3, 3), padding=1), 2)


def shrink_ours(x, w):
    return conv2d_resample.conv2d_resample(x, w, FILTER, down=2, padding=1)


def shrink_in_sequence(x, w):
    return fir_ours(F.conv2d(x, w, padding=2), 1, 2, [0, 0, 0, 0], 1)


def shrink_folded(x, w):
    return F.conv2d(x, folded_kernel(w, 1), stride=2, padding=2)


ENLARGE_WAYS = {
    "ours (transposed convolution, then filter)": enlarge_ours,
    "filter, then convolution": enlarge_in_sequence,
    "one 6x6 transposed convolution": enlarge_folded_transposed,
    "one 3x3 convolution, shuffled": enlarge_folded_shuffled,
}
SHRINK_WAYS = {
    "ours (filter, then strided convolution)": shrink_ours,
    "convolution, then filter": shrink_in_sequence,
    "one 6x6 strided convolution": shrink_folded,
}
ACTIVATE_WAYS = {"ours (one tensor kept)": activate_ours, "ours (C++ kernel, if it is built)": activate_kernel, "step by step": activate_step_by_step}


# ------------------------------------------------------------------------------------------
# Timing.


def cases(batch, generator):
    """(name, {way: function of tensors}, tensors) for every case."""
    randn = lambda *shape: torch.randn(*shape, generator=generator)
    for channels, size in ((3, 32), (16, 32), (64, 32), (64, 16), (64, 8)):
        for kind, options in FIR_KINDS.items():
            ways = {name: (lambda x, way=way, options=options: way(x, **options)) for name, way in FIR_WAYS.items()}
            yield f"upfirdn2d {kind} {channels} channels {size} px", ways, [randn(batch, channels, size, size)]
    for channels, size, clamp in ((64, 32, None), (64, 32, 256.0), (16, 32, 256.0), (64, 16, None)):
        ways = {name: (lambda x, b, way=way, clamp=clamp: way(x, b, clamp)) for name, way in ACTIVATE_WAYS.items()}
        yield f"bias_act lrelu {channels} channels {size} px clamp {clamp}", ways, [randn(batch, channels, size, size), randn(channels)]
    for channels_in, channels_out, size in ((16, 16, 16), (64, 32, 8), (64, 64, 16), (128, 128, 4)):
        w = randn(channels_out, channels_in, 3, 3)
        yield f"conv2d_resample up {channels_in}->{channels_out} channels from {size} px", ENLARGE_WAYS, [randn(batch, channels_in, size, size), w]
        yield (
            f"conv2d_resample down {channels_in}->{channels_out} channels to {size} px",
            SHRINK_WAYS,
            [randn(batch, channels_in, size * 2, size * 2), w],
        )


def cpu_milliseconds(way, tensors, kind):
    """One run: forward; with the gradient of its square; or with a penalty on the gradient at the first tensor besides."""
    inputs = [tensor.detach().requires_grad_(kind != "forward") for tensor in tensors]
    start = time.process_time()
    result = way(*inputs)
    if kind == "first":
        result.square().sum().backward()
    elif kind == "second":
        (gradient,) = torch.autograd.grad(result.square().sum(), inputs[0], create_graph=True)
        gradient.square().sum().backward()
    return (time.process_time() - start) * 1000


def measure(ways, tensors, rounds):
    """{way: {pass: median CPU milliseconds}}; the ways take turns within each round, after a round that counts for nothing."""
    with torch.no_grad():
        results = [way(*tensors) for way in ways.values()]
    for result in results[1:]:
        torch.testing.assert_close(result, results[0], rtol=1e-3, atol=1e-4 * results[0].abs().max().item())
    times = {name: {kind: [] for kind in PASSES} for name in ways}
    for round_idx in range(rounds + 1):
        for kind in PASSES:
            for name, way in ways.items():
                elapsed = cpu_milliseconds(way, tensors, kind)
                if round_idx > 0:
                    times[name][kind].append(elapsed)
    return {name: {kind: round(statistics.median(values), 3) for kind, values in by_kind.items()} for name, by_kind in times.items()}


@click.command()
@click.option("--batch", type=cli.IntRange(min=1), default=32, show_default=True, help="Images per batch.")
@click.option("--rounds", type=cli.IntRange(min=1), default=9, show_default=True, help="Rounds per case.")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="Threads within an operator.")
@click.option("--only", default="", help="Only the cases whose name holds this text.", metavar="TEXT")
@click.option(
    "--out",
    default=str(REPO / "benchmarks" / "results" / "ops_cpu.json"),
    show_default="benchmarks/results/ops_cpu.json",
    help="The file to write.",
    metavar="PATH",
)
def main(batch, rounds, threads, only, out):
    """Time the operators on the CPU against their alternatives."""
    torch.set_num_threads(threads)
    plugins.prepare("cpu")
    measured = {}
    for name, ways, tensors in cases(batch, torch.Generator().manual_seed(0)):
        if only not in name:
            continue
        measured[name] = measure(ways, tensors, rounds)
        print(name)
        for way, by_kind in measured[name].items():
            print("   " + "".join(f"{kind} {value:8.2f} ms   " for kind, value in by_kind.items()) + way, flush=True)
    report = dict(
        what="median CPU milliseconds of the process; the ways of one case timed in turn",
        **circumstances(),
        cpu_capability=torch.backends.cpu.get_cpu_capability(),
        threads=threads,
        batch=batch,
        rounds=rounds,
        cases=measured,
    )
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main)
