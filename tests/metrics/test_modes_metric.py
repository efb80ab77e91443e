"""The modes metric: digits found inside a stacked set, the classifier learned from them, generators of known quality."""

import os

import numpy as np
import pytest
import torch
from click.testing import CliRunner

import dataset_tool
from dnnlib import cli
from dnnlib.errors import UserError
from metrics import digit_classifier, digit_data, digit_network, metric_main, metric_utils, mode_coverage, modes
from training.data.builders import build_stacked_digits, build_stacked_mnist
from training.dataset import ImageFolderDataset

QUICK = digit_network.Recipe(min_steps=150, max_steps=150, batch_size=64)
HASTY = digit_network.Recipe(min_steps=15, max_steps=15, batch_size=32)


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """Paths of Stacked Digits: 1200 training triples and 300 of other digits."""
    folder = tmp_path_factory.mktemp("stacked")
    build_stacked_digits(str(folder / "train.zip"), split="train", num_images=1200)
    build_stacked_digits(str(folder / "eval.zip"), split="eval", num_images=300)
    return str(folder / "train.zip"), str(folder / "eval.zip")


def open_set(path):
    return ImageFolderDataset(path=path, use_labels=True)


@pytest.fixture(scope="module")
def classifier(stacked, tmp_path_factory):
    old = os.environ.get("DNNLIB_CACHE_DIR")
    os.environ["DNNLIB_CACHE_DIR"] = str(tmp_path_factory.mktemp("cache"))
    yield digit_network.obtain(open_set(stacked[0]), torch.device("cpu"), recipe=QUICK)
    os.environ.pop("DNNLIB_CACHE_DIR") if old is None else os.environ.update(DNNLIB_CACHE_DIR=old)


class FromData(torch.nn.Module):
    """A generator that shows images of a data set: all of them, or those of a few modes."""

    def __init__(self, path, allowed=None):
        super().__init__()
        dataset = open_set(path)
        labels = digit_data.mode_labels(dataset)
        chosen = np.flatnonzero(np.isin(labels, allowed)) if allowed is not None else np.arange(len(labels))
        self.register_buffer("images", torch.from_numpy(np.stack([dataset[i][0] for i in chosen])))
        self.z_dim, self.c_dim, self.img_channels, self.img_resolution = 4, 0, 3, 32

    def forward(self, z, c):
        index = (torch.special.ndtr(z[:, 0]) * len(self.images)).long().clamp(max=len(self.images) - 1)
        return (self.images[index].float() - 128) / 127.5


# ----------------------------------------------------------------------------------------------------------------
# Digits.


def test_digits_are_collected_once_each(stacked):
    from sklearn.datasets import load_digits

    digits = digit_data.collect_digits(open_set(stacked[0]))
    total = len(load_digits().target) * 3 // 4
    assert 0.85 * total < len(digits) <= total + 10  # 3600 draws see nearly all of about 1348
    assert len({image.tobytes() for image in digits.images}) == len(digits)
    assert np.bincount(digits.labels, minlength=10).min() > 100
    training, held_out = digit_data.split_digits(digits)
    assert not {i.tobytes() for i in training.images} & {i.tobytes() for i in held_out.images}
    assert len(held_out) == pytest.approx(len(digits) / 6, abs=1)


def test_sets_that_are_not_stacked_digits_are_sentences(tiny_zip):
    with pytest.raises(UserError, match="has none.*--data"):
        digit_data.check_stacked(open_set(tiny_zip(num_images=30)))
    with pytest.raises(UserError, match="too few different digits|recognises only"):
        digit_network.obtain(open_set(tiny_zip(num_images=30, num_classes=3)), torch.device("cpu"), recipe=HASTY)


def test_contradicting_labels_are_a_sentence(stacked):
    class Shuffled(ImageFolderDataset):
        def get_details(self, idx):
            return super().get_details((idx * 7 + 13) % len(self))

    with pytest.raises(UserError, match="not those of stacked digits"):
        digit_data.collect_digits(Shuffled(path=stacked[0], use_labels=True))


# ----------------------------------------------------------------------------------------------------------------
# Classifier.


def test_classifier_learns_and_generalises(classifier, stacked):
    assert classifier.accuracy > 0.93  # a quick recipe; the real one is in test_real_mnist
    others = digit_data.collect_digits(open_set(stacked[1]))
    assert digit_network.accuracy_on(classifier, others)[0] > 0.93
    images = torch.from_numpy(np.stack([open_set(stacked[1])[i][0] for i in range(60)]))
    truth = digit_data.mode_labels(open_set(stacked[1]))[:60]
    assert (classifier.predict_modes(images)[0].numpy() == truth).mean() > 0.8


