"""The registry of metrics by name, and what surrounds each: time, agreement among processes, the result line.

`@register_metric def name(opts) -> {result name: number}` adds one, from any module that is imported. Must not know how a
metric is computed.
"""

import functools
import json
import os
import time

import torch

import dnnlib
from dnnlib.errors import UserError
from metrics import (
    METRICS_VERSION,
    cycling,
    diversity,
    frechet_inception_distance,
    further_diversity,
    inception_score,
    kernel_inception_distance,
    mode_coverage,
    perceptual_path_length,
    precision_recall,
)
from metrics.metric_utils import MetricOptions, state_every_fact

_metrics = {}


def register_metric(fn):
    """Make a function of MetricOptions available under its own name."""
    assert callable(fn)
    _metrics[fn.__name__] = fn
    return fn


def is_valid_metric(metric):
    return metric in _metrics


def function_of(metric):
    """The registered function, or None."""
    return _metrics.get(metric)


def takes_given_features(metric):
    """Whether a metric needs no more than the features of both sides."""
    return getattr(_metrics.get(metric), "prepare", None) is diversity.prepare


def list_valid_metrics():
    return list(_metrics)


def higher_is_better(metric):
    """Whether a larger first result of this metric is the better one: an attribute of its function, else by its family."""
    stated = getattr(_metrics.get(metric), "higher_is_better", None)
    return stated if stated is not None else not metric.startswith(("fid", "fd_", "kid", "ppl"))


def calc_metric(metric, **kwargs):
    """Compute a metric; kwargs are those of MetricOptions. Collective: every rank calls it and gets the same result.

    `facts` of the result says what the number depends on.
    """
    if not is_valid_metric(metric):
        raise UserError(f"There is no metric {metric!r}; the names are {', '.join(list_valid_metrics())}.")
    opts = MetricOptions(**kwargs)
    start = time.monotonic()
    results = _agree(_metrics[metric](opts), opts)
    total_time = time.monotonic() - start
    state_every_fact(opts)
    facts = dict(opts.facts, metrics_version=METRICS_VERSION, torch=torch.__version__)
    if opts.num_gen is not None or opts.num_real is not None:
        facts["counts_overridden"] = True
    return dnnlib.EasyDict(
        results=dnnlib.EasyDict(results),
        metric=metric,
        total_time=total_time,
        total_time_str=dnnlib.util.format_time(total_time),
        num_gpus=opts.num_gpus,
        facts=facts,
    )


def _agree(results, opts):
    """Rank 0's numbers, as plain floats, on every rank: the others may have returned NaN."""
    names = list(results)
    values = torch.tensor([float(results[name]) for name in names], dtype=torch.float64)
    if opts.num_gpus > 1:
        # As bytes: not every device has float64.
        raw = torch.frombuffer(bytearray(values.numpy().tobytes()), dtype=torch.uint8).to(opts.device)
        torch.distributed.broadcast(raw, src=0)
        values = torch.frombuffer(bytearray(raw.cpu().numpy().tobytes()), dtype=torch.float64)
    return dict(zip(names, values.tolist()))


def report_metric(result_dict, run_dir=None, snapshot_pkl=None):
    """Print the result line and append it to the run folder's metric-<name>.jsonl, if there is a run folder."""
    if run_dir is not None and snapshot_pkl is not None:
        snapshot_pkl = os.path.relpath(snapshot_pkl, run_dir)
    order = ["results", "metric", "total_time", "total_time_str", "num_gpus"]
    line = {key: result_dict[key] for key in order if key in result_dict}
    line.update(snapshot_pkl=snapshot_pkl, timestamp=time.time())
    line.update({key: value for key, value in result_dict.items() if key not in line})
    text = json.dumps(line)
    print(text, flush=True)
    if run_dir is not None and os.path.isdir(run_dir):
        # One write of one line: a reader never sees half of it, and earlier lines are never touched.
        with open(os.path.join(run_dir, f"metric-{result_dict['metric']}.jsonl"), "a", encoding="utf-8") as file:
            file.write(text + "\n")


# ----------------------------------------------------------------------------------------------------------------
# The recommended metrics: all real images, without the mirrored copies that training may have added.


def _all_reals(opts):
    opts.dataset_kwargs.update(max_size=None, xflip=False)


@register_metric
def fid50k_full(opts):
    _all_reals(opts)
    return dict(fid50k_full=frechet_inception_distance.compute_fid(opts, max_real=None, num_gen=50_000))


@register_metric
def kid50k_full(opts):
    _all_reals(opts)
    kid = kernel_inception_distance.compute_kid(opts, max_real=1_000_000, num_gen=50_000, num_subsets=100, max_subset_size=1000)
    return dict(kid50k_full=kid)


@register_metric
def pr50k3_full(opts):
    _all_reals(opts)
    precision, recall = precision_recall.compute_pr(
        opts, max_real=200_000, num_gen=50_000, nhood_size=3, row_batch_size=10_000, col_batch_size=10_000
    )
    return dict(pr50k3_full_precision=precision, pr50k3_full_recall=recall)


@register_metric
def ppl2_wend(opts):
    _all_reals(opts)
    ppl = perceptual_path_length.compute_ppl(opts, num_samples=50_000, epsilon=1e-4, space="w", sampling="end", crop=False, batch_size=2)
    return dict(ppl2_wend=ppl)


@register_metric
def is50k(opts):
    _all_reals(opts)
    mean, std = inception_score.compute_is(opts, num_gen=50_000, num_splits=10)
    return dict(is50k_mean=mean, is50k_std=std)


# ----------------------------------------------------------------------------------------------------------------
# The older ones: up to 50,000 real images, mirrored or not as the data set of the training was.


