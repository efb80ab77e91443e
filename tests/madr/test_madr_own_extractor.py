"""`own`: trained by one command, read back, used in a loss; and the check of extractors."""

import json
import os

import numpy as np
import PIL.Image
import pytest
import torch
from click.testing import CliRunner

from madr_plugin import check_extractor, check_sensor, command, own_extractor, own_training, space_fitness
from madr_plugin.base import progress
from madr_plugin.config import resolve
from madr_plugin.reals import real_images, reference
from madr_spaces import registry
from madr_spaces.errors import MADRError
from madr_spaces.images import data_fingerprint
from tests.madr.toy_host import Host, Images, madr_loss


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """48 pictures of 16x16 of three kinds (a bright square in one of three places), labelled."""
    folder, random, labels = tmp_path_factory.mktemp("pictures"), np.random.RandomState(0), []
    for index in range(48):
        kind = index % 3
        image = random.randint(0, 40, [16, 16, 3]).astype(np.uint8)
        image[2 + 4 * kind : 6 + 4 * kind, 2 + 4 * kind : 6 + 4 * kind] = random.randint(150, 255, [3])
        PIL.Image.fromarray(image).save(folder / f"{index:03d}.png")
        labels.append([f"{index:03d}.png", kind])
    (folder / "dataset.json").write_text(json.dumps(dict(labels=labels)))
    return folder


@pytest.fixture(scope="module")
def encoder(pictures, tmp_path_factory):
    path = tmp_path_factory.mktemp("encoder") / "own.safetensors"
    result = CliRunner().invoke(
        own_extractor.main, [f"--data={pictures}", f"--out={path}", "--steps=12", "--batch=16", "--width=8"], catch_exceptions=False
    )
    assert result.exit_code == 0 and str(path) in result.output
    return path


def test_training_lowers_the_contrastive_loss(pictures):
    images = real_images.read_images(command.open_images(str(pictures)), np.arange(48))
    lines = []
    own_training.train(images, 8, 25, 32, seed=0, announce=lines.append)
    losses = [float(line.split("loss")[1].split()[0]) for line in lines]
    assert losses[-1] < 0.7 * losses[0]


def test_file_is_read_back_frozen_and_differentiable(pictures, encoder):
    extractor = registry.build("own", (3, 16, 16), weights=str(encoder))
    dataset = command.open_images(str(pictures))
    assert not list(extractor.parameters()) and extractor.data_fingerprint == data_fingerprint(dataset)
    assert [path.name for path in encoder.parent.iterdir()] == ["own.safetensors"]
    x = real_images.read_images(dataset, np.arange(48)).requires_grad_()
    features = extractor(x)
    assert features.shape == (48, 8 + 64) and torch.equal(features, registry.build("own", (3, 16, 16), weights=str(encoder))(x))
    median = torch.pdist(features.detach()).median()
    assert 0.7 < float(median) < 1.3
    features.square().sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert len(extractor.identity()["sha256"]) == 64


def test_training_is_reproducible(pictures):
    images = real_images.read_images(command.open_images(str(pictures)), np.arange(48))
    one, two = (own_training.train(images, 4, 2, 16, seed=3, announce=len) for _ in range(2))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_it_serves_the_loss(encoder, monkeypatch, capsys):
    host = Host(madr_loss(dict(extractor="own", weights=str(encoder), shrink=0)))
    assert "trained on other images" in capsys.readouterr().out
    host.step(), host.step()
    assert host.loss.telemetry()["gratio"] > 0


class InFork:
    """The data set of a fork: the family's parts that are inside every one, and no fingerprint of its own."""

    def __init__(self, dataset):
        self.dataset, self._raw_shape, self._load_raw_image = dataset, dataset._raw_shape, dataset._load_raw_image

    def __len__(self):
        return len(self.dataset)

    def __getitem__(self, index):
        return self.dataset[index]


def test_its_images_are_known_whoever_opens_them(pictures, encoder):
    from training.dataset import ImageFolderDataset

    extractor = registry.build("own", (3, 16, 16), weights=str(encoder))
    for options in ({}, dict(use_labels=True), dict(xflip=True), dict(max_size=40)):
        dataset = ImageFolderDataset(str(pictures), **options)
        assert extractor.knows(dataset) and extractor.knows(InFork(dataset))
    assert not hasattr(InFork(dataset), "content_fingerprint") and extractor.knows(Host(madr_loss()).images) is False
    extractor.image_fingerprint = None  # a file from before
    assert extractor.knows(ImageFolderDataset(str(pictures), use_labels=True)) and extractor.knows(InFork(dataset)) is None


