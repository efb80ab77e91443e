"""Copies of training images: planted ones are found, honest images are not taken for them."""

import numpy as np
import PIL.Image
import pytest

from metrics import memorisation

NUM_TRAINING, NUM_LOOKED_AT = 600, 1000


def smooth_images(count, seed, side=16):
    """uint8 [count, 3, side, side] of few degrees of freedom: of one distribution for all seeds."""
    rng = np.random.RandomState(seed)
    pictures = [PIL.Image.fromarray(rng.randint(0, 256, [4, 4, 3]).astype(np.uint8)).resize([side, side], PIL.Image.BICUBIC) for _ in range(count)]
    return np.stack([np.asarray(picture) for picture in pictures]).transpose(0, 3, 1, 2)


@pytest.fixture(scope="module")
def training():
    return smooth_images(NUM_TRAINING, seed=1)


@pytest.fixture(scope="module")
def held_out():
    return smooth_images(NUM_LOOKED_AT, seed=2)


def plant(held_out, training, rng):
    """(images, {place: training image}) with five copies: exact, with noise, shifted by a pixel, mirrored, shifted with noise."""
    images = held_out.copy()
    places, sources = rng.choice(len(images), 5, replace=False), rng.choice(len(training), 5, replace=False)
    for kind, (place, source) in enumerate(zip(places, sources)):
        copy = training[source].astype(np.float64)
        if kind == 2:
            copy = np.concatenate([copy[:, :, :1], copy[:, :, :-1]], axis=2)
        if kind == 3:
            copy = copy[:, :, ::-1]
        if kind == 4:
            copy = np.concatenate([copy[:, 1:], copy[:, -1:]], axis=1)
        if kind in (1, 4):
            copy = copy + rng.normal(0, 4, copy.shape)
        images[place] = copy.round().clip(0, 255).astype(np.uint8)
    return images, dict(zip(places.tolist(), sources.tolist()))


def test_five_planted_copies_among_a_thousand_are_found_and_no_others(training, held_out):
    images, planted = plant(held_out, training, np.random.default_rng(0))
    found = memorisation.find(training, images)
    assert set(np.flatnonzero(found.copies_M)) == set(planted)
    assert all(found.nearest_M[place] == source for place, source in planted.items())
    assert set(found.order_M[:5].tolist()) == set(planted)
    mirrored = list(planted)[3]
    assert found.mirrored_M[mirrored] and not found.mirrored_M[list(planted)[0]]


def test_held_out_images_are_no_copies(training, held_out):
    found = memorisation.find(training, held_out)
    assert not found.copies_M.any() and not found.suspects_M.any()
    assert found.num_twins == 0 and found.num_asked == NUM_TRAINING


def test_a_set_with_twins_of_its_own_makes_no_copies_of_honest_images(training, held_out):
    """2 % of the images come twice in the world that both samples are drawn from."""
    twins = smooth_images(24, seed=3)
    world = training.copy(), held_out.copy()
    world[0][:12], world[0][12:24] = twins[:12], twins[:12]  # both of a pair in the training set
    world[0][24:36], world[1][:12] = twins[12:], twins[12:]  # one of a pair in each
    honest = memorisation.find(*world)
    assert honest.suspects_M.sum() == 12 and honest.num_twins == 24 and not honest.copies_M.any()
    many = world[1].copy()
    many[100:250] = training[300:450]
    copied = memorisation.find(world[0], many)
    assert copied.copies_M.sum() >= 150 and copied.copies_M[100:250].all()


def test_a_collapsed_generator_is_no_copier(training):
    grey = np.full([200, 3, 16, 16], 128, np.uint8)
    assert not memorisation.find(training, grey).copies_M.any()


def test_every_training_image_again_is_a_copy(training):
    assert memorisation.find(training, training[:50]).copies_M.all()


@pytest.mark.parametrize("count", [2, 3, 10, 99])
def test_of_few_training_images_nothing_can_be_told(training, count):
    found = memorisation.find(training[:count], training[:7])
    assert np.isnan(found.chance_M).all() and not found.copies_M.any()
    assert (found.nearest_M[: min(count, 7)] == np.arange(min(count, 7))).all() and np.isfinite(found.ratio_M).all()


@pytest.mark.parametrize("side, channels", [(8, 3), (16, 1), (32, 3), (64, 1)])
def test_sizes_and_channels(side, channels):
    images = np.random.RandomState(0).randint(0, 256, [120, channels, side, side]).astype(np.uint8)
    thumbs = memorisation.thumbnails(images)
    assert thumbs.shape == (120, channels, min(side, 32), min(side, 32)) and thumbs.dtype == np.uint8
    assert memorisation.find(thumbs[:110], thumbs[105:]).copies_M.tolist() == [True] * 5 + [False] * 10


def test_the_tail_is_a_power():
    """Ratios of dimension 5 have P(ratio < t) = t^5; far below the smallest seen the fit still says so."""
    honest = np.random.default_rng(0).uniform(size=2000) ** (1 / 5)
    chance = memorisation.tail_chance(np.array([0.1, 0.9]), honest)
    assert 1e-6 < chance[0] < 1e-4 and chance[1] == pytest.approx(0.9**5, abs=0.03)
    with_twins = np.concatenate([honest, np.zeros(20)])
    assert memorisation.tail_chance(np.array([0.1]), with_twins)[0] < 1e-4


def test_distances_know_shifts_and_mirrors():
    image = np.random.RandomState(0).randint(0, 256, [1, 3, 16, 16]).astype(np.uint8)
    zero = np.zeros(1, np.int64)
    for version, mirrored in [
        (image, False),
        (image[..., ::-1], True),
        (np.roll(image, 1, axis=3), False),
        (np.roll(image, (1, -1), axis=(2, 3))[..., ::-1], True),
    ]:
        distance, flipped = memorisation.aligned_distances(version, image, zero, zero)
        assert distance[0] == 0 and flipped[0] == mirrored
    assert memorisation.aligned_distances(np.roll(image, 2, axis=3), image, zero, zero)[0][0] > 50
    brighter = (image // 2 + 10).astype(np.uint8), (image // 2).astype(np.uint8)
    assert memorisation.aligned_distances(*brighter, zero, zero)[0][0] == pytest.approx(10)
