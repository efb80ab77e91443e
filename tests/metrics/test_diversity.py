"""The madr_* metrics: equal to the kernels of the features, shared work, facts, spaces, and what is missing said in a sentence."""

import json
import time

import numpy as np
import pytest
import torch

from dnnlib.errors import UserError
from madr_spaces import files, fitting, hub, names, neighbours, registry
from madr_spaces.errors import MADRError
from metrics import detectors, diversity, metric_main
from metrics.progress import ProgressMonitor

FOUR = ["precision", "recall", "density", "coverage"]


def calc(name, options, **extra):
    opts = options()
    return metric_main.calc_metric(
        name, G=opts.G, dataset_kwargs=opts.dataset_kwargs, device="cpu", num_gen=40, **{"space": "pixels", "detectors": opts.detectors, **extra}
    )


def features(options, space):
    real, fake = diversity.spaces_and_features(options(space=space), 40)[space]
    return real, fake


@pytest.mark.parametrize("strict", [False, True])
def test_four_numbers_are_those_of_the_kernels(strict, options):
    real, fake = features(options, "pixels")
    result = calc("madr_prdc", options, strict_ties=strict)
    precision, recall = neighbours.precision_recall(real, fake, 3, strict=strict)
    density, coverage = neighbours.density_coverage(real, fake, 5, strict=strict)
    expected = dict(zip((f"madr_prdc_{number}" for number in FOUR), (precision, recall, density, coverage)))
    assert result.results == pytest.approx(expected, abs=1e-12) and len({*expected.values()}) > 1
    assert result.facts["tie_rule"] == ("<" if strict else "<=")


@pytest.mark.parametrize("short", ["", "_10k"])
@pytest.mark.parametrize("number", FOUR)
def test_single_metrics_agree_with_all_four_in_one_pass(number, short, options):
    result = calc(f"madr_{number}{short}", options)
    assert list(result.results) == [f"madr_{number}{short}"] and type(result.results[f"madr_{number}{short}"]) is float
    assert result.results[f"madr_{number}{short}"] == calc(f"madr_prdc{short}", options).results[f"madr_prdc{short}_{number}"]
    assert metric_main.higher_is_better(f"madr_{number}{short}")


def test_facts_state_space_expectation_and_held_out(options):
    facts = calc("madr_coverage", options).facts
    assert facts["space"] == "pixels" and facts["detector"]["name"] == "extractor:pixels" and facts["num_real"] == 30
    assert facts["k"] == {"coverage": 5}
    product = np.prod([(30 - i) / (40 + 30 - i) for i in range(1, 6)])
    assert facts["expected_coverage"] == pytest.approx(1 - product, rel=1e-12)
    real, fake = features(options, "random-conv")
    assert facts["held_out"] == {"space": "random-conv", "coverage": pytest.approx(neighbours.density_coverage(real, fake, 5)[1], abs=1e-12)}
    assert calc("madr_coverage", options, space="random-conv").facts["held_out"]["space"] == "pixels"
    json.dumps(facts)


def test_a_perfect_generator_reaches_the_expected_coverage():
    rng = np.random.default_rng(0)
    real, fake = (rng.standard_normal((1500, 3)).astype(np.float32) for _ in range(2))
    assert neighbours.density_coverage(real, fake, 5)[1] == pytest.approx(neighbours.expected_coverage(1500, 1500, 5), abs=0.015)


def test_planted_collapse_and_items(options):
    rng = np.random.default_rng(1)
    real = np.concatenate([rng.standard_normal((50, 4)), 100 + rng.standard_normal((50, 4))])
    fake = real[:50] + 1e-3
    items = diversity.per_item_numbers(options(), real, fake, FOUR)
    assert {name: which for name, (which, _) in items.items()} == dict(precision="generated", density="generated", recall="real", coverage="real")
    assert items["precision"][1].mean() == 1
    for name in ("recall", "coverage"):
        assert items[name][1][:50].mean() > 0.9 and items[name][1][50:].mean() == 0


def test_too_few_images_is_a_sentence(options):
    with pytest.raises(MADRError, match="neighbourhood of 5 needs more than 5 real images"):
        calc("madr_recall", options, num_real=5)


