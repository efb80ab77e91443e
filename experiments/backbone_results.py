"""Judges the runs of experiments/backbone.py and writes experiments/results/backbone-<data>-<kimg>kimg.json:

    python -m experiments.backbone_results --data=emoji32 --outdir=out/backbone --kimg=20 --metric-space=file:imagenet.pt

Precision, recall, density, coverage and the Frechet distance in a space that no run was trained in, the same in random
convolutions, modes where the data are stacked digits, and the share of rare classes where there are labels.
"""

import json
from pathlib import Path

import click
import numpy as np
import torch

import legacy
from dnnlib import cli
from dnnlib.errors import UserError
from experiments import backbone, records
from metrics import detectors, diversity, kernels, metric_main, metric_utils

RARE_BELOW = 0.05  # classes of a smaller share of the reals count as rare
SEED = 0  # of latents: the same for all networks


def class_shares(real_ND, class_N, fake_MD):
    """Share of generated images per class over the class's share of the reals, [K]: each belongs to its nearest real's class."""
    real, blocks = torch.from_numpy(real_ND), torch.from_numpy(fake_MD).split(1000)
    nearest_M = torch.cat([torch.cdist(block, real).argmin(1) for block in blocks]).numpy()
    real_K = np.bincount(class_N, minlength=class_N.max() + 1) / len(class_N)
    fake_K = np.bincount(class_N[nearest_M], minlength=len(real_K)) / len(fake_MD)
    return real_K, fake_K


def judge(network, dataset_kwargs, space, num_gen):
    """{measure: number} of one saved network."""
    G = legacy.open_network(str(network), verbose=False)["G_ema"].eval().requires_grad_(False)
    common = dict(G=G, dataset_kwargs=dict(dataset_kwargs), device=torch.device("cpu"), num_gpus=1, rank=0, seed=SEED, num_gen=num_gen)
    opts = metric_utils.MetricOptions(**common, space=space)
    result = {}
    for name, (real, fake) in diversity.spaces_and_features(opts, num_gen).items():
        prefix = "" if name == space else "held_out_"
        items = diversity.per_item_numbers(opts, real, fake, diversity.NUMBERS)
        result.update({prefix + number: float(values.mean()) for number, (_, values) in items.items()})
        result[prefix + "frechet"] = kernels.frechet_distance(*kernels.mean_and_covariance(fake), *kernels.mean_and_covariance(real))
        dataset = metric_utils.construct_dataset(opts, use_labels=True)
        if name == space and dataset.has_onehot_labels and dataset.label_dim <= 100:
            classes_N = np.array([int(dataset.get_details(index).raw_label) for index in range(len(dataset))])
            real_K, fake_K = class_shares(real, classes_N, fake)
            rare = real_K < RARE_BELOW
            result.update(
                rare_share=float(fake_K[rare].sum() / real_K[rare].sum()),
                class_total_variation=float(np.abs(real_K - fake_K).sum() / 2),
                class_share_real=real_K.tolist(),
                class_share_generated=fake_K.tolist(),
            )
    if dataset.has_onehot_labels and dataset.label_dim > 100:
        result.update(metric_main.calc_metric("madr_modes", **common).results)
    return result


@click.command()
@click.option("--data", required=True, help="Name under which the runs were trained")
@click.option("--outdir", type=click.Path(file_okay=False), default="out/backbone", show_default=True)
@click.option("--methods", default="plain,default", show_default=True, help="Comma-separated")
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True)
@click.option("--kimg", type=click.IntRange(1), default=20, show_default=True)
@click.option("--num-gen", type=click.IntRange(10), default=5000, show_default=True, help="Generated images per network")
@click.option(
    "--metric-space", "--madr-extractor", "space", default="dino", show_default=True, help="Feature space to judge in, as for calc_metrics.py"
)
def main(data, outdir, methods, seeds, kimg, num_gen, space):
    """Judge the trained runs."""
    torch.set_num_threads(1)
    source = detectors.find_detector(detectors.space_url(space))
    facts = dict(
        data=data,
        kimg=kimg,
        num_gen=num_gen,
        space=Path(space).name,
        space_sha256=source.sha256,
        sampling_seed=SEED,
        configuration=backbone.USUAL + backbone.DATA_FLAGS.get(data, []),
        methods={method: dict(flags=backbone.METHODS[method], madr=backbone.madr_of(method)) for method in methods.split(",")},
        rare_below=RARE_BELOW,
    )
    store = records.Store(records.RESULTS / f"backbone-{data}-{kimg}kimg.json", facts)
    for seed in range(seeds):
        for method in methods.split(","):
            network = backbone.snapshot_of(outdir, data, method, seed, kimg)
            if network is None:
                raise UserError(
                    f"There is no network of {data}, {method}, seed {seed} at {kimg} kimg under {outdir}; run experiments.backbone first."
                )
            if store.get(method, seed) is None:
                kwargs = legacy.open_network(str(network), verbose=False)["training_set_kwargs"]
                result = dict(judge(network, kwargs, space, num_gen), seconds_per_kimg=seconds_per_kimg(network, kimg))
                store.put(method, seed, result)
                print(method, seed, {name: round(value, 4) for name, value in result.items() if isinstance(value, float)}, flush=True)


def seconds_per_kimg(network, kimg):
    """Wall time of the training so far, from the run's own statistics."""
    lines = [json.loads(line) for line in (network.parent / "stats.jsonl").read_text(encoding="utf-8").splitlines()]
    return max(line["Timing/total_sec"]["mean"] for line in lines if line["Progress/kimg"]["mean"] <= kimg + 0.5) / kimg


if __name__ == "__main__":
    cli.run(main)