def test_classifier_is_kept_and_found_again(stacked, monkeypatch, capsys):
    get = lambda: digit_network.obtain(open_set(stacked[0]), torch.device("cpu"), recipe=HASTY)
    monkeypatch.setattr(digit_network, "LOWEST_ACCURACY", 0.0)
    first = get()
    trained = []
    train = digit_network.train
    monkeypatch.setattr(digit_network, "train", lambda *a: trained.append(1) or train(*a))
    again = get()
    assert trained == [] and again.accuracy == first.accuracy
    for name, value in first.net.state_dict().items():
        assert torch.equal(again.net.state_dict()[name], value)
    path = digit_network.cache_path(first.key)
    with open(path, "r+b") as file:
        file.truncate(1000)
    assert get().accuracy == first.accuracy and trained == [1]  # the same again: training is seeded
    assert "damaged" in capsys.readouterr().out


def test_training_leaves_the_callers_generator_alone():
    digits = digit_data.Digits(np.zeros([20, 32, 32], np.uint8), np.arange(20) % 10)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    digit_network.train(digits, torch.device("cpu"), digit_network.Recipe(min_steps=2, max_steps=2))
    assert torch.equal(torch.rand(2), expected)


def test_command_line(stacked, monkeypatch):
    monkeypatch.setattr(
        digit_network,
        "obtain",
        lambda dataset, device, use_cache, monitor: digit_network.DigitClassifier(digit_network.DigitNet().eval(), 0.5, 0.5, 1, 1, "k"),
    )
    result = CliRunner().invoke(digit_classifier.main, ["--data", stacked[0], "--test-data", stacked[1], "--device=cpu"])
    assert result.exit_code == 0 and "digits of " + stacked[1] in result.output


# ----------------------------------------------------------------------------------------------------------------
# Metric.


@pytest.fixture
def measure(classifier, stacked, monkeypatch):
    monkeypatch.setattr(digit_network, "obtain", lambda *a, **k: classifier)

    def run(G, **more):
        return metric_main.calc_metric(
            "madr_modes5k",
            G=G,
            device="cpu",
            num_gen=1500,
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=stacked[0]),
            **more,
        )

    return run


def test_real_images_come_close_to_the_floor(measure, stacked):
    result = measure(FromData(stacked[0]))
    r = result.results
    assert list(r) == ["madr_modes5k" + s for s in ("", "_5hits", "_kl", "_floor_kl", "_classifier_accuracy")]
    assert r.madr_modes5k > 500 and r.madr_modes5k_floor_kl > 0.2
    assert r.madr_modes5k_kl == pytest.approx(r.madr_modes5k_floor_kl, rel=0.6)
    assert result.facts["num_gen"] == 1500 and result.facts["kl_unit"] == "nats" and result.facts["classifier"]["num_held_out"] > 100


def test_collapse_to_few_modes_is_seen(measure, stacked, classifier):
    allowed = digit_data.mode_labels(open_set(stacked[0]))[:3]
    r = measure(FromData(stacked[0], allowed)).results
    assert r.madr_modes5k_5hits <= 8 and r.madr_modes5k_kl > np.log(1000 / 8)


def test_count_does_not_depend_on_the_batch(measure, stacked):
    G = FromData(stacked[0])
    assert measure(G, batch_size=37).results == measure(G, batch_size=500).results


def test_noise_is_told_from_digits(measure, stacked, toy_generator, capsys):
    """Random pictures reach many modes: the classifier's confidence gives them away."""
    verbose = dict(progress=metric_utils.ProgressMonitor(verbose=True))
    real = measure(FromData(stacked[0]), **verbose).facts
    assert real["confidence"] == pytest.approx(real["classifier"]["confidence"], abs=0.03)
    assert "not digits" not in "".join(capsys.readouterr())
    noise = measure(toy_generator(resolution=32), **verbose)
    assert noise.facts["confidence"] < 0.9 * real["confidence"] and "not digits" in capsys.readouterr().err


def test_grey_networks_are_a_sentence(measure, stacked):
    G = FromData(stacked[0])
    G.img_channels = 1
    with pytest.raises(UserError, match="RGB"):
        measure(G)


