"""Long-tailed digits: what the bed draws, and what it measures on images whose answer is known."""

import numpy as np
import pytest

from experiments import digit_bed, digits_study, small_gan, tail_bed
from tests.experiments import digit_stubs


@pytest.fixture(scope="module")
def dataset():
    return tail_bed.TailSet(digit_stubs.planes(), num_images=20_000)


@pytest.fixture(scope="module")
def judge(dataset):
    return tail_bed.Judge(digit_stubs.classifier(), dataset)


def test_the_set_has_its_shares_and_is_drawn_alike_again(dataset):
    shares = tail_bed.shares()
    assert shares.sum() == pytest.approx(1) and shares[0] / shares[9] == pytest.approx(100) and (shares < tail_bed.RARE_BELOW).sum() == 4
    assert np.abs(np.bincount(dataset.labels, minlength=10) / len(dataset) - shares).max() < 0.012
    assert (dataset.images[:, 0].mean(axis=2).argmax(axis=1) - 2 == dataset.labels).all() and dataset.image_shape == [1, 14, 14]
    assert (
        tail_bed.TailSet(digit_stubs.planes(), num_images=50).content_fingerprint()
        == tail_bed.TailSet(digit_stubs.planes(), num_images=50).content_fingerprint()
    )


def test_the_reals_score_as_reals(dataset, judge):
    found = judge(dataset.images)
    assert found["rare_share"] == pytest.approx(1) and found["clear"] == pytest.approx(1) and found["total_variation"] == pytest.approx(0)
    assert found["classes"] == 10 and found["rare_classes"] == 4 and found["frechet"] == pytest.approx(0, abs=1e-6)
    assert found["relative"] == pytest.approx([1] * 10)


def test_lost_classes_are_seen(dataset, judge):
    lost = judge(dataset.images[dataset.labels < 6])
    assert lost["classes"] == 6 and lost["rare_classes"] == 0 and lost["rare_share"] == 0 and lost["relative"][9] == 0
    assert lost["clear"] == pytest.approx(1) and lost["total_variation"] == pytest.approx((dataset.labels >= 6).mean())


def test_smears_do_not_count_as_rare_classes(dataset, judge):
    common = dataset.images[dataset.labels < 6]
    smears = np.random.RandomState(1).randint(0, 30, common.shape).astype(np.uint8)
    smears[:, :, 11] += 20  # of all rows that of digit 9 is a little brighter
    digits, sure, _ = digit_bed.read_planes(judge.classifier, smears[:, 0])
    assert (digits == 9).mean() > 0.9 and (sure < tail_bed.SURE).all()
    found = judge(np.concatenate([common, smears]))
    assert found["rare_share"] == 0 and found["clear"] == pytest.approx(0.5)


@pytest.mark.parametrize("method", ["plain", "moments+fine-tilt"])
def test_networks_train_a_few_steps(method):
    dataset = tail_bed.TailSet(digit_stubs.planes(), num_images=1000)
    gan = small_gan.build(digits_study.METHODS[method], tail_bed.networks(), dataset, 0, batch=8, lr_G=1e-3, lr_D=1e-3, betas=(0.5, 0.999))
    before = [parameter.clone() for parameter in gan.G.parameters()]
    small_gan.train(gan, dataset.as_tensor(), 0, 3)
    assert any((old != new).any() for old, new in zip(before, gan.G.parameters()))
