"""The registry of metrics by name, and what surrounds each: time, agreement among processes, the result line.

`@register_metric def name(opts) -> {result name: number}` adds one, from any module that is imported; this project's own are the
rows at the end of the files of metrics. Must not know how a metric is computed.
"""

import json
import os
import time

import torch

import dnnlib
from dnnlib import console
from dnnlib.errors import UserError
from madr_spaces.names import meant
from metrics import (
    METRICS_VERSION,
    cycling,
    diversity,
    frechet_inception_distance,
    further_diversity,
    held_out,
    inception_score,
    kernel_inception_distance,
    metric as rows,
    mode_coverage,
    perceptual_path_length,
    precision_recall,
)
from metrics.metric_utils import MetricOptions, state_every_fact

_FILES = (
    frechet_inception_distance,
    kernel_inception_distance,
    precision_recall,
    perceptual_path_length,
    inception_score,
    mode_coverage,
    diversity,
    further_diversity,
    held_out,
    cycling,
)
_metrics = {row.name: row for group in rows.Group for file in _FILES for row in file.METRICS if row.group is group}


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


def row_of(metric):
    """The row of a registered metric, or None. Of a foreign function it is made anew: that may have got attributes since."""
    function = _metrics.get(metric)
    return function if function is None or isinstance(function, rows.Metric) else rows.of_function(function)


def takes_given_features(metric):
    """Whether a metric needs no more than the features of both sides."""
    row = row_of(metric)
    return row is not None and row.from_features


def list_valid_metrics():
    return list(_metrics)


def check_names(names, or_none=False):
    """Refuse names that nobody has registered, with the list of those that there are. or_none: whether --metrics=none is allowed."""
    unknown = [name for name in names if not is_valid_metric(name)]
    if unknown:
        raise UserError(
            f"--metrics={','.join(unknown)}: no such metric; choose from {', '.join(list_valid_metrics())}{', or none' if or_none else ''}{meant(unknown[0], list_valid_metrics())}."
        )


def higher_is_better(metric):
    """Whether a larger first result of this metric is the better one; of a metric that only a result line knows, by its name's family."""
    row = row_of(metric.removesuffix(rows.NAME_PER_CLASS))
    return not rows.less_is_better(metric) if row is None else row.higher_is_better


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
    console.result(text)
    if run_dir is not None and os.path.isdir(run_dir):
        # One write of one line: a reader never sees half of it, and earlier lines are never touched.
        with open(os.path.join(run_dir, f"metric-{result_dict['metric']}.jsonl"), "a", encoding="utf-8") as file:
            file.write(text + "\n")


# ----------------------------------------------------------------------------------------------------------------
# The names that forks call as functions of MetricOptions.

fid50k_full, kid50k_full, pr50k3_full, ppl2_wend, is50k, fid50k, kid50k, pr50k3, ppl_zfull, ppl_wfull, ppl_zend, ppl_wend = (
    _metrics[name]
    for name in (
        "fid50k_full",
        "kid50k_full",
        "pr50k3_full",
        "ppl2_wend",
        "is50k",
        "fid50k",
        "kid50k",
        "pr50k3",
        "ppl_zfull",
        "ppl_wfull",
        "ppl_zend",
        "ppl_wend",
    )
)
