"""What a page on one network shows of its diversity: a map of coverage, the least covered reals, classes, modes, near copies.

Network and data set -> images and features -> kernels (coverage_map, memorisation, modes) -> small arrays and facts. In
one process. What cannot be made of this data set is told in a sentence and the rest is made. Must not know HTML or files of runs.
"""

import numpy as np
import torch

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from dnnlib.util import construct_class_by_name
from madr_spaces import names, neighbours, sampling
from madr_spaces.errors import MADRError
from metrics import METRICS_VERSION, coverage_map, detectors, digit_network, diversity, memorisation, metric_utils, mode_coverage, modes
from reporting.counts import MAX_SEARCHED, NUM_REAL

NUM_MISSING, NUM_COPIES = 18, 12  # shown
PICTURE_SIDE = 64  # pixels of a picture that is shown, at most
MAX_POINTS_REAL, MAX_POINTS_FAKE = 3000, 1500  # drawn
_DETECTOR_KWARGS = dict(return_features=True)


def choose_space(wanted, trained_in, detector_paths):
    """(name of the feature space, why it is not DINO or None). wanted: --metric-space or None."""
    if wanted is not None:
        detectors.find_detector(detectors.space_url(wanted), detector_paths)
        return wanted, None
    if detectors.is_here(diversity.DEFAULT_SPACE, detector_paths):
        return diversity.DEFAULT_SPACE, None
    space = names.held_out(diversity.DEFAULT_SPACE, trained_in) or names.HELD_OUT[0]
    return space, f"the weights of {diversity.DEFAULT_SPACE} are not on this machine"


def data_options(kwargs, num_real):
    """Arguments of the data set for the map: the training's own images without mirrored copies, at most num_real of them."""
    max_size = kwargs.get("max_size")
    return dict(kwargs, xflip=False, max_size=num_real if max_size is None else min(num_real, max_size))


def inputs(opts, network, num_gen, num_real):
    """Everything that the sheets depend on, as JSON."""
    source = detectors.find_detector(detectors.space_url(opts.space), opts.detectors)
    dataset = metric_utils.construct_dataset(opts)
    return dict(
        metrics_version=METRICS_VERSION,
        network=file_digest(network),
        data=dataset.content_fingerprint(),
        detector=[source.name, source.sha256],
        trained_in=opts.trained_in,
        seed=opts.seed,
        subset=[opts.dataset_kwargs.get("max_size"), opts.dataset_kwargs.get("random_seed", 0)],
        num_gen=num_gen,
        num_real=num_real,
    )


def compute(opts, num_gen, num_real=NUM_REAL):
    """(facts, arrays) of a network. opts: MetricOptions with G, data set, space; of the training set the training's own subset.

    A part for which the data set does not do is left out; facts["problems"] says why.
    """
    arrays, facts = (
        {},
        dict(problems=[], space=opts.space, num_gen=num_gen, trained_in=opts.trained_in, own_space=names.led_by(opts.space, opts.trained_in)),
    )
    training = _with_labels(dict(opts.dataset_kwargs, xflip=False))
    facts.update(num_images=len(training), fingerprint=training.content_fingerprint(), data=training.name)
    features, pictures, answers = _generate(opts, training, num_gen, facts)
    parts = [lambda: _coverage(opts, features, pictures, num_real), lambda: _memorisation(opts, training, pictures)]
    if answers is not None:
        parts.append(lambda: _modes(training, answers, opts.seed))
    for part in parts:
        try:
            more_facts, more_arrays = part()
        except (UserError, MADRError) as error:
            facts["problems"].append(str(error))
        else:
            facts.update(more_facts)
            arrays.update(more_arrays)
    return facts, arrays


def _with_labels(kwargs):
    try:
        return construct_class_by_name(**dict(kwargs, use_labels=True))
    except UserError:  # labels that nobody has used may be wrong
        return construct_class_by_name(**dict(kwargs, use_labels=False))


def _generate(opts, training, num_gen, facts):
    """(features [M, D], pictures uint8 [M, C, S, S], (modes of stacked digits [M], what is known of the answers) or None)."""
    detector, source = opts.detector(detectors.space_url(opts.space))
    classifier = None
    if "digits" in (training.provenance or {}) and opts.G.img_channels == 3:
        try:
            classifier = digit_network.obtain(training, opts.device, use_cache=opts.cache, monitor=opts.progress.sub())
        except UserError as error:
            facts["problems"].append(str(error))
    batch_gen = opts.batch_size or sampling.batch_size(opts.G.img_resolution, 64)
    progress = opts.progress.sub(tag="generated images", num_items=num_gen)
    features, pictures, answers, done = [], [], [], 0
    for images in metric_utils.generate_images(opts, num_gen, batch_gen):
        features.append(detectors.run_detector(detector, source, images, _DETECTOR_KWARGS).float().cpu().numpy())
        pictures.append(memorisation.thumbnails(images.cpu(), PICTURE_SIDE))
        if classifier is not None:
            answers.append(torch.stack([part.to(torch.float64).cpu() for part in classifier.predict_modes(images)]).numpy())
        done += len(images)
        progress.update(min(done, num_gen))
    features, pictures = np.concatenate(features)[:num_gen], np.concatenate(pictures)[:num_gen]
    if classifier is None:
        return features, pictures, None
    modes_M, confidence_M = np.concatenate(answers, axis=1)[:, :num_gen]
    return (
        features,
        pictures,
        (
            modes_M.astype(np.int64),
            dict(confidence=float(confidence_M.mean()), real_confidence=classifier.confidence, classifier_accuracy=classifier.accuracy),
        ),
    )


