"""What a gradient on the image becomes at the generator's parameters: the coverage term's over the adversarial one's, both of one size on the image.

    python benchmarks/reach.py --network emoji=NETWORK.pkl --network digits=OTHER.pkl --space=pca --space=random

Networks: snapshots of train.py with their training sets in place. Writes benchmarks/results/reach.json.
"""

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click
import torch
import torch.nn.functional as F

import legacy
from benchmarks.circumstances import circumstances
from dnnlib import cli
from dnnlib.files import atomic_write_text
from madr_plugin import config, objectives
from madr_plugin.host import tap
from madr_plugin.reals import real_images, reference
from madr_plugin.strength import balance
from madr_spaces import registry
from madr_spaces.seeds import generator_for

BATCH, BATCHES = 16, 8


def relative_reach(network, space):
    """balance.relative_reach() of means over BATCHES batches, as training measures it."""
    saved = legacy.open_network(str(network), verbose=False)
    G, D = saved["G"].train().requires_grad_(True), saved["D"].eval().requires_grad_(False)
    dataset, options = real_images.open_dataset(saved["training_set_kwargs"]), config.resolve(dict(extractor=space))
    extractor = registry.build(space, dataset.image_shape, 0, 0, 0, "", "").eval().requires_grad_(False)
    objective = objectives.build(options, reference.build(dataset, extractor, options, 0, torch.device("cpu"), announce=lambda *_: None), 0)
    parameters, measured = list(G.parameters()), dict(term=[], host=[])
    for index in range(BATCHES):
        generator = generator_for("reach", index)
        z, c = torch.randn([BATCH, G.z_dim], generator=generator), torch.zeros([BATCH, G.c_dim])
        image = G(z, c)
        losses = dict(
            host=lambda x, c=c: F.softplus(-D(x, c)).mean(), term=lambda x, generator=generator: objective.loss(extractor(x).float(), generator)
        )
        for name, loss in losses.items():
            gradient, _ = tap.gradient_at(image, loss)
            measured[name].append(balance.Follower(image, parameters).reach(gradient, torch.ones([])))
    sizes_P = torch.tensor([float(parameter.numel()) for parameter in parameters])
    return float(balance.relative_reach(torch.stack(measured["term"]).mean(0), torch.stack(measured["host"]).mean(0), sizes_P))


@click.command()
@click.option(
    "--network",
    "networks",
    type=cli.NamedPath("tiny=network-snapshot-000020.pkl"),
    multiple=True,
    required=True,
    help="NAME=SNAPSHOT; may be repeated",
)
@click.option(
    "--space", "spaces", multiple=True, default=("pca", "random"), show_default=True, help="Feature space, as --madr-extractor; may be repeated"
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    default=REPO / "benchmarks" / "results" / "reach.json",
    show_default="benchmarks/results/reach.json",
)
def main(networks, spaces, out):
    """Relative reach of the witness in several feature spaces and runs."""
    torch.set_num_threads(1)
    entries = []
    for name, network in dict(networks).items():
        for space in spaces:
            entries.append(dict(run=name, snapshot=Path(network).name, space=space.split("/")[-1], relative_reach=relative_reach(network, space)))
            print(f"{name}, {entries[-1]['space']}: {entries[-1]['relative_reach']:.2f}", flush=True)
    report = dict(
        what="geometric mean over parameters of term over host, for gradients of one size on the image",
        batch=BATCH,
        batches=BATCHES,
        entries=entries,
        **circumstances(),
    )
    atomic_write_text(out, json.dumps(report, indent=1) + "\n")
    print(f"Wrote {out}")


if __name__ == "__main__":
    cli.run(main)
