"""What a network is judged by, on generators whose answer is known: they draw given images."""

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from experiments import network_judge
from metrics import digit_network
from tests.experiments.digit_stubs import Rows, planes
from training.data import builders, writer


class Bank(torch.nn.Module):
    """A generator of given uint8 images: which one, the first coordinate of z decides."""

    z_dim, c_dim, img_channels = 4, 0, 3

    def __init__(self, images):
        super().__init__()
        self.images, self.img_resolution = torch.from_numpy(images), images.shape[-1]

    def forward(self, z, c):
        rows = ((torch.special.ndtr(z[:, 0].double()) * len(self.images)).long()).clamp(max=len(self.images) - 1)
        return self.images[rows].float() / 127.5 - 1


class Reader(Rows):
    """The same as a whole, as the count of modes calls it."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))  # tells the device

    def forward(self, x):
        return self.head(self.body(x))


def blobs(count, seed, side=16):
    random = np.random.RandomState(seed)
    coarse = random.randint(0, 256, [count, 3, 4, 4]).astype(np.uint8)
    return coarse.repeat(side // 4, axis=2).repeat(side // 4, axis=3)


def write(path, images, labels):
    with writer.open_writer(str(path)) as part:
        for image, label in zip(images, labels):
            part.add(image.transpose(1, 2, 0), int(label))
    return dict(class_name="training.dataset.ImageFolderDataset", path=str(path), use_labels=False, max_size=None, xflip=False)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """(options of the training part, path of the held-out one): 60 and 30 images, one class in ten is rare."""
    folder = tmp_path_factory.mktemp("parts")
    kwargs = write(folder / "train.zip", blobs(60, 0), np.arange(60) % 2)
    write(folder / "held-out.zip", blobs(30, 1), [2] + [number % 2 for number in range(29)])
    return kwargs, folder / "held-out.zip"


def test_a_copier_is_told_from_a_generator_of_new_images(parts):
    kwargs, held_out = parts
    judge = network_judge.NetworkJudge(kwargs, "random-conv", 100, held_out)
    copier, honest, collapsed = judge(Bank(blobs(60, 0))), judge(Bank(blobs(30, 1))), judge(Bank(blobs(1, 1)))
    assert copier["authenticity"] == 0 and honest["authenticity"] > 50
    assert honest["coverage"] > 0.9 > collapsed["coverage"] and honest["frechet"] < 0.3 * copier["frechet"] < collapsed["frechet"]
    assert copier["frechet_over_held_out"] < 0.3 < honest["frechet_over_held_out"]
    assert 0 < honest["rare_share"] < 3 and abs(sum(honest["class_share_generated"]) - 1) < 1e-9
    scale = judge.of_training_images()
    assert scale["num_images"] == 60 and scale["coverage"] <= 1 and scale["held_out_part_authenticity"] > 50 and "authenticity" not in scale
    assert judge.facts()["held_out"]["num_images"] == 30 and judge.facts()["training"]["num_images"] == 60


def test_without_a_held_out_part_the_reals_are_those_of_the_training(parts):
    judge = network_judge.NetworkJudge(parts[0], "random-conv", 100)
    found = judge(Bank(blobs(60, 0)))
    assert judge.facts() == {} and found["coverage"] > 0.9 and "authenticity" not in found


def test_held_out_images_that_cannot_be_compared_are_refused(parts, tmp_path):
    kwargs, held_out = parts
    with pytest.raises(UserError, match="trained on; give images"):
        network_judge.NetworkJudge(kwargs, "random-conv", 100, kwargs["path"])
    write(tmp_path / "large.zip", blobs(30, 1, side=32), np.zeros(30))
    with pytest.raises(UserError, match="other part of the same set"):
        network_judge.NetworkJudge(kwargs, "random-conv", 100, tmp_path / "large.zip")
    with pytest.raises(UserError, match="give a fixed space"):
        network_judge.NetworkJudge(kwargs, "pca", 100, held_out)
    with pytest.raises(UserError, match="other images"):
        network_judge.NetworkJudge(kwargs, "random-conv", 100, held_out).check_trained_on(dict(kwargs, path=str(held_out)), "network.pkl")


@pytest.fixture
def digits(tmp_path, monkeypatch):
    """Options of stacked digits that a child could read, and their images."""
    classifier = digit_network.DigitClassifier(Reader(), 1.0, 1.0, 1, 1, "rows")
    monkeypatch.setattr(digit_network, "obtain", lambda *args, **kwargs: classifier)
    random, drawn = np.random.RandomState(0), planes()
    labels = random.randint(0, 1000, 300)
    labels[0] = 999
    images = drawn.images[builders.draw_triples(labels, drawn.labels, random)]
    return write(tmp_path / "digits.zip", images, labels), images, labels


def test_digits_are_counted_and_compared_in_the_classifiers_features(digits):
    kwargs, images, labels = digits
    judge = network_judge.NetworkJudge(kwargs, "random-conv", 400)
    whole, one = judge(Bank(images)), judge(Bank(images[:1]))
    assert one["madr_modes"] == 1 and one["madr_modes_kl"] == pytest.approx(np.log(len(set(labels))), abs=0.01)
    assert 150 < whole["madr_modes"] <= len(set(labels)) and whole["madr_modes_kl"] < one["madr_modes_kl"] / 3
    assert whole["digits_frechet"] < 0.1 * one["digits_frechet"] and whole["digits_confidence"] == pytest.approx(1, abs=0.01)
    assert "class_share_real" not in whole
