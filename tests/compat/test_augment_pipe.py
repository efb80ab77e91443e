"""The augmentation pipe: golden outputs, how often and how strongly each transformation acts, derivatives, pickling."""

import ast
import inspect
import math
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

from torch_utils.ops import grid_sample_gradfix
from training import augment

GOLDEN_CASES = [
    f"{preset}_{percentile}" for preset in ("blit", "geom", "color", "filter", "cutout", "bg", "bgc", "bgcf") for percentile in (0.3, 0.7)
]
TRANSFORMATIONS = [
    "xflip",
    "rotate90",
    "xint",
    "scale",
    "rotate",
    "aniso",
    "xfrac",
    "brightness",
    "contrast",
    "lumaflip",
    "hue",
    "saturation",
    "imgfilter",
    "noise",
    "cutout",
]
# Share of the draws that do not equal "nothing happens": one of two flips does nothing, one of four turns, ...
EFFECTIVE = {"xflip": 1 / 2, "rotate90": 3 / 4, "lumaflip": 1 / 2}


def pipe(p=1.0, **multipliers):
    result = augment.AugmentPipe(**multipliers)
    result.p.fill_(p)
    return result


def noise_images(*shape, seed=0, dtype=torch.float32):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.fixture
def presets(golden):
    return golden("augment_presets.json")


@pytest.fixture
def draws():
    torch.manual_seed(20)
    return augment._Draws(torch.ones([]), 20000)


# --- The interface. ---


@pytest.mark.parametrize("case", GOLDEN_CASES)
def test_golden(golden, presets, case):
    numbers = golden("augment.npz")
    preset, percentile = case.split("_")
    result = pipe(**presets[preset])(torch.as_tensor(numbers["img"]), debug_percentile=float(percentile))
    np.testing.assert_allclose(result.numpy(), numbers[case], atol=4e-5, rtol=0)


def test_signatures(golden):
    api = golden("api.json")["training.augment"]
    for name, signature in api.items():
        if name != "AugmentPipe":
            assert str(inspect.signature(getattr(augment, name))) == signature, name
    for name, signature in api["AugmentPipe"]["methods"].items():
        assert str(inspect.signature(getattr(augment.AugmentPipe, name))) == signature, name


def test_state_has_the_known_names():
    built = augment.AugmentPipe(xflip=1, imgfilter_bands=(1, 0, 1, 1))
    assert {name: tuple(buffer.shape) for name, buffer in built.named_buffers()} == {"p": (), "Hz_geom": (12,), "Hz_fbank": (4, 43)}
    assert not list(built.parameters())
    arguments = [name for name in inspect.signature(augment.AugmentPipe).parameters if name != "self"]
    for name in arguments:
        assert isinstance(getattr(built, name), list if name == "imgfilter_bands" else float), name
    assert built.p == 1


def test_source_stands_alone():
    """Snapshots carry this text into other checkouts: it may import only what those have."""
    allowed = {
        "math",
        "numpy",
        "scipy.signal",
        "torch",
        "torch_utils.misc",
        "torch_utils.persistence",
        "torch_utils.ops.conv2d_gradfix",
        "torch_utils.ops.grid_sample_gradfix",
        "torch_utils.ops.upfirdn2d",
    }
    tree = ast.parse(inspect.getsource(augment))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported |= {f"{node.module}.{alias.name}" for alias in node.names}
    assert imported <= allowed
    used = {
        f"{node.value.id}.{node.attr}"
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("misc", "persistence", "upfirdn2d", "grid_sample_gradfix", "conv2d_gradfix")
    }
    assert used <= {
        "misc.constant",
        "persistence.persistent_class",
        "upfirdn2d.setup_filter",
        "upfirdn2d.upsample2d",
        "upfirdn2d.downsample2d",
        "grid_sample_gradfix.grid_sample",
        "conv2d_gradfix.conv2d",
    }


def test_pickle_round_trip(presets):
    images = noise_images(2, 3, 16, 16)
    original = pipe(0.25, **presets["bgcf"])
    copy = pickle.loads(pickle.dumps(original))
    assert copy.p == 0.25 and copy.init_kwargs == presets["bgcf"]
    assert torch.equal(copy(images, debug_percentile=0.4), original(images, debug_percentile=0.4))


