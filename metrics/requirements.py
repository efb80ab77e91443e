"""What metrics need before they can be computed, asked for before a run begins rather than hours into it."""

from dnnlib.errors import UserError
from metrics import counts, detectors, metric_main

_URLS = {"inception": detectors.INCEPTION_URL, "vgg16": detectors.VGG16_URL}


def check(metrics, detector_paths):
    """Find (or download) the networks that these metrics look through. Raises UserError with the remedy for the first that is not to be had.

    detector_paths: {name: path} as --detector gives them. The row of a metric says through which network it looks, or brings a
    function of these paths that finds it.
    """
    for metric in metrics:
        metric_main.check_names([metric])
        row = metric_main.row_of(metric)
        if row.needs_held_out:
            raise UserError(
                f"--metrics={metric} compares with real images that nobody trained on, which a training does not know; leave it out here, and ask "
                "for it later: calc_metrics.py --held-out=PATH."
            )
        if row.prepare is not None:
            row.prepare(detector_paths)
        elif row.detector in _URLS:
            detectors.find_detector(_URLS[row.detector], detector_paths, verbose=True)


def check_data(metrics, training_set):
    """Refuse a data set with too few images for one of the metrics. They look at all that is stored, whatever subset is trained on."""
    for metric in metrics:
        row = metric_main.row_of(metric)
        if row.compares_with_reals:
            counts.check_row(row, "real", getattr(training_set, "_raw_shape", [len(training_set)])[0])
