"""A network of photographs and its weights become one TorchScript file that training and metrics read alike."""

import json

import pytest
import torch
from click.testing import CliRunner

from dnnlib.download import file_digest
from madr_spaces.registry import build
from metrics import photo_export, photo_features

MODEL = "test_efficientnet.r160_in1k"  # timm's toy of a few thousand parameters


@pytest.fixture(scope="module")
def network():
    import timm

    torch.manual_seed(0)
    network = timm.create_model(MODEL, pretrained=False).eval()
    for name, buffer in network.named_buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)  # statistics other than the neutral ones
    return network


def convert(*arguments):
    return CliRunner().invoke(photo_export.main, list(map(str, arguments)))


def expected(network, images, size):
    import timm

    settings = timm.get_pretrained_cfg(MODEL)
    x = torch.nn.functional.interpolate(images, [size, size], mode="bicubic", align_corners=False, antialias=True) * 0.5 + 0.5
    x = (x - torch.tensor(settings.mean)[:, None, None]) / torch.tensor(settings.std)[:, None, None]
    return network.forward_head(network.forward_features(x), pre_logits=True)


@pytest.fixture(scope="module")
def exported(network, tmp_path_factory):
    """A file of weights in another program's names, and what the command made of it."""
    folder = tmp_path_factory.mktemp("photos")
    torch.save({f"layer{i}.{name.split('.')[-1]}": value for i, (name, value) in enumerate(network.state_dict().items())}, folder / "weights.pth")
    result = convert("--model", MODEL, "--weights", folder / "weights.pth", "--out", folder / "photos.pt", "--size=64")
    assert result.exit_code == 0, result.output or result.exception
    return folder, result.output


def test_metrics_and_training_get_the_networks_own_features(network, exported):
    folder, output = exported
    path = folder / "photos.pt"
    assert "matched by order" in output and f"--madr-extractor=file:{path}" in output
    images = torch.randint(0, 256, [3, 3, 32, 32], dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    x = images / 127.5 - 1
    wanted = expected(network, x, 64).detach()
    assert wanted.std(dim=0).min() > 0
    torch.testing.assert_close(build(f"file:{path}", (3, 32, 32)).of_bytes(images), wanted, rtol=1e-3, atol=1e-5)
    trained_in = build(f"file:{path}", (3, 32, 32))
    x.requires_grad_()
    features = trained_in(x)
    torch.testing.assert_close(features, wanted, rtol=1e-3, atol=1e-5)
    [gradient] = torch.autograd.grad(features.square().sum(), x)
    assert (gradient.abs().sum(dim=[1, 2, 3]) > 0).all()
    grey = build(f"file:{path}", (1, 32, 32))(x.detach()[:, :1])
    torch.testing.assert_close(grey, expected(network, x.detach()[:, :1].expand(-1, 3, -1, -1), 64).detach(), rtol=1e-3, atol=1e-5)


def test_the_file_says_what_it_is(exported):
    folder, _ = exported
    about = {"madr.json": ""}
    torch.jit.load(str(folder / "photos.pt"), _extra_files=about)
    facts = json.loads(about["madr.json"])
    assert (facts["model"], facts["size"], facts["weights_sha256"]) == (MODEL, 64, file_digest(str(folder / "weights.pth")))


def test_nothing_in_the_file_tells_where_it_was_made(exported, repo):
    folder, _ = exported
    data = (folder / "photos.pt").read_bytes()
    assert str(repo).encode() not in data and b"site-packages" not in data and b".py\x94" not in data
    again = photo_features.as_bytes(torch.jit.load(folder / "photos.pt"), {})
    assert photo_features.as_bytes(torch.jit.load(folder / "photos.pt"), {}) == again


def test_names_that_state_a_digest_are_held_to_it(network, exported, tmp_path):
    folder, _ = exported
    good = tmp_path / f"net-{file_digest(str(folder / 'weights.pth'))[:8]}.pth"
    good.write_bytes((folder / "weights.pth").read_bytes())
    assert "as the file name states" in convert("--model", MODEL, "--weights", good, "--out", tmp_path / "a.pt", "--size=64").output
    bad = good.rename(tmp_path / "net-01234567.pth")
    result = convert("--model", MODEL, "--weights", bad, "--out", tmp_path / "b.pt")
    assert "not the file that its name says" in str(result.exception) and not (tmp_path / "b.pt").exists()


def test_timms_own_names_are_matched_by_name(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "weights.pth")
    assert "matched by name" in convert("--model", MODEL, "--weights", tmp_path / "weights.pth", "--out", tmp_path / "a.pt", "--size=64").output


@pytest.mark.parametrize(
    "spoil, words",
    [
        (lambda state: dict(list(state.items())[3:]), "where conv_stem.weight needs"),
        (lambda state: dict(list(state.items())[:-12]), "tensors and the model needs"),
        (lambda state: {**state, **{f"extra{i}": torch.zeros(3) for i in range(3)}}, "tensors and the model needs"),
    ],
)
def test_other_networks_are_refused(spoil, words, network, tmp_path):
    torch.save({f"x.{name}": value for name, value in spoil(network.state_dict()).items()}, tmp_path / "weights.pth")
    result = convert("--model", MODEL, "--weights", tmp_path / "weights.pth", "--out", tmp_path / "a.pt")
    assert words in str(result.exception) and not (tmp_path / "a.pt").exists()


def test_sizes_that_a_transformer_cannot_take_are_sentences(tmp_path):
    import timm

    (tmp_path / "weights.pth").write_bytes(b"")  # the size is looked at first
    said = lambda model, size: str(
        convert("--model", model, "--weights", tmp_path / "weights.pth", "--out", tmp_path / "a.pt", f"--size={size}").exception
    )
    assert "--size must be a multiple of the patch side 16, at least 32, for --model=vit_tiny_patch16_224 (got 100)" in said(
        "vit_tiny_patch16_224", 100
    )
    assert "--size=64 does not fit --model=mixer_s16_224: mixer_s16_224 takes images of 224 pixels alone" in said("mixer_s16_224", 64)
    torch.save(timm.create_model("deit_tiny_patch16_224", pretrained=False).state_dict(), tmp_path / "weights.pth")
    features, facts = photo_features.build("deit_tiny_patch16_224", str(tmp_path / "weights.pth"), 64)
    assert facts["size"] == 64 and features(torch.zeros([1, 3, 32, 32])).shape == (1, 192)


def test_unknown_models_and_missing_files_are_sentences(tmp_path):
    assert "no such model; it has mobilenetv2_" in str(convert("--model=mobilenetv2_7", "--weights=x.pth", "--out", tmp_path / "a.pt").exception)
    assert "--weights=x.pth does not exist" in str(convert("--model", MODEL, "--weights=x.pth", "--out", tmp_path / "a.pt").exception)
