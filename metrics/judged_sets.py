"""The metrics of sets without a network, as they are asked for: what every process gets, and the result lines.

What a set is stands in metrics/two_sets.py. A baseline may be a set or a network, and of a network that is compared with a set the
same is done as of the set. Must not know click.
"""

import functools
from dataclasses import dataclass, field, fields, replace

from dnnlib import console
from dnnlib.errors import UserError
from dnnlib.util import construct_class_by_name
from metrics import comparison, metric_main, metric_utils, per_class, progress as showing, requested, two_sets
from metrics.metric import Takes
from torch_utils import distributed, metric_lines


@dataclass(frozen=True)
class SetsJob:
    """All that one process needs; picklable, since every process opens the sets itself. One of fakes and network is judged."""

    fakes: str | None
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
    reals: str | None = None  # path
    reals_flag: str = two_sets.FLAGS["real"]
    reals_kwargs: dict = field(default_factory=dict)  # of the data set that a judged network names, in place of reals
    network: str | None = None
    baseline: str | None = None
    trust: bool = False
    trained_in: dict = field(default_factory=dict)  # as in requested.Job
    run_dir: str | None = None


@dataclass(frozen=True)
class Judged:
    """A set or a network. side, images: of a set, images None where it holds features; G: the network."""

    path: str
    words: str  # its flag and path
    side: two_sets.Side | None = None
    images: object = None
    G: object = None

    @property
    def kind(self):
        """As two_sets.check_same_kind takes it; None for features."""
        if self.G is not None:
            return self.words, (self.G.img_channels, self.G.img_resolution, self.G.img_resolution), None
        return None if self.images is None else (self.words, self.images.image_shape, self.path)

    def num_items(self, num_gen):
        """How many items are judged; None where nobody knows, or as many as one likes."""
        if self.images is not None:
            return len(self.images) if num_gen is None else num_gen
        return None if self.side is None else self.side.stats.num_items


def of_network(job):
    """The SetsJob of a requested.Job whose baseline is a set."""
    if job.repeats != 1:
        raise UserError(f"--repeats={job.repeats} has no effect on --baseline={job.baseline}, whose images are drawn already; leave it out.")
    shared = {item.name for item in fields(SetsJob)} & {item.name for item in fields(job)}
    return SetsJob(
        fakes=None, mirror=False, reals_flag="--data", reals_kwargs=dict(job.dataset_kwargs), **{name: getattr(job, name) for name in shared}
    )


# ----------------------------------------------------------------------------------------------------------------
# What is refused.


def check_given(fakes, reals, data, metrics, is_per_class):
    """(path of the reals, its flag) of --reals or --data; None where no metric compares with reals. Refuses one side without the other."""
    if fakes is None:
        raise UserError("--fakes is missing beside --reals: give the images to judge, or a network with --network and --data in place of --reals.")
    if reals is not None and data is not None:
        raise UserError(f"--reals={reals} and --data={data} both name the images to compare with; leave one of them out.")
    comparing = [name for name in metrics if is_per_class or metric_main.row_of(name).compares_with_reals]
    if reals is None and data is None and comparing:
        raise UserError(
            f"{comparing[0]} compares with real images, and none are given beside --fakes={fakes}: give a folder or zip with --data=PATH, or features or statistics with --reals=PATH."
        )
    return (data, "--data") if reals is None else (reals, two_sets.FLAGS["real"])


def check_others(others, beside):
    """Refuse what says something of networks. others: {flag: value}; beside: the flags of the sets, for the sentence."""
    if others.get("--network"):
        raise UserError(
            f"--network has no effect beside {beside}: one thing is judged, a network or a set; leave one out, or compare them: "
            "--network=NETWORK --baseline=FOLDER."
        )
    for flag, value in others.items():
        if value:
            raise UserError(f"{flag} has no effect beside {beside}, which stand for themselves; leave it out.")


def _check_kinds(real, judged):
    """Refuse sets and networks of other images than the reals, or than one another."""
    kinds = [kind for kind in (real, *(one.kind for one in judged)) if kind is not None]
    for kind in kinds[1:]:
        two_sets.check_same_kind(kind, kinds[0])


def _equal_number(judged, num_gen):
    """How many items of each are judged, None: the metric's number. Refuses two sets of different numbers."""
    numbers = {one.words: one.num_items(num_gen) for one in judged}
    known = {words: number for words, number in numbers.items() if number is not None}
    if len(set(known.values())) > 1:
        told = ", ".join(f"{words} holds {number}" for words, number in known.items())
        raise UserError(f"{told}: numbers of unlike many images do not compare; take as many of both with --num-gen={min(known.values())}.")
    return num_gen if not known else next(iter(known.values()))


def _tell_small_numbers(judged, rows, number):
    """Say which metrics are defined with more generated images than there are."""
    larger = [f"{row.name} ({row.num_gen:,})" for row in rows if row.num_gen is not None and number is not None and number < row.num_gen]
    if larger:
        showing.warn(
            f"{judged.words}: {number:,} images, fewer than {', '.join(larger)} is defined with; the line says so (usual_num_gen): "
            "compare only with numbers of as many images."
        )


# ----------------------------------------------------------------------------------------------------------------
# Computing.


