"""training.data.builders: the stacks' bytes, labels and distributions; training and evaluation digits never mix."""

import os

import numpy as np
import pytest

import dataset_tool
from dnnlib import cli
from dnnlib.errors import UserError
from tests.training.data_fixtures import write_mnist
from training.data import builders, dataset_io, mnist
from training.dataset import ImageFolderDataset


def digits_of(split):
    digits, labels, _ = builders.load_small_digits(split)
    return digits, labels


def by_content(digits, labels):
    return {digit.tobytes(): int(label) for digit, label in zip(digits, labels)}


def test_stacked_digits_are_what_their_labels_say(tmp_path):
    path = str(tmp_path / "digits.zip")
    counts = builders.build_stacked_digits(path, num_images=200, seed=3)
    dataset = ImageFolderDataset(path, use_labels=True)
    assert len(dataset) == 200 == sum(counts.values()) and dataset.image_shape == [3, 32, 32]
    training, evaluation = by_content(*digits_of("train")), by_content(*digits_of("eval"))
    for index in range(200):
        image, label = dataset[index][0], dataset.get_details(index).raw_label
        names = [training[np.ascontiguousarray(channel[1:31, 1:31]).tobytes()] for channel in image]
        assert label == 100 * names[0] + 10 * names[1] + names[2]
        assert all(np.ascontiguousarray(channel[1:31, 1:31]).tobytes() not in evaluation for channel in image)
        assert not image[:, [0, 31]].any() and not image[:, :, [0, 31]].any()
    assert dataset.class_names[17] == "017" and len(dataset.class_names) == 1000


def test_no_digit_is_in_both_splits():
    (training, training_labels), (evaluation, evaluation_labels) = digits_of("train"), digits_of("eval")
    assert not set(by_content(training, training_labels)) & set(by_content(evaluation, evaluation_labels))
    assert len(training) + len(evaluation) == 1797 and abs(len(evaluation) / 1797 - 0.25) < 0.01
    for labels, least in ((training_labels, 130), (evaluation_labels, 43)):
        assert np.bincount(labels).min() >= least


def test_split_rule_by_hand():
    labels = np.array([5, 5, 7, 5, 5, 7, 7, 7, 5, 5, 5, 5])
    assert np.flatnonzero(builders.is_eval_digit(labels)).tolist() == [4, 7, 11]


def test_same_seed_same_bytes(tmp_path):
    def built(name, **options):
        builders.build_stacked_digits(str(tmp_path / name), **dict(dict(num_images=50, seed=1), **options))
        return (tmp_path / name).read_bytes()

    first = built("a.zip")
    assert first == built("b.zip")
    variants = [first, built("c.zip", seed=2), built("d.zip", split="eval"), built("e.zip", imbalanced=True), built("f.zip", modes=500)]
    assert len(set(variants)) == len(variants)


def test_enlarged_digits_keep_their_shape():
    images = np.zeros([1, 8, 8], dtype=np.uint8)
    images[0, 3:5, 3:5] = 16
    large = builders.enlarge_digits(images)[0].astype(float)
    assert large.shape == (30, 30) and np.array_equal(large, large.T) and np.array_equal(large, large[::-1, ::-1])
    assert large[14:16, 14:16].min() == 255 and large[:6].max() <= 2
    flat = builders.enlarge_digits(np.full([1, 8, 8], 8, np.uint8))[0]
    assert (flat[8:22, 8:22] == 128).all()  # 8/16 * 255 = 127.5, rounded up
    sampled = builders.enlarge_digits(digits8 := np.random.RandomState(0).randint(0, 17, [4, 8, 8]))[:, 4:28:3, 4:28:3]
    assert np.array_equal(sampled, np.floor(digits8 * 255 / 16 + 0.5))  # interpolation goes through the samples