def test_band_filters_split_the_spectrum():
    bands = augment._band_filters()
    impulse = np.zeros(43)
    impulse[21] = 1
    np.testing.assert_allclose(bands.sum(axis=0), impulse, atol=1e-12)
    np.testing.assert_allclose(bands, bands[:, ::-1], atol=1e-12)  # Zero phase.
    frequencies = np.linspace(0, np.pi, 257)
    response = np.array([[np.sum(band * np.cos(f * (np.arange(43) - 21))) for f in frequencies] for band in bands])
    strongest = frequencies[response.argmax(axis=1)] / np.pi
    assert strongest[0] == 0 and np.all(np.diff(strongest) > 0) and strongest[3] > 0.5


# --- Nothing happens where nothing should. ---


def test_p_zero_is_the_identity_bit_for_bit(presets):
    images = noise_images(5, 3, 16, 16)
    assert torch.equal(pipe(0, **presets["bgcfnc"])(images), images)
    assert torch.equal(pipe(1)(images), images)


def test_images_that_drew_nothing_stay_bit_for_bit(presets):
    torch.manual_seed(3)
    images = noise_images(64, 3, 8, 8)
    result = pipe(0.1, **presets["bg"])(images)
    same = (result == images).flatten(1).all(dim=1)
    # (1 - p)^6 (1 - p/2) ... : about 0.9^4 0.95 0.925 0.9 of the images draw nothing.
    assert 0.3 < same.float().mean() < 0.8


def test_neutral_percentile_resamples_to_the_same_image():
    """The two lowpasses cancel: shifting by nothing, with the whole machinery at work, gives the image back."""
    images = noise_images(2, 3, 24, 20)
    still = torch.eye(3).expand(2, 3, 3)
    np.testing.assert_allclose(augment._resample(images, still, augment.AugmentPipe().Hz_geom), images, atol=2e-5)


# --- How often. ---


@pytest.mark.parametrize("name", TRANSFORMATIONS)
def test_rate_is_p_times_multiplier(name):
    torch.manual_seed(TRANSFORMATIONS.index(name))
    count, p, multiplier = 4000, 0.8, 0.5
    bands = {"imgfilter_bands": [1, 0, 0, 0]} if name == "imgfilter" else {}
    images = noise_images(count, 3, 8, 8)
    result = pipe(p, **{name: multiplier}, **bands)(images)
    tolerance = 1e-5 if name in ("hue", "saturation", "contrast", "brightness", "lumaflip") else 0
    changed = ((result - images).abs() > tolerance).flatten(1).any(dim=1).sum().item()
    rate = p * multiplier * EFFECTIVE.get(name, 1)
    if name == "xint":
        rate *= 1 - 1 / 4  # On 8 pixels a shift rounds to -1, 0 or 1: each axis stays still half the time.
    assert scipy.stats.binomtest(changed, count, rate).pvalue > 1e-3


def test_rotation_happens_with_probability_p_in_two_steps():
    """P(before or after the anisotropic scaling) = p, so each has 1 - sqrt(1 - p)."""
    torch.manual_seed(1)
    count = 20000
    built = pipe(0.36, rotate=1)
    turned = built._draw_geometry(augment._Draws(built.p, count), 8, 8)[:, 0, 0] != 1
    assert scipy.stats.binomtest(int(turned.sum()), count, 0.36).pvalue > 1e-3


def test_a_band_of_strength_zero_stays_untouched_at_every_percentile():
    images = noise_images(2, 3, 16, 16)
    for percentile in (0.2, 0.8):
        assert torch.equal(
            pipe(imgfilter=1, imgfilter_bands=[0, 0, 0, 0])(images, debug_percentile=percentile), pipe()(images, debug_percentile=percentile)
        )
        gains = [
            pipe(imgfilter=1, imgfilter_bands=bands)._draw_band_gains(augment._Draws(torch.tensor(1.0), 2, percentile))
            for bands in ([1, 1, 1, 1], [0, 0, 1, 0], [0, 0, 0, 0])
        ]
        assert (gains[2] == 1).all() and not (gains[1] == 1).all() and not torch.equal(gains[0], gains[1])


def test_bands_are_gated_one_by_one():
    torch.manual_seed(2)
    built = pipe(0.5, imgfilter=1, imgfilter_bands=[1, 0.5, 0, 0])
    gains = built._draw_band_gains(augment._Draws(built.p, 20000))
    changed = (gains != 1).any(dim=1)
    assert scipy.stats.binomtest(int(changed.sum()), 20000, 1 - 0.5 * 0.75).pvalue > 1e-3
    assert torch.equal(gains[:, 2], gains[:, 3])


