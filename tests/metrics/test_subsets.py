"""A part of a set, and a set in parts: the files of a set often follow its classes, and no number may depend on it."""

import numpy as np
import PIL.Image
import pytest

from metrics import metric_main, metric_utils, repeats
from metrics.detectors import INCEPTION_URL
from metrics.feature_stats import FeatureStats
from metrics.given_features import GivenFeatures
from metrics.held_out import classes_of_reals
from metrics.inception_score import compute_is

NUM_CLASSES, PER_CLASS = 10, 20


def in_class_order(seed=0):
    """Features of ten far classes, one after the other."""
    rng = np.random.default_rng(seed)
    return (100 * np.eye(NUM_CLASSES).repeat(PER_CLASS, axis=0) + rng.standard_normal((NUM_CLASSES * PER_CLASS, NUM_CLASSES))).astype(np.float32)


def vendi(options, real, fake):
    opts = options()
    opts.given = GivenFeatures(real, fake, {})
    opts.num_gen = None
    return metric_main.function_of("madr_vendi")(opts)["madr_vendi"]


def test_vendi_of_a_perfect_set_in_class_order_is_one(options):
    """Fewer reals than generated images: as many of these are taken, from all classes."""
    real, fake = in_class_order(0), in_class_order(1)
    assert vendi(options, real[::2], fake) == pytest.approx(1, abs=0.1)
    assert vendi(options, real[::2], fake[np.random.default_rng(2).permutation(len(fake))]) == pytest.approx(1, abs=0.1)


def test_inception_score_of_a_set_in_class_order_is_that_of_any_order(options):
    sure = np.eye(NUM_CLASSES, dtype=np.float32).repeat(PER_CLASS, axis=0)
    scores = []
    for rows in (sure, sure[np.random.default_rng(0).permutation(len(sure))]):
        stats = FeatureStats(capture_all=True)
        stats.append(rows)
        opts = options(sides=dict(generated=stats))
        scores.append(compute_is(opts, len(rows), num_splits=10)[0])
    assert scores[0] == pytest.approx(scores[1], rel=0.1) and scores[0] > 7  # of 10 for all, 1 for one class


@pytest.fixture
def classes_in_order(tmp_path):
    """Options of a labelled folder: 20 dark images, then 20 bright ones."""
    rng = np.random.default_rng(0)
    for number, name in enumerate(("a", "b")):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(20):
            pixels = rng.integers(0, 80, size=(16, 16, 3)) + 160 * number
            PIL.Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / "set" / name / f"{i:02d}.png")
    import dataset_tool
    from dnnlib import cli

    assert cli.call(dataset_tool.main, ["--source", str(tmp_path / "set"), "--dest", str(tmp_path / "set.zip"), "--labels=folders"]) == 0
    return dict(class_name="training.dataset.ImageFolderDataset", path=str(tmp_path / "set.zip"))


def reals(opts):
    stats = metric_utils.compute_feature_stats_for_dataset(opts, INCEPTION_URL, dict(return_features=True), capture_all=True)
    return stats.get_all()


def test_fewer_reals_are_of_all_classes(options, classes_in_order):
    ask = lambda **more: options(dataset_kwargs=classes_in_order, **more)
    everything, opts = reals(ask()), ask(num_real=10)
    some = reals(opts)
    rows = [int(np.flatnonzero((everything == row).all(axis=1))[0]) for row in some]
    assert len(some) == 10 and rows == sorted(set(rows)) and 2 <= sum(row < 20 for row in rows) <= 8
    assert opts.facts["num_real"] == 10 and opts.facts["real_subset"] == "drawn at random"
    assert classes_of_reals(ask(num_real=10))[0].tolist() == [int(row >= 20) for row in rows]
    np.testing.assert_array_equal(reals(ask(num_real=10)), some)  # from the cache
    assert not np.array_equal(reals(ask(num_real=10, seed=1)), some)
    assert "real_subset" not in ask(num_real=40).facts and np.array_equal(reals(ask(num_real=40)), everything)


def test_a_metric_s_own_limit_takes_the_first_reals_as_ever(options, classes_in_order):
    opts = options(dataset_kwargs=classes_in_order)
    first = metric_utils.compute_feature_stats_for_dataset(opts, INCEPTION_URL, dict(return_features=True), capture_all=True, max_items=10)
    np.testing.assert_array_equal(first.get_all(), reals(opts)[:10])


def test_repeats_compare_with_the_same_reals(options, classes_in_order):
    opts, items = options(), {}
    how = dict(G=opts.G, dataset_kwargs=classes_in_order, detectors=opts.detectors, num_gen=20, num_real=12, space="pixels", device="cpu")
    twice = repeats.calc_repeated("madr_coverage", seed=3, repeats=2, per_item=items, **how)
    assert twice.facts["repeats"]["values"]["madr_coverage"][0] == metric_main.calc_metric("madr_coverage", seed=3, **how).results["madr_coverage"]
    again = metric_main.calc_metric("madr_coverage", seed=4, real_seed=3, **how)
    assert twice.facts["repeats"]["values"]["madr_coverage"][1] == again.results["madr_coverage"]