def test_balanced_modes_follow_the_digit_frequencies():
    counts = np.array([1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    modes = builders.draw_modes(200_000, counts, 1000, False, np.random.RandomState(0))
    share = counts / counts.sum()
    expected = 200_000 * (share[:, None, None] * share[:, None] * share).reshape(-1)
    observed = np.bincount(modes, minlength=1000)
    chi_square = ((observed - expected) ** 2 / expected).sum()
    assert abs(chi_square - 999) < 5 * np.sqrt(2 * 999)
    first = builders.draw_modes(20_000, counts, 120, False, np.random.RandomState(0))
    observed = np.bincount(first, minlength=120)
    assert first.max() == 119 and len(observed) == 120
    expected = expected[:120] / expected[:120].sum() * 20_000
    assert abs(((observed - expected) ** 2 / expected).sum() - 119) < 5 * np.sqrt(2 * 119)


def test_imbalanced_modes_have_the_stated_law():
    modes = builders.draw_modes(400_000, np.ones(10, int), 1000, True, np.random.RandomState(0))
    share = np.bincount(modes, minlength=1000) / 400_000
    from scipy.stats import norm

    at_top = 0.3 / 1000 + 0.7 * norm.sf(999, 700, 200)
    assert abs(share[999] - at_top) < 0.002 and share.min() > 0
    assert abs(share[:100].sum() - (0.03 + 0.7 * norm.cdf(100, 700, 200))) < 0.002
    assert abs(share[600:800].sum() - (0.06 + 0.7 * (norm.cdf(800, 700, 200) - norm.cdf(600, 700, 200)))) < 0.004


def test_triples_are_uniform_within_their_class():
    labels = np.array([0, 1, 1, 2, 2, 2, 2] + list(range(3, 10)))
    modes = np.full(8000, 12)
    triples = builders.draw_triples(modes, labels, np.random.RandomState(0))
    assert (labels[triples] == [0, 1, 2]).all()
    assert np.abs(np.bincount(triples[:, 2], minlength=7)[3:7] / 8000 - 0.25).max() < 0.02


def test_stacked_mnist(tmp_path):
    train_images, train_labels, _ = write_mnist(tmp_path / "mnist", per_class=3, seed=1)
    test_images, test_labels, _ = write_mnist(tmp_path / "mnist", per_class=2, seed=2, prefix="t10k", compress=False)
    for split, images, labels in [("train", train_images, train_labels), ("test", test_images, test_labels)]:
        path = str(tmp_path / f"{split}.zip")
        builders.build_stacked_mnist(path, source=str(tmp_path / "mnist"), split=split, num_images=60, modes=777)
        known = by_content(images, labels)
        dataset = ImageFolderDataset(path, use_labels=True)
        for index in range(60):
            names = [known[np.ascontiguousarray(channel[2:30, 2:30]).tobytes()] for channel in dataset[index][0]]
            assert dataset.get_details(index).raw_label == names[0] * 100 + names[1] * 10 + names[2] < 777
            assert not dataset[index][0][:, :2].any()
    provenance = dataset_io.read_metadata(dataset_io.open_files(str(tmp_path / "train.zip"))).provenance
    assert {key: provenance[key] for key in ("builder", "seed", "split", "num_images", "modes", "imbalanced")} == dict(
        builder="stacked-mnist", seed=0, split="train", num_images=60, modes=777, imbalanced=False
    )
    assert sorted(provenance["source_sha256"]) == ["train-images-idx3-ubyte", "train-labels-idx1-ubyte"]


def test_builder_faults(tmp_path):
    dest = str(tmp_path / "x.zip")
    for options, match in [
        (dict(modes=0), "--modes must lie"),
        (dict(modes=1001), "--modes must lie"),
        (dict(modes=777, imbalanced=True), "--imbalanced is defined over all 1000"),
        (dict(num_images=-1), "--num-images"),
    ]:
        with pytest.raises(UserError, match=match):
            builders.build_stacked_digits(dest, **options)
    with pytest.raises(UserError, match="is not a folder"):
        builders.build_stacked_mnist(dest, source=str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="holds no train-images-idx3-ubyte.gz"):
        builders.build_stacked_mnist(dest, source=str(tmp_path))
    with pytest.raises(UserError, match="no digit 3"):
        builders.draw_triples(np.array([333]), np.array([1, 2]), np.random.RandomState(0))
    with pytest.raises(UserError, match="no digits for the first 100 modes"):
        builders.draw_modes(5, np.array([0] + [1] * 9), 100, False, np.random.RandomState(0))
    assert os.listdir(tmp_path) == []


@pytest.mark.skipif("MADR_TEST_MNIST" not in os.environ, reason="set MADR_TEST_MNIST to the folder of the real idx files")
def test_real_mnist(tmp_path):
    folder = os.environ["MADR_TEST_MNIST"]
    images, labels, _ = mnist.load_mnist(folder, "train")
    assert images.shape == (60000, 28, 28) and np.bincount(labels).tolist()[:3] == [5923, 6742, 5958]
    for name, digest in mnist._GZIP_SHA256.items():
        import dnnlib.util

        dnnlib.util.open_url(os.path.join(folder, name), digest=digest).close()
    counts = builders.build_stacked_mnist(str(tmp_path / "s.zip"), source=folder, num_images=3000)
    assert sum(counts.values()) == 3000 and len(counts) > 900


def test_digits_stay_digits_at_another_size(tmp_path):
    """What tells of stacked digits (their modes are counted in reports) survives a conversion that keeps their labels, and no other."""
    builders.build_stacked_digits(str(tmp_path / "large.zip"), num_images=20)
    for name, flags, kept in (("small.zip", [], True), ("none.zip", ["--labels=none"], False), ("other.zip", ["--labels=renumber"], False)):
        words = [f"--source={tmp_path / 'large.zip'}", f"--dest={tmp_path / name}", "--width=16", "--height=16", *flags]
        assert cli.call(dataset_tool.main, words) == 0
        told = dataset_io.read_metadata(dataset_io.open_files(str(tmp_path / name))).provenance
        assert (told is not None and told["digits"] == "scikit-learn load_digits" and told["converted"]) if kept else told is None
