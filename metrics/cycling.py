"""The cycling metric: whether a run reaches all modes at once or one after the other, over its snapshots.

A generator can cover everything in the course of a run and yet little at any time; a single snapshot cannot show that.
Legend: T snapshots, K modes.
"""

import copy

import numpy as np

from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import detectors, digit_data, diversity, diversity_kernels, metric_utils, mode_coverage, own_space
from metrics.further_diversity import number_of_bins
from metrics.metric import Group, Metric


def cycling_statistics(hits_TK):
    """C(t) = share of modes hit at t. mean C(t), union = share hit at any t, cycling = 1 - mean / union, and how many modes
    were hit, then missed, then hit again.

    0: whatever was ever found is always there. Near 1: the modes take turns. With no mode hit at all there is nothing to tell: NaN.
    """
    hits_TK = np.asarray(hits_TK, bool)
    if hits_TK.ndim != 2 or len(hits_TK) < 2 or hits_TK.shape[1] < 1:
        raise UserError(
            f"Cycling needs at least two snapshots and one mode (got {list(hits_TK.shape)}); keep more snapshots of the run (train.py --snap, --keep)."
        )
    mean, union = float(hits_TK.mean()), float(hits_TK.any(axis=0).mean())
    seen_before = np.logical_or.accumulate(hits_TK, axis=0)
    lost_TK = seen_before & ~hits_TK
    found_again_K = (np.logical_or.accumulate(lost_TK, axis=0)[:-1] & hits_TK[1:]).any(axis=0)
    return dict(cycling=1 - mean / union if union else float("nan"), mean=mean, union=union, lost_and_found=int(found_again_K.sum()))


def perfect_cycling(probabilities_K, num_modes, num_gen, num_snapshots, rng, num_repeats=20):
    """What snapshots of a perfect generator would score: mean cycling_statistics of num_gen draws per snapshot.

    probabilities_K: the data's distribution over at least the counted modes, which come first. Rare modes are missed now and
    then by chance alone, and so count as lost and found: a run is to be read against this.
    """
    probabilities_K = np.asarray(probabilities_K, np.float64)
    draws = lambda: rng.multinomial(num_gen, probabilities_K / probabilities_K.sum(), size=num_snapshots)[:, :num_modes]
    scores = [cycling_statistics(draws() > 0) for _ in range(num_repeats)]
    return {name: float(np.mean([score[name] for score in scores])) for name in scores[0]}


# ----------------------------------------------------------------------------------------------------------------
# Modes that a snapshot hits.


def compute(opts, name, num_gen):
    """Results under `name` over opts.snapshots, {snapshot name: function that opens its G}, in the order of training."""
    if not opts.snapshots:
        raise UserError(f"{name} follows a run over its snapshots, and here is one network alone; use calc_metrics.py --run=RUN --metrics={name}.")
    if len(opts.snapshots) < 2:
        raise UserError(
            f"{name} needs at least two snapshots of a trained network (found {', '.join(opts.snapshots)}); keep more (train.py --snap, --keep)."
        )
    num_gen = opts.num_gen if opts.num_gen is not None else num_gen
    dataset = metric_utils.construct_dataset(opts)
    is_stacked = "digits" in (getattr(dataset, "provenance", None) or {})
    if opts.modes is not None and not is_stacked:
        raise UserError(f"--modes={opts.modes} has no effect on {name} with {dataset.name}, which is no set of stacked digits; leave the option out.")
    hits_of, probabilities_K, num_modes = _digit_modes(opts, num_gen) if is_stacked else _cells_of_reals(opts, num_gen)
    hits_TK = []
    for number, (snapshot, open_network) in enumerate(opts.snapshots.items(), start=1):
        opts.say(f"Snapshot {number} of {len(opts.snapshots)}: {snapshot}")
        hits_TK.append(hits_of(open_network()))
    statistics = cycling_statistics(np.stack(hits_TK))
    if not statistics["union"]:
        opts.warn(f"{name}: no snapshot hits any of the {num_modes} modes, so that none can be lost or found again: the number is NaN.")
    opts.record(
        snapshots={snapshot: float(hits.mean()) for snapshot, hits in zip(opts.snapshots, hits_TK)},
        modes="stacked digits" if is_stacked else "k-means cells of the real features",
        num_modes=num_modes,
        hit_rule="by at least 1 image",
        floor=perfect_cycling(probabilities_K, num_modes, num_gen, len(hits_TK), sampling.stream("floor", opts.seed)),
    )
    return {name if key == "cycling" else f"{name}_{key}": value for key, value in statistics.items()}


def _digit_modes(opts, num_gen):
    """(G -> which modes it hits, the data's distribution with the counted modes first, their number)"""
    dataset = metric_utils.construct_dataset(opts, use_labels=True)
    digit_data.check_stacked(dataset)
    data_K, reference_K, _ = mode_coverage.distributions(dataset, opts.modes)
    classifier = mode_coverage.obtain_on_all_ranks(opts, dataset)
    mode_coverage.record_classifier(opts, classifier)
    opts.record(mode_rule=mode_coverage.mode_rule(opts.modes))
    counted = reference_K > 0

    def hits(G):
        counts_K, _ = mode_coverage.count_generated_modes(_with_network(opts, G), classifier, num_gen)
        return counts_K[counted] > 0

    return hits, np.concatenate([data_K[counted], data_K[~counted]]), int(counted.sum())


def _cells_of_reals(opts, num_gen):
    """The same for cells: one is hit by a generated image that lies nearest to its centre and no farther than its farthest real."""
    space = diversity.space_of(opts)
    url = detectors.space_url(space)
    own_space.warn(opts, space)
    real = metric_utils.compute_feature_stats_for_dataset(opts, url, dict(return_features=True), rel_hi=0.2, capture_all=True).get_all()
    centres = diversity_kernels.k_means(real, number_of_bins(len(real)), sampling.stream("subsets", opts.seed))
    index, distances = diversity_kernels.nearest_centres(real, centres)
    reach_K = np.full(len(centres), -np.inf)  # an empty cell cannot be hit
    np.maximum.at(reach_K, index, distances)
    counted = reach_K >= 0
    opts.record(space=space)

    def hits(G):
        (fake,) = diversity.generated_features(_with_network(opts, G), [url], num_gen, rel_lo=0.2)
        cell, distance = diversity_kernels.nearest_centres(fake, centres)
        return np.bincount(cell[distance <= reach_K[cell]], minlength=len(centres))[counted] > 0

    return hits, np.bincount(index, minlength=len(centres))[counted], int(counted.sum())


def _with_network(opts, G):
    """The options for another network; loaded detectors and collected facts are shared."""
    other = copy.copy(opts)
    other.G = G
    return other


def prepare(detector_paths=None):
    """Training asks before it starts; the answer is a sentence."""
    raise UserError(
        "madr_cycling compares the snapshots of a run and cannot be computed within it; leave it out of --metrics and use "
        "calc_metrics.py --run=RUN --metrics=madr_cycling afterwards."
    )


METRICS = [
    Metric(
        "madr_cycling",
        compute,
        "Whether the snapshots of a run cover all modes at once or take turns, 5,000 images each (--run)",
        Group.DIVERSITY,
        counts=dict(num_gen=5_000),
        detector="space",
        higher_is_better=False,
        counts_modes=True,
        per_class=False,
        prepare=prepare,
    )
]
