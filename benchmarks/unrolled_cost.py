"""What --method=unrolled costs: CPU time of G's step through k steps of D, counted in steps of D.

    python benchmarks/unrolled_cost.py

Networks of --cfg=tiny at 32 pixels. The step of D (without penalty) and the steps of G take turns within each round, in CPU seconds of
this process, so that a busy machine slows all of them alike. What is counted is what unrolling adds to the plain step of G. Writes
benchmarks/results/unrolled_cost.json and the table in docs/baselines.md.
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

from benchmarks import marked_tables
from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import records
from training.gan.loss import GANLoss
from training.networks import Discriminator, Generator

RESULTS, PAGE = REPO / "benchmarks" / "results" / "unrolled_cost.json", REPO / "docs" / "baselines.md"
Z_DIM, SIDE = 64, 32
SHARES = (1.0, 0.5, 0.25)  # of the batch that D's steps see


def build(steps):
    """{name: function that takes one step}: 'D', 'G' and G's by (number of steps, share of the batch)."""
    torch.manual_seed(0)
    widths = dict(channel_base=512, channel_max=64, num_fp16_res=0)
    common = dict(c_dim=0, img_resolution=SIDE, img_channels=3)
    G = Generator(z_dim=Z_DIM, w_dim=Z_DIM, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=widths, **common)
    D = Discriminator(epilogue_kwargs=dict(mbstd_group_size=4), **widths, **common)
    optimizers = {name: torch.optim.Adam(network.parameters(), lr=1e-4, betas=(0.0, 0.99)) for name, network in (("G", G), ("D", D))}
    context = dict(G=G, D=D, optimizers=optimizers)

    def stepper(learner, methods):
        loss = GANLoss("cpu", G.mapping, G.synthesis, D, gan="non-saturating", methods=methods, pl_weight=0)
        loss.attach(context)
        return lambda batch: take_step(loss, learner, context, batch)

    made = {"D": stepper("D", []), "G": stepper("G", [])}
    return {**made, **{(k, share): stepper("G", [dict(name="unrolled", k=k, share=share)]) for k in steps for share in SHARES}}


def take_step(loss, learner, context, batch):
    for name in "GD":
        context[name].requires_grad_(name == learner)
    optimizer = context["optimizers"][learner]
    optimizer.zero_grad(set_to_none=True)
    reals, c, z = torch.randn([batch, 3, SIDE, SIDE]), torch.zeros([batch, 0]), torch.randn([batch, Z_DIM])
    loss.accumulate_gradients(learner + "main", reals, c, z, c, sync=True, gain=1.0)
    optimizer.step()


def table(report):
    """Markdown."""
    rows = [
        [row["k"], f"{row['share']:g}", f"{row['added_steps_of_D']:.1f} ({row['quartiles'][0]:.1f} to {row['quartiles'][1]:.1f})", row["k"] + 1.5]
        for row in report["rows"]
    ]
    text = marked_tables.markdown(["k", "share", "adds to G's step, in steps of D (quartiles)", "k + 1.5"], rows)
    return (
        f"{text}\n\n{report['machine']}, PyTorch {report['torch']}, {report['date']}; batch {report['batch']}, medians of {report['rounds']} rounds."
    )


@click.command()
@click.option("--rounds", type=cli.IntRange(min=2), default=10, show_default=True, help="Rounds in which the steps take turns")
@click.option("--batch", type=cli.IntRange(min=4), default=16, show_default=True, help="Images per step")
@click.option(
    "--steps", type=cli.IntRange(min=1), multiple=True, default=(1, 5, 10), show_default=True, help="Numbers of unrolled steps; may be repeated"
)
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=RESULTS,
    show_default="benchmarks/results/unrolled_cost.json",
    help="Where to write the figures",
)
def main(rounds, batch, steps, threads, out):
    """Times G's step through k steps of D."""
    torch.set_num_threads(threads)
    steppers, seconds = build(steps), {}
    for round_index in range(rounds + 1):  # the first one warms up
        for name, step in steppers.items():
            start = time.process_time()
            step(batch)
            if round_index:
                seconds.setdefault(name, []).append(time.process_time() - start)
    rows = []
    for k, share in [name for name in steppers if isinstance(name, tuple)]:
        added = [(through - plain) / D for through, plain, D in zip(seconds[k, share], seconds["G"], seconds["D"])]
        first, _, third = statistics.quantiles(added, n=4)
        rows.append(dict(k=k, share=share, added_steps_of_D=round(statistics.median(added), 2), quartiles=[round(first, 2), round(third, 2)]))
        print(f"k = {k:2d}, share {share:g}: as much as {rows[-1]['added_steps_of_D']:.2f} steps of D ({first:.2f}-{third:.2f})")
    milliseconds = {
        name if isinstance(name, str) else f"k={name[0]},share={name[1]:g}": round(1000 * statistics.median(values), 2)
        for name, values in seconds.items()
    }
    report = dict(rows=rows, cpu_ms=milliseconds, rounds=rounds, batch=batch, threads=threads, seed=0, **records.machine())
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if out.resolve() == RESULTS:
        marked_tables.write(PAGE, "unrolled cost", table(report))


if __name__ == "__main__":
    cli.run(main)
