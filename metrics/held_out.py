"""The metrics that judge generated images against real ones which nobody trained on (--held-out): ratios to what those score.

A finite set of perfect images is at some distance from the training set, too, and does not cover it wholly. How far, the held-out
images say: as many of them are judged as of the generated ones, in the same way. Computed on rank 0.
"""

import copy
import functools

import numpy as np

import dnnlib
from dnnlib.errors import UserError
from madr_spaces import names, neighbours, sampling
from madr_spaces.feature_sets import check_same_width
from metrics import counts, detectors, diversity, held_out_kernels as kernels, metric_utils, one_size, own_space, subsets
from metrics.kernels import frechet_distance, mean_and_covariance
from metrics.metric import Fewest, Group, Metric, Takes

FEWEST_SPACES = 3
_COPIES = 0.5  # this share of held-out images among the reals is no accident
_DETECTOR_KWARGS = dict(return_features=True)


def spaces_of(opts):
    """The metric's own space and all others that need no file and do not resemble it or one another: the same whatever a network was trained in."""
    chosen = [diversity.space_of(opts)]
    chosen += [name for name in names.HELD_OUT if not names.led_by(name, chosen[0])]
    if len(chosen) < FEWEST_SPACES or all(names.led_by(name, opts.trained_in) for name in chosen):
        raise UserError(
            f"A mean over {FEWEST_SPACES} spaces, one never trained in, is not to be had beside --metric-space={chosen[0]}; choose another one."
        )
    return chosen


# ----------------------------------------------------------------------------------------------------------------
# The three sets.


def options_of_held_out(opts):
    """The options with the held-out images in the place of the reals; detectors are those fitted to the reals."""
    if opts.held_out is None:
        raise UserError(
            f"{opts.asking.name if opts.asking else 'This metric'} compares with real images that nobody trained on; "
            "give a folder or zip of them with --held-out=PATH."
        )
    held = copy.copy(opts)
    held.facts, held.sides, held.only_class, held.num_real = {}, {}, None, None
    held.dataset_kwargs = dnnlib.EasyDict(class_name="training.dataset.ImageFolderDataset", path=opts.held_out)
    return held


def check_held_out(opts, held):
    """Refuse held-out images of another kind or number than can be compared, and those that are the reals themselves."""
    reals, theirs = metric_utils.construct_dataset(opts), dnnlib.util.construct_class_by_name(**held.dataset_kwargs)
    theirs.check_images()
    if list(theirs.image_shape) != list(reals.image_shape):
        text = lambda shape: f"{shape[2]}x{shape[1]} pixels with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
        remedy = _to_one_size(opts, reals.image_shape, theirs.image_shape)
        if theirs.image_shape[0] != reals.image_shape[0]:
            remedy = "grey and colour cannot be compared: give images of one kind"
        raise UserError(f"--held-out={opts.held_out} has images of {text(theirs.image_shape)}, the reals of {text(reals.image_shape)}; {remedy}.")
    needed, why = opts.asking.fewest if opts.asking else (2, "a covariance needs at least two {side} images")
    if len(theirs) < needed:
        raise UserError(
            f"--held-out={opts.held_out} has too few images: {why.format(side='held-out')} (got {len(theirs)}); put more pictures into it."
        )
    if theirs.content_fingerprint() == reals.content_fingerprint():
        raise UserError(
            f"--held-out={opts.held_out} holds the very images that they are compared with; give real images that were not trained on: "
            "set a part aside before training, and train on the rest."
        )
    opts.record(held_out_images=dict(name=theirs.name, fingerprint=theirs.content_fingerprint(), num_images=len(theirs)))


def _to_one_size(opts, real_shape, held_shape):
    """What brings held-out images to the size of the reals, or all that are compared to one that dataset_tool.py makes."""
    sets = {"held-out": (opts.held_out, held_shape), "reals": (opts.dataset_kwargs.get("path"), real_shape)}
    fakes = getattr(opts.G, "facts", {}).get("path")
    if fakes is not None:  # images in the place of a network, of the size of the reals
        sets["fakes"] = fakes, real_shape
    elif not one_size.is_made(real_shape):
        return one_size.remedy_beside_network(real_shape)
    return one_size.remedy(real_shape, sets)


def warn_of_copies(opts, real_ND, held_HD):
    """Warn of held-out images that are among the reals, and refuse where most are: their features are equal to the bit."""
    known = {row.tobytes() for row in real_ND}
    copies = sum(row.tobytes() in known for row in held_HD)
    if copies > _COPIES * len(held_HD):
        raise UserError(
            f"{copies} of the {len(held_HD)} images of --held-out={opts.held_out} are among the reals, which are the whole data set also of a run with "
            "--subset; give images that are not in it, or with --data=PATH the part alone that was trained on."
        )
    if copies:
        opts.warn(f"{copies} of {len(held_HD)} held-out images are among the reals, so that these look nearer than new ones are.")


