"""Methods on the digit beds, over seeds, with equal steps; beside its own, every row of train.py by its name:

    python -m experiments.digits_study --bed=stacked --mnist=FOLDER --seeds=5
    python -m experiments.digits_study --bed=longtail --mnist=FOLDER --seeds=5
    python -m experiments.digits_study --bed=colored --mnist=FOLDER --seeds=5

writes experiments/results/<bed>.json as it goes; finished runs are not repeated. Minutes per run on one core.
"""

from pathlib import Path

import click
import numpy as np
import torch

from dnnlib import cli
from experiments import colored_bed, digit_bed, records, small_gan, tail_bed, toy_methods

# Offered every 10 steps instead of 100, or a short run would hardly know its memory; 5,000 reals, since this term compares each batch with all.
_PAPER = dict(preset="paper", extractor="pca", update_interval=10, reference_cap=5000)
_OWN = {
    "plain": {},
    "r1": dict(method=("r1:gamma=1",)),
    "pacgan2": dict(method=("pacgan:m=2",)),
    "pacgan4": dict(method=("pacgan:m=4",)),
    "paper": dict(madr=_PAPER),
    "witness": dict(madr=dict(preset="witness", extractor="pca")),
    "witness+replay": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0)),
    # The same pull from a latent kept for each real; its twin: witness+replay.
    "witness+champions": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0, replay_from="champions", replay_interval=4)),
    "witness+moments": dict(madr=dict(preset="moments", extractor="pca")),
    # The memory-free twin: the same term and strength, moments of the batch alone.
    "witness+batch-moments": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0")),
    # Both in fewer components, as they once were.
    "witness+moments-64": dict(madr=dict(preset="moments", extractor="pca", width=64)),
    "witness+batch-moments-64": dict(madr=dict(preset="moments", extractor="pca", width=64, moments_horizon="0")),
    # Its two parts alone, each as strong as both together.
    "moments": dict(madr=dict(preset="moments", extractor="pca", term="moments")),
    "witness-as-strong": dict(madr=dict(preset="moments", extractor="pca", term="witness")),
    # How long it remembers (.8 kimg else); the moments of 256 fresh images in the memory's place; the replay on top.
    "horizon-0.13": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0.13")),
    "horizon-0.2": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0.2")),
    "horizon-0.4": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0.4")),
    "horizon-3.2": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="3.2")),
    "horizon-auto": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="auto")),
    "fresh-256": dict(madr=dict(preset="moments", extractor="pca", moments_horizon="0", moments_fresh=256)),
    "moments+replay": dict(madr=dict(preset="moments", extractor="pca", replay_weight=1.0)),
    "tilt": dict(madr=dict(preset="witness", extractor="pca", tilt=1)),
    "witness+replay+tilt": dict(madr=dict(preset="witness", extractor="pca", replay_weight=1.0, tilt=1)),
    # Counted in finer cells over a longer window (--madr-tilt-sensor=fine); at 20 a real can be shown five times as often as with the tilt's 5 and its 4.
    "tilt-fine": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_sensor="fine")),
    "tilt-fine-20": dict(madr=dict(preset="witness", extractor="pca", tilt=1, tilt_sensor="fine", tilt_max=20.0)),
    # What the default is (docs/studies/default.md).
    "moments+fine-tilt": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_sensor="fine")),
    "moments+fine-tilt-0.2": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_sensor="fine", moments_horizon="0.2")),
    "moments+fine-tilt-20": dict(madr=dict(preset="moments", extractor="pca", tilt=1, tilt_sensor="fine", tilt_max=20.0)),
}
METHODS = toy_methods.table(_OWN)
_ALL = "plain,moments+fine-tilt,r1,pacgan2,paper,witness"
OTHER_BEDS = {"longtail": (tail_bed, tail_bed.TailSet), "colored": (colored_bed, colored_bed.ColoredSet)}
BEDS = (*digit_bed.BEDS, *OTHER_BEDS)
USUAL = {"stacked": _ALL, "stacked28": _ALL, "longtail": "plain,witness,moments+fine-tilt", "colored": "plain,witness,tilt-fine-20"}
STEPS = {"stacked": 1500, "stacked28": 1500, "longtail": 5000, "colored": 5000}
SETTING = dict(batch=64, z_dim=digit_bed.Z_DIM, lr_G=1e-3, lr_D=1e-3, betas=(0.5, 0.999))
EVALUATED_AT = (0.9, 1.0)  # parts of the run; the mean counts, since GANs swing from one evaluation to the next


