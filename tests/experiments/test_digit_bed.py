"""The digit beds: what they draw, what they measure on images whose answer is known."""

import numpy as np
import pytest
import torch

import dnnlib
from experiments import digit_bed
from metrics.digit_data import Digits
from tests.experiments import digit_stubs


@pytest.fixture(scope="module")
def classifier():
    return digit_stubs.classifier()


def test_halving_averages_two_by_two():
    image = np.arange(28 * 28, dtype=np.int64).reshape(1, 28, 28) % 251
    half = digit_bed.half_size(image.astype(np.uint8))
    assert half.shape == (1, 14, 14) and half[0, 3, 5] == int(image[0, 6:8, 10:12].mean() + 0.5)


def test_a_bed_draws_the_same_images_again():
    again = [digit_bed.StackedSet("stacked", digit_stubs.planes(), num_images=50).content_fingerprint() for _ in range(2)]
    assert again[0] == again[1] != digit_bed.StackedSet("stacked", digit_stubs.planes(), num_images=50, seed=1).content_fingerprint()


def test_judge_of_the_stack_finds_all_modes_in_the_data_and_one_in_a_copy(classifier):
    dataset = digit_bed.StackedSet("stacked", digit_stubs.planes(), num_images=6000)
    judge = digit_bed.Judge(classifier, dataset, num_samples=6000)
    real = judge(dataset.images)
    assert real["modes"] == len(set(dataset.modes.tolist())) > 950 and real["kl"] < 0.15 and real["frechet"] == pytest.approx(0, abs=1e-6)
    assert real["confidence"] == pytest.approx(1)
    copies = judge(np.repeat(dataset.images[:1], 6000, axis=0))
    assert copies["modes"] == 1 and copies["kl"] == pytest.approx(np.log(1000), abs=1e-6) and copies["frechet"] > 10 * abs(real["frechet"])


def generator(side=14):
    return dnnlib.util.construct_class_by_name(**digit_bed.networks(side)[0], c_dim=0, img_resolution=side, img_channels=3)


def test_sampling_leaves_the_generator_training_and_repeats_itself():
    torch.manual_seed(0)
    G = generator().train()
    first, again = digit_bed.sample(G, 16), digit_bed.sample(G, 16)
    assert G.training and first.shape == (16, 3, 14, 14) and first.dtype == np.uint8 and np.array_equal(first, again)


@pytest.mark.parametrize("bed, side", digit_bed.SIDES.items())
def test_networks_fit_the_size_of_their_bed(bed, side):
    images = digit_bed.sample(generator(side), 4)
    digits = Digits(np.zeros([20, side, side], np.uint8), np.arange(20) % 10)
    assert digit_bed.StackedSet(bed, digits, num_images=30).image_shape == list(images.shape[1:])
