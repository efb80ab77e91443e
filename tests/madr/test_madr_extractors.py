"""Extractors that take weights from files: networks of timm, ensembles, TorchScript. Untrained weights stand in for trained ones."""

import socket
import time

import pytest
import torch

from madr_spaces import hub, registry
from madr_spaces.errors import MADRError

timm = pytest.importorskip("timm")


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Folder with state dicts of timm's two tiniest networks."""
    folder = tmp_path_factory.mktemp("weights")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.save(timm.create_model("test_vit", pretrained=False).state_dict(), folder / "vit.pth")
        torch.save(
            dict(state_dict={"module." + name: value for name, value in timm.create_model("test_resnet", pretrained=False).state_dict().items()}),
            folder / "resnet.pth",
        )
    return folder


def images(count=6, channels=3):
    return torch.rand([count, channels, 20, 20], generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name, file, size", [("timm:test_vit", "vit.pth", 64), ("timm:test_resnet", "resnet.pth", 0)])
def test_deep_extractor_is_frozen_yet_differentiable(weights, name, file, size, channels):
    extractor = registry.build(name, (channels, 20, 20), input_size=size, weights=str(weights / file)).train().to("cpu")
    assert not list(extractor.parameters()) and set(dict(extractor.named_buffers())) == {"mean", "std"}
    x = images(channels=channels).requires_grad_()
    features = extractor(x)
    assert features.shape == (6, 64 if "vit" in name else features.shape[1]) and torch.equal(features, extractor(x))  # evaluation mode
    features.square().sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert len(extractor.identity()["weights"]) == 64


def test_the_weights_of_the_file_are_the_ones_used(weights):
    extractor = registry.build("timm:test_vit", (3, 160, 160), weights=str(weights / "vit.pth"))
    network = timm.create_model("test_vit", pretrained=False, num_classes=0).eval()
    network.load_state_dict({key: value for key, value in torch.load(weights / "vit.pth", weights_only=True).items() if not key.startswith("head.")})
    x = torch.rand([2, 3, 160, 160], generator=torch.Generator().manual_seed(0))
    assert torch.allclose(extractor(x * 2 - 1), network((x - 0.5) / 0.5), atol=1e-5)


def test_safetensors_weights(weights):
    save_file = pytest.importorskip("safetensors.torch").save_file
    save_file(torch.load(weights / "vit.pth", weights_only=True), weights / "vit.safetensors")
    one, other = (registry.build("timm:test_vit", (3, 20, 20), weights=str(weights / f"vit.{kind}")) for kind in ("pth", "safetensors"))
    assert torch.equal(one(images()), other(images()))


@pytest.mark.parametrize(
    "name, kwargs, words",
    [
        ("timm:test_vit", dict(weights="nowhere.pth"), "does not exist"),
        ("timm:test_vit", dict(weights="RESNET"), "does not fit"),
        ("timm:test_vit", dict(weights="BROKEN"), "cannot be read as weights"),
        ("timm:test_vit", dict(input_size=50), "multiple of the patch side 16"),
        ("timm:test_vit", dict(input_size=16), "at least 32"),
        ("timm:no_such_net", {}, "has no model"),
        ("timm:test_vit ", dict(input_size=50, weights="VIT"), "fails on images of 50 pixels|does not fit --madr-extractor=timm:test_vit"),
        ("timm:test_vit ", dict(input_size=8, weights="VIT"), "fails on images of 8 pixels|does not fit --madr-extractor=timm:test_vit"),
        ("dino", dict(image_shape=(4, 20, 20), weights="VIT"), "does not fit|1 or 3 channels"),
    ],
)
def test_mistakes_are_answered_in_a_sentence(weights, name, kwargs, words):
    (weights / "broken.pth").write_bytes(b"not weights")
    kwargs = {key: str(weights / f"{value.lower()}.pth") if key == "weights" and value.isupper() else value for key, value in kwargs.items()}
    if name == "timm:test_vit" and "input_size" in kwargs:
        name = "timm:vit_tiny_patch16_224"
    with pytest.raises(MADRError, match=words):
        registry.build(name.strip(), **dict(dict(image_shape=(3, 20, 20)), **kwargs))


def test_offline_says_which_file_goes_where_within_two_seconds(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("network unreachable")

    monkeypatch.setattr(socket, "create_connection", refuse)
    start = time.monotonic()
    with pytest.raises(MADRError, match=r"timm/test_vit.*model\.safetensors.*--madr-weights"):
        registry.build("timm:test_vit", (3, 20, 20))
    assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    "environment, expected",
    [
        ({}, ("hub.example", 8443)),
        (dict(https_proxy="http://proxy.example:3128"), ("proxy.example", 3128)),
        (dict(https_proxy="proxy.example:3128", no_proxy="hub.example"), ("hub.example", 8443)),
    ],
)
def test_the_hub_is_looked_for_where_its_client_will_go(monkeypatch, environment, expected):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example:8443")
    for name in ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert hub._hub_address() == expected


def test_full_checkpoints_of_dino_are_taken_apart(weights):
    teacher = {
        f"module.backbone.{key}": value for key, value in torch.load(weights / "vit.pth", weights_only=True).items() if not key.startswith("head.")
    }
    torch.save(dict(student={}, teacher={**teacher, "module.head.mlp.0.weight": torch.zeros(3, 3)}, epoch=1), weights / "full.pth")
    one, other = (registry.build("timm:test_vit", (3, 20, 20), weights=str(weights / name)) for name in ("full.pth", "vit.pth"))
    assert torch.equal(one(images()), other(images()))


def test_ensemble_joins_normalised_parts_by_a_stored_projection(weights):
    def build(seed):
        extractor = registry.build("ensemble:pca+timm:test_vit", (3, 20, 20), width=10, seed=seed, weights=str(weights / "vit.pth"))
        extractor.fit(images(40))
        return extractor

    one, same, other = build(1), build(1), build(2)
    x = images().requires_grad_()
    features = one(x)
    assert features.shape == (6, 10) and torch.equal(features, same(x)) and not torch.equal(features, other(x))
    joined = one.joined(x)
    assert torch.allclose(joined.square().sum(1), torch.full([6], 2.0), atol=1e-4)
    features.sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all() and "projection" in dict(one.named_buffers())


def test_torchscript_of_the_users_own(tmp_path):
    good, blind = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Flatten()), torch.nn.Sequential(torch.nn.Flatten())
    torch.jit.save(torch.jit.trace(good, torch.zeros([2, 3, 20, 20])), tmp_path / "good.pt")
    extractor = registry.build(f"file:{tmp_path}/good.pt", (3, 20, 20))
    assert torch.allclose(extractor(images()), good(images()), atol=1e-6) and not list(extractor.parameters())
    torch.jit.save(torch.jit.trace(torch.nn.Conv2d(3, 4, 3), torch.zeros([2, 3, 20, 20])), tmp_path / "map.pt")
    with pytest.raises(MADRError, match="fails on images"):
        registry.build(f"file:{tmp_path}/good.pt", (1, 20, 20))
    with pytest.raises(MADRError, match="cannot be read"):
        registry.build(f"file:{tmp_path}/absent.pt", (3, 20, 20))

    class Detached(torch.nn.Module):
        def forward(self, x):
            return blind(x).detach()

    torch.jit.save(torch.jit.trace(Detached(), torch.zeros([2, 3, 20, 20])), tmp_path / "detached.pt")
    with pytest.raises(MADRError, match="gradient to the image"):
        registry.build(f"file:{tmp_path}/detached.pt", (3, 20, 20))
