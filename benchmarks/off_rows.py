"""What the table of methods costs a run that uses none of it: CPU time of a training step, in pairs.

    python benchmarks/off_rows.py

One pair of networks of --cfg=tiny, one batch, three ways to take the same step (Gmain, Dmain, and the regularisers on their turn):

    bare    StyleGAN2Loss alone, as before there was a seam
    off     what a run without --gan, --method and --backbone does: StyleGAN2Loss, with the hooks before and after each phase
    row     the same losses as a row: GANLoss with --gan=r1, that is with nothing joined to it

The ways take turns within each round, in an order that changes from round to round, in CPU seconds of this process. What counts is the ratio within a
round: its median, with a 95% interval from resampled rounds. Writes benchmarks/results/off_rows.json and the table in docs/baselines.md.
"""

import copy
import itertools
import json
import sys
import time
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import numpy as np
import torch

from dnnlib import cli
from dnnlib.files import atomic_write_text
from experiments import pages, records
from training import phases, presets
from training.gan.loss import GANLoss
from training.loss import StyleGAN2Loss
from training.networks import Discriminator, Generator

PAGE = REPO / "docs" / "baselines.md"
MARK = "off rows"
WAYS = {"off": "no flag of the table: the hooks of the seam", "row": "`--gan=r1`, StyleGAN2's losses as a row"}


class Training:
    """G and D of a size with their phases, and a step of them under any loss. Every way begins each round with the same weights."""

    def __init__(self, resolution):
        row = presets.base_config("tiny", resolution, 1)
        torch.manual_seed(0)
        widths = dict(channel_base=row.channel_base, channel_max=row.channel_max, num_fp16_res=0, conv_clamp=None)
        shape = dict(c_dim=0, img_resolution=resolution, img_channels=3)
        latents = dict(z_dim=row.latent_dim, w_dim=row.latent_dim)
        self.G = Generator(**latents, **shape, mapping_kwargs=dict(num_layers=row.map_depth), synthesis_kwargs=widths)
        self.D = Discriminator(**shape, **widths, epilogue_kwargs=dict(mbstd_group_size=row.mbstd_group))
        adam = dict(class_name="torch.optim.Adam", lr=row.lr, betas=[0, 0.99], eps=1e-8)
        self.phases, optimizers = phases.setup_phases(self.G, self.D, adam, adam, 4, 16)
        kwargs = dict(device="cpu", G_mapping=self.G.mapping, G_synthesis=self.G.synthesis, D=self.D, r1_gamma=row.gamma)
        rows = [dict(name="r1", gamma=row.gamma)]
        self.losses = dict(bare=StyleGAN2Loss(**kwargs), off=StyleGAN2Loss(**kwargs), row=GANLoss(**kwargs, gan="r1", methods=rows))
        for loss in self.losses.values():
            loss.attach(dict(G=self.G, D=self.D, optimizers=optimizers))
        self.batch, self.images = row.batch_size, torch.rand(row.batch_size, 3, resolution, resolution) * 2 - 1
        self.first = [copy.deepcopy(part.state_dict()) for part in self.parts()]

    def parts(self):
        return [self.G, self.D, *{id(phase.opt): phase.opt for phase in self.phases}.values()]

    def seconds(self, way, step):
        """CPU seconds of a step."""
        for part, state in zip(self.parts(), self.first):
            part.load_state_dict(copy.deepcopy(state))
        loss, has_hooks, cur_nimg = self.losses[way], way != "bare", step * self.batch
        no_labels = torch.zeros([self.batch, 0])
        begun = time.process_time()
        for index, phase in enumerate(self.phases):
            if step % phase.interval == 0:
                z, _ = phases.draw_latents(index, 0, self.batch, self.G.z_dim, no_labels, 0, cur_nimg)
                if has_hooks:
                    loss.begin_phase(phase.name, cur_nimg)
                phases.run_phase(phase, index, loss, [(0, self.images, no_labels, z, no_labels)], 0, cur_nimg)
                if has_hooks:
                    loss.end_phase(phase.name)
        return time.process_time() - begun


def median_and_interval(ratios, seed=0):
    """(median, low and high end of its 95% interval by 2,000 resamples)."""
    ratios = np.asarray(ratios)
    resampled = np.median(np.random.RandomState(seed).choice(ratios, [2000, len(ratios)]), axis=1)
    return float(np.median(ratios)), *np.percentile(resampled, [2.5, 97.5]).tolist()


def table(report):
    """Markdown of the figures."""
    lines = ["| a step of `--cfg=tiny` with | over the bare loss | 95% interval |", "|---|---|---|"]
    for row in report["rows"]:
        lines.append(f"| {WAYS[row['way']]} | {row['times_bare']:.4f} | {row['interval'][0]:.4f} to {row['interval'][1]:.4f} |")
    told = f"{report['resolution']} px, {report['rounds']} rounds, CPU time, {report['threads']} thread"
    return "\n".join([*lines, "", f"{told}; {report['machine']}, PyTorch {report['torch']}, {report['date']}."])


@click.command()
@click.option("--rounds", type=cli.IntRange(min=4), default=160, show_default=True, help="Rounds in which the ways take turns")
@click.option("--resolution", type=click.Choice(["16", "32"]), default="32", show_default=True, help="Pixels of the images")
@click.option("--threads", type=cli.IntRange(min=1), default=1, show_default=True, help="CPU threads")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=REPO / "benchmarks" / "results" / "off_rows.json",
    show_default="benchmarks/results/off_rows.json",
    help="Where to write the figures",
)
@click.option("--page/--no-page", default=True, show_default=True, help="Put the table into docs/baselines.md")
def main(rounds, resolution, threads, out, page):
    """Times a step without and with the seam of methods."""
    torch.set_num_threads(threads)
    training, orders, seconds = Training(int(resolution)), itertools.cycle(itertools.permutations(["bare", *WAYS])), {}
    for number in range(-2, rounds):  # two to warm up
        for way in next(orders):
            taken = training.seconds(way, number)
            if number >= 0:
                seconds.setdefault(way, []).append(taken)
    rows = []
    for way in WAYS:
        middle, low, high = median_and_interval([own / bare for own, bare in zip(seconds[way], seconds["bare"])])
        rows.append(dict(way=way, times_bare=round(middle, 5), interval=[round(low, 5), round(high, 5)]))
        print(f"{way}: {middle:.4f} of the bare step ({low:.4f} to {high:.4f})")
    milliseconds = {way: round(1000 * float(np.median(values)), 2) for way, values in seconds.items()}
    report = dict(rows=rows, cpu_ms=milliseconds, rounds=rounds, resolution=int(resolution), threads=threads, seed=0, **records.machine())
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")
    if page:
        pages.write_between(PAGE, MARK, table(report))
        print(f"Wrote the table in {PAGE}")


if __name__ == "__main__":
    cli.run(main)