@pytest.mark.parametrize(
    "make, words",
    [
        (lambda path: "", "python -m madr_plugin.own_extractor"),
        (lambda path: str(path / "absent.safetensors"), "absent.safetensors"),
        (lambda path: other_file(path), "not written by"),
    ],
)
def test_bad_files_are_refused_with_the_remedy(tmp_path, make, words):
    with pytest.raises(MADRError, match="own_extractor") as caught:
        registry.build("own", (3, 16, 16), weights=make(tmp_path))
    assert words in str(caught.value)


def other_file(path):
    from safetensors.torch import save_file

    save_file(dict(weight=torch.zeros([2])), path / "other.safetensors")
    return str(path / "other.safetensors")


def test_other_channels_are_refused(encoder):
    with pytest.raises(MADRError, match="3 channels"):
        registry.build("own", (1, 16, 16), weights=str(encoder))


# ----------------------------------------------------------------------------
# The check.


def test_check_command_recommends(pictures, encoder):
    result = CliRunner().invoke(
        check_extractor.main,
        [f"--data={pictures}", "--madr-extractor=pca", "--madr-extractor=own", f"--madr-weights={encoder}"],
        catch_exceptions=False,
    )
    assert result.exit_code == 0 and "48 images" in result.output and "same label" in result.output
    assert "| pca | 1.000 |" in result.output and "| own |" in result.output and "Take --madr-extractor=" in result.output


def test_figures_of_the_check():
    class_N = torch.tensor([0, 0, 0, 1, 1])
    apart = torch.tensor([[0.0], [0.1], [0.2], [5.0], [5.1]])
    assert space_fitness.neighbour_accuracy(apart, class_N) == (1.0, pytest.approx(0.6))
    assert space_fitness.neighbour_accuracy(torch.tensor([[0.0], [5.0], [9.0], [0.1], [5.1]]), class_N)[0] < 0.5
    generator = torch.Generator().manual_seed(0)
    wide = torch.randn([300, 4000], generator=generator)  # distances of independent noise in many dimensions agree
    assert space_fitness.relative_spread(wide, generator) < 0.05 < 0.3 < space_fitness.relative_spread(wide[:, :2], generator)
    assert space_fitness.retrieval_accuracy(apart, apart + 0.01) == 1


class Detached(torch.nn.Module):
    images_to_fit = 0

    def forward(self, images):
        return images.detach().flatten(1)

    def identity(self):
        return dict(name="detached")


def test_an_extractor_without_gradient_is_not_recommended():
    images = torch.rand([20, 3, 8, 8], generator=torch.Generator().manual_seed(0)) * 2 - 1
    detached = space_fitness.check(Detached(), images, None)
    good = space_fitness.check(registry.build("pca", (3, 8, 8)), images, None)
    assert "gradient" in space_fitness.faults(detached)[0]
    assert space_fitness.recommended(dict(a=detached)) is None
    fit = dict(good, accuracy=0.5, guess=0.1, spread=0.3)
    assert space_fitness.recommended(dict(a=detached, slow=dict(fit, accuracy=0.51, ms=9.0), cheap=dict(fit, ms=1.0))) == "cheap"
    assert space_fitness.recommended(dict(slow=dict(fit, accuracy=0.8, ms=9.0), cheap=dict(fit, ms=1.0))) == "slow"


@pytest.mark.parametrize("height, width", [(16, 160), (160, 16)])
def test_images_that_are_not_square(tmp_path, height, width):
    """A side below that of the principal components stays as it is: their file has to fit the images."""
    folder, random = tmp_path / "strips", np.random.RandomState(0)
    folder.mkdir()
    for index in range(16):
        PIL.Image.fromarray(random.randint(0, 256, [height, width, 3]).astype(np.uint8)).save(folder / f"{index:03d}.png")
    path, dataset = tmp_path / "own.safetensors", command.open_images(str(folder))
    images = real_images.read_images(dataset, range(16), own_training.LARGEST_SIDE)
    assert list(images.shape[2:]) == [min(height, 128), min(width, 128)]
    own_training.save(path, own_training.train(images, 4, 1, 8, 0, announce=len), dataset)
    space = registry.build("own", dataset.image_shape, weights=str(path))
    assert len(space(real_images.read_images(dataset, range(16)))) == 16


