"""The madr_* metrics: precision, recall, density and coverage in a feature space of choice, beside a held-out one.

Features -> exact k-NN kernels (madr_spaces/neighbours.py), rows shared among processes. What the network was trained in is
told by the caller: a metric in that very space flatters it.
"""

import functools

import numpy as np
import torch

from madr_spaces import names, neighbours, sampling
from madr_spaces.feature_sets import check_same_width
from madr_spaces.neighbours import K_DENSITY_COVERAGE, K_PRECISION_RECALL
from metrics import counts, detectors, frechet_inception_distance, holders, metric_utils, own_space
from metrics.feature_stats import FeatureStats
from metrics.metric import Fewest, Group, Metric, Takes
from metrics.precision_recall import join_rows, rows_of

NUMBERS = neighbours.NUMBERS
DEFAULT_SPACE = "dino"
GIVEN = "given features"
_DETECTOR_KWARGS = dict(return_features=True)


def space_of(opts):
    """The name of the feature space: --metric-space, else DINO."""
    return opts.space or detectors.check_overrides(opts.detectors).get(detectors.SPACE) or DEFAULT_SPACE


def prepare(detector_paths=None, space=None):
    """Find what the space's network needs, long before the metric is due; a sentence if it is not to be had."""
    paths = detectors.check_overrides(detector_paths)
    detectors.find_detector(detectors.space_url(space or paths.get(detectors.SPACE) or DEFAULT_SPACE), paths)


# ----------------------------------------------------------------------------------------------------------------
# Features.


def generated_features(opts, urls, num_gen, rel_lo=0, rel_hi=1):
    """Features [num_gen, D] of the same generated images in each of the spaces: the images are drawn once."""
    if "generated" in opts.sides:
        return [metric_utils.compute_feature_stats_for_generator(opts, url, _DETECTOR_KWARGS).get_all() for url in urls]
    num_gen = opts.num_gen if opts.num_gen is not None else num_gen
    batch_gen = opts.batch_size or sampling.batch_size(opts.G.img_resolution, 64)
    metric_utils.record_sampling(opts, num_gen, batch_gen)
    collected = [FeatureStats(capture_all=True, max_items=num_gen) for _ in urls]
    progress = opts.progress.sub(tag="generator features", num_items=num_gen, rel_lo=rel_lo, rel_hi=rel_hi)
    for images in metric_utils.generate_images(opts, num_gen, batch_gen):
        for url, stats in zip(urls, collected):
            stats.append_torch(detectors.run_detector(*opts.detector(url), images, _DETECTOR_KWARGS), num_gpus=opts.num_gpus, rank=opts.rank)
        progress.update(collected[0].num_items)
    if "real" in opts.sides:  # else those of the reals are recorded
        opts.record(detector=detectors.detector_facts(opts.detector(urls[0])[1], _DETECTOR_KWARGS))
    return [stats.get_all() for stats in collected]


def spaces_and_features(opts, num_gen):
    """{space: (reals [N, D], generated [M, D])} for the metric's own space and the held-out one, in this order; features that
    were given have no second space."""
    if opts.given is not None:
        return {GIVEN: _given_features(opts, num_gen)}
    space = space_of(opts)
    # Features of a file are those of one space.
    beside = None if opts.sides else names.held_out(space, opts.trained_in)
    urls = {name: detectors.space_url(name) for name in (space, beside) if name is not None}
    for url in urls.values():
        opts.detector(url)  # what is missing is said before any image is read
    own_space.warn(opts, space)
    reals = {}
    for i, name in reversed(list(enumerate(urls))):  # the metric's own space last: its facts stay
        reals[name] = metric_utils.compute_feature_stats_for_dataset(
            opts, urls[name], _DETECTOR_KWARGS, rel_lo=0.15 * (1 - i), rel_hi=0.15 * (2 - i), capture_all=True
        ).get_all()
    fakes = generated_features(opts, list(urls.values()), num_gen, rel_lo=0.3, rel_hi=0.6)
    opts.record(space=space)
    for name, fake in zip(urls, fakes):
        check_same_width(reals[name], fake)
    return {name: (reals[name], fake) for name, fake in zip(urls, fakes)}


