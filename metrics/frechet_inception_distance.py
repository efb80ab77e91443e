"""FID: the Frechet distance between real and generated images in Inception space (Heusel et al. 2017)."""

from metrics import kernels, metric_utils
from metrics.detectors import INCEPTION_URL


def compute_fid(opts, max_real, num_gen):
    detector_kwargs = dict(return_features=True)
    real = metric_utils.compute_feature_stats_for_dataset(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0, rel_hi=0.5, capture_mean_cov=True, max_items=max_real
    )
    fake = metric_utils.compute_feature_stats_for_generator(
        opts, INCEPTION_URL, detector_kwargs, rel_lo=0.5, rel_hi=1, capture_mean_cov=True, max_items=num_gen
    )
    opts.record(covariance="biased (1/N), float64")
    if opts.rank != 0:
        return float("nan")
    return kernels.frechet_distance(*fake.get_mean_cov(), *real.get_mean_cov())
