"""The metrics of a run's snapshots: computed after a snapshot, made up for after a kill, asked for the best one.

Must not know how training works.
"""

import copy
import os

from metrics import detectors, metric_main, metric_utils
from training import snapshots, trained_network


def detectors_of(options):
    """What the run's metrics look through: {name: path}, with the feature space that --metric-space names."""
    return detectors.with_space(options.detectors, options.get("metric_space"))


def evaluate(options, metrics, G_ema, device, snapshot_pkl):
    """Yields the results {name: value} of one metric after the other; rank 0 writes them down. Collective. options: as given to
    the training loop."""
    G_ema, is_first = copy.deepcopy(G_ema).to(device), options.rank == 0
    for metric in metrics:
        result = metric_main.calc_metric(
            metric=metric,
            G=G_ema,
            dataset_kwargs=options.training_set_kwargs,
            num_gpus=options.num_gpus,
            rank=options.rank,
            device=device,
            cache=options.get("cache") != "off",
            detectors=detectors_of(options),
            trained_in=trained_network.space_that_led(options),
            progress=metric_utils.ProgressMonitor(verbose=is_first),
        )
        if is_first:
            metric_main.report_metric(result, run_dir=options.run_dir, snapshot_pkl=snapshot_pkl)
        yield result["results"]


def missing_metrics(run_dir, metrics, snapshot_pkl):
    """Those of the metrics that have no result for this snapshot."""
    return [metric for metric in metrics if os.path.basename(snapshot_pkl) not in snapshots.metric_results(run_dir, metric)]


def best_snapshot(run_dir, metrics):
    """File name of the snapshot with the best value of the first metric; None without metrics or values."""
    return snapshots.best_snapshot(run_dir, metrics[0], metric_main.higher_is_better(metrics[0])) if metrics else None
