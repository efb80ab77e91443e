"""Judges the runs of experiments/backbone.py and writes experiments/results/backbone-<data>-<kimg>kimg.json:

    python -m experiments.backbone_results --data=emoji32 --outdir=out/backbone --kimg=20 --metric-space=file:imagenet.pt

What is measured: experiments/network_judge.py. With --held-out against images that no run was trained on.
"""

import json
from pathlib import Path

import click
import torch

import legacy
from dnnlib import cli
from dnnlib.errors import UserError
from experiments import backbone, network_judge, records
from metrics import detectors


def networks_of(outdir, data, methods, seeds, kimg):
    """({(seed, method): saved network}, names of those that are not there)"""
    found = {(seed, method): backbone.snapshot_of(outdir, data, method, seed, kimg) for seed in seeds for method in methods}
    missing = [f"{method}, seed {seed}" for (seed, method), network in found.items() if network is None]
    return {key: network for key, network in found.items() if network is not None}, missing


def open_network(path):
    """(G in evaluation mode, the data set that it was trained on)"""
    snapshot = legacy.open_network(str(path), verbose=False)
    return snapshot["G_ema"].eval().requires_grad_(False), snapshot["training_set_kwargs"]


def facts_of(data, kimg, num_gen, space, methods):
    """What all entries of a file depend on."""
    return dict(
        data=data,
        kimg=kimg,
        num_gen=num_gen,
        space=Path(space.removeprefix("file:")).name,
        space_sha256=detectors.find_detector(detectors.space_url(space)).sha256,
        sampling_seed=network_judge.SEED,
        configuration=backbone.USUAL + backbone.DATA_FLAGS.get(data, []),
        methods={method: dict(flags=backbone.METHODS[method], madr=backbone.madr_of(method)) for method in methods},
        rare_below=network_judge.RARE_BELOW,
    )


@click.command()
@click.option("--data", required=True, help="Name under which the runs were trained")
@click.option("--outdir", type=click.Path(file_okay=False), default="out/backbone", show_default=True)
@click.option("--methods", default="plain,default", show_default=True, help="Comma-separated")
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Start at another seed")
@click.option("--kimg", type=click.IntRange(1), default=20, show_default=True)
@click.option("--num-gen", type=click.IntRange(10), default=5000, show_default=True, help="Generated images per network")
@click.option(
    "--metric-space", "--madr-extractor", "space", default="dino", show_default=True, help="Feature space to judge in, as for calc_metrics.py"
)
@click.option(
    "--held-out", type=click.Path(exists=True), help="Images that no run was trained on, to judge against  [default: those of the training]"
)
@click.option(
    "--out", type=click.Path(dir_okay=False, path_type=Path), help="Result file  [default: experiments/results/backbone-<data>-<kimg>kimg.json]"
)
def main(data, outdir, methods, seeds, first_seed, kimg, num_gen, space, held_out, out):
    """Judge the trained runs."""
    torch.set_num_threads(1)
    chosen = methods.split(",")
    unknown = [method for method in chosen if method not in backbone.METHODS]
    if unknown:
        raise click.UsageError(f"--methods knows {', '.join(backbone.METHODS)}, not {unknown[0]!r}")
    facts = facts_of(data, kimg, num_gen, space, chosen)
    networks, missing = networks_of(outdir, data, chosen, range(first_seed, first_seed + seeds), kimg)
    if networks:
        judge = network_judge.NetworkJudge(open_network(next(iter(networks.values())))[1], space, num_gen, held_out)
        store = records.Store(out or records.RESULTS / f"backbone-{data}-{kimg}kimg.json", dict(facts, **judge.facts()))
        judge_all(store, judge, networks, kimg)
    if missing:
        raise UserError(f"There are no networks at {kimg} kimg of {data} under {outdir} of {'; '.join(missing)}; run experiments.backbone first.")


def judge_all(store, judge, networks, kimg):
    """Put what the file does not hold yet."""
    if judge.held_out is not None and store.get(records.TRAINING_IMAGES, network_judge.SEED) is None:
        store.put(records.TRAINING_IMAGES, network_judge.SEED, judge.of_training_images())
    for (seed, method), network in networks.items():
        if store.get(method, seed) is None:
            G, trained_on = open_network(network)
            judge.check_trained_on(trained_on, network)
            result = dict(judge(G), seconds_per_kimg=seconds_per_kimg(network, kimg))
            store.put(method, seed, result)
            print(method, seed, {name: round(value, 4) for name, value in result.items() if isinstance(value, float)}, flush=True)


def seconds_per_kimg(network, kimg):
    """Wall time of the training so far, from the run's own statistics."""
    lines = [json.loads(line) for line in (network.parent / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    return max(line["Timing/total_sec"]["mean"] for line in lines if line["Progress/kimg"]["mean"] <= kimg + 0.5) / kimg


if __name__ == "__main__":
    cli.run(main)