def test_cycling_counts_the_digit_modes(classifier, stacked, monkeypatch):
    monkeypatch.setattr(digit_network, "obtain", lambda *a, **k: classifier)
    labels = np.unique(digit_data.mode_labels(open_set(stacked[0])))
    halves = [FromData(stacked[0], half) for half in np.array_split(labels, 2)]
    result = metric_main.calc_metric(
        "madr_cycling",
        G=halves[0],
        device="cpu",
        num_gen=600,
        dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=stacked[0]),
        snapshots={"a": lambda: halves[0], "b": lambda: halves[1]},
    )
    assert result.facts["modes"] == "stacked digits" and result.facts["num_modes"] > 500
    assert result.results["madr_cycling"] > 0.3


def test_reference_follows_the_kind_of_set(stacked, tmp_path):
    data, reference, name = mode_coverage.distributions(open_set(stacked[0]))
    assert name in ("uniform", "uniform over the data set's modes") and set(reference) <= {0.0, 1.0}
    build_stacked_digits(str(tmp_path / "imbalanced.zip"), num_images=500, imbalanced=True)
    data, reference, name = mode_coverage.distributions(open_set(str(tmp_path / "imbalanced.zip")))
    assert name == "histogram of the data set" and reference.sum() == 500 and (data == reference).all()
    build_stacked_digits(str(tmp_path / "few.zip"), num_images=500, modes=20)
    data, reference, name = mode_coverage.distributions(open_set(str(tmp_path / "few.zip")))
    assert reference.sum() == 20 and reference[:20].all() and name == "uniform over the data set's modes"


def test_a_long_tail_of_stacked_digits_stays_such_a_set(tmp_path):
    """Its modes are those of the digits, and uneven by intention: the reference is its own histogram."""
    whole, tail = tmp_path / "few.zip", tmp_path / "tail.zip"
    build_stacked_digits(str(whole), num_images=200, modes=5)
    assert cli.call(dataset_tool.main, [f"--source={whole}", f"--dest={tail}", "--long-tail=4"]) == 0
    dataset = open_set(str(tail))
    before = open_set(str(whole)).provenance
    assert dataset.provenance["long_tail"]["ratio"] == 4
    assert {key: dataset.provenance[key] for key in ("digits", "modes", "imbalanced")} == {
        key: before[key] for key in ("digits", "modes", "imbalanced")
    }
    data, reference, name = mode_coverage.distributions(dataset)
    assert name == "histogram of the data set" and (data == reference).all()
    assert reference[:5].tolist() == dataset.provenance["long_tail"]["kept"]
    with pytest.raises(UserError, match="--modes=5: the long-tailed set tail .*leave --modes out"):
        mode_coverage.distributions(dataset, 5)


def test_first_modes_of_a_set_built_with_as_many_are_all_of_it(tmp_path):
    """dataset_tool.py --modes and calc_metrics.py --modes mean the same modes."""
    build_stacked_digits(str(tmp_path / "some.zip"), num_images=3000, modes=77)
    dataset = open_set(str(tmp_path / "some.zip"))
    for all_modes, first in zip(mode_coverage.distributions(dataset), mode_coverage.distributions(dataset, 77)):
        assert np.array_equal(all_modes, first)
    assert dataset.provenance["mode_rule"] == mode_coverage.mode_rule(77)
    reference = mode_coverage.distributions(dataset, 50)[1]
    assert reference[:50].sum() == 50 and reference.sum() == 50
    with pytest.raises(UserError, match="--modes=777.*labels 0 to 76 only; ask for at most 77"):
        mode_coverage.distributions(dataset, 777)


def test_first_modes_of_an_imbalanced_set_are_refused(tmp_path):
    build_stacked_digits(str(tmp_path / "imbalanced.zip"), num_images=300, imbalanced=True)
    with pytest.raises(UserError, match="--modes=777.*imbalanced.*leave --modes out"):
        mode_coverage.distributions(open_set(str(tmp_path / "imbalanced.zip")), 777)


class Counted(torch.nn.Module):
    """Stands in for the classifier: the mode is written into the image's first pixel."""

    key, num_train, num_held_out, accuracy, confidence = "c" * 64, 1, 1, 1.0, 1.0

    def predict_modes(self, images):
        digits = images[:, :, 0, 0].long()
        return digits @ torch.tensor([100, 10, 1]), torch.ones(len(images))

    def weights_digest(self):
        return "w" * 64


