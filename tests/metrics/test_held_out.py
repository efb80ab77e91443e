"""The metrics against held-out reals: their kernels by hand and by brute force, what is planted, what is refused."""

import json
import math
import re
import shlex
import types

import numpy as np
import PIL.Image
import pytest

import calc_metrics
import dataset_tool
from dnnlib import cli
from dnnlib.errors import UserError
from metrics import held_out, held_out_kernels as kernels, metric_main, requirements

METRICS = ("madr_fdr", "madr_swr", "madr_coverage_ratio", "madr_rare_classes")


# ----------------------------------------------------------------------------------------------------------------
# Kernels.


def test_sliced_wasserstein_by_hand():
    """0 and 3 against 1: distances 1 and 2 along the line, 0 across it."""
    x, y = np.array([[0.0, 5.0], [3.0, 5.0]]), np.array([[1.0, 5.0]])
    along, across = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert kernels.sliced_wasserstein(x, y, along) == pytest.approx(math.sqrt((1 + 4) / 2))
    assert kernels.sliced_wasserstein(x, y, across) == 0
    assert kernels.sliced_wasserstein(x, y, np.concatenate([along, across])) == pytest.approx(math.sqrt((2.5 + 0) / 2))


@pytest.mark.parametrize("n, m", [(12, 12), (12, 18), (7, 5), (1, 4)])
def test_sliced_wasserstein_is_that_of_sets_repeated_to_one_size(n, m):
    rng = np.random.default_rng(n)
    x, y = rng.standard_normal((n, 3)), rng.standard_normal((m, 3)) + 0.5
    directions = kernels.random_directions(3, rng, 70)
    assert np.linalg.norm(directions, axis=1) == pytest.approx(np.ones(70))
    times = math.lcm(n, m)
    pairs = [(np.sort(np.repeat(x @ u, times // n)), np.sort(np.repeat(y @ u, times // m))) for u in directions]
    expected = math.sqrt(np.mean([np.square(a - b).mean() for a, b in pairs]))
    assert kernels.sliced_wasserstein(x, y, directions) == pytest.approx(expected, rel=1e-12)


def test_sliced_wasserstein_of_shifted_sets_is_the_shift_over_the_root_of_the_dimensions():
    rng = np.random.default_rng(0)
    x, shift = rng.standard_normal((40, 6)), np.array([3.0, 0, 0, 4.0, 0, 0])
    value = kernels.sliced_wasserstein(x, x + shift, kernels.random_directions(6, rng, 20_000))
    assert value == pytest.approx(5 / math.sqrt(6), rel=0.02)


def test_classes_are_seen_by_hand():
    """Two classes on a line; the ball of each real of the first reaches 3, of the second, lone, real 12 to its third neighbour."""
    real, classes = np.array([[0.0], [1.0], [2.0], [3.0], [12.0]]), np.array([0, 0, 0, 0, 1])
    points = np.array([[1.4], [6.0], [7.4], [8.0], [30.0]])
    nearest, clear = kernels.seen_classes(real, classes, points)
    assert nearest.tolist() == [0, 0, 0, 1, 1]
    assert clear.tolist() == [True, True, False, True, False]  # 6 is on the rim of the ball about 3, 8 inside that about 12, 30 outside
    share, quality = kernels.class_shares(nearest, clear, 3)
    assert share.tolist() == pytest.approx([2 / 5, 1 / 5, 0]) and quality.tolist()[:2] == pytest.approx([2 / 3, 1 / 2]) and math.isnan(quality[2])


def test_classes_are_seen_as_by_brute_force():
    rng = np.random.default_rng(3)
    real, classes, points = rng.standard_normal((120, 4)), rng.integers(0, 5, 120), rng.standard_normal((80, 4)) * 1.5
    between, own = (np.linalg.norm(a[:, None] - real[None], axis=2) for a in (points, real))
    np.fill_diagonal(own, np.inf)
    radii = np.sort(own, axis=1)[:, 2]
    expected = classes[between.argmin(1)]
    inside = (between <= radii[None]) & (classes[None] == expected[:, None])
    nearest, clear = kernels.seen_classes(real, classes, points)
    assert nearest.tolist() == expected.tolist() and clear.tolist() == inside.any(1).tolist() and 0 < clear.sum() < 80


def test_rare_are_those_below_half_the_mean():
    assert kernels.rare_classes(np.repeat([0, 1, 2, 3], [10, 3, 4, 3]), 4).tolist() == []  # the mean is 5
    assert kernels.rare_classes(np.repeat([0, 1, 2], [20, 2, 3]), 4).tolist() == [1, 2]  # one class has no real at all
    with pytest.raises(UserError, match="no distance from the reals"):
        kernels.ratio(1.0, 0.0, "distance")


# ----------------------------------------------------------------------------------------------------------------
# Metrics.


class Drawing:
    """Pictures of classes: a coarse pattern for each class, with a random shade on it."""

    def __init__(self, folder):
        self.folder = folder
        self.patterns = np.random.default_rng(0).integers(0, 256, (3, 4, 4, 3))

    def __call__(self, name, counts, seed, size=16, mode="RGB"):
        rng, place = np.random.default_rng(seed), self.folder / name
        place.mkdir()
        labels = []
        for number, count in enumerate(counts):
            for i in range(count):
                pixels = (self.patterns[number] + rng.integers(-25, 26, (4, 4, 3))).clip(0, 255).astype(np.uint8)
                image = PIL.Image.fromarray(pixels).resize([size, size], PIL.Image.NEAREST).convert(mode)
                image.save(place / f"{number}-{i:03d}.png")
                labels.append([f"{number}-{i:03d}.png", number])
        (place / "dataset.json").write_text(json.dumps(dict(labels=labels)))
        return place


@pytest.fixture
def drawn(tmp_path):
    return Drawing(tmp_path)


@pytest.fixture
def call(capfd):
    """call(fakes, reals, held, metrics, *more) -> (exit code, {metric: line}, stderr)"""

    def run(fakes, reals, held, metrics=METRICS, *more):
        arguments = [f"--fakes={fakes}", f"--reals={reals}", f"--metrics={','.join(metrics)}", *([] if held is None else [f"--held-out={held}"])]
        code = cli.call(calc_metrics.main, ["--verbose=0", "--device=cpu", "--metric-space=pixels", *arguments, *more])
        out, err = capfd.readouterr()
        lines = [json.loads(line) for line in out.splitlines() if line.startswith("{")]
        return code, {line["metric"]: line for line in lines}, err

    return run


def test_held_out_images_judged_as_generated_ones_score_one(call, drawn):
    reals, held, fakes = (drawn(name, (60, 40, 12), seed) for name, seed in (("reals", 0), ("held", 1), ("fakes", 1)))
    code, lines, err = call(fakes, reals, held)
    assert code == 0, err
    for name in METRICS:
        assert list(lines[name]["results"].values()) == pytest.approx([1.0] * len(lines[name]["results"])), name
    facts = lines["madr_fdr"]["facts"]
    assert (
        facts["spaces"] == ["pixels", "random-conv", "random"] == list(facts["per_space"]) and facts["num_compared"] == facts["num_held_out"] == 112
    )
    assert facts["held_out_images"]["num_images"] == 112 and facts["num_real"] == 112 and facts["data"]["name"] == "reals"


def test_a_lost_class_and_noise_show_where_they_should(call, drawn):
    reals, held = drawn("reals", (60, 40, 12), 0), drawn("held", (60, 40, 12), 1)
    _, lost, _ = call(drawn("lost", (60, 52, 0), 2), reals, held)
    assert lost["madr_fdr"]["results"]["madr_fdr"] > 2 and lost["madr_swr"]["results"]["madr_swr"] > 2
    assert lost["madr_coverage_ratio"]["results"]["madr_coverage_ratio"] < 0.95
    assert lost["madr_rare_classes"]["results"] == {"madr_rare_classes": 0, "madr_rare_classes_quality": 0}
    assert lost["madr_rare_classes"]["facts"]["rare_classes"] == ["2"]
    _, half, _ = call(drawn("half", (60, 46, 6), 2), reals, held, ["madr_rare_classes"])
    found, facts = half["madr_rare_classes"]["results"], half["madr_rare_classes"]["facts"]["class_shares"]["2"]
    assert found["madr_rare_classes"] == pytest.approx(facts["share"] / facts["share_of_held_out"]) and 0.3 < found["madr_rare_classes"] < 0.75


def test_ratios_are_those_of_the_kernels(call, drawn):
    """One space recomputed from the features, by the rule of the page."""
    import torch

    from madr_spaces import registry
    from metrics.kernels import frechet_distance, mean_and_covariance
    from training.dataset import ImageFolderDataset

    paths = dict(real=drawn("reals", (30, 20, 5), 0), held=drawn("held", (10, 10, 3), 1), fake=drawn("fakes", (13, 9, 1), 2))
    _, lines, err = call(paths["fake"], paths["real"], paths["held"], ["madr_fdr"])
    space, features = registry.build("pixels", (3, 16, 16)), {}
    for name, path in paths.items():
        dataset = ImageFolderDataset(path=str(path))
        features[name] = space.of_bytes(torch.from_numpy(np.stack([dataset[i][0] for i in range(len(dataset))]))).numpy()
    distance = lambda a: frechet_distance(*mean_and_covariance(features[a]), *mean_and_covariance(features["real"]))
    expected = distance("fake") / distance("held")  # 23 of each, so all are compared
    assert lines["madr_fdr"]["facts"]["per_space"]["pixels"]["ratio"] == pytest.approx(expected, rel=1e-5), err
    assert "with fewer images than features" in err


@pytest.mark.parametrize(
    "what, words",
    [
        ("small", "has too few images: a neighbourhood of 5 needs more than 5 held-out images (got 3); put more pictures into it"),
        (
            "size",
            "has images of 8x8 pixels with 3 channels, the reals of 16x16 pixels with 3 channels; compare images of one size: dataset_tool.py --source=",
        ),
        ("grey", "grey and colour cannot be compared"),
        ("same", "holds the very images that they are compared with"),
        ("copies", "35 of the 55 images of --held-out"),
        ("copies", "the whole data set also of a run with --subset; give images that are not in it, or with --data=PATH the part alone"),
        ("missing", "is neither a folder nor a zip of images"),
        ("none", "compares with real images that nobody trained on; give a folder or zip of them with --held-out=PATH"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(call, drawn, what, words):
    reals, fakes = drawn("reals", (30, 20, 5), 0), drawn("fakes", (30, 20, 5), 2)
    held = dict(
        small=lambda: drawn("held", (1, 1, 1), 1),
        size=lambda: drawn("held", (30, 20, 5), 1, size=8),
        grey=lambda: drawn("held", (30, 20, 5), 1, mode="L"),
        same=lambda: drawn("held", (30, 20, 5), 0),
        copies=lambda: drawn("held", (30, 0, 25), 0),
        missing=lambda: reals / "nothing.zip",
        none=lambda: None,
    )[what]()
    code, lines, err = call(fakes, reals, held, ["madr_coverage_ratio"])
    assert code == 1 and words in err and "Traceback" not in err and not lines


def test_held_out_images_of_another_size_come_to_that_of_the_reals(call, drawn, tmp_path, monkeypatch):
    """The commands that the message names are run as they stand; where dataset_tool.py does not make the size of the reals, all sets change."""
    monkeypatch.chdir(tmp_path)
    for size, names in ((16, ["held-out"]), (12, ["held-out", "reals", "fakes"])):
        sets = {name: drawn(f"{name}{size}", (30, 20, 5), seed, size=size) for seed, name in enumerate(("reals", "fakes"))}
        sets["held-out"] = drawn(f"held{size}", (30, 20, 5), 3, size=20)
        code, _, err = call(sets["fakes"], sets["reals"], sets["held-out"], ["madr_coverage_ratio"])
        assert code == 1 and re.findall(r"--dest=([a-z-]+)-\d+\.zip", err) == names
        for command in re.findall(r"dataset_tool\.py (.*?)(?= and dataset_tool|\.$)", err, re.MULTILINE):
            assert cli.call(dataset_tool.main, shlex.split(command)) == 0
        sets.update({name: f"{name}-{16 if size == 16 else 8}.zip" for name in names})
        code, lines, err = call(sets["fakes"], sets["reals"], sets["held-out"], ["madr_coverage_ratio"])
        assert code == 0 and len(lines) == 1, err


def test_sets_without_rare_or_any_classes_and_metrics_without_held_out_images_are_sentences(call, drawn):
    even, held = drawn("reals", (20, 20, 20), 0), drawn("held", (20, 20, 20), 1)
    code, _, err = call(drawn("fakes", (20, 20, 20), 2), even, held, ["madr_rare_classes"])
    assert code == 1 and "no class has fewer than half as many images as the mean class" in err
    (even / "dataset.json").unlink()
    code, _, err = call(held, even, held, ["madr_rare_classes"])
    assert code == 1 and "has no class labels" in err
    code, _, err = call(held, even, held, ["madr_vendi"])
    assert code == 1 and "--held-out=" in err and "has no effect on madr_vendi" in err
    with pytest.raises(UserError, match="which a training does not know"):
        requirements.check(["madr_fdr_10k"], {})


@pytest.mark.parametrize("space, trained_in", [("pca", None), ("dino", "pca"), ("random-conv", "random-conv"), ("pixels", "dino")])
def test_at_least_three_spaces_one_never_trained_in_and_the_same_for_every_network(space, trained_in):
    spaces = held_out.spaces_of(types.SimpleNamespace(space=space, detectors={}, trained_in=trained_in))
    assert len(set(spaces)) >= 3 and spaces[0] == space
    assert spaces == held_out.spaces_of(types.SimpleNamespace(space=space, detectors={}, trained_in=None))
    assert any(not held_out.names.led_by(name, trained_in) for name in spaces)
    assert not any(held_out.names.led_by(a, b) for i, a in enumerate(spaces) for b in spaces[:i])


def test_the_mean_of_what_was_never_trained_in_stands_beside(drawn):
    paths = dict(reals=drawn("reals", (30, 20, 5), 0), held=drawn("held", (30, 20, 5), 1))
    from metrics import two_sets
    from metrics.metric import Takes
    from training.dataset import ImageFolderDataset

    fakes = two_sets.Images(ImageFolderDataset(path=str(drawn("fakes", (30, 20, 5), 2))), two_sets.Side("generated", "the set", Takes.IMAGES, {}))
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=str(paths["reals"]))
    facts = metric_main.calc_metric(
        "madr_swr", G=fakes, dataset_kwargs=kwargs, device="cpu", num_gen=55, space="pixels", trained_in="pca", held_out=str(paths["held"])
    ).facts
    found = facts["per_space"]
    assert [found[name]["trained_in"] for name in found] == [True, False, False]
    assert facts["mean_never_trained_in"] == pytest.approx(np.mean([found[name]["ratio"] for name in ("random-conv", "random")]))


def test_a_space_that_resembles_too_many_others_is_a_sentence():
    with pytest.raises(UserError, match="choose another one"):
        held_out.spaces_of(types.SimpleNamespace(space="ensemble:random-conv+pixels", detectors={}, trained_in=None))


def test_less_is_better_for_distances_alone():
    assert [metric_main.higher_is_better(name) for name in METRICS] == [False, False, True, True]
