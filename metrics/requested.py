"""Metrics as they are asked for: what is refused, the job that every process gets, and what is said of the results.

Lines and tables go to standard output and into the run folder; where networks and data come from is decided by the caller. Must
not know click.
"""

import functools
import os
from dataclasses import dataclass, field

import torch

import legacy
from dnnlib import console
from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import (
    comparison,
    counts,
    detectors as detector_files,
    diversity,
    given_features,
    metric_main,
    metric_utils,
    per_class,
    progress as showing,
    rejected,
    repeats,
)
from metrics.listing import MAX_SEED
from torch_utils import distributed, metric_lines, misc

_NAMED = 4  # metrics that a sentence names


@dataclass(frozen=True)
class Job:
    """All that one process needs; picklable, since every process opens the networks itself."""

    network: str
    metrics: tuple
    dataset_kwargs: dict
    num_gpus: int
    device_name: str
    verbose: bool
    trust: bool
    cache: bool
    detectors: dict
    seed: int
    num_gen: int | None
    num_real: int | None
    batch_size: int | None
    run_dir: str | None
    baseline: str | None = None
    space: str | None = None
    strict_ties: bool = False
    repeats: int = 1
    modes: int | None = None
    per_class: bool = False
    held_out: str | None = None
    trained_in: dict = field(default_factory=dict)  # {network: extractor whose features led its training, or None}
    snapshots: dict = field(default_factory=dict)  # {network: paths of the snapshots of its run}
    drs: tuple | None = None  # (drs.Loss, drs.Settings) of rejection sampling

    @property
    def networks(self):
        """The network and its baseline, if there is one."""
        return [path for path in (self.network, self.baseline) if path is not None]


# ----------------------------------------------------------------------------------------------------------------
# What is refused.


def check_metrics(names):
    """Refuse unknown names, and none at all."""
    metric_main.check_names(names)
    if not names:
        raise UserError("--metrics names no metric; give at least one, like --metrics=fid50k_full.")


def check_counts(names, num_gen, num_real):
    """Refuse --num-gen and --num-real below what a metric can be computed from."""
    counts.check_asked_for([metric_main.row_of(name) for name in names], num_gen, num_real)


def check_modes(modes, names):
    """Refuse --modes where nothing counts modes."""
    counting = [name for name in metric_main.list_valid_metrics() if metric_main.row_of(name).counts_modes]
    if modes is not None and not set(counting) & set(names):
        raise UserError(f"--modes={modes} has no effect on {', '.join(names)}; leave it out, or take one of {', '.join(counting)}.")


def check_per_class(is_asked, names, others):
    """Refuse --per-class for metrics of all classes together, and beside options that compare one number. others: {flag: value}."""
    if is_asked:
        per_class.check([metric_main.row_of(name) for name in names])
        for flag, value in others.items():
            if value:
                raise UserError(f"{flag} does not go with --per-class, which gives a number of every class; leave one of them out.")


def check_rejection(names, others):
    """Refuse --drs for metrics of the network itself, and beside options that it does not go with. others: {flag: value}."""
    rejected.check([metric_main.row_of(name) for name in names])
    for flag, value in others.items():
        if value:
            raise UserError(f"{flag} does not go with --drs, which sifts the images of one network in one process; leave one of them out.")


def check_held_out(path, names):
    """Refuse metrics against held-out images without those, and those without such metrics."""
    asking = [name for name in names if metric_main.row_of(name).needs_held_out]
    if asking and path is None:
        raise UserError(
            f"--metrics={asking[0]} compares with real images that nobody trained on; give a folder or zip of them with --held-out=PATH "
            "(images of the same kind that are not in the training set)."
        )
    if path is not None and not asking:
        those = [name for name in metric_main.list_valid_metrics() if metric_main.row_of(name).needs_held_out]
        raise UserError(f"--held-out={path} has no effect on {', '.join(names)}; leave it out, or take one of {', '.join(those)}.")
    if path is not None and not (os.path.isdir(path) or path.lower().endswith(".zip") and os.path.isfile(path)):
        raise UserError(f"--held-out={path} is neither a folder nor a zip of images; give one that holds real images which nobody trained on.")


def without_effect(given, names):
    """Sentences on options that change no number of these metrics. given: {flag: value as typed or None}, flags as Metric.heeds knows them."""
    told = []
    for flag, value in given.items():
        if value is not None and not any(metric_main.row_of(name).heeds(flag) for name in names):
            some = [name for name in metric_main.list_valid_metrics() if metric_main.row_of(name).heeds(flag)][:_NAMED]
            told.append(f"{flag}={value} changes nothing of {', '.join(names)}; it is for {', '.join(some)} and others like them.")
    return told


def check_seeds(seed, num_repeats):
    if seed + num_repeats > MAX_SEED + 1:
        raise UserError(f"--seed={seed} with --repeats={num_repeats} goes beyond the largest seed {MAX_SEED}; take a smaller --seed.")


def with_weights(detectors, space, weights):
    """The detectors with the file of --madr-weights for the space it belongs to."""
    return detector_files.with_weights(detectors, space or detectors.get(detector_files.SPACE) or diversity.DEFAULT_SPACE, weights)


# ----------------------------------------------------------------------------------------------------------------
# Computing.