# --- How strongly. ---


def assert_normal(values, std):
    assert scipy.stats.kstest(np.asarray(values, dtype=np.float64) / std, "norm").pvalue > 1e-3


def assert_uniform(values, low, high):
    assert scipy.stats.kstest((np.asarray(values, dtype=np.float64) - low) / (high - low), "uniform").pvalue > 1e-3


def test_strength_of_scales(draws):
    inverse = pipe(scale=1)._draw_geometry(draws, 8, 8)
    assert_normal(-inverse[:, 0, 0].log2(), 0.2)
    assert torch.equal(inverse[:, 0, 0], inverse[:, 1, 1])
    inverse = pipe(aniso=1, aniso_std=0.3)._draw_geometry(draws, 8, 8)
    assert_normal(-inverse[:, 0, 0].log2(), 0.3)
    np.testing.assert_allclose(inverse[:, 0, 0] * inverse[:, 1, 1], 1, rtol=1e-5)


def test_strength_of_rotations(draws):
    # With p = 1 both rotations happen; on the circle their sum is as uniform as each.
    inverse = pipe(rotate=1)._draw_geometry(draws, 8, 8)
    assert_uniform(torch.atan2(inverse[:, 1, 0], inverse[:, 0, 0]), -math.pi, math.pi)
    gentle = pipe(0.05, rotate=1, rotate_max=0.1)
    angles = gentle._draw_geometry(augment._Draws(gentle.p, 20000), 8, 8)
    angles = torch.atan2(angles[:, 1, 0], angles[:, 0, 0])
    assert_uniform(angles[(angles != 0) & (angles.abs() < 0.1 * math.pi)], -0.1 * math.pi, 0.1 * math.pi)