class ShowsModes(torch.nn.Module):
    """A generator of the given modes, each as often as it is given."""

    z_dim, c_dim, img_channels, img_resolution = 4, 0, 3, 32

    def __init__(self, chosen):
        super().__init__()
        self.register_buffer("digits", torch.from_numpy(modes.unstacked_label(chosen)))

    def forward(self, z, c):
        index = (torch.special.ndtr(z[:, 0].double()) * len(self.digits)).long().clamp(max=len(self.digits) - 1)
        return (self.digits[index].float()[:, :, None, None].expand(-1, -1, 32, 32) - 128) / 127.5


def test_the_first_modes_alone_count(stacked, monkeypatch):
    monkeypatch.setattr(digit_network, "obtain", lambda *args, **kwargs: Counted())
    present = np.unique(digit_data.mode_labels(open_set(stacked[0])))
    inside = present[present < 500]

    def measure(chosen, **more):
        return metric_main.calc_metric(
            "madr_modes5k",
            G=ShowsModes(chosen),
            device="cpu",
            num_gen=4000,
            **more,
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=stacked[0]),
        )

    whole, half = measure(present), measure(present, modes=500)
    assert (whole.facts["num_modes"], whole.facts["mode_rule"]) == (len(present), None)
    assert (half.facts["num_modes"], half.facts["mode_rule"]) == (len(inside), "labels 0 to 499")
    assert half.facts["outside_share"] == pytest.approx((present >= 500).mean(), abs=0.03) and whole.facts["outside_share"] == 0
    assert half.results.madr_modes5k == pytest.approx(len(inside), abs=5) and half.results.madr_modes5k < whole.results.madr_modes5k
    perfect = measure(digit_data.mode_labels(open_set(stacked[0])), modes=500)  # the floor's draws, too, fall outside in part
    assert perfect.results.madr_modes5k_kl == pytest.approx(perfect.results.madr_modes5k_floor_kl, abs=5 * perfect.facts["floor_kl_std"])
    others = measure(present[present >= 500], modes=500)
    assert others.results.madr_modes5k == 0 and others.facts["outside_share"] == 1 and others.results.madr_modes5k_kl == float("inf")


def test_imbalanced_sets_are_compared_with_their_own_histogram(tmp_path, monkeypatch):
    """GDPP's variant: a generator of the data's own histogram reaches the floor; an even one, perfect elsewhere, does not."""
    path = str(tmp_path / "imbalanced.zip")
    build_stacked_digits(path, num_images=6000, imbalanced=True)
    monkeypatch.setattr(digit_network, "obtain", lambda *args, **kwargs: Counted())
    labels = digit_data.mode_labels(open_set(path))

    def measure(chosen):
        return metric_main.calc_metric(
            "madr_modes5k",
            G=ShowsModes(chosen),
            device="cpu",
            num_gen=4000,
            dataset_kwargs=dict(class_name="training.dataset.ImageFolderDataset", path=path),
        )

    own, even = measure(labels), measure(np.unique(labels))
    assert own.facts["reference"] == "histogram of the data set" and own.facts["outside_share"] == 0
    assert own.results.madr_modes5k_kl == pytest.approx(own.results.madr_modes5k_floor_kl, abs=5 * own.facts["floor_kl_std"])
    p = np.full(1000, 0.0)
    p[np.unique(labels)] = 1 / len(np.unique(labels))
    q = np.bincount(labels, minlength=1000) / len(labels)
    bias = (len(np.unique(labels)) - 1) / (2 * 4000)  # of a divergence from counts: (modes - 1) / (2 n)
    expected = (p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum() + bias
    assert even.results.madr_modes5k_kl == pytest.approx(expected, rel=0.1) and even.results.madr_modes5k_kl > 2 * own.results.madr_modes5k_kl


@pytest.mark.slow
def test_real_mnist(tmp_path):
    """The house protocol's classifier: at least 99.5% on MNIST's 10,000 test digits."""
    folder = os.environ.get("MADR_TEST_MNIST")
    if not folder:
        pytest.skip("set MADR_TEST_MNIST to a folder with MNIST's idx files")
    build_stacked_mnist(str(tmp_path / "train.zip"), source=folder, num_images=60_000)
    build_stacked_mnist(str(tmp_path / "test.zip"), source=folder, split="test", num_images=20_000)
    classifier = digit_network.obtain(open_set(str(tmp_path / "train.zip")), torch.device("cpu"))
    assert classifier.accuracy >= 0.993
    assert digit_network.accuracy_on(classifier, digit_data.collect_digits(open_set(str(tmp_path / "test.zip"))))[0] >= 0.995