@showing.bars_ended()
def evaluate(rank, job):
    """The body of every process."""
    device = distributed.rank_device(job.device_name, rank)
    set_precision()
    networks = {path: open_generator(path, job.trust, device) for path in job.networks}
    if rank == 0 and job.verbose:
        _print_summary(networks[job.network], device)
    if job.drs is not None:
        D = legacy.open_network(job.network, trust=job.trust, verbose=False)["D"].eval().requires_grad_(False).to(device)
        networks[job.network] = rejected.Rejected(networks[job.network], D, *job.drs)
    for metric in job.metrics:
        results, items = {}, {}
        for path, G in networks.items():
            if rank == 0 and job.verbose:
                print(f"Calculating {metric}{' of the baseline' if path == job.baseline != job.network else ''}...", flush=True)
            items[path] = comparison.Items() if job.baseline is not None and job.repeats == 1 else {}
            results[path] = _calc(metric, path, G, job, rank, device, items[path])
        if rank == 0:
            _report(job, results, items, same_latents=len({G.z_dim for G in networks.values()}) == 1)


def set_precision():
    """Products of a GPU in float32 as it stands, for a number must not depend on the card; in every process, before anything is computed."""
    torch.backends.cudnn.benchmark = True
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.allow_tf32 = False


def open_generator(path, trust, device):
    """The averaged generator of a network pickle, ready to draw."""
    return legacy.open_network(path, trust=trust, verbose=False)["G_ema"].eval().requires_grad_(False).to(device)


def openers(paths, trust, device):
    """{file name: function that opens the generator} of snapshots, for metrics that look at a whole run."""
    return {os.path.basename(path): functools.partial(open_generator, path, trust, device) for path in paths}


def _calc(metric, path, G, job, rank, device, items):
    """The result of one metric of one network; `items` is filled with its values per item."""
    how = dict(
        modes=job.modes,
        G=G,
        num_gpus=distributed.get_world_size(),
        rank=rank,
        device=device,
        progress=metric_utils.ProgressMonitor(verbose=job.verbose),
        cache=job.cache,
        detectors=job.detectors,
        seed=job.seed,
        num_gen=job.num_gen,
        num_real=job.num_real,
        batch_size=job.batch_size,
        space=job.space,
        strict_ties=job.strict_ties,
        held_out=job.held_out,
        trained_in=job.trained_in.get(path),
        snapshots=openers(job.snapshots.get(path, []), job.trust, device),
    )
    if job.per_class:
        return per_class.of_network(metric, dict(job.dataset_kwargs), **how)
    return repeats.calc_repeated(metric, repeats=job.repeats, per_item=items, dataset_kwargs=job.dataset_kwargs, **how)


def _report(job, results, items, same_latents):
    result = results[job.network]
    if job.baseline is not None:
        theirs = results[job.baseline]
        compared = add_comparison(result, theirs, items[job.network], items[job.baseline], job.baseline, job.seed, same_latents)
        metric_main.report_metric(theirs, snapshot_pkl=job.baseline)
    result.by = metric_lines.BY_HAND
    metric_main.report_metric(result, run_dir=job.run_dir, snapshot_pkl=job.network)
    if job.drs is not None and job.verbose:
        console.result(rejected.as_text(result.facts))
    if job.baseline is not None:
        console.result(comparison.as_text(compared))
        console.result(
            f"Seed {job.seed} of latents, labels and bootstrap; {comparison.NUM_RESAMPLES} resamples; "
            f"{'the same' if same_latents else 'other'} latents for both."
        )
    if job.verbose:
        if job.repeats > 1:
            console.result(repeats.as_text(result))
        print(flush=True)


def add_comparison(result, theirs, items, their_items, baseline, seed, same_latents):
    """The difference of two results and its interval, {result name: ...} of comparison.compare; it goes into the facts of the first."""
    compared = comparison.compare(
        result.results,
        theirs.results,
        items,
        their_items,
        sampling.stream("bootstrap", seed),
        same_latents,
        *(facts.get("repeats", {}).get("values") for facts in (result.facts, theirs.facts)),
    )
    result.facts["comparison"] = dict(
        baseline=baseline,
        results=compared,
        level=comparison.LEVEL,
        num_resamples=comparison.NUM_RESAMPLES,
        bootstrap_seed=seed,
        sampling_seed=seed,
        same_latents=same_latents,
    )
    return compared


def evaluate_given_features(real_path, fake_path, metrics, others, device, **how):
    """The metrics of two files of features. others: {flag: value} of the options that say where features come from."""
    for flag, value in others.items():
        if value:
            raise UserError(f"{flag} has no effect beside --real-features and --fake-features: the features are there already; leave it out.")
    unfit = [metric for metric in metrics if not metric_main.takes_given_features(metric)]
    if unfit:
        raise UserError(
            f"--metrics={','.join(unfit)} needs images, not features; with --real-features and --fake-features there are "
            f"{', '.join(filter(metric_main.takes_given_features, metric_main.list_valid_metrics()))}."
        )
    given = given_features.load(real_path, fake_path)
    for metric in metrics:
        metric_main.report_metric(metric_main.calc_metric(metric, given=given, device=device, **how))


def _print_summary(G, device):
    z, c = torch.zeros([1, G.z_dim], device=device), torch.zeros([1, G.c_dim], device=device)
    misc.print_module_summary(G, [z, c])