def test_strength_of_shifts(draws):
    inverse = pipe(xint=1)._draw_geometry(draws, 64, 32)
    for axis, size in ((0, 64), (1, 32)):
        shifts = inverse[:, axis, 2]
        assert torch.equal(shifts, shifts.round())
        inner = shifts[shifts.abs() < size / 8]
        counts = torch.bincount((inner + size // 8).long())[1:]
        assert scipy.stats.chisquare(counts).pvalue > 1e-3
    inverse = pipe(xfrac=1)._draw_geometry(draws, 64, 32)
    assert_normal(inverse[:, 0, 2] / 64, 0.125)
    assert_normal(inverse[:, 1, 2] / 32, 0.125)
    assert abs(np.corrcoef(inverse[:, 0, 2], inverse[:, 1, 2])[0, 1]) < 0.05


def test_strength_of_colour(draws):
    colours = pipe(brightness=1)._draw_colours(draws, 3)
    assert_normal(colours[:, 0, 3], 0.2)
    assert torch.equal(colours[:, 0, 3], colours[:, 2, 3])
    assert_normal(pipe(contrast=1)._draw_colours(draws, 3)[:, 1, 1].log2(), 0.5)

    flips = pipe(lumaflip=1)._draw_colours(draws, 3)[:, :3, :3]
    grey = flips.sum(dim=2)[:, 0]  # What becomes of (1, 1, 1): itself or its negative.
    assert scipy.stats.binomtest(int((grey < 0).sum()), 20000, 0.5).pvalue > 1e-3
    np.testing.assert_allclose(grey.abs(), 1, atol=1e-5)

    turns = pipe(hue=1)._draw_colours(draws, 3)[:, :3, :3]
    np.testing.assert_allclose(turns @ turns.transpose(1, 2), np.broadcast_to(np.eye(3), (20000, 3, 3)), atol=1e-5)
    np.testing.assert_allclose(turns.sum(dim=2), 1, atol=1e-5)  # Grey stays.
    cos = ((turns.diagonal(dim1=1, dim2=2).sum(dim=1) - 1) / 2).clamp(-1, 1)
    assert_uniform(torch.acos(cos), 0, math.pi)

    colours = pipe(saturation=1)._draw_colours(draws, 3)[:, :3, :3]
    np.testing.assert_allclose(colours.sum(dim=2), 1, atol=1e-4)
    assert_normal((colours[:, 0, 0] - colours[:, 0, 1]).log2(), 1.0)


def test_strength_of_filtering(draws):
    gains = pipe(imgfilter=1, imgfilter_bands=[0, 0, 1, 0])._draw_band_gains(draws)
    assert_normal((gains[:, 2] / gains[:, 0]).log2(), 1.0)
    power = torch.tensor(augment._BAND_POWER)
    np.testing.assert_allclose((gains.square() * power).sum(dim=1), 1, rtol=1e-5)


def test_strength_of_corruptions():
    torch.manual_seed(5)
    grey = torch.ones(3000, 1, 16, 16)
    noisy = pipe(noise=1)(grey) - 1
    sigma = noisy.flatten(1).std(dim=1)
    assert abs(sigma.square().mean() / 0.1**2 - 1) < 0.1  # E sigma^2 of a half-normal.
    assert abs(sigma.mean() / (0.1 * math.sqrt(2 / math.pi)) - 1) < 0.05
    cut = pipe(cutout=1)(grey) == 0
    # An interval of half the width, centred anywhere in the picture, covers 7/16 of it on average.
    assert abs(cut.float().mean() - (7 / 16) ** 2) < 0.006
    whole = cut.any(dim=3).squeeze(1).sum(dim=1).amax()
    assert whole == 8


# --- Geometry by example. ---


def smooth_images():
    """[2,3,16,16] without fine detail: sym6 is not symmetric, so mirrored detail comes back slightly changed."""
    y, x = torch.meshgrid(torch.linspace(0, 1, 16), torch.linspace(0, 1, 16), indexing="ij")
    planes = [torch.cos(2 * x + k) + torch.sin(3 * y * x + 2 * k) for k in range(6)]
    return torch.stack(planes).reshape(2, 3, 16, 16)


@pytest.mark.parametrize("turns", range(4))
def test_quarter_turns_form_the_group(turns):
    images = smooth_images()
    built = pipe(rotate90=1)
    once = built(images, debug_percentile=turns / 4 + 0.1)
    np.testing.assert_allclose(once[:, :, 1:-1, 1:-1], torch.rot90(images, turns, dims=(2, 3))[:, :, 1:-1, 1:-1], atol=0.07)
    quarter = built._draw_geometry(augment._Draws(built.p, 1, 0.3), 16, 16)
    several = built._draw_geometry(augment._Draws(built.p, 1, turns / 4 + 0.1), 16, 16)
    assert torch.equal(torch.linalg.matrix_power(quarter, turns), several)  # Exact, no rounded cosines.


def test_flip_and_shift():
    images = smooth_images()
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    np.testing.assert_allclose(pipe(xflip=1)(images, debug_percentile=0.6)[inner], images.flip(3)[inner], atol=0.07)
    # Shifts by whole pixels are exact: two to the right and down, with mirrored borders.
    images = noise_images(2, 3, 16, 16)
    mirrored = torch.nn.functional.pad(images, [2, 0, 2, 0], mode="reflect")[:, :, :16, :16]
    np.testing.assert_allclose(pipe(xint=1)(images, debug_percentile=1.0), mirrored, atol=2e-5)


@pytest.mark.parametrize("pad", [(0, 0, 0, 0), (2, 1, 0, 3), (3, 9, 11, 4), (30, 31, 32, 33)])
def test_reflect_pad_of_any_width(pad):
    images = noise_images(1, 2, 5, 4)
    left, right, top, bottom = pad
    expected = np.pad(images.numpy(), [(0, 0), (0, 0), (top, bottom), (left, right)], mode="reflect")
    assert np.array_equal(augment._reflect_pad(images, *pad), expected)


@pytest.mark.parametrize("shape", [(1, 3, 4, 4), (3, 1, 9, 16), (2, 3, 33, 17)])
@pytest.mark.parametrize("preset", ["bgcfnc", "bgc"])
def test_any_size(presets, shape, preset):
    torch.manual_seed(4)
    result = pipe(0.9, **presets[preset])(noise_images(*shape))
    assert result.shape == shape and torch.isfinite(result).all()


@pytest.mark.parametrize("shape", [(2, 3, 20, 28), (3, 1, 8, 8)])
def test_matrix_products_equal_convolutions(presets, monkeypatch, shape):
    images = noise_images(*shape)
    by_matrix = pipe(**presets["bgcf"])(images, debug_percentile=0.62)
    monkeypatch.setattr(augment, "_LARGEST_MATRIX_SIZE", 0)
    np.testing.assert_allclose(pipe(**presets["bgcf"])(images, debug_percentile=0.62), by_matrix, atol=2e-5)


# --- Channels and derivatives. ---


def test_grey_images_are_treated_as_three_equal_channels(presets):
    grey = noise_images(3, 1, 16, 16)
    single = pipe(**presets["bgcf"])(grey, debug_percentile=0.7)
    triple = pipe(**presets["bgcf"])(grey.expand(-1, 3, -1, -1), debug_percentile=0.7)
    np.testing.assert_allclose(single, triple.mean(dim=1, keepdim=True), atol=2e-5)


def test_other_channel_counts_get_a_sentence(presets):
    images = noise_images(2, 4, 8, 8)
    assert pipe(**presets["bg"])(images).shape == images.shape
    with pytest.raises(augment.AugmentationError, match="1 or 3 channels .got 4.*--augpipe=bg") as caught:
        pipe(**presets["bgc"])(images)
    assert caught.value.is_user_error
    with pytest.raises(augment.AugmentationError, match=r"\[N,C,H,W\]"):
        pipe(**presets["bgc"])(images[0])


@pytest.mark.parametrize("path", ["matrices", "convolutions"])
def test_first_and_second_derivatives(presets, monkeypatch, path):
    monkeypatch.setattr(grid_sample_gradfix, "enabled", True)
    if path == "convolutions":
        monkeypatch.setattr(augment, "_LARGEST_MATRIX_SIZE", 0)
    images = noise_images(2, 3, 4, 4, dtype=torch.float64).requires_grad_()
    built = pipe(**{**presets["bgcf"], "cutout": 1}).double()

    def through(images):
        return built(images, debug_percentile=0.65)

    assert torch.autograd.gradcheck(through, [images], fast_mode=True)
    assert torch.autograd.gradgradcheck(through, [images], fast_mode=True)


def test_gradient_penalty_passes_through(presets, monkeypatch):
    """R1 differentiates the discriminator's slope at the un-augmented images by the discriminator's weights."""
    monkeypatch.setattr(grid_sample_gradfix, "enabled", True)
    torch.manual_seed(6)
    layer = torch.nn.Conv2d(3, 1, 3)
    images = noise_images(4, 3, 8, 8).requires_grad_()
    logits = layer(pipe(0.7, **presets["bgcfnc"])(images)).square().sum()
    (slope,) = torch.autograd.grad(logits, images, create_graph=True)
    slope.square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0 and torch.isfinite(layer.weight.grad).all()


def test_same_seed_same_images(presets):
    images = noise_images(4, 3, 8, 8)
    results = []
    for seed in (7, 7, 8):
        torch.manual_seed(seed)
        results.append(pipe(0.8, **presets["bgcfnc"])(images))
    assert torch.equal(results[0], results[1]) and not torch.equal(results[0], results[2])


# --- The helpers. ---


def test_matrices():
    tx, s, theta = torch.tensor([0.5, -1.0]), torch.tensor([2.0, 0.25]), torch.tensor([0.3, -2.0])
    eye = np.broadcast_to(np.eye(3), (2, 3, 3))
    np.testing.assert_allclose(augment.translate2d(tx, 3) @ augment.translate2d_inv(tx, 3), eye, atol=1e-6)
    np.testing.assert_allclose(augment.scale2d(s, 4) @ augment.scale2d_inv(s, 4), eye, atol=1e-6)
    np.testing.assert_allclose(augment.rotate2d(theta) @ augment.rotate2d_inv(theta), eye, atol=1e-6)
    assert augment.matrix([1, 2], [3, 4]).tolist() == [[1, 2], [3, 4]]
    np.testing.assert_allclose(augment.rotate2d(math.pi / 2) @ torch.tensor([1.0, 0, 1]), [0, 1, 1], atol=1e-6)
    about_z = augment.rotate3d(torch.tensor([0.0, 0, 1]), torch.tensor(0.3))
    np.testing.assert_allclose(about_z[:2, :2], augment.rotate2d(torch.tensor(0.3))[:2, :2], atol=1e-6)
    assert augment.translate3d(1, 2, 3)[:, 3].tolist() == [1, 2, 3, 1]
    assert augment.scale3d(s, 1, 1).shape == (2, 4, 4)