def _subset(rows, count, seed, block):
    """At most count rows in their order, drawn at random: files are often sorted by class, and the first rows are one class then."""
    if count is None or count >= len(rows):
        return rows
    return rows[np.sort(sampling.stream("subsets", seed, block).permutation(len(rows))[:count])]


def _given_features(opts, num_gen):
    real, fake = (
        _subset(rows, count, opts.seed, block)
        for block, (rows, count) in enumerate([(opts.given.real, opts.num_real), (opts.given.fake, opts.num_gen)])
    )
    counts.check(opts, "real", len(real))
    counts.check(opts, "generated", len(fake))
    opts.record(space=GIVEN, given=opts.given.facts, num_real=len(real), num_gen=len(fake), seed=opts.seed)
    if len(fake) != num_gen:
        opts.record(counts_overridden=True)
    return real, fake


# ----------------------------------------------------------------------------------------------------------------
# Numbers.


class _SharedNeighbours:
    """The kernels with their rows shared among the ranks; every rank holds the whole results."""

    def __init__(self, opts, strict, rel_lo, rel_hi, num_stages):
        self.opts, self.strict = opts, strict
        self.rel_lo, self.step = rel_lo, (rel_hi - rel_lo) / num_stages
        self.how = dict(device=opts.device, tile_bytes=neighbours.TILE_BYTES if opts.device.type == "cpu" else neighbours.ACCELERATOR_TILE_BYTES)

    def _stage(self, tag, num_rows):
        rows = rows_of(self.opts.rank, self.opts.num_gpus, num_rows)
        progress = self.opts.progress.sub(tag=tag, num_items=rows[1] - rows[0], rel_lo=self.rel_lo, rel_hi=self.rel_lo + self.step)
        self.rel_lo += self.step
        return dict(self.how, rows=rows, progress=progress.update)

    def radii(self, features, ks, tag):
        radii = neighbours.kth_neighbour_distances(features, ks, **self._stage(tag, len(features)))
        return join_rows(radii, self.opts.num_gpus, len(features))

    def hits(self, points, centres, radii, own_radii, tag):
        """(balls per point, points per ball, balls of points per centre)"""
        stage = self._stage(tag, len(points))
        per_point, *per_centre = neighbours.all_ball_hits(points, centres, radii, own_radii, strict=self.strict, **stage)
        if self.opts.num_gpus > 1:
            for counted in per_centre:
                if counted is not None:
                    torch.distributed.all_reduce(counted)
        return join_rows(per_point, self.opts.num_gpus, len(points)), *per_centre


def per_item_numbers(opts, real, fake, numbers, rel_lo=0, rel_hi=1):
    """{number: (which items, float64 value of each)}; each number is the mean over its items, real or generated ones."""
    real, fake = neighbours.check_sets(real, fake, max(K_PRECISION_RECALL, K_DENSITY_COVERAGE))
    shared = _SharedNeighbours(opts, opts.strict_ties, rel_lo, rel_hi, num_stages=3)
    return neighbours.prdc_items(real, fake, numbers, shared.radii, shared.hits)


