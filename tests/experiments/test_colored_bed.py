"""Digits with a rare colour: what the bed draws, and what it measures on images whose answer is known."""

import numpy as np
import pytest
import torch

from experiments import colored_bed, digits_study, small_gan
from metrics import digit_network
from metrics.digit_data import Digits


class Brightness(torch.nn.Module):
    """Stands in for the classifier's network: sure of the first class in proportion to the brightest pixel, of which two features tell."""

    def __init__(self):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
        self.head = torch.nn.Linear(1, 10, bias=False)
        torch.nn.init.zeros_(self.head.weight)
        self.head.weight.data[0] = 20.0


@pytest.fixture(scope="module")
def judge():
    classifier = digit_network.DigitClassifier(Brightness(), 1.0, 1.0, 1, 1, "brightness")
    return colored_bed.Judge(classifier, colored_bed.ColoredSet(digits(), num_images=1000))


def digits(count=1200):
    images = np.random.RandomState(0).randint(0, 40, [count, 28, 28]).astype(np.uint8)
    images[:, 10, 10] = 255
    return Digits(images, np.zeros(count, np.int64))


def test_one_in_a_hundred_is_green_and_nothing_else_changes():
    dataset = colored_bed.ColoredSet(digits(), num_images=1000)
    light = dataset.images.sum(axis=(2, 3), dtype=np.int64)
    assert (light[:, 1] > 0).sum() == 10 and ((light > 0).sum(axis=1) == 1).all()
    assert (dataset.images.max(axis=1) == digits().images[:1000]).all() and len(dataset) == 1000
    assert (dataset.is_green == (light[:, 1] > 0)).all()


def test_the_reals_score_as_reals(judge):
    dataset = colored_bed.ColoredSet(digits(), num_images=1000)
    found = judge(dataset.images)
    assert found["minority_share"] == pytest.approx(1) and found["minority_clear"] == pytest.approx(1)
    assert found["clear"] == pytest.approx(1) and found["blended"] == 0 and found["frechet"] == pytest.approx(0, abs=1e-6)


def test_a_lost_colour_and_blends_and_smears_do_not_count(judge):
    dataset = colored_bed.ColoredSet(digits(), num_images=1000)
    red = dataset.images[~dataset.is_green]
    lost = judge(red)
    assert lost["minority_share"] == 0 and np.isnan(lost["minority_clear"]) and lost["clear"] == pytest.approx(1)
    blends = red.copy()
    blends[:, 1] = red[:, 0]
    assert judge(blends)["blended"] == 1 and judge(blends)["minority_share"] == 0
    smears = dataset.images[dataset.is_green] // 8
    assert judge(smears)["minority_share"] == 0 and judge(smears)["minority_clear"] == 0
    twice = np.concatenate([dataset.images, dataset.images[dataset.is_green]])
    assert judge(twice)["minority_share"] == pytest.approx(20 / 1010 / 0.01)


@pytest.mark.parametrize("method", ["plain", "tilt-fine-20"])
def test_networks_train_a_few_steps(method):
    dataset = colored_bed.ColoredSet(digits(), num_images=1000)
    gan = small_gan.build(digits_study.METHODS[method], colored_bed.networks(), dataset, 0, batch=8, lr_G=1e-3, lr_D=1e-3, betas=(0.5, 0.999))
    before = [parameter.clone() for parameter in gan.G.parameters()]
    small_gan.train(gan, dataset.as_tensor(), 0, 3)
    assert any((old != new).any() for old, new in zip(before, gan.G.parameters()))
