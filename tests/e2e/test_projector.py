"""projector.py: the method's parts, and the program on a 16x16 network."""

import numpy as np
import PIL.Image
import pytest
import torch

import generate
import projector
from dnnlib.errors import UserError
from tests.e2e.drawing_fixtures import NUM_WS, W_DIM, assert_sentence, read_png, save_snapshot, tiny_generator
from training import pictures


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("drawing")


@pytest.fixture(scope="module")
def network(folder):
    return save_snapshot(tiny_generator(), folder / "plain.pkl")


@pytest.fixture(scope="module")
def conditional(folder):
    return save_snapshot(tiny_generator(c_dim=3), folder / "conditional.pkl")


# --- projector.py: the parts. ---


def test_learning_rate_and_noise_follow_the_appendix():
    rates = [projector.learning_rate(step / 1000, 0.1, 0.25, 0.05) for step in range(1000)]
    assert rates[0] == 0 and rates[25] == pytest.approx(0.05) and rates[50] == pytest.approx(0.1) == pytest.approx(rates[750])
    assert rates[875] == pytest.approx(0.05) and rates[999] < 1e-4


def test_noise_correlation():
    white = torch.randn([64, 64], generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.avg_pool2d(white[None, None], 3, stride=1, padding=1)[0, 0] * 3
    assert projector.noise_correlation(white) < 0.1 < 0.3 < projector.noise_correlation(smooth)
    tiny = torch.ones([4, 4])
    assert projector.noise_correlation(tiny) == pytest.approx(2)  # Both neighbours equal: 1 along each axis.
    checks = torch.tensor([[1.0, -1], [-1, 1]]).repeat(8, 8)
    assert projector.noise_correlation(checks) == pytest.approx(2)  # At 16; halved it vanishes.


def test_pixel_distance_is_a_mean_over_scales():
    ones = projector.pixel_features(torch.full([1, 3, 16, 16], 127.5))
    zeros = projector.pixel_features(torch.zeros(1, 3, 16, 16))
    assert (ones - zeros).square().sum() == pytest.approx(1, rel=1e-5)


def test_latent_statistics():
    generator = tiny_generator()
    w_avg, w_std = projector.latent_statistics(generator, torch.zeros([1, 0]), 5000, "cpu")
    z = torch.from_numpy(np.random.RandomState(123).randn(5000, 8).astype(np.float32))
    w = generator.mapping(z, torch.zeros([5000, 0]))[:, 0].detach()
    assert w_avg.shape == (1, 1, W_DIM)
    np.testing.assert_allclose(w_avg[0, 0], w.mean(dim=0), atol=1e-5)
    np.testing.assert_allclose(w_std, (w - w.mean(dim=0)).norm(dim=1).square().mean().sqrt(), rtol=1e-4)


@pytest.fixture(scope="module")
def own_picture():
    """A picture that the network can draw, and its latent."""
    generator = tiny_generator()
    with torch.no_grad():
        ws = generator.mapping(pictures.latent_of_seed(11, 8, "cpu"), torch.zeros([1, 0]))
        image = generator.synthesis(ws, noise_mode="const")
    return generator, ws, torch.from_numpy(pictures.to_pixels(image)[0].transpose(2, 0, 1).copy())


def test_project_finds_a_picture_of_its_own(own_picture):
    generator, _, target = own_picture
    before = {name: tensor.clone() for name, tensor in generator.state_dict().items()}
    found = projector.project(generator, target, num_steps=150, w_avg_samples=500, features=projector.pixel_features)
    assert found.shape == (150, NUM_WS, W_DIM) and torch.equal(found[:, 0], found[:, -1])
    with torch.no_grad():
        w_avg, _ = projector.latent_statistics(generator, torch.zeros([1, 0]), 500, "cpu")
        images = generator.synthesis(torch.cat([w_avg.expand(-1, NUM_WS, -1), found[-1:]]), noise_mode="const") * 127.5 + 128
    features = projector.pixel_features(torch.cat([images, target[None].float()]))
    start, end = (features[:2] - features[2]).square().sum(dim=1)
    assert end < 0.2 * start
    assert all(torch.equal(before[name], tensor) for name, tensor in generator.state_dict().items())


def test_project_depends_on_its_seed_alone(own_picture):
    generator, _, target = own_picture
    results = []
    for torch_seed, seed in ((1, 5), (2, 5), (2, 6)):
        torch.manual_seed(torch_seed)
        results.append(projector.project(generator, target, num_steps=3, w_avg_samples=50, features=projector.pixel_features, seed=seed))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


def test_project_stops_when_it_goes_astray(own_picture):
    generator, _, target = own_picture
    with pytest.raises(UserError, match="astray at step 1 .loss nan"):
        projector.project(generator, target, num_steps=3, w_avg_samples=50, features=lambda images: images.flatten(1) * float("nan"))


def test_project_wants_the_size_of_the_network(own_picture):
    with pytest.raises(UserError, match=r"\[3, 16, 16\].*got \[3, 8, 8\]"):
        projector.project(own_picture[0], torch.zeros(3, 8, 8), features=projector.pixel_features)


# --- projector.py: the program. ---


def save_target(path, size=(16, 16), mode="RGB"):
    pixels = np.random.RandomState(0).randint(0, 256, [size[1], size[0], 4 if mode == "RGBA" else 3], dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)
    return path


FAST = ["--num-steps=4", "--distance=pixel"]


def test_projector_writes_its_files(call, network, tmp_path):
    target = save_target(tmp_path / "target_in.png")
    out = tmp_path / "proj"
    code, text, _ = call(projector.main, "--network", network, "--target", target, *FAST, "--outdir", out)
    assert code == 0
    expected = {"target.png", "proj.png", "projected_w.npz"} | ({"proj.mp4"} if not projector.missing_video_packages() else set())
    assert {path.name for path in out.iterdir()} == expected
    assert "pixel" in text and "step    4/4" in text
    assert np.array_equal(read_png(out / "target.png"), read_png(target))
    if "proj.mp4" in expected:
        import imageio

        with imageio.get_reader(out / "proj.mp4") as video:
            frames = [frame for frame in video]  # Not list(video): it asks for a length, which a video does not know.
        assert len(frames) == 4 and frames[0].shape == (16, 32, 3)
    with np.load(out / "projected_w.npz") as content:
        assert content["w"].shape == (1, NUM_WS, W_DIM)
    code, _, _ = call(generate.main, "--network", network, "--projected-w", out / "projected_w.npz", "--outdir", out)
    assert code == 0 and np.array_equal(read_png(out / "proj00.png"), read_png(out / "proj.png"))


def test_a_video_of_an_earlier_projection_is_told(call, network, tmp_path):
    shared = ["--network", network, "--target", save_target(tmp_path / "in.png"), *FAST, "--save-video=false", "--outdir", tmp_path / "out"]
    assert "earlier projection" not in call(projector.main, *shared)[2]
    (tmp_path / "out" / "proj.mp4").write_bytes(b"video")
    code, _, text = call(projector.main, *shared, "--detector=vgg16=gone.pt")
    assert code == 0 and "proj.mp4 in" in text and "is of an earlier projection" in text and "--detector has no effect on --distance=pixel" in text


def test_projector_mends_the_target(call, network, conditional, tmp_path):
    target = save_target(tmp_path / "wide.png", (40, 30), mode="RGBA")
    shared = ["--target", target, *FAST, "--save-video=false", "--outdir", tmp_path / "out"]
    code, _, text = call(projector.main, "--network", network, *shared)
    assert code == 0 and "40x30 is not square" in text and "from 30x30 to the network's 16x16" in text and "transparency" in text
    assert not (tmp_path / "out" / "proj.mp4").exists()
    assert call(projector.main, "--network", conditional, *shared, "--class=1")[0] == 0
    assert_sentence(call(projector.main, "--network", conditional, *shared), "--class=0")


def test_projector_says_what_is_wrong(call, network, tmp_path):
    (tmp_path / "text.png").write_text("not a picture")
    good = save_target(tmp_path / "good.png")
    (tmp_path / "cut.png").write_bytes(good.read_bytes()[:300])
    shared = ["--network", network, *FAST, "--save-video=false", "--outdir", tmp_path / "out"]
    PIL.Image.fromarray(np.full([16, 16], 40000, dtype=np.uint16)).save(tmp_path / "deep.png")
    for name in ("missing", "text", "cut", "deep"):
        assert_sentence(call(projector.main, *shared, "--target", tmp_path / f"{name}.png"), f"{name}.png", "--target")
    assert_sentence(call(projector.main, *shared, "--target", good, "--num-steps=0"), "--num-steps")
    perceptual = [*shared, "--target", good, "--distance=vgg16"]
    assert_sentence(call(projector.main, *perceptual, "--detector=vgg16=/nowhere/vgg16.pt"), "/nowhere/vgg16.pt")
    assert_sentence(call(projector.main, *perceptual, "--detector=inception=x.pt"), "vgg16=PATH")


def test_missing_video_packages(call, network, tmp_path, monkeypatch):
    monkeypatch.setattr(projector, "missing_video_packages", lambda: ["imageio-ffmpeg"])
    shared = ["--network", network, "--target", save_target(tmp_path / "t.png"), *FAST, "--outdir", tmp_path / "out"]
    assert_sentence(call(projector.main, *shared, "--save-video=true"), "pip install imageio-ffmpeg", "--save-video=false")
    code, _, text = call(projector.main, *shared)
    assert code == 0 and "pip install imageio-ffmpeg" in text and not (tmp_path / "out" / "proj.mp4").exists()


class StandIn(torch.nn.Module):
    """With the interface of the published VGG16 file."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer = torch.nn.Conv2d(3, 8, 3)

    def forward(self, images: torch.Tensor, resize_images: bool = True, return_lpips: bool = False):
        assert return_lpips and not resize_images
        return self.layer(images / 127.5 - 1).flatten(1)


@pytest.mark.filterwarnings("ignore")
def test_projector_with_a_local_detector(call, network, tmp_path):
    torch.jit.script(StandIn()).save(str(tmp_path / "vgg16.pt"))
    target = save_target(tmp_path / "t.png")
    code, text, _ = call(
        projector.main,
        "--network",
        network,
        "--target",
        target,
        "--num-steps=3",
        "--save-video=false",
        f"--detector=vgg16={tmp_path / 'vgg16.pt'}",
        "--outdir",
        tmp_path / "out",
    )
    assert code == 0 and "Distance: vgg16" in text and (tmp_path / "out" / "proj.png").exists()