def networks_of(bed):
    return OTHER_BEDS[bed][0].networks() if bed in OTHER_BEDS else digit_bed.networks(digit_bed.SIDES[bed])


def open_bed(bed, mnist):
    """(data set, judge, accuracy of the judge's classifier)"""
    module, kind = OTHER_BEDS.get(bed, (None, None))
    side = digit_bed.SIDES[bed] if module is None else module.SIDE
    classifier, digits = digit_bed.obtain_classifier(mnist, side), digit_bed.load_digits(mnist, "train", side)
    if module is not None:
        dataset = kind(digits)
        return dataset, module.Judge(classifier, dataset), classifier.accuracy
    dataset = digit_bed.StackedSet(bed, digits)
    return dataset, digit_bed.Judge(classifier, dataset), classifier.accuracy


def run(bed, method, seed, steps, dataset, judge):
    """One training -> {measure: mean over the evaluations, ..., seconds: CPU time of the training}."""
    setting = {name: value for name, value in SETTING.items() if name != "z_dim"}  # the networks'
    gan = small_gan.build(METHODS[method], networks_of(bed), dataset, seed, **setting)
    due, seen = {round(part * steps) for part in EVALUATED_AT}, []

    def each(step):
        if step in due:
            seen.append(judge(digit_bed.sample(gan.G, judge.num_samples)))

    seconds = small_gan.train(gan, dataset.as_tensor(), seed, steps, each)
    means = {name: np.mean([entry[name] for entry in seen], axis=0).tolist() for name in seen[0]}
    return dict(means, evaluations=seen, seconds=seconds)


@click.command()
@click.option("--bed", type=click.Choice(BEDS), default="stacked", show_default=True)
@click.option("--mnist", metavar="FOLDER", help="Folder with MNIST's four files  [default: downloaded]")
@click.option("--methods", help=f"Comma-separated, of {', '.join(_OWN)}, or names of train.py --list-methods  [default: by bed]")
@click.option("--seeds", type=click.IntRange(1, 1000), default=5, show_default=True, help="Seeds 0, 1, ...")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Start at another seed")
@click.option("--steps", type=click.IntRange(10), help="Training steps  [default: by bed]")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), help="Result file  [default: experiments/results/<bed>.json]")
def main(bed, mnist, methods, seeds, first_seed, steps, out):
    """Compare methods on a bed of small digit images."""
    torch.set_num_threads(1)
    steps = steps or STEPS[bed]
    chosen = (methods or USUAL[bed]).split(",")
    unknown = [method for method in chosen if method not in METHODS]
    if unknown:
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}, not {unknown[0]!r}")
    dataset, judge, accuracy = open_bed(bed, mnist)
    facts = dict(
        bed=bed,
        steps=steps,
        setting=SETTING,
        num_samples=judge.num_samples,
        evaluated_at=EVALUATED_AT,
        methods={name: small_gan.resolved(METHODS[name]) for name in chosen},
        classifier_accuracy=accuracy,
        floor_kl=getattr(judge, "floor_kl", None),
        data=dataset.content_fingerprint(),
    )
    store = records.Store(out or records.RESULTS / f"{bed}.json", facts)
    for seed in range(first_seed, first_seed + seeds):
        for method in chosen:
            if store.get(method, seed) is None:
                result = run(bed, method, seed, steps, dataset, judge)
                store.put(method, seed, result)
                print(method, seed, {name: round(value, 3) for name, value in result.items() if isinstance(value, (int, float))}, flush=True)


if __name__ == "__main__":
    cli.run(main)