def compute(opts, num_gen, numbers, result_names):
    """{result name: value} of the wanted NUMBERS; the same in a held-out space goes into the facts."""
    (space, (real, fake)), *others = spaces_and_features(opts, num_gen).items()
    items = per_item_numbers(opts, real, fake, numbers, rel_lo=0.6, rel_hi=0.8)
    beside = [(name, per_item_numbers(opts, *pair, numbers, rel_lo=0.8, rel_hi=1)) for name, pair in others]
    opts.record(
        k={name: K_PRECISION_RECALL if name in ("precision", "recall") else K_DENSITY_COVERAGE for name in numbers},
        tie_rule="<" if opts.strict_ties else "<=",
        distance="Euclidean, float64, exact",
    )
    for held_out, theirs in beside:
        numbers_beside = {name: float(values.mean()) for name, (_, values) in theirs.items()}
        opts.record(held_out=dict(space=held_out, **numbers_beside))
        opts.say(f"Beside {space}, in the held-out space {held_out}: {', '.join(f'{name} {value:.4f}' for name, value in numbers_beside.items())}")
    if "coverage" in numbers:
        opts.record(expected_coverage=neighbours.expected_coverage(len(real), len(fake), K_DENSITY_COVERAGE))
    results = {}
    for name, (which, values) in items.items():
        results[result_names[name]] = float(values.mean())
        opts.keep_items(result_names[name], which, values)
    if "recall" in numbers and opts.wants_holders and opts.rank == 0:
        how = dict(strict=opts.strict_ties, device=opts.device)
        opts.keep_holders(result_names["recall"], holders.of_reals(real, fake, K_PRECISION_RECALL, **how), len(fake))
    return results


def compute_frechet(opts, space, num_gen):
    """The Frechet distance of all reals and the generated images in a named space."""
    url = detectors.space_url(space)
    own_space.warn(opts, space)
    real = metric_utils.compute_feature_stats_for_dataset(opts, url, _DETECTOR_KWARGS, rel_lo=0, rel_hi=0.5, capture_mean_cov=True)
    fake = metric_utils.compute_feature_stats_for_generator(
        opts, url, _DETECTOR_KWARGS, rel_lo=0.5, rel_hi=1, capture_mean_cov=True, max_items=num_gen
    )
    opts.record(space=space)
    return frechet_inception_distance.distance_of(opts, real, fake)


# ----------------------------------------------------------------------------------------------------------------
# The rows.

SIZES = {"": 50_000, "_10k": 10_000}  # ending of the name: generated images
_MEANINGS = dict(
    precision="Share of generated images inside the 3-NN balls of the reals",
    recall="Share of the reals inside the 3-NN balls of the generated images",
    density="How many 5-NN balls of reals hold a generated image, by 5",
    coverage="Share of the 5-NN balls of reals that hold a generated image",
)


def _one_number(number):
    return lambda opts, name, num_gen: compute(opts, num_gen, (number,), {number: name})


def _all_four(opts, name, num_gen):
    return compute(opts, num_gen, NUMBERS, {number: f"{name}_{number}" for number in NUMBERS})


def _frechet_in_dino(opts, name, num_gen):
    return {name: compute_frechet(opts, "dino", num_gen)}


_NEIGHBOURS = Fewest(6, "a neighbourhood of 5 needs more than 5 {side} images")


def in_both_sizes(name, function, meaning, higher_is_better=True, fewest=_NEIGHBOURS, **more):
    """The rows of a metric of the features of both sides, for 50,000 and for 10,000 generated images."""
    row = functools.partial(
        Metric,
        group=Group.DIVERSITY,
        detector="space",
        from_features=True,
        takes=Takes.FEATURES,
        fewest=fewest,
        prepare=prepare,
        higher_is_better=higher_is_better,
        **more,
    )
    return [
        row(name + ending, function, meaning if not ending else f"The same with {num_gen:,} generated images", counts=dict(num_gen=num_gen))
        for ending, num_gen in SIZES.items()
    ]


METRICS = [
    *(row for number in NUMBERS for row in in_both_sizes(f"madr_{number}", _one_number(number), _MEANINGS[number], heeds_ties=True)),
    *in_both_sizes("madr_prdc", _all_four, "Precision, recall, density and coverage in one pass", heeds_ties=True),
    Metric(
        "fd_dino50k_full",
        _frechet_in_dino,
        "Frechet distance in the space of DINO ViT-S/8",
        Group.RECOMMENDED,
        counts=dict(num_gen=50_000),
        detector="dino",
        higher_is_better=False,
        takes=Takes.STATISTICS,
        fewest=Fewest(2, "a covariance needs at least two {side} images"),
        prepare=functools.partial(prepare, space="dino"),
    ),
]