@showing.bars_ended()
def evaluate(rank, job):
    """The body of every process."""
    device = distributed.rank_device(job.device_name, rank)
    requested.set_precision()
    rows = [metric_main.row_of(name) for name in job.metrics]
    real, reals = _reals(job)
    judged = _all_judged(job, device)
    two_sets.check([side for side in (real, *(one.side for one in judged)) if side is not None], rows)
    judged = [_limited(one, job) for one in judged]
    real = two_sets.limited(real, job.num_real, job.seed)
    _check_kinds(reals and (real.flag, reals.image_shape, real.path), judged)
    number = _equal_number(judged, job.num_gen)
    if rank == 0:
        _tell_small_numbers(judged[0], rows, number)
        _warn_of_copies(real, reals, judged)
    for metric in job.metrics:
        results, items = [], [comparison.Items() if len(judged) > 1 else {} for _ in judged]
        for one, own_items in zip(judged, items):
            if rank == 0 and job.verbose:
                print(f"Calculating {metric}{' of the baseline' if one is not judged[0] else ''}...", flush=True)
            calc = functools.partial(_calc, metric, job, rank, device, real, one, number)
            if job.per_class:
                results.append(per_class.of_sets(metric, [real, one.side], [reals, one.images], calc))
            else:
                results.append(calc(reals, one.images, per_item=own_items))
        if rank == 0:
            _report(job, real, judged, results, items)


def _reals(job):
    """(Side of the reals, its data set or None)."""
    if job.reals_kwargs:
        real = two_sets.Side("real", job.reals_kwargs.get("path"), Takes.IMAGES, {}, dataset_kwargs=job.reals_kwargs, given_with=job.reals_flag)
        return real, construct_class_by_name(**job.reals_kwargs)  # as it was trained on, whatever its class
    if job.reals is None:
        return two_sets.NO_REALS, None
    real = two_sets.open_side("real", job.reals, job.mirror, job.reals_flag)
    return real, two_sets.open_images(real, use_labels=job.per_class) if real.kind is Takes.IMAGES else None


def _all_judged(job, device):
    """What is judged, and its baseline where there is one."""
    if job.fakes is not None:
        judged = [_set(two_sets.open_side("generated", job.fakes), job)]
    else:
        judged = [_network("--network", job.network, job, device)]
    if job.baseline is not None and two_sets.is_set(job.baseline):
        judged.append(_set(two_sets.open_side("generated", job.baseline, given_with="--baseline"), job))
    elif job.baseline is not None:
        judged.append(_network("--baseline", job.baseline, job, device))
    return judged


def _set(side, job):
    return Judged(side.path, side.flag, side, two_sets.open_images(side, use_labels=job.per_class) if side.kind is Takes.IMAGES else None)


def _network(flag, path, job, device):
    return Judged(path, f"{flag}={path}", G=requested.open_generator(path, job.trust, device))


def _limited(one, job):
    return one if one.side is None else replace(one, side=two_sets.limited(one.side, job.num_gen, job.seed))


def _warn_of_copies(real, reals, judged):
    known = reals.content_fingerprint() if hasattr(reals, "content_fingerprint") else None
    for one in judged:
        if one.images is not None and one.images.content_fingerprint() == known:
            showing.warn(f"{one.words} and {real.flag} hold the same images: every number will look perfect.")


def _calc(metric, job, rank, device, real, one, number, reals, fakes, **more):
    """The result of one metric. number: how many items; reals, fakes: the data sets of those that are sets of images, else None."""
    G = one.G if fakes is None else two_sets.Images(fakes, one.side, job.num_gen, job.seed)
    num_gen = number if fakes is None else len(G)
    usual = metric_main.row_of(metric).num_gen
    sides = {side.name: side.stats for side in (real, one.side) if side is not None and side.stats is not None}
    dataset_kwargs = real.dataset_kwargs if one.G is None or not real.dataset_kwargs else dict(real.dataset_kwargs, use_labels=one.G.c_dim != 0)
    result = metric_main.calc_metric(
        metric,
        G=G,
        dataset_kwargs=dataset_kwargs,
        num_gpus=distributed.get_world_size(),
        rank=rank,
        device=device,
        progress=metric_utils.ProgressMonitor(verbose=job.verbose),
        cache=job.cache,
        detectors=job.detectors,
        seed=job.seed,
        num_gen=None if num_gen == usual else num_gen,
        num_real=job.num_real if reals is not None else None,
        batch_size=job.batch_size,
        space=job.space,
        strict_ties=job.strict_ties,
        modes=job.modes,
        held_out=job.held_out,
        trained_in=job.trained_in.get(one.path),
        given=two_sets.as_given_features((real, one.side)) if one.side is not None and metric_main.takes_given_features(metric) else None,
        sides=sides,
        **more,
    )
    if one.side is not None:
        result.facts.update(fakes=one.side.facts if fakes is None else G.facts)
    if num_gen != usual:
        result.facts.update(usual_num_gen=usual)
    if reals is None and real.path is not None:
        result.facts.update(reals=real.facts)
    return result


def _report(job, real, judged, results, items):
    for one, result in zip(judged, results):
        two_sets.check_detector([side for side in (real, one.side) if side is not None], result)
    pickles = [one.path if one.side is None else None for one in judged]
    if len(judged) > 1:
        compared = requested.add_comparison(*results, *items, job.baseline, job.seed, same_latents=False)
        metric_main.report_metric(results[1], snapshot_pkl=pickles[1])
    results[0].by = metric_lines.BY_HAND
    metric_main.report_metric(results[0], run_dir=job.run_dir, snapshot_pkl=pickles[0])
    if len(judged) > 1:
        console.result(comparison.as_text(compared, of_repeats=""))
        console.result(
            f"Seed {job.seed} of subsets and bootstrap; {comparison.NUM_RESAMPLES} resamples; the same reals, no generated image with a twin."
        )
