"""The shelf of feature spaces: one list of names for all tools, what older runs and caches meant, and spaces of metrics used in training."""

import types

import numpy as np
import pytest
import torch

import calc_metrics
import dnnlib
import report
import train
from madr_plugin import config
from madr_plugin.reals import reference
from madr_spaces import files, fitting, kmeans, names, registry
from madr_spaces.errors import MADRError
from metrics import detectors, metric_main
from tests.madr.toy_host import Host, Images, madr_loss
from training import evaluation


def test_one_list_of_names_for_all_tools():
    for command, flag in ((calc_metrics, "--metric-space"), (report, "--metric-space"), (train, "--madr-extractor")):
        [option] = [option for option in command.main.params if flag in option.opts]
        assert names.HELP in option.help
    for name in (*names.PLAIN, "timm:resnet18", "ensemble:pca+dino"):
        config.resolve(dict(extractor=name))
        detectors.space_url(name)
    for refuse in (lambda: config.resolve(dict(extractor="dinosaur")), lambda: detectors.space_url("dinosaur")):
        with pytest.raises(Exception, match="must be one of pca, .*inception-fid, own.*got 'dinosaur'.*perhaps dino"):
            refuse()
    with pytest.raises(MADRError, match="what older versions called inception-2015-12-05 is inception-fid today"):
        config.resolve(dict(extractor="inception-2015-12-05"))


def test_result_lines_of_fixed_spaces_stay_comparable():
    """What every version so far has stated as the SHA-256 of these two."""
    stated = {
        "random-conv": "da5cde3c6ed7635a17fb1512366b2cb6c3446d000242e08af371aeb4e0397e09",
        "pixels": "6ec9c2b0eb14010746c8bce8939303b382344b296206612eb8a907a37b2b2f37",
    }
    assert {name: detectors.find_detector(detectors.space_url(name)).sha256 for name in stated} == stated


def test_a_comma_in_a_path_is_no_second_file(tmp_path):
    (tmp_path / "a,b").mkdir()
    (tmp_path / "a,b" / "dino.pth").write_bytes(b"weights")
    path = str(tmp_path / "a,b" / "dino.pth")
    assert detectors.with_weights({}, "dino", path) == {"dino": path}
    assert detectors.find_detector(detectors.space_url("dino"), {"dino": path}).path == path


def test_every_name_is_made_as_itself():
    """A name without a making of its own must not end in another space."""
    for name in names.NO_FILE:
        assert registry.build(name, (3, 16, 16)).identity()["name"] == name


def test_training_means_by_random_and_inception_what_it_always_meant():
    """Their identities name the caches of older runs, and a resumed run refuses other features."""
    assert registry.build("random", (3, 8, 8), seed=7).identity() == dict(name="random", width=384, seed=7, channels=[32, 64, 128], version=1)
    assert registry.build("pca", (3, 8, 8)).identity() == dict(name="pca", width=64, size=[8, 8], images=4096, seed=0, version=1)
    assert names.MODELS["inception"] == ("inception_v3.tv_in1k", 0)
    weights = registry.build("random", (3, 8, 8), width=4, seed=7)
    assert [round(float(value), 4) for value in weights.conv0.flatten()[:3]] == RANDOM_OF_SEED_7


RANDOM_OF_SEED_7 = [-0.1748, -0.5707, -0.4061]  # conv0 as older versions drew it