def test_two_radii_at_once_are_the_two_single_ones():
    x = np.random.default_rng(2).standard_normal((60, 5))
    both = neighbours.kth_neighbour_distances(x, (3, 5))
    assert torch.equal(both[:, 0], neighbours.kth_neighbour_distances(x, 3)) and torch.equal(both[:, 1], neighbours.kth_neighbour_distances(x, 5))
    assert neighbours.kth_neighbour_distances(x, (3, 5), rows=(4, 4)).shape == (0, 2)


# ----------------------------------------------------------------------------------------------------------------
# Spaces.


class _OwnSpace(torch.nn.Module):
    """As in training with --madr-extractor=file: floats in [-1, 1], no keywords."""

    def forward(self, images):
        return torch.stack([images.amin(dim=[1, 2, 3]), images.amax(dim=[1, 2, 3])], dim=1)


def test_file_of_either_kind_is_a_space(options, detector_file, tmp_path):
    own = str(tmp_path / "own.pt")
    with pytest.warns(FutureWarning):  # the format of the published detectors
        torch.jit.script(_OwnSpace()).save(own)
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(1, 3, 4, 2)
    assert registry.build(f"file:{own}", (3, 4, 2)).of_bytes(images).tolist() == [[-1, 1]]
    like_random_conv = calc("madr_prdc", options, space=f"file:{detector_file}")
    assert like_random_conv.results == calc("madr_prdc", options, space="random-conv").results
    assert like_random_conv.facts["detector"]["name"] == "file:tiny.pt"