def three_sets(opts, num_gen, spaces):
    """{space: (reals [N, D], generated [n, D], held-out [n, D])}: as many held-out images as generated ones, drawn at random."""
    held = options_of_held_out(opts)
    urls = {name: detectors.space_url(name) for name in spaces}
    for url in urls.values():
        opts.detector(url)  # what is missing is said before any image is read
    check_held_out(opts, held)
    own_space.warn(opts, spaces[0])
    features = {}
    for i, name in reversed(list(enumerate(spaces))):  # the metric's own space last: its facts stay
        share = dict(rel_lo=0.4 * (len(spaces) - 1 - i) / len(spaces), rel_hi=0.4 * (len(spaces) - i) / len(spaces))
        features[name] = [metric_utils.compute_feature_stats_for_dataset(opts, urls[name], _DETECTOR_KWARGS, capture_all=True, **share).get_all()]
    fakes = diversity.generated_features(opts, list(urls.values()), num_gen, rel_lo=0.4, rel_hi=0.7)
    for i, (name, fake_MD) in enumerate(zip(spaces, fakes)):
        share = dict(rel_lo=0.7 + 0.2 * i / len(spaces), rel_hi=0.7 + 0.2 * (i + 1) / len(spaces))
        held_HD = metric_utils.compute_feature_stats_for_dataset(held, urls[name], _DETECTOR_KWARGS, capture_all=True, **share).get_all()
        check_same_width(features[name][0], fake_MD)
        features[name] += [fake_MD, held_HD]
    real_ND, fake_MD, held_HD = features[spaces[0]]
    warn_of_copies(opts, real_ND, held_HD)
    count = min(len(fake_MD), len(held_HD))
    chosen = [
        np.sort(sampling.stream("subsets", opts.seed, block).permutation(size)[:count]) for block, size in enumerate([len(fake_MD), len(held_HD)])
    ]
    opts.record(space=spaces[0], num_compared=count, num_held_out=len(held_HD))
    return {name: (real, fake[chosen[0]], held_out[chosen[1]]) for name, (real, fake, held_out) in features.items()}


# ----------------------------------------------------------------------------------------------------------------
# The numbers.


def compute_ratio(opts, name, num_gen, *, distance):
    """Mean over at least three spaces of distance(opts, generated, reals) / distance(opts, held-out, reals); 1: as near as new real images."""
    spaces = spaces_of(opts)
    sets = three_sets(opts, num_gen, spaces)
    if opts.rank != 0:
        return {name: float("nan")}
    found = {}
    for space in spaces:
        real, fake, held = sets[space]
        of_fake, of_held = (distance(opts, points, real) for points in (fake, held))
        found[space] = dict(
            ratio=kernels.ratio(of_fake, of_held, "distance"), generated=of_fake, held_out=of_held, trained_in=names.led_by(space, opts.trained_in)
        )
    never = [values["ratio"] for values in found.values() if not values["trained_in"]]
    opts.record(spaces=spaces, per_space=found, mean_never_trained_in=float(np.mean(never)))
    opts.say(", ".join(f"{space} {values['ratio']:.3f}" for space, values in found.items()))
    return {name: float(np.mean([values["ratio"] for values in found.values()]))}


def frechet(opts, points_MD, real_ND):
    counts.warn_of_singular_covariance(opts, real_ND.shape[1], real=len(real_ND), compared=len(points_MD))
    return frechet_distance(*mean_and_covariance(points_MD), *mean_and_covariance(real_ND))


def sliced_wasserstein(opts, points_MD, real_ND):
    directions = kernels.random_directions(real_ND.shape[1], sampling.stream("subsets", opts.seed, block=2))
    opts.record(num_directions=len(directions))
    return kernels.sliced_wasserstein(points_MD, real_ND, directions)


def compute_coverage_ratio(opts, name, num_gen):
    """Coverage of the reals by the generated images, over that by as many held-out ones."""
    space = diversity.space_of(opts)
    real, fake, held = three_sets(opts, num_gen, [space])[space]
    if opts.rank != 0:
        return {name: float("nan")}
    k = neighbours.K_DENSITY_COVERAGE
    of_fake, of_held = (neighbours.density_coverage(real, points, k, strict=opts.strict_ties, device=opts.device)[1] for points in (fake, held))
    opts.record(k=k, tie_rule="<" if opts.strict_ties else "<=", coverages=dict(generated=of_fake, held_out=of_held))
    opts.record(expected_coverage=neighbours.expected_coverage(len(real), len(fake), k))
    return {name: kernels.ratio(of_fake, of_held, "coverage")}


