"""The metrics of two sets without a network, as they are asked for: what every process gets, and the result lines.

What the two sets are is in metrics/two_sets.py. Must not know click.
"""

import functools
from dataclasses import dataclass

from dnnlib.errors import UserError
from metrics import metric_main, metric_utils, per_class, progress as showing, two_sets
from metrics.metric import Takes
from torch_utils import distributed


@dataclass(frozen=True)
class SetsJob:
    """All that one process needs; picklable, since every process opens the sets itself."""

    reals: str
    fakes: str
    metrics: tuple
    num_gpus: int
    device_name: str
    verbose: bool
    cache: bool
    detectors: dict
    seed: int
    num_gen: int | None
    num_real: int | None
    batch_size: int | None
    space: str | None
    strict_ties: bool
    modes: int | None
    mirror: bool
    per_class: bool
    held_out: str | None = None


def check_given(reals, fakes):
    """Refuse one side without the other."""
    for flag, path, other in (("--reals", reals, "--fakes"), ("--fakes", fakes, "--reals")):
        if path is None:
            raise UserError(f"{flag} is missing beside {other}: two sets are compared; give it, or a network with --network in place of {other}.")


def check_others(others):
    """Refuse what says something of a network. others: {flag: value}."""
    for flag, value in others.items():
        if value:
            raise UserError(f"{flag} has no effect beside --fakes and --reals, which need no network; leave it out.")


@showing.bars_ended()
def evaluate(rank, job):
    """The body of every process."""
    device = distributed.rank_device(job.device_name, rank)
    rows = [metric_main.row_of(name) for name in job.metrics]
    sides = [two_sets.open_side("real", job.reals, job.mirror), two_sets.open_side("generated", job.fakes)]
    two_sets.check(sides, rows)
    sides = [two_sets.limited(side, count, job.seed) for side, count in zip(sides, (job.num_real, job.num_gen))]
    images = [two_sets.open_images(side, use_labels=job.per_class) if side.kind is Takes.IMAGES else None for side in sides]
    if None not in images:
        two_sets.check_same_kind(*images, (job.reals, job.fakes))
        if rank == 0 and images[0].content_fingerprint() == images[1].content_fingerprint():
            showing.warn(f"--fakes={job.fakes} and --reals={job.reals} hold the same images: every number will look perfect.")
    for metric in job.metrics:
        if rank == 0 and job.verbose:
            print(f"Calculating {metric}...", flush=True)
        calc = functools.partial(_calc, metric, job, rank, device, sides)
        result = per_class.of_sets(metric, sides, images, calc) if job.per_class else calc(*images)
        if rank == 0:
            two_sets.check_detector(sides, result)
            metric_main.report_metric(result)


def _calc(metric, job, rank, device, sides, reals, fakes, **more):
    """The result of one metric of two sides; reals, fakes: the data sets of those that are images, else None."""
    real, fake = sides
    G = None if fakes is None else two_sets.Images(fakes, fake.flag, job.num_gen, job.seed)
    num_gen = len(G) if G is not None else fake.stats.num_items
    result = metric_main.calc_metric(
        metric,
        G=G,
        dataset_kwargs=real.dataset_kwargs,
        num_gpus=distributed.get_world_size(),
        rank=rank,
        device=device,
        progress=metric_utils.ProgressMonitor(verbose=job.verbose),
        cache=job.cache,
        detectors=job.detectors,
        seed=job.seed,
        num_gen=None if num_gen == metric_main.row_of(metric).num_gen else num_gen,
        num_real=job.num_real if reals is not None else None,
        batch_size=job.batch_size,
        space=job.space,
        strict_ties=job.strict_ties,
        modes=job.modes,
        held_out=job.held_out,
        given=two_sets.as_given_features(sides) if metric_main.takes_given_features(metric) else None,
        sides={side.name: side.stats for side in sides if side.stats is not None},
        **more,
    )
    result.facts.update(fakes=fake.facts if G is None else G.facts)
    if reals is None:
        result.facts.update(reals=real.facts)
    return result
