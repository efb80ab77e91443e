"""The modes metric: how many of the stacked-digit modes a generator reaches, and how evenly.

Generated images -> one digit per channel (metrics/digit_network.py) -> counts of 1000 modes -> numbers (metrics/modes.py).
"""

import functools

import numpy as np
import torch

from dnnlib import console
from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import digit_data, digit_network, metric_utils, modes
from metrics.feature_stats import FeatureStats
from metrics.metric import Group, Metric, Takes

# Noise gets an answer, too, and noise counts as many modes: below this share of the confidence on real digits, say so.
_LOW_CONFIDENCE = 0.9


def compute_modes(opts, prefix, num_gen):
    """Results under `prefix`: modes hit, modes hit at least 5 times, KL in nats, the real data's KL, the classifier's accuracy."""
    dataset = metric_utils.construct_dataset(opts, use_labels=True)
    digit_data.check_stacked(dataset)
    if opts.G.img_channels != 3:
        raise UserError(f"The modes metric counts RGB images, but the network draws {opts.G.img_channels} channel(s).")
    num_gen = opts.num_gen if opts.num_gen is not None else num_gen
    data_K, reference_K, reference_name = distributions(dataset, opts.modes)
    classifier = obtain_on_all_ranks(opts, dataset)
    counts_K, confidence = count_generated_modes(opts, classifier, num_gen)
    score = modes.mode_statistics(counts_K, reference_K)
    floor_kl, floor_std, floor_modes = modes.real_data_floor(data_K, reference_K, num_gen, sampling.stream("floor", opts.seed))
    opts.record(
        num_modes=int((reference_K > 0).sum()),
        mode_rule=mode_rule(opts.modes),
        reference=reference_name,
        kl_unit="nats",
        floor_kl_std=floor_std,
        floor_modes=floor_modes,
        outside_share=score["outside"],
        confidence=confidence,
    )
    record_classifier(opts, classifier)
    if confidence < _LOW_CONFIDENCE * classifier.confidence and opts.rank == 0:
        console.warn(
            f"the digit classifier is {confidence:.2f} sure of the generated digits, {classifier.confidence:.2f} of real ones: "
            "many images are not digits, and the modes counted for them mean nothing."
        )
    return {
        prefix: score["modes"],
        f"{prefix}_5hits": score["modes_5hits"],
        f"{prefix}_kl": score["kl"],
        f"{prefix}_floor_kl": floor_kl,
        f"{prefix}_classifier_accuracy": classifier.accuracy,
    }


def mode_rule(first_modes):
    """Which modes count, as dataset_tool.py states it of a set that it makes with --modes; None: all of the data set."""
    return None if first_modes is None else f"labels 0 to {first_modes - 1}"


def distributions(dataset, first_modes=None):
    """(what a perfect generator draws from, what KL compares with, its name), each over 1000 modes.

    Balanced sets: digits fall independently, KL against the uniform distribution over the set's modes. Sets made imbalanced or
    long-tailed: the set's own histogram is both. first_modes (--modes): only the labels below it count; images of others, of which a perfect
    generator of a larger set draws its share, too, are left out and told as outside_share.
    """
    histogram_K = np.bincount(digit_data.mode_labels(dataset), minlength=digit_data.NUM_MODES).astype(np.float64)
    made = getattr(dataset, "provenance", None) or {}
    if first_modes is not None:
        _check_first_modes(dataset.name, made, int(np.flatnonzero(histogram_K).max()), first_modes)
    if _is_uneven(made):
        return histogram_K, histogram_K, "histogram of the data set"
    present_K = (histogram_K > 0).astype(np.float64)
    is_complete = bool(present_K.all())
    present_K[digit_data.NUM_MODES if first_modes is None else first_modes :] = 0
    if is_complete:
        return modes.independent_digits(histogram_K), present_K, "uniform"
    return histogram_K, present_K, "uniform over the data set's modes"


def _is_uneven(made):
    """Whether a set was made so that its modes differ in number (dataset_tool.py --imbalanced, --long-tail), by what it tells of its making."""
    return bool(made.get("imbalanced") or made.get("long_tail"))


def _check_first_modes(name, made, highest, first_modes):
    if made.get("imbalanced"):
        raise UserError(f"--modes={first_modes}: the imbalanced set {name} is defined over all {digit_data.NUM_MODES} modes; leave --modes out.")
    if made.get("long_tail"):
        raise UserError(
            f"--modes={first_modes}: the long-tailed set {name} is compared with its own histogram over all its modes; leave --modes out."
        )
    num_modes = made.get("modes", highest + 1)  # a small set lacks some that its maker drew from
    if num_modes < first_modes:
        raise UserError(
            f"--modes={first_modes}: {name} has labels 0 to {num_modes - 1} only; ask for at most {num_modes}, or give a set of more modes with --data."
        )


def record_classifier(opts, classifier):
    """The classifier as the detector of the line. Its key, the hash of recipe and data, says whether two are alike: weights that
    another machine has learnt by the same recipe from the same data differ in the last digits."""
    opts.record(
        detector=dict(name="digit-classifier", sha256=classifier.key, hash_of="recipe and data", resize_filter="bilinear, antialiased"),
        classifier=dict(
            key=classifier.key,
            version=digit_network.VERSION,
            num_train=classifier.num_train,
            num_held_out=classifier.num_held_out,
            confidence=classifier.confidence,
            weights_sha256=classifier.weights_digest(),
        ),
    )


def obtain_on_all_ranks(opts, dataset):
    """Rank 0 loads or trains, the others take its weights: another machine may have another cache folder."""
    return opts.once(("digit classifier", dataset.content_fingerprint()), lambda: _obtain_in_turn(opts, dataset))


def _obtain_in_turn(opts, dataset):
    classifier = None
    if opts.rank == 0:
        classifier = digit_network.obtain(dataset, opts.device, use_cache=opts.cache, monitor=opts.progress.sub(rel_hi=0.5))
    if opts.num_gpus > 1:
        box = [classifier.to_plain() if opts.rank == 0 else None]
        torch.distributed.broadcast_object_list(box, src=0, device=opts.device if opts.device.type == "cuda" else None)
        classifier = digit_network.DigitClassifier.from_plain(box[0], opts.device)
    return classifier


def count_generated_modes(opts, classifier, num_gen):
    """Counts int64 [1000] of the modes of exactly num_gen generated images and the mean probability of the answers, on every rank."""
    batch_gen = opts.batch_size or 64
    metric_utils.record_sampling(opts, num_gen, batch_gen)
    labels = FeatureStats(capture_all=True, max_items=num_gen)
    progress = opts.progress.sub(tag="counting modes", num_items=num_gen, rel_lo=0.5)
    for images in metric_utils.generate_images(opts, num_gen, batch_gen):
        answers = torch.stack([part.to(torch.float32) for part in classifier.predict_modes(images)], dim=1)
        labels.append_torch(answers, num_gpus=opts.num_gpus, rank=opts.rank)
        progress.update(labels.num_items)
    modes_N, confidence_N = labels.get_all().T
    return np.bincount(modes_N.astype(np.int64), minlength=digit_data.NUM_MODES), float(confidence_N.mean(dtype=np.float64))


_MODES = functools.partial(
    Metric, function=compute_modes, group=Group.DIGITS, detector="digits", counts_modes=True, takes=Takes.IMAGES, per_class=False
)
METRICS = [
    _MODES("madr_modes", meaning="Modes of stacked digits among 26,000 images: reached, reached 5 times, KL", counts=dict(num_gen=26_000)),
    _MODES("madr_modes5k", meaning="The same among 5,000 images", counts=dict(num_gen=5_000)),
]
