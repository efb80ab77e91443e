"""Inception score (Salimans et al. 2016): how sure and how varied the classifier is about generated images."""

from metrics import kernels, metric_utils, own_space, subsets
from metrics.detectors import INCEPTION_URL
from metrics.metric import Fewest, Group, Metric, Takes


def compute_is(opts, num_gen, num_splits):
    own_space.warn_of_inception(opts)
    # The published score was computed without the classifier's last bias.
    detector_kwargs = dict(no_output_bias=True)
    fake = metric_utils.compute_feature_stats_for_generator(opts, INCEPTION_URL, detector_kwargs, capture_all=True, max_items=num_gen)
    opts.record(num_splits=num_splits)
    if opts.rank != 0:
        return float("nan"), float("nan")
    # A part of a set that lies in the order of its classes would hold few of them.
    return kernels.inception_score(subsets.shuffled(opts, fake.get_all()), num_splits)


def _is(opts, name, **counts):
    mean, std = compute_is(opts, num_splits=10, **counts)
    return {f"{name}_mean": mean, f"{name}_std": std}


METRICS = [
    Metric(
        "is50k",
        _is,
        "Inception score, mean and deviation over 10 splits",
        Group.RECOMMENDED,
        counts=dict(num_gen=50_000),
        detector="inception",
        compares_with_reals=False,
        takes=Takes.IMAGES,
        fewest=Fewest(10, "a score over 10 parts needs at least 10 {side} images"),
    )
]
