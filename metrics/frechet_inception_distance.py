"""FID: the Frechet distance between real and generated images in Inception space (Heusel et al. 2017)."""

import functools

from metrics import counts, kernels, metric_utils, own_space
from metrics.detectors import INCEPTION_URL
from metrics.metric import Fewest, Group, Metric, Reals, Takes

_MANY_FEATURES = 1000  # from here on their square roots take seconds


def distance_of(opts, real, fake):
    """The Frechet distance of two FeatureStats; NaN on other ranks than 0."""
    counts.warn_of_singular_covariance(opts, real.num_features, real=real.num_items, generated=fake.num_items)
    opts.record(covariance="biased (1/N), float64")
    if opts.rank != 0:
        return float("nan")
    if real.num_features >= _MANY_FEATURES:
        opts.say(f"Distance of two covariances of {real.num_features} features...")
    return kernels.frechet_distance(*fake.get_mean_cov(), *real.get_mean_cov())


def compute_fid(opts, max_real, num_gen):
    own_space.warn_of_inception(opts)
    detector_kwargs = dict(return_features=True)
    real = metric_utils.compute_feature_stats_for_dataset(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0, rel_hi=0.5, capture_mean_cov=True, max_items=max_real
    )
    fake = metric_utils.compute_feature_stats_for_generator(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0.5, rel_hi=1, capture_mean_cov=True, max_items=num_gen
    )
    return distance_of(opts, real, fake)


def _fid(opts, name, **counts):
    return {name: compute_fid(opts, **counts)}


_FID = functools.partial(
    Metric,
    function=_fid,
    meaning="Frechet distance in Inception's space",
    detector="inception",
    higher_is_better=False,
    takes=Takes.STATISTICS,
    fewest=Fewest(2, "a covariance needs at least two {side} images"),
)
METRICS = [
    _FID("fid50k_full", group=Group.RECOMMENDED, counts=dict(max_real=None, num_gen=50_000)),
    _FID("fid50k", group=Group.OLDER, counts=dict(max_real=50_000, num_gen=50_000), reals=Reals.MIRRORED_AS_TRAINED),
    _FID("fid10k_full", group=Group.QUICK, counts=dict(max_real=None, num_gen=10_000)),
]
