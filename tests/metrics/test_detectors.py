"""Finding, checking, loading and calling feature detectors."""

import hashlib
import time

import pytest
import torch

from dnnlib.errors import UserError
from metrics import detectors, extractors, metric_utils


def images(count=3, channels=3):
    return torch.randint(0, 256, (count, channels, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_names_follow_the_file():
    assert metric_utils.get_feature_detector_name(detectors.INCEPTION_URL) == "inception-2015-12-05"
    assert metric_utils.get_feature_detector_name("https://host/a%20b/vgg16.pt?x=1") == "vgg16"


@pytest.mark.parametrize("name", ["inception", "inception-2015-12-05"])
def test_local_file_is_used_and_hashed(detector_file, name):
    source = detectors.find_detector(detectors.INCEPTION_URL, {name: detector_file})
    assert source.name == "inception-2015-12-05" and source.path == detector_file
    assert source.sha256 == hashlib.sha256(open(detector_file, "rb").read()).hexdigest()


def test_folder_variable(detector_file, tmp_path, monkeypatch):
    (tmp_path / "vgg16.pt").write_bytes(open(detector_file, "rb").read())
    monkeypatch.setenv(detectors.FOLDER_VARIABLE, str(tmp_path))
    assert detectors.find_detector(detectors.VGG16_URL).path == str(tmp_path / "vgg16.pt")
    detector = metric_utils.get_feature_detector(detectors.VGG16_URL)
    assert detector(images(), return_features=True).shape == (3, 224)


def test_saved_extractor_equals_the_built_in_one(detector_file):
    source = detectors.find_detector(detector_file)
    loaded, built = detectors.load_detector(source, "cpu"), extractors.PublishedConv().eval()
    for kwargs in (dict(return_features=True), dict(no_output_bias=True), dict(resize_images=False, return_lpips=True)):
        torch.testing.assert_close(loaded(images(), **kwargs), built(images(), **kwargs))
    assert torch.allclose(built(images(), no_output_bias=True).sum(dim=1), torch.ones(3))


def test_extractor_by_name():
    source = detectors.find_detector("extractor:pixels")
    features = detectors.run_detector(detectors.load_detector(source, "cpu"), source, images(), dict(return_features=True))
    assert features.shape == (3, 768) and len(source.sha256) == 64
    again, other = detectors.find_detector("extractor:pixels"), detectors.find_detector("extractor:random-conv")
    assert again.sha256 == source.sha256 != other.sha256
    x = images()
    for name, face in extractors.CLASSES.items():  # with the face of a published detector or without, one name is one network
        space = detectors.load_detector(detectors.find_detector(f"extractor:{name}"), "cpu")
        assert torch.equal(space.of_bytes(x), face().eval()(x, return_features=True))


def test_grey_images_become_three_equal_channels(detector_file):
    source = detectors.find_detector(detector_file)
    detector = detectors.load_detector(source, "cpu")
    grey = images(channels=1)
    torch.testing.assert_close(
        detectors.run_detector(detector, source, grey, dict(return_features=True)), detector(grey.repeat(1, 3, 1, 1), return_features=True)
    )


def test_unreachable_network_is_a_sentence_within_two_seconds(monkeypatch, tmp_path):
    monkeypatch.setenv(detectors.FOLDER_VARIABLE, str(tmp_path / "weights"))
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        detectors.find_detector("http://127.0.0.1:9/inception-2015-12-05.pt")
    assert time.monotonic() - start < 2
    for word in ("inception-2015-12-05.pt", "--detector inception=PATH", str(tmp_path / "weights"), "SHA-256"):
        assert word in str(error.value)


class OneFeature(torch.nn.Module):
    def forward(self, img):
        return img.to(torch.float32).mean([1, 2, 3])[:, None]


def save_script(module, path):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(module).save(str(path))
    return str(path)


def test_faults_are_sentences(detector_file, tmp_path):
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"not a network")
    with pytest.raises(UserError, match="no detector 'inceptoin'.*vgg16"):
        detectors.check_overrides(dict(inceptoin=detector_file))
    with pytest.raises(UserError, match="no such file"):
        detectors.check_overrides(dict(vgg16=str(tmp_path / "missing.pt")))
    with pytest.raises(UserError, match="not a TorchScript file"):
        detectors.load_detector(detectors.find_detector(str(garbage)), "cpu")
    with pytest.raises(UserError, match="does not exist"):
        detectors.find_detector(str(tmp_path / "missing.pt"))
    with pytest.raises(UserError, match="--metric-space must be one of pca, .*got 'dinosaur'"):
        detectors.find_detector("extractor:dinosaur")
    with pytest.raises(UserError, match="the space pca is fitted to a data set, and none is known".replace("the", "The", 1)):
        metric_utils.get_feature_detector("extractor:pca")
    with pytest.raises(UserError, match="1 or 3 channels"):
        detectors.run_detector(None, None, images(channels=4), {})


def test_wrong_interface_is_a_sentence(tmp_path):
    source = detectors.find_detector(save_script(OneFeature(), tmp_path / "one.pt"))
    detector = detectors.load_detector(source, "cpu")
    assert detectors.run_detector(detector, source, images(), {}).shape == (3, 1)
    with pytest.raises(UserError, match="does not take the keywords return_features"):
        detectors.run_detector(detector, source, images(), dict(return_features=True))
    with pytest.raises(UserError, match="one row per image"):
        detectors.run_detector(lambda x: x, source, images(), {})
