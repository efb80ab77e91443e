"""Smooth recall, Vendi ratio, authenticity and differing bins of a network: features of metrics/diversity.py -> metrics/diversity_kernels.py.

Computed on rank 0; the held-out space stands beside the metric's own, in the facts.
"""

from madr_spaces import sampling
from metrics import diversity, diversity_kernels, subsets
from metrics.metric import Fewest, Reals

NUM_BINS = 100
_REALS_PER_BIN = 10


def number_of_bins(num_real):
    """100, or fewer where these would hold less than ten reals each."""
    return max(2, min(NUM_BINS, num_real // _REALS_PER_BIN))


def _beside_held_out(opts, num_gen, measure):
    """measure(reals, fakes, is the metric's own space) -> {number: value} in the metric's own space; the held-out ones are recorded."""
    (_, own), *others = diversity.spaces_and_features(opts, num_gen).items()
    if opts.rank != 0:
        return None
    result = measure(*own, True)
    for held_out, other in others:
        opts.record(held_out=dict(space=held_out, **measure(*other, False)))
    return result


def compute_smooth_recall(opts, name, num_gen):
    def measure(real, fake, is_own):
        per_real = diversity_kernels.smooth_recall_per_real(real, fake, device=opts.device, progress=opts.stage("smooth recall", len(real)))
        if is_own:
            opts.keep_items(name, "real", per_real)
        return dict(smooth_recall=float(per_real.mean()))

    numbers = _beside_held_out(opts, num_gen, measure)
    opts.record(k=diversity_kernels.SMOOTH_K, reach=diversity_kernels.SMOOTH_REACH)
    return {name: numbers["smooth_recall"] if numbers else float("nan")}


def compute_vendi(opts, name, num_gen):
    """The ratio of the generated images' score to that of as many reals: 1 for perfect data, below it for less diversity.

    One image repeated scores 1, so the ratio ends at 1 / (score of the reals): the fact `variety`, (V(y) - 1) / (V(x) - 1), is 0 there.
    """

    def measure(real, fake, is_own):
        count = min(len(real), len(fake))  # the score grows with the number of items
        chosen = sampling.stream("subsets", opts.seed).permutation(len(real))[:count]
        score_real, score_fake = (diversity_kernels.vendi_score(rows) for rows in (real[chosen], subsets.some(opts, fake, count)))
        if is_own:
            opts.record(
                vendi_real=score_real,
                vendi_generated=score_fake,
                num_compared=count,
                kernel="cosine",
                variety=(score_fake - 1) / (score_real - 1) if score_real > 1 else None,
            )
        return dict(ratio=score_fake / score_real)

    numbers = _beside_held_out(opts, num_gen, measure)
    return {name: numbers["ratio"] if numbers else float("nan")}


def compute_authenticity(opts, name, num_gen):
    """Per cent of generated images that are no near copies of a training image, mirrored ones included where the training had them."""

    def measure(real, fake, is_own):
        authentic = diversity_kernels.authentic_fakes(real, fake, device=opts.device, progress=opts.stage("nearest reals", len(fake)))
        if is_own:
            opts.keep_items(name, "generated", 100.0 * authentic)
        return dict(authenticity=100.0 * float(authentic.mean()))

    numbers = _beside_held_out(opts, num_gen, measure)
    opts.record(unit="%", k=1, tie_rule=">")
    return {name: numbers["authenticity"] if numbers else float("nan")}


def compute_ndb(opts, name, num_gen):
    """Share of k-means bins of the reals whose proportion differs significantly (0.05 for perfect data), and JSD in nats."""

    def measure(real, fake, is_own):
        centres = diversity_kernels.k_means(real, number_of_bins(len(real)), sampling.stream("subsets", opts.seed))
        counts = [diversity_kernels.count_bins(features, centres) for features in (real, fake)]
        share, jsd = diversity_kernels.different_bins(*counts)
        if is_own:
            opts.record(num_bins=len(centres), significance=0.05, jsd_unit="nats")
        return dict(share=share, jsd=jsd)

    numbers = _beside_held_out(opts, num_gen, measure) or dict(share=float("nan"), jsd=float("nan"))
    return {name: numbers["share"], f"{name}_jsd": numbers["jsd"]}


METRICS = [
    *diversity.in_both_sizes("madr_smooth_recall", compute_smooth_recall, "Recall with soft rims, its radius that of the whole set"),
    *diversity.in_both_sizes(
        "madr_vendi",
        compute_vendi,
        "Vendi score of the generated images by that of the reals",
        fewest=Fewest(2, "a measure of variety needs at least two {side} images"),
    ),
    *diversity.in_both_sizes(
        "madr_authenticity",
        compute_authenticity,
        "Per cent of generated images that are no near copies of a real one",
        reals=Reals.AS_TRAINED,
        fewest=Fewest(2, "distances to other images need at least two {side} images"),
    ),
    *diversity.in_both_sizes(
        "madr_ndb",
        compute_ndb,
        "Share of 100 cells of reals whose proportions differ",
        higher_is_better=False,
        fewest=Fewest(2, "proportions need at least two {side} images"),
    ),
]
