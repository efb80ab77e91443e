"""KID: the unbiased polynomial-kernel distance in Inception space (Binkowski et al. 2018)."""

import functools

from madr_spaces import sampling
from metrics import kernels, metric_utils, own_space
from metrics.detectors import INCEPTION_URL
from metrics.metric import Fewest, Group, Metric, Reals, Takes


def compute_kid(opts, max_real, num_gen, num_subsets, max_subset_size):
    own_space.warn_of_inception(opts)
    detector_kwargs = dict(return_features=True)
    real = metric_utils.compute_feature_stats_for_dataset(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0, rel_hi=0.5, capture_all=True, max_items=max_real
    )
    fake = metric_utils.compute_feature_stats_for_generator(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0.5, rel_hi=1, capture_all=True, max_items=num_gen
    )
    opts.record(kernel="(x.y/d + 1)^3, unbiased", num_subsets=num_subsets, max_subset_size=max_subset_size)
    if opts.rank != 0:
        return float("nan")
    shown = opts.stage("kernel distance", num_subsets)
    return kernels.kernel_distance(real.get_all(), fake.get_all(), num_subsets, max_subset_size, sampling.stream("subsets", opts.seed), shown)


def _kid(opts, name, **counts):
    return {name: compute_kid(opts, num_subsets=100, max_subset_size=1000, **counts)}


_KID = functools.partial(
    Metric,
    function=_kid,
    meaning="Kernel distance in Inception's space",
    detector="inception",
    higher_is_better=False,
    takes=Takes.FEATURES,
    fewest=Fewest(2, "a mean over pairs needs at least two {side} images"),
)
METRICS = [
    _KID("kid50k_full", group=Group.RECOMMENDED, counts=dict(max_real=1_000_000, num_gen=50_000)),
    _KID("kid50k", group=Group.OLDER, counts=dict(max_real=50_000, num_gen=50_000), reals=Reals.MIRRORED_AS_TRAINED),
    _KID("kid10k_full", group=Group.QUICK, counts=dict(max_real=1_000_000, num_gen=10_000)),
]