def test_inception_fid_is_the_published_detector(options, detector_file):
    facts = calc("madr_recall", options, space="inception-fid").facts
    assert facts["detector"]["name"] == "inception-2015-12-05"
    images = torch.randint(0, 256, [3, 3, 16, 16], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    in_training = registry.build("inception-fid", (3, 16, 16), weights=detector_file)
    assert torch.equal(in_training.of_bytes(images), registry.build("random-conv", (3, 16, 16)).of_bytes(images))
    torch.testing.assert_close(in_training(images / 127.5 - 1), in_training.of_bytes(images), rtol=1e-4, atol=1e-4)
    with pytest.raises(MADRError, match="needs the file inception-2015-12-05.pt"):
        registry.build("inception-fid", (3, 16, 16))


def test_a_name_that_meant_another_network_is_refused_with_todays(capsys):
    with pytest.raises(UserError, match="--madr-extractor=inception meant the published detector of FID.*use --metric-space=inception-fid"):
        detectors.named_space(None, "inception")
    assert detectors.named_space("inception", None) == "inception" and detectors.named_space(None, "dino") == "dino"
    with pytest.raises(UserError, match="what older versions called inception-2015-12-05 is inception-fid today"):
        detectors.named_space("inception-2015-12-05", None)
    with pytest.raises(UserError, match="two spellings of one option"):
        detectors.named_space("pixels", "pca")
    assert detectors.check_overrides(dict(madr="inception"), announce=print) == {detectors.SPACE: "inception-fid"}
    assert "--detector madr=inception is the old spelling of --metric-space=inception-fid" in capsys.readouterr().out
    assert names.OLD_NAMES.keys().isdisjoint(name for name in names.PLAIN if name != "inception")


def test_fitted_spaces_are_fitted_to_the_data_set_and_say_so(options):
    first = calc("madr_prdc", options, space="pca")
    assert first.facts["detector"]["fitted"]["images"] == 30 and first.facts["detector"]["fitted"]["data"] == first.facts["data"]["fingerprint"]
    assert calc("madr_prdc", options, space="pca").results == first.results  # out of the cache
    real, _ = features(options, "pca")
    assert real.shape[1] == 64 and float(torch.pdist(torch.from_numpy(real)).median()) == pytest.approx(1, abs=0.1)
    assert calc("madr_prdc", options, space="ensemble:pca+random-conv").facts["detector"]["name"] == "extractor:ensemble:pca+random-conv"


def test_features_of_another_fit_are_not_taken_from_the_cache(options, monkeypatch):
    real, _ = features(options, "pca")
    for path in files.cache_folder().glob("fit-*.pt"):
        path.unlink()
    original = fitting.fit
    monkeypatch.setattr(fitting, "fit", lambda *args: {name: -value for name, value in original(*args).items()})  # as another machine's signs
    assert not np.array_equal(features(options, "pca")[0], real)


def test_a_fit_of_another_format_is_made_again_with_a_sentence(options, capsys):
    first = calc("madr_prdc", options, space="pca").results
    [path] = files.cache_folder().glob("fit-pca-*.pt")
    torch.save(dict(layout="of an older version"), path)
    assert calc("madr_prdc", options, space="pca").results == first
    assert f"{path} is damaged or of another format" in capsys.readouterr().out


def test_training_chooses_the_space_by_detector(options, detector_file):
    chosen = detectors.check_overrides(dict(madr="pixels"))
    result = calc("madr_coverage_10k", options, space=None, detectors=chosen)
    assert result.facts["space"] == "pixels"
    with pytest.raises(UserError, match="--metric-space must be one of pca, .*dino, .*inception.*got 'dinosaur'"):
        detectors.check_overrides(dict(madr="dinosaur"))
    with pytest.raises(UserError, match="no such file"):
        detectors.check_overrides(dict(madr="file:/nowhere.pt"))


@pytest.fixture
def tiny_dino(monkeypatch, tmp_path):
    """A stand-in of the same architecture family, 32 pixels wide, and a file with random weights for it."""
    import timm

    monkeypatch.setitem(names.MODELS, "dino", ("test_vit.r160_in1k", 32))
    torch.manual_seed(0)
    network = timm.create_model("test_vit", pretrained=False, img_size=32)
    path = tmp_path / "weights.pth"
    torch.save(network.state_dict(), path)
    return str(path), network


def test_dino_reads_its_weights_and_normalises_as_trained(tiny_dino):
    import timm

    path, network = tiny_dino
    extractor = registry.build("dino", (3, 32, 32), weights=path)
    images = torch.randint(0, 256, [2, 3, 32, 32], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    settings = timm.get_pretrained_cfg("test_vit.r160_in1k")
    x = (images / 255 - torch.tensor(settings.mean)[:, None, None]) / torch.tensor(settings.std)[:, None, None]
    network.eval().reset_classifier(0)
    torch.testing.assert_close(extractor.of_bytes(images), network(x), rtol=1e-4, atol=1e-5)
    assert extractor.of_bytes(torch.zeros([2, 3, 16, 16], dtype=torch.uint8)).shape == network(x).shape
    assert not any(p.requires_grad for p in extractor.parameters())


def test_dino_metrics_with_weights_from_a_file(tiny_dino, options):
    path, _ = tiny_dino
    paths = detectors.check_overrides(dict(dino=path))
    recall = calc("madr_recall", options, space=None, detectors=paths)
    assert recall.facts["space"] == "dino" and len(recall.facts["detector"]["sha256"]) == 64
    distance = calc("fd_dino50k_full", options, space="pixels", detectors=paths)
    assert distance.results["fd_dino50k_full"] > 0 and distance.facts["detector"]["name"] == "extractor:dino"
    assert not metric_main.higher_is_better("fd_dino50k_full")


def test_wrong_weights_are_sentences(tiny_dino, tmp_path):
    path, network = tiny_dino
    torch.save(dict(list(network.state_dict().items())[:-8]), path)
    with pytest.raises(UserError, match="does not fit --metric-space=dino.*tensors missing"):
        detectors.load_detector(detectors.find_detector("extractor:dino", dict(dino=path)), "cpu")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        detectors.load_detector(detectors.find_detector("extractor:dino", dict(dino=str(broken))), "cpu")


def test_missing_inception_is_said_within_two_seconds(options, monkeypatch):
    monkeypatch.setattr(detectors, "INCEPTION_URL", "http://127.0.0.1:9/inception-2015-12-05.pt")
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        calc("madr_prdc", options, space="inception-fid", detectors={})
    assert time.monotonic() - start < 2
    for word in ("inception-2015-12-05.pt", "No SHA-256 of it is known here", "--detector inception=PATH", "$MADR_DETECTORS_DIR"):
        assert word in str(error.value)


@pytest.mark.parametrize("name, metric", [("dino", "madr_coverage_10k"), ("dino", "fd_dino50k_full"), ("dinov2", "madr_prdc")])
def test_missing_weights_are_said_within_two_seconds(name, metric, options, monkeypatch, tmp_path):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)

    def refuse(*_):
        raise OSError("no route")

    monkeypatch.setattr(hub, "_reach_hub", refuse)
    start = time.monotonic()
    with pytest.raises(UserError) as error:
        calc(metric, options, space=name)
    assert time.monotonic() - start < 2
    model = names.MODELS[name][0]
    for word in (
        f"timm/{model}/model.safetensors",
        "--madr-weights=PATH",
        f"--detector {name}=PATH",
        f"{model}.safetensors",
        "No SHA-256 of it is built in",
        "random-conv",
    ):
        assert word in str(error.value)


def test_a_dead_hub_costs_one_second(monkeypatch):
    def answer_late(*_, **__):
        time.sleep(3)
        raise TimeoutError

    monkeypatch.setattr(hub.socket, "create_connection", answer_late)
    start = time.monotonic()
    with pytest.raises(TimeoutError):
        hub._reach_hub(hub._CONNECT_SEC)
    assert time.monotonic() - start < 1.9


def test_weights_are_found_in_the_folder_of_the_detectors(tmp_path, monkeypatch):
    monkeypatch.setenv(hub.FOLDER_VARIABLE, str(tmp_path))
    path = tmp_path / "vit_small_patch8_224.dino.safetensors"
    path.write_bytes(b"")
    assert hub.find_weights("dino") == str(path) == detectors.find_detector("extractor:dino").path


# ----------------------------------------------------------------------------------------------------------------
# The space that the network was trained in.


@pytest.mark.parametrize(
    "space, trained_in, own",
    [
        ("dino", "dino", True),
        ("dino", "timm:vit_small_patch8_224.dino", True),
        ("dino", "ensemble:clip+dino+resnet50", True),
        ("pixels", "pca", True),
        ("pca", "pixels", True),
        ("ensemble:clip+pca", "ensemble:dino+pixels", True),
        ("random", "random-conv", False),
        ("inception-fid", "inception", False),
        ("file:/a/x.pt", "file:/b/x.pt", True),
        ("dino", "dinov2", False),
        ("dino", "pca", False),
        ("pca", "own", True),
        ("own", "pixels", True),
        ("own", "own", True),
        ("random-conv", "own", False),
        ("file:/a/x.pt", "file:/a/y.pt", False),
        ("dino", None, False),
    ],
)
def test_own_space_is_recognised(space, trained_in, own):
    assert names.led_by(space, trained_in) is own


@pytest.mark.parametrize(
    "space, trained_in, expected",
    [
        ("dino", None, "random-conv"),
        ("random-conv", None, "pixels"),
        ("dino", "random-conv", "pixels"),
        ("random-conv", "pca", "random"),
        ("pca", "random-conv", "random"),
        ("random-conv", "ensemble:pca+random", None),
    ],
)
def test_the_held_out_space_is_none_that_led_the_training(space, trained_in, expected):
    assert names.held_out(space, trained_in) == expected


def test_the_held_out_space_is_named_in_the_output(options, capsys):
    result = calc("madr_coverage", options, space="pca", trained_in="random-conv", progress=ProgressMonitor(verbose=True))
    assert result.facts["held_out"]["space"] == "random"
    assert f"in the held-out space random: coverage {result.facts['held_out']['coverage']:.4f}" in capsys.readouterr().out
    assert "held_out" not in calc("madr_coverage", options, space="random-conv", trained_in="ensemble:pca+random").facts


def test_own_space_is_warned_of(options, capsys):
    assert calc("madr_recall", options, trained_in="pca").facts["trained_in_own_space"]
    assert "Warning: the network was trained to cover the features of pca" in capsys.readouterr().err
    assert not calc("madr_recall", options, trained_in="dino").facts["trained_in_own_space"]
    assert "Warning" not in capsys.readouterr().err
    assert "trained_in" not in calc("madr_recall", options).facts


def test_what_is_missing_is_known_before_the_metric_is_due(monkeypatch, detector_file):
    def refuse(name):
        raise MADRError(f"no weights of {name}")

    monkeypatch.setattr(hub, "find_weights", refuse)
    for name in ("madr_recall", "madr_prdc_10k", "fd_dino50k_full"):
        with pytest.raises(UserError, match="no weights of dino"):
            metric_main._metrics[name].prepare({})
    metric_main._metrics["madr_coverage_10k"].prepare(dict(madr="pixels"))
    metric_main._metrics["madr_coverage_10k"].prepare(dict(madr="inception-fid", inception=detector_file))