@pytest.mark.parametrize("name", ["pca", "random", "random-conv"])
def test_copies_among_the_images_are_no_fault_of_the_extractor(name):
    images = torch.rand([20, 3, 8, 8], generator=torch.Generator().manual_seed(0)) * 2 - 1
    images[3:10] = images[3]  # neighbours in the order in which they come
    extractor = registry.build(name, (3, 8, 8))
    if extractor.images_to_fit:
        extractor.fit(images)
    assert space_fitness.gradient_share(extractor, images) == 1


@pytest.mark.parametrize(
    "main, arguments, words",
    [
        (check_extractor.main, ["--seed=4294967296"], "Invalid value for '--seed'"),
        (check_sensor.main, ["--seed=4294967296"], "Invalid value for '--seed'"),
        (own_extractor.main, ["--out=own.safetensors", "--seed=4294967296"], "Invalid value for '--seed'"),
        (own_extractor.main, ["--out="], "--out= names no file"),
    ],
)
def test_values_that_cannot_be_are_sentences(main, arguments, words, capsys, monkeypatch, pictures):
    monkeypatch.setattr("sys.argv", ["command", f"--data={pictures}", *arguments])
    with pytest.raises(SystemExit) as stopped:
        command.run(main)
    assert stopped.value.code in (1, 2) and words in capsys.readouterr().err


def test_commands_answer_bad_data_with_a_sentence(capsys, monkeypatch, tmp_path):
    monkeypatch.setattr("sys.argv", ["check_extractor", f"--data={tmp_path / 'nowhere.zip'}"])
    with pytest.raises(SystemExit) as stopped:
        command.run(check_extractor.main)
    assert stopped.value.code == 1
    assert capsys.readouterr().err.startswith("Error: ")


def test_a_place_that_cannot_be_written_is_refused_before_training(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("x")
    with pytest.raises(MADRError, match="cannot write .*own.safetensors.*another place"):
        own_training.check_writable(tmp_path / "file" / "own.safetensors")
    own_training.check_writable(tmp_path / "new" / "own.safetensors")
    assert list((tmp_path / "new").iterdir()) == []
    monkeypatch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(MADRError, match="cannot write .*disk full.*make room"):
        own_training.save(tmp_path / "own.safetensors", {"pca.basis_PD": torch.zeros([3, 2])}, Images())
    assert list(tmp_path.glob("*.tmp")) == []


def test_commands_know_the_home_folder_and_end_on_ctrl_c_in_a_sentence(capsys, monkeypatch, pictures, tmp_path):
    monkeypatch.setenv("HOME", str(pictures.parent))
    monkeypatch.setattr("sys.argv", ["check_extractor", f"--data=~/{pictures.name}", "--images=20", "--madr-extractor=pixels"])
    with pytest.raises(SystemExit) as stopped:
        command.run(check_extractor.main)
    assert stopped.value.code == 0 and "20 images" in capsys.readouterr().out

    def interrupted(*_args, **_kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(own_training, "train", interrupted)
    for out, code, words in ((tmp_path / "own.safetensors", 130, "interrupted"), (tmp_path, 1, f"{tmp_path}/own.safetensors")):
        monkeypatch.setattr("sys.argv", ["own_extractor", f"--data=~/{pictures.name}", f"--out={out}"])
        with pytest.raises(SystemExit) as stopped:
            command.run(own_extractor.main)
        told = capsys.readouterr().err.lstrip()  # click ends the line of ^C
        assert stopped.value.code == code and told.startswith("Error: ") and words in told and told.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_progress_is_told_in_lines_where_there_is_no_terminal(monkeypatch):
    clock, lines = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.Progress("images read", 30, lines.append) as told:
        for _ in range(3):
            clock[0] += 6
            told(10)
    assert lines == ["images read: 10 / 30, about 12 s left", "images read: 20 / 30, about 6 s left"]


def test_another_selection_of_the_same_images_is_another_reference(pictures):
    """The content's fingerprint is that of all stored images; a subset or mirrored set must not read the whole set's features."""
    from training.dataset import ImageFolderDataset

    config, pca = resolve({}), registry.build("pca", (3, 16, 16))
    identities = [
        json.dumps(reference._identity(ImageFolderDataset(str(pictures), **options), pca, config, 0))
        for options in ({}, dict(max_size=40), dict(max_size=40, random_seed=1), dict(xflip=True), dict(use_labels=True))
    ]
    assert len(set(identities)) == 5