@register_metric
def fid50k(opts):
    opts.dataset_kwargs.update(max_size=None)
    return dict(fid50k=frechet_inception_distance.compute_fid(opts, max_real=50_000, num_gen=50_000))


@register_metric
def kid50k(opts):
    opts.dataset_kwargs.update(max_size=None)
    kid = kernel_inception_distance.compute_kid(opts, max_real=50_000, num_gen=50_000, num_subsets=100, max_subset_size=1000)
    return dict(kid50k=kid)


@register_metric
def pr50k3(opts):
    opts.dataset_kwargs.update(max_size=None)
    precision, recall = precision_recall.compute_pr(opts, max_real=50_000, num_gen=50_000, nhood_size=3, row_batch_size=10_000, col_batch_size=10_000)
    return dict(pr50k3_precision=precision, pr50k3_recall=recall)


def _old_ppl(opts, space, sampling):
    return perceptual_path_length.compute_ppl(opts, num_samples=50_000, epsilon=1e-4, space=space, sampling=sampling, crop=True, batch_size=2)


@register_metric
def ppl_zfull(opts):
    return dict(ppl_zfull=_old_ppl(opts, "z", "full"))


@register_metric
def ppl_wfull(opts):
    return dict(ppl_wfull=_old_ppl(opts, "w", "full"))


@register_metric
def ppl_zend(opts):
    return dict(ppl_zend=_old_ppl(opts, "z", "end"))


@register_metric
def ppl_wend(opts):
    return dict(ppl_wend=_old_ppl(opts, "w", "end"))


# ----------------------------------------------------------------------------------------------------------------
# Short forms for quick looks: 10,000 generated images. Not comparable with the 50k numbers.


@register_metric
def fid10k_full(opts):
    _all_reals(opts)
    return dict(fid10k_full=frechet_inception_distance.compute_fid(opts, max_real=None, num_gen=10_000))


@register_metric
def kid10k_full(opts):
    _all_reals(opts)
    kid = kernel_inception_distance.compute_kid(opts, max_real=1_000_000, num_gen=10_000, num_subsets=100, max_subset_size=1000)
    return dict(kid10k_full=kid)


@register_metric
def pr10k3_full(opts):
    _all_reals(opts)
    precision, recall = precision_recall.compute_pr(
        opts, max_real=200_000, num_gen=10_000, nhood_size=3, row_batch_size=10_000, col_batch_size=10_000
    )
    return dict(pr10k3_full_precision=precision, pr10k3_full_recall=recall)


# ----------------------------------------------------------------------------------------------------------------
# Modes of stacked digits.


@register_metric
def madr_modes(opts):
    _all_reals(opts)
    return mode_coverage.compute_modes(opts, num_gen=26_000, prefix="madr_modes")


@register_metric
def madr_modes5k(opts):
    _all_reals(opts)
    return mode_coverage.compute_modes(opts, num_gen=5_000, prefix="madr_modes5k")


# ----------------------------------------------------------------------------------------------------------------
# Precision, recall, density and coverage in the space of --metric-space; all reals, 50,000 or 10,000 generated.


def _diversity_metric(number, short, num_gen):
    name = f"madr_{number}{short}"

    def metric(opts):
        _all_reals(opts)
        return diversity.compute(opts, num_gen, (number,), {number: name})

    metric.__name__ = name
    metric.prepare = diversity.prepare
    return register_metric(metric)


for _short, _num_gen in (("", 50_000), ("_10k", 10_000)):
    for _number in diversity.NUMBERS:
        _diversity_metric(_number, _short, _num_gen)


def _all_four(opts, num_gen, short):
    _all_reals(opts)
    return diversity.compute(opts, num_gen, diversity.NUMBERS, {number: f"madr_prdc{short}_{number}" for number in diversity.NUMBERS})


@register_metric
def madr_prdc(opts):
    return _all_four(opts, 50_000, "")


@register_metric
def madr_prdc_10k(opts):
    return _all_four(opts, 10_000, "_10k")


def _further_metric(name, compute, short, num_gen, higher_is_better):
    def metric(opts):
        _all_reals(opts)
        return compute(opts, num_gen, f"{name}{short}")

    metric.__name__ = f"{name}{short}"
    metric.prepare, metric.higher_is_better = diversity.prepare, higher_is_better
    return register_metric(metric)


for _short, _num_gen in (("", 50_000), ("_10k", 10_000)):
    _further_metric("madr_smooth_recall", further_diversity.compute_smooth_recall, _short, _num_gen, higher_is_better=True)
    _further_metric("madr_vendi", further_diversity.compute_vendi, _short, _num_gen, higher_is_better=True)
    _further_metric("madr_authenticity", further_diversity.compute_authenticity, _short, _num_gen, higher_is_better=True)
    _further_metric("madr_ndb", further_diversity.compute_ndb, _short, _num_gen, higher_is_better=False)


@register_metric
def madr_cycling(opts):
    _all_reals(opts)
    return cycling.compute(opts, num_gen=5_000, name="madr_cycling")


for _metric in (madr_modes, madr_modes5k, madr_cycling):
    _metric.counts_modes = True
madr_cycling.prepare, madr_cycling.higher_is_better = cycling.prepare, False


@register_metric
def fd_dino50k_full(opts):
    _all_reals(opts)
    return dict(fd_dino50k_full=diversity.compute_frechet(opts, "dino", num_gen=50_000))


madr_prdc.prepare = madr_prdc_10k.prepare = diversity.prepare
fd_dino50k_full.prepare = functools.partial(diversity.prepare, space="dino")
