"""What the page shows of a network's diversity, for generators of known quality on stacked digits."""

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from madr_spaces import hub
from metrics import digit_data, digit_network
from metrics.metric_utils import MetricOptions
from reporting import diversity_sheets
from training.data.builders import build_stacked_digits
from training.dataset import ImageFolderDataset

NUM_GEN = 400


@pytest.fixture(scope="module")
def stacked(tmp_path_factory):
    """Paths of 400 training images and of 400 of other digits."""
    folder = tmp_path_factory.mktemp("stacked")
    build_stacked_digits(str(folder / "train.zip"), split="train", num_images=400)
    build_stacked_digits(str(folder / "eval.zip"), split="eval", num_images=400)
    return str(folder / "train.zip"), str(folder / "eval.zip")


class Shows(torch.nn.Module):
    """A generator that shows images of a data set, those of some red digits alone."""

    def __init__(self, path, red=range(10)):
        super().__init__()
        dataset = ImageFolderDataset(path=path, use_labels=True)
        chosen = np.flatnonzero(np.isin(digit_data.mode_labels(dataset) // 100, list(red)))
        self.register_buffer("images", torch.from_numpy(np.stack([dataset[i][0] for i in chosen])))
        self.z_dim, self.c_dim, self.img_channels, self.img_resolution = 4, 0, 3, 32

    def forward(self, z, c):
        return (self.images[(torch.special.ndtr(z[:, 0]) * len(self.images)).long()].float() - 128) / 127.5


class ReadsLabels:
    """A classifier that knows the digits of a set by heart."""

    confidence, accuracy = 0.5, 1.0

    def __init__(self, path):
        dataset = ImageFolderDataset(path=path, use_labels=True)
        self.modes = {dataset[i][0].tobytes(): mode for i, mode in enumerate(digit_data.mode_labels(dataset))}

    def predict_modes(self, images):
        return torch.tensor([self.modes[image.numpy().tobytes()] for image in images]), torch.ones(len(images))


def compute(G, path, monkeypatch, shown):
    monkeypatch.setattr(digit_network, "obtain", lambda *_, **__: ReadsLabels(shown))
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=path, use_labels=False)
    return diversity_sheets.compute(MetricOptions(G=G, dataset_kwargs=kwargs, device="cpu", space="pixels", cache=False), NUM_GEN)


def test_a_generator_that_repeats_few_of_its_training_images(stacked, monkeypatch):
    facts, arrays = compute(Shows(stacked[0], red=range(2)), stacked[0], monkeypatch, stacked[0])
    assert facts["problems"] == []
    # The modes of two red digits are found, the others are what is missing.
    counts = arrays["modes_counts"].reshape(10, 100)
    assert counts.sum() == NUM_GEN and (counts[:2].sum(axis=1) > 0).all() and counts[2:].sum() == 0
    assert facts["modes"]["modes"] == (counts > 0).sum() < facts["modes"]["num_modes"] and facts["modes"]["outside"] == 0
    assert facts["coverage"] < 0.8 * facts["expected_coverage"] and len(arrays["missing_ratio"]) == diversity_sheets.NUM_MISSING
    assert (facts["modes"]["confidence"], facts["modes"]["real_confidence"]) == (1.0, 0.5)
    assert (arrays["missing_class"] // 100 >= 2).all()
    assert arrays["modes_expected"].sum() == pytest.approx(NUM_GEN)
    # All are copies; the sheet shows different ones.
    assert facts["memorisation"]["num_copies"] == NUM_GEN
    assert len(set(arrays["copies_item"].tolist())) == diversity_sheets.NUM_COPIES == len(arrays["copies_fake"])
    assert (arrays["copies_fake"] == arrays["copies_real"]).all() and arrays["copies_suspect"].all()


def test_a_generator_of_other_digits_copies_nothing(stacked, monkeypatch):
    facts, arrays = compute(Shows(stacked[1]), stacked[0], monkeypatch, stacked[1])
    assert facts["memorisation"]["num_copies"] == facts["memorisation"]["num_suspects"] == 0
    assert facts["modes"]["num_modes"] == (arrays["modes_expected"] > 0).sum()


def test_a_set_without_a_classifier_keeps_the_rest(stacked, monkeypatch):
    def refuse(*_, **__):
        raise UserError("too few digits")

    monkeypatch.setattr(digit_network, "obtain", refuse)
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=stacked[0], use_labels=False)
    facts, arrays = diversity_sheets.compute(
        MetricOptions(G=Shows(stacked[0]), dataset_kwargs=kwargs, device="cpu", space="pixels", cache=False), 50, num_real=100
    )
    assert facts["problems"] == ["too few digits"] and "modes_counts" not in arrays
    assert facts["num_real"] == 100 and facts["memorisation"]["num_searched"] == 400  # copies are looked for in all


def test_the_space_is_one_that_is_here_and_that_nobody_trained_in(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "local_weights", lambda name: None)
    assert diversity_sheets.choose_space(None, None, {})[0] == "random-conv"
    space, reason = diversity_sheets.choose_space(None, "ensemble:random-conv", {})
    assert space == "pixels" and "dino" in reason
    assert diversity_sheets.choose_space(None, "ensemble:random-conv+pca", {})[0] == "random"
    assert diversity_sheets.choose_space("pixels", None, {}) == ("pixels", None)
    weights = tmp_path / "weights.pth"
    weights.touch()
    assert diversity_sheets.choose_space(None, None, dict(dino=str(weights))) == ("dino", None)
    monkeypatch.setattr(hub, "local_weights", lambda name: str(weights))
    assert diversity_sheets.choose_space(None, None, {}) == ("dino", None)
    with pytest.raises(UserError, match="must be one of"):
        diversity_sheets.choose_space("nonsense", None, {})