def classes_of_reals(opts):
    """(class of each real [N], names of the classes); a sentence where there are no classes."""
    dataset = metric_utils.construct_dataset(opts, use_labels=True)
    if not dataset.has_onehot_labels:
        raise UserError(
            f"{dataset.name} has no class labels, so that none of its classes is rare; give a labelled set (dataset_tool.py --labels=folders)."
        )
    chosen = subsets.of_reals(opts, len(dataset))
    classes = np.array([int(dataset.get_label(i).argmax()) for i in (range(len(dataset)) if chosen is None else chosen)])
    return classes, dataset.class_names or [str(number) for number in range(dataset.label_dim)]


def compute_rare_classes(opts, name, num_gen):
    """Mean over the rare classes of their share among clear generated images over that among held-out ones; and the same of how many are clear."""
    classes, class_names = classes_of_reals(opts)
    rare = kernels.rare_classes(classes, len(class_names))
    if not len(rare):
        raise UserError(f"{name}: no class has fewer than half as many images as the mean class; it says nothing of this set, leave it out.")
    space = diversity.space_of(opts)
    real, fake, held = three_sets(opts, num_gen, [space])[space]
    if opts.rank != 0:
        return {name: float("nan"), f"{name}_quality": float("nan")}
    (share_C, clear_C), (held_share_C, held_clear_C) = (
        kernels.class_shares(*kernels.seen_classes(real, classes, points, device=opts.device), len(class_names)) for points in (fake, held)
    )
    facts = {
        class_names[c]: dict(
            share_of_reals=float((classes == c).mean()),
            share=float(share_C[c]),
            share_of_held_out=float(held_share_C[c]),
            quality=None if np.isnan(clear_C[c]) else float(clear_C[c]),
            quality_of_held_out=None if np.isnan(held_clear_C[c]) else float(held_clear_C[c]),
        )
        for c in range(len(class_names))
    }
    opts.record(class_shares=facts, rare_classes=[class_names[c] for c in rare], k=kernels.CLEAR_K, tie_rule="<=")
    known = rare[held_share_C[rare] > 0]
    if not len(known):
        raise UserError(f"{name}: --held-out={opts.held_out} shows no clear image of a rare class; give more held-out images.")
    if len(known) < len(rare):
        opts.warn(f"{name}: the held-out images show none of {', '.join(class_names[c] for c in np.setdiff1d(rare, known))}; left out.")
    quality = np.nan_to_num(clear_C[known]) / held_clear_C[known]
    return {name: float((share_C[known] / held_share_C[known]).mean()), f"{name}_quality": float(quality.mean())}


# ----------------------------------------------------------------------------------------------------------------
# The rows.


def _in_both_sizes(name, function, meaning, higher_is_better, fewest, **more):
    row = functools.partial(
        Metric,
        group=Group.HELD_OUT,
        detector="space",
        takes=Takes.IMAGES,
        fewest=fewest,
        prepare=diversity.prepare,
        per_class=False,
        needs_held_out=True,
        higher_is_better=higher_is_better,
        **more,
    )
    return [
        row(name + ending, function, meaning if not ending else f"The same with {num_gen:,} generated images", counts=dict(num_gen=num_gen))
        for ending, num_gen in diversity.SIZES.items()
    ]


_TWO = Fewest(2, "a distance of distributions needs at least two {side} images")
_NEIGHBOURS = Fewest(6, "a neighbourhood of 5 needs more than 5 {side} images")
METRICS = [
    *_in_both_sizes(
        "madr_fdr",
        functools.partial(compute_ratio, distance=frechet),
        "Frechet distance to the reals over that of held-out reals, mean over at least three spaces",
        False,
        _TWO,
    ),
    *_in_both_sizes(
        "madr_swr",
        functools.partial(compute_ratio, distance=sliced_wasserstein),
        "Sliced Wasserstein distance to the reals over that of held-out reals, mean over at least three spaces",
        False,
        _TWO,
    ),
    *_in_both_sizes(
        "madr_coverage_ratio", compute_coverage_ratio, "Coverage of the reals over that by held-out reals", True, _NEIGHBOURS, heeds_ties=True
    ),
    *_in_both_sizes(
        "madr_rare_classes", compute_rare_classes, "Share and quality of the rare classes over those among held-out reals", True, _NEIGHBOURS
    ),
]