@pytest.mark.parametrize("name, width", [("random-conv", 224), ("pixels", 768)])
@pytest.mark.parametrize("channels", [1, 3])
def test_spaces_of_the_metrics_serve_in_training(name, width, channels):
    space = registry.build(name, (channels, 20, 20)).train()
    assert not list(space.parameters())
    x = (torch.rand([4, channels, 20, 20], generator=torch.Generator().manual_seed(0)) * 2 - 1).requires_grad_()
    features = space(x)
    assert features.shape == (4, width) and torch.equal(features, registry.build(name, (channels, 20, 20))(x))
    features.square().sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    flat = torch.zeros([2, channels, 20, 20], requires_grad=True)
    space(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


@pytest.mark.parametrize("name", ["random-conv", "pixels"])
def test_images_of_other_channels_are_refused_in_a_sentence(name):
    with pytest.raises(MADRError, match=f"{name} takes images of 1 or 3 channels .the data has 4.; use --madr-extractor=pca"):
        registry.build(name, (4, 20, 20))


def test_random_conv_is_the_network_that_older_results_name():
    image = torch.arange(3 * 16 * 16).reshape(1, 3, 16, 16).remainder(251).to(torch.uint8)
    [features] = registry.build("random-conv", (3, 16, 16)).of_bytes(image)
    assert features[[0, 1, 100, 223]].tolist() == pytest.approx([0.0647, 0.0458, 0.0566, 0.1631], abs=1e-4)
    assert float(features.sum()) == pytest.approx(20.637, abs=1e-3)


def test_random_conv_leads_a_training():
    host = Host(madr_loss(dict(extractor="random-conv", shrink=0)))
    host.step(), host.step()
    assert host.loss.telemetry()["gratio"] > 0


def test_a_cache_of_another_format_is_made_again_with_one_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv("DNNLIB_CACHE_DIR", str(tmp_path))
    said = []
    chosen, dataset = config.resolve(dict(deficit_window=64)), Images(seed=17)
    make = lambda: reference.build(dataset, registry.build("pca", dataset.image_shape), chosen, 0, torch.device("cpu"), said.append)
    first = make()
    written = list(files.cache_folder().glob("pca-*.pt"))  # the features and what was made of them
    for path in written:
        torch.save(dict(torch.load(path), identity="{}"), path)
    said.clear()
    again = make()
    assert torch.equal(first.features_ND, again.features_ND) and first.fingerprint == again.fingerprint
    complaints = [line for line in said if "damaged or of another format; computing it again" in line]
    assert len(complaints) == len(set(complaints)) == len(written) == 2


def test_fits_choose_the_same_images_everywhere():
    assert fitting.order(50, 3).tolist() == fitting.order(50, 3).tolist() != fitting.order(50, 4).tolist()
    assert reference.chosen_rows(50, types.SimpleNamespace(reference_cap=20), 3).tolist() == fitting.order(50, 3)[:20].tolist()


def test_blocks_change_no_centre(monkeypatch):
    points = torch.randn([300, 5], generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    whole = kmeans.lloyd(points, points[:7], 20)
    monkeypatch.setattr(kmeans, "BLOCK_ROWS", 64)
    assert torch.equal(whole, kmeans.lloyd(points, points[:7], 20))
    nearest = kmeans.nearest_centres(points, whole, block=9)
    assert torch.equal(nearest, torch.cdist(points, whole).argmin(1))
    assert np.allclose(whole[nearest.unique()], torch.stack([points[nearest == k].mean(0) for k in nearest.unique()]))


# ----------------------------------------------------------------------------
# The space of a training's metrics.


def tidy(**given):
    flags = {option.name: option.default if not callable(option.default) else None for option in train.main.params}
    return train.tidy(
        {**flags, "snap_res": None, "desc": None, "keep": None, "metrics": ["madr_recall"], "detectors": (), "metric_space": None, **given}
    )


def test_train_names_the_space_of_its_metrics(capsys):
    assert tidy(metric_space="pixels")["metric_space"] == "pixels" and tidy()["metric_space"] is None
    old = tidy(detectors=(("madr", "pixels"),))
    assert (old["metric_space"], old["detectors"]) == ("pixels", None)
    assert "--detector madr=pixels is the old spelling of --metric-space=pixels" in capsys.readouterr().err
    with pytest.raises(Exception, match="--metric-space must be one of.*got 'nonsense'"):
        tidy(metric_space="nonsense")


def test_metrics_of_a_training_know_what_led_it(monkeypatch):
    asked = {}
    monkeypatch.setattr(metric_main, "calc_metric", lambda **kwargs: asked.update(kwargs) or dict(results={}))
    monkeypatch.setattr(metric_main, "report_metric", lambda *_, **__: None)
    options = dnnlib.EasyDict(
        rank=0, num_gpus=1, run_dir=".", training_set_kwargs={}, detectors={"madr": "inception"}, loss_kwargs=dict(madr=dict(extractor="random-conv"))
    )
    list(evaluation.evaluate(options, ["madr_recall"], torch.nn.Identity(), torch.device("cpu"), "x.pkl"))
    assert asked["trained_in"] == "random-conv" and asked["detectors"] == {detectors.SPACE: "inception-fid"}  # as an older run stored it
    options.metric_space = "pca"
    assert evaluation.detectors_of(options) == {detectors.SPACE: "pca"}