# ----------------------------------------------------------------------------------------------------------------
# Coverage.


def _coverage(opts, fake, pictures, num_real):
    opts.dataset_kwargs.update(data_options(opts.dataset_kwargs, num_real))
    dataset = _with_labels(opts.dataset_kwargs)
    real = metric_utils.compute_feature_stats_for_dataset(opts, detectors.space_url(opts.space), _DETECTOR_KWARGS, capture_all=True).get_all()
    progress = opts.progress.sub(tag="neighbours of reals", num_items=len(real))
    nearest = coverage_map.nearest_fakes(real, fake, device=opts.device, progress=progress.update)
    missing = coverage_map.least_covered(nearest, real, NUM_MISSING)
    plane = coverage_map.Plane(real)
    drawn = _evenly(len(real), MAX_POINTS_REAL)
    arrays = dict(
        map_real=plane.place(real[drawn]),
        map_ratio=nearest.ratio_N[drawn].astype(np.float32),
        map_fake=plane.place(fake[_evenly(len(fake), MAX_POINTS_FAKE)]),
        missing_item=np.array([dataset.get_details(i).raw_idx for i in missing], np.int64),
        missing_ratio=nearest.ratio_N[missing],
        missing_real=_pictures_of(dataset, missing),
        missing_fake=pictures[nearest.nearest_N[missing]],
    )
    expected = neighbours.expected_coverage(len(real), len(fake), coverage_map.K)
    facts = dict(
        num_real=len(real),
        coverage=float(nearest.covered_N.mean()),
        num_missed=int((~nearest.covered_N).sum()),
        expected_coverage=expected,
        k=coverage_map.K,
    )
    if dataset.has_onehot_labels:
        classes = np.array([int(dataset.get_details(i).raw_label) for i in range(len(dataset))], np.int64)
        total, share = coverage_map.class_coverage(nearest.covered_N, classes, dataset.label_dim)
        arrays.update(
            class_total=total, class_coverage=share, class_below=coverage_map.clearly_below(total, share, expected), missing_class=classes[missing]
        )
        facts["class_names"] = dataset.class_names
    return facts, arrays


def _evenly(count, most):
    return np.unique(np.linspace(0, count - 1, min(count, most)).round().astype(np.int64))


def _pictures_of(dataset, items):
    """uint8 [len(items), C, S, S]"""
    pictures = [memorisation.thumbnails(dataset[int(i)][0][None], PICTURE_SIDE) for i in items]
    return np.concatenate(pictures) if pictures else np.zeros([0, *dataset.image_shape], np.uint8)


# ----------------------------------------------------------------------------------------------------------------
# Near copies, modes.


def _memorisation(opts, training, pictures):
    if len(training) < 2:
        raise UserError(f"Near copies cannot be told from others in a set of {len(training)} image; use more training images.")
    searched = _evenly(len(training), MAX_SEARCHED)
    reading = opts.progress.sub(tag="training images", num_items=len(searched), flush_interval=10_000)
    side = min(training.image_shape[-1], memorisation.SIDE)
    thumbs = np.empty([len(searched), training.num_channels, side, side], np.uint8)
    for count, item in enumerate(searched, start=1):
        # In the same two steps as the generated images: a copy must stay one.
        thumbs[count - 1 : count] = memorisation.thumbnails(memorisation.thumbnails(training[int(item)][0][None], PICTURE_SIDE))
        reading.update(count)
    looked_at = np.concatenate([memorisation.thumbnails(part, side) for part in np.array_split(pictures, max(1, len(pictures) // 1024))])
    comparing = opts.progress.sub(tag="nearest training images", num_items=len(looked_at), flush_interval=10_000)
    found = memorisation.find(thumbs, looked_at, progress=comparing.update)
    # Of several that are nearest to one training image the most suspicious stands for all.
    first = found.order_M[np.sort(np.unique(found.nearest_M[found.order_M], return_index=True)[1])[:NUM_COPIES]]
    items = searched[found.nearest_M[first]]
    facts = dict(
        memorisation=dict(
            num_searched=len(searched),
            num_suspects=int(found.suspects_M.sum()),
            num_copies=int(found.copies_M.sum()),
            level=memorisation.LEVEL,
            num_twins=found.num_twins,
            num_asked=found.num_asked,
            fewest=memorisation.FEWEST,
        )
    )
    return facts, dict(
        copies_fake=pictures[first],
        copies_real=_pictures_of(training, items),
        copies_item=np.array([training.get_details(int(i)).raw_idx for i in items], np.int64),
        copies_ratio=found.ratio_M[first],
        copies_chance=found.chance_M[first],
        copies_suspect=found.suspects_M[first],
        copies_mirrored=found.mirrored_M[first],
    )


def _modes(training, answers, seed):
    modes_M, confidence = answers
    data_K, reference_K, reference_name = mode_coverage.distributions(training)
    counts = np.bincount(modes_M, minlength=len(reference_K))
    score = modes.mode_statistics(counts, reference_K)
    floor_kl, _, floor_modes = modes.real_data_floor(data_K, reference_K, len(modes_M), sampling.stream("floor", seed))
    facts = dict(
        modes=dict(score, **confidence, num_modes=int((reference_K > 0).sum()), reference=reference_name, floor_kl=floor_kl, floor_modes=floor_modes)
    )
    return facts, dict(modes_counts=counts, modes_expected=data_K / data_K.sum() * len(modes_M))
