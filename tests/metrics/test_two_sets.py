"""calc_metrics.py --fakes --reals: folders, zips, features and saved statistics judged without a network."""

import json
import re
import shlex

import numpy as np
import PIL.Image
import pytest
import torch

import calc_metrics
import dataset_tool
from dnnlib import cli
from dnnlib.errors import UserError
from madr_spaces import neighbours
from metrics import kernels, two_sets
from metrics.metric import Takes
from training.dataset import ImageFolderDataset


@pytest.fixture
def call(capfd, detector_file):
    """call(*arguments) -> (exit code, result lines, stderr)"""

    def run(*arguments):
        code = cli.call(
            calc_metrics.main,
            ["--verbose=0", "--device=cpu", f"--detector=inception={detector_file}", f"--detector=vgg16={detector_file}", *map(str, arguments)],
        )
        out, err = capfd.readouterr()
        return code, [json.loads(line) for line in out.splitlines() if line.startswith("{")], err

    return run


def folder(path, count=12, size=16, mode="RGB", seed=0, classes=()):
    """A folder of random pictures; classes: names of class folders that take turns."""
    random = np.random.RandomState(seed)
    for i in range(count):
        pixels = random.randint(0, 256, size=[size, size] if mode == "L" else [size, size, 3]).astype(np.uint8)
        place = path / classes[i % len(classes)] if classes else path
        place.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(pixels).save(place / f"{i:03d}.png")
    return path


@pytest.fixture
def features(tmp_path):
    """(paths, arrays) of two files of features."""
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal((40, 4)).astype(np.float32), (rng.standard_normal((30, 4)) + 1).astype(np.float32)
    for name, array in zip(("reals", "fakes"), arrays):
        np.savez(tmp_path / f"{name}.npz", features=array)
    return (tmp_path / "reals.npz", tmp_path / "fakes.npz"), arrays


def statistics(path, rows):
    mean, covariance = kernels.mean_and_covariance(rows)
    np.savez(path, mu=mean, sigma=covariance)
    return path


def test_folder_and_zip_are_judged_by_every_kind_of_metric(call, tmp_path, tiny_zip):
    fakes = folder(tmp_path / "fakes", count=20)
    names = "fid50k_full,kid50k_full,pr50k3_full,is50k,madr_prdc,madr_vendi_10k"
    code, lines, err = call("--fakes", fakes, "--reals", tiny_zip(num_images=30), f"--metrics={names}", "--metric-space=pixels")
    assert code == 0, err
    assert [line["metric"] for line in lines] == names.split(",")
    for line in lines:
        assert list(line)[:7] == ["results", "metric", "total_time", "total_time_str", "num_gpus", "snapshot_pkl", "timestamp"]
        assert line["snapshot_pkl"] is None and np.isfinite(list(line["results"].values())).all()
        assert line["facts"]["num_gen"] == 20 and line["facts"]["fakes"]["num_images"] == 20 and line["facts"]["counts_overridden"]
    assert lines[0]["facts"]["num_real"] == 30 and lines[4]["facts"]["held_out"]["space"] == "random-conv"


def test_a_set_against_itself_is_perfect_and_told(call, tiny_zip, tmp_path):
    path = tiny_zip(num_images=30)
    code, lines, err = call("--fakes", path, "--reals", path, "--metrics=fid50k_full,madr_prdc", "--metric-space=pixels")
    assert code == 0 and "hold the same images" in err
    assert lines[0]["results"]["fid50k_full"] == pytest.approx(0, abs=1e-6)
    assert [lines[1]["results"][f"madr_prdc_{name}"] for name in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_images_give_the_number_of_their_kept_statistics(call, tmp_path, tiny_zip):
    """The file that calc_metrics.py keeps of the reals serves as a side."""
    fakes, reals = folder(tmp_path / "fakes", count=21), tiny_zip(num_images=30)
    code, [images], err = call("--fakes", fakes, "--reals", reals, "--metrics=fid50k_full")
    assert code == 0, err
    [kept] = (tmp_path / "cache" / "gan-metrics").iterdir()
    code, [mixed], err = call("--fakes", fakes, "--reals", kept, "--metrics=fid50k_full")
    assert code == 0, err
    assert mixed["results"]["fid50k_full"] == pytest.approx(images["results"]["fid50k_full"], rel=1e-9)
    assert mixed["facts"]["reals"]["kind"] == "a mean and a covariance" and mixed["facts"]["num_real"] == 30


def test_processes_share_the_images_in_the_order_of_one(tiny_zip, options):
    images = two_sets.Images(
        ImageFolderDataset(path=tiny_zip(num_images=30)), two_sets.Side("generated", "the set", Takes.IMAGES, {}), num_gen=11, seed=3
    )
    alone = torch.cat(list(images.batches(options(), 11, 4)))[:11]
    shares = [list(images.batches(options(num_gpus=2, rank=rank), 11, 4)) for rank in (0, 1)]
    together = torch.cat([part for pair in zip(*shares) for part in pair])[:11]
    assert torch.equal(alone, together) and len({image.numpy().tobytes() for image in alone}) == 11


def test_features_and_statistics_give_the_numbers_of_the_kernels(call, features, tmp_path):
    (reals, fakes), (real, fake) = features
    code, lines, err = call("--reals", reals, "--fakes", fakes, "--metrics=fid50k_full,pr50k3_full,madr_prdc")
    assert code == 0, err
    expected = kernels.frechet_distance(*kernels.mean_and_covariance(fake), *kernels.mean_and_covariance(real))
    assert lines[0]["results"]["fid50k_full"] == pytest.approx(expected, rel=1e-6)
    assert list(lines[1]["results"].values()) == pytest.approx(neighbours.precision_recall(real, fake, 3))
    assert [lines[2]["results"][f"madr_prdc_{name}"] for name in ("precision", "recall")] == pytest.approx(neighbours.precision_recall(real, fake, 3))
    code, [line], err = call("--reals", statistics(tmp_path / "stats.npz", real), "--fakes", fakes, "--metrics=fid50k_full")
    assert code == 0, err
    assert line["results"]["fid50k_full"] == pytest.approx(expected, rel=1e-6) and line["facts"]["num_real"] is None


def test_numbers_of_items_can_be_limited_by_a_draw_from_all(call, features, tmp_path):
    (reals, fakes), _ = features
    images = folder(tmp_path / "images", count=20)
    for more in (["--fakes", fakes, "--reals", reals], ["--fakes", images, "--reals", images]):
        code, [line], err = call(*more, "--metrics=kid50k_full", "--num-gen=10", "--num-real=12")
        assert code == 0, err
        assert (line["facts"]["num_gen"], line["facts"]["num_real"]) == (10, 12)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--fakes=FOLDER"], ["fid50k_full compares with real images", "--data=PATH", "--reals=PATH"]),
        (["--reals=FOLDER"], ["--fakes is missing beside --reals", "--network"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--data=FOLDER"], ["--reals=", "--data=", "both name"]),
        (["--fakes=FOLDER", "--data=/nowhere.zip"], ["--data=/nowhere.zip", "does not exist"]),
        (["--fakes=FOLDER", "--reals=/nowhere.zip"], ["--reals=/nowhere.zip", "does not exist"]),
        (["--fakes=FOLDER/000.png", "--reals=FOLDER"], ["--fakes=", "000.png", "neither a folder"]),
        (["--fakes=EMPTY", "--reals=FOLDER"], ["holds no images"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--network=FOLDER/000.png"], ["--network has no effect beside --fakes and --reals"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--repeats=2"], ["--repeats has no effect"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--metrics=ppl2_wend"], ["ppl2_wend", "needs the network itself", "--network=PATH"]),
        (["--fakes=STATISTICS", "--reals=FOLDER", "--metrics=kid50k_full"], ["needs features", "a mean and a covariance", "fid50k_full"]),
        (["--fakes=FEATURES", "--reals=FEATURES", "--metrics=is50k"], ["needs images", "holds features"]),
        (["--fakes=STATISTICS", "--reals=STATISTICS", "--num-gen=5"], ["--num-gen=5 has no effect", "a mean and a covariance"]),
        (["--fakes=FEATURES", "--reals=FEATURES", "--num-gen=500"], ["--num-gen=500 asks for more images than the 40"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--num-gen=500"], ["--num-gen=500 asks for more images than the 12"]),
        (["--fakes=FOLDER", "--reals=FEATURES"], ["dimensions", "one detector"]),
        (["--fakes=BROKEN", "--reals=FEATURES"], ["mu [4], sigma [3, 3]", "D x D"]),
        (["--fakes=FOLDER", "--reals=FOLDER", "--per-class"], ["--per-class needs a set with class labels", "has no labels"]),
    ],
)
def test_faults_are_sentences(call, features, tmp_path, arguments, words):
    (reals, _), (real, _) = features
    folder(tmp_path / "images")
    (tmp_path / "empty").mkdir()
    np.savez(tmp_path / "broken.npz", mu=np.zeros(4), sigma=np.eye(3))
    statistics(tmp_path / "stats.npz", real)
    places = dict(FOLDER="images", EMPTY="empty", FEATURES="reals.npz", STATISTICS="stats.npz", BROKEN="broken.npz")
    for name, place in places.items():
        arguments = [argument.replace(name, str(tmp_path / place)) for argument in arguments]
    code, lines, err = call(*arguments)
    assert code == 1 and not lines and "Traceback" not in err
    assert all(word in err for word in words), err


def test_mixed_sizes_are_refused_and_the_remedy_helps(call, tmp_path, tiny_zip, monkeypatch):
    fakes = folder(tmp_path / "fakes", count=8)
    PIL.Image.new("RGB", (20, 20)).save(fakes / "odd.png")
    reals = tiny_zip(num_images=30, resolution=32)
    code, lines, err = call("--fakes", fakes, "--reals", reals)
    assert code == 1 and not lines and "1 of 9 images" in err and "odd.png is 20x20 pixels" in err
    (fakes / "odd.png").unlink()
    code, lines, err = call("--fakes", fakes, "--reals", reals)
    assert code == 1 and not lines and "16x16 pixels with 3 channels" in err and "32x32" in err
    monkeypatch.chdir(tmp_path)
    assert followed(err) == {"fakes": "fakes-32.zip"}
    code, lines, err = call("--fakes=fakes-32.zip", "--reals", reals)
    assert code == 0 and len(lines) == 1, err


def followed(err):
    """Run the commands of dataset_tool.py that a message names: {name of a set: the file made}."""
    commands = re.findall(r"dataset_tool\.py (.*?)(?= and dataset_tool|\.$)", err, re.MULTILINE)
    made = re.findall(r"--dest=(([a-z-]+)-\d+\.zip)", err)
    assert len(commands) == len(made) > 0 and all(cli.call(dataset_tool.main, shlex.split(command)) == 0 for command in commands), err
    return {name: file for file, name in made}


@pytest.mark.parametrize(
    "fakes, reals, made",
    [
        ((64, 64), (48, 48), {"fakes": "fakes-32.zip", "reals": "reals-32.zip"}),
        ((32, 32), (48, 48), {"reals": "reals-32.zip"}),
        ((40, 24), (16, 16), {"fakes": "fakes-16.zip"}),
        ((32, 32), (40, 24), {"fakes": "fakes-16.zip", "reals": "reals-16.zip"}),
    ],
)
def test_sets_of_any_two_sizes_come_to_one(call, tmp_path, monkeypatch, fakes, reals, made):
    """The commands that the message names are run as they stand, also where dataset_tool.py makes no images of the size of the reals."""
    monkeypatch.chdir(tmp_path)
    paths = dict(fakes=tmp_path / "my fakes", reals=tmp_path / "reals")
    for seed, (path, (width, height)) in enumerate(zip(paths.values(), (fakes, reals))):
        path.mkdir()
        for i, pixels in enumerate(np.random.RandomState(seed).randint(0, 256, size=[12, height, width, 3]).astype(np.uint8)):
            PIL.Image.fromarray(pixels).save(path / f"{i:03d}.png")
    code, lines, err = call("--fakes", paths["fakes"], "--reals", paths["reals"], "--metrics=fid50k_full")
    assert code == 1 and not lines and followed(err) == made
    paths.update(made)
    code, lines, err = call("--fakes", paths["fakes"], "--reals", paths["reals"], "--metrics=fid50k_full")
    assert code == 0 and len(lines) == 1, err


def test_a_network_of_a_size_that_is_not_made_keeps_it():
    theirs = ("--network=n.pkl", (3, 14, 14), None)
    with pytest.raises(UserError, match="bring the images to 14x14 with another program"):
        two_sets.check_same_kind(("--baseline=b", (3, 16, 16), "b"), theirs)
    with pytest.raises(UserError, match="bring the images to 14x14 with another program"):
        two_sets.check_same_kind(theirs, ("--data=b", (3, 16, 16), "b"))


def test_colour_and_grey_are_no_comparison(call, tmp_path):
    code, lines, err = call("--fakes", folder(tmp_path / "a", mode="L"), "--reals", folder(tmp_path / "b"))
    assert code == 1 and not lines and "1 channel" in err and "3 channels" in err


def test_features_of_another_detector_are_no_comparison(call, tmp_path, tiny_zip):
    fakes, reals = folder(tmp_path / "fakes"), tiny_zip(num_images=30)
    assert call("--fakes", fakes, "--reals", reals, "--metrics=madr_vendi", "--metric-space=random-conv")[0] == 0
    [kept] = [path for path in (tmp_path / "cache" / "gan-metrics").iterdir() if "random-conv" in path.name]
    code, lines, err = call("--fakes", fakes, "--reals", kept, "--metrics=madr_vendi", "--metric-space=pixels")
    assert code == 1 and not lines and ("another detector" in err or "dimensions" in err)


@pytest.fixture
def labelled(tmp_path):
    """labelled(name, count, classes, seed) -> zip made by dataset_tool.py from class folders"""

    def make(name, count, classes, seed=0):
        source = folder(tmp_path / name, count, classes=classes, seed=seed)
        assert cli.call(dataset_tool.main, [f"--source={source}", f"--dest={source}.zip", "--labels=folders"]) == 0
        return f"{source}.zip"

    return make


def test_each_class_of_two_labelled_sets(call, labelled):
    reals, fakes = labelled("reals", 30, ("cat", "dog")), labelled("fakes", 24, ("cat", "dog"), seed=1)
    code, [line], err = call("--fakes", fakes, "--reals", reals, "--metrics=fid50k_full", "--per-class")
    assert code == 0, err
    assert line["metric"] == "fid50k_full_per_class" and list(line["results"]) == [
        "fid50k_full_per_class",
        "fid50k_full_class0",
        "fid50k_full_class1",
    ]
    mean, *each = line["results"].values()
    assert mean == pytest.approx(np.mean(each))
    assert line["facts"]["per_class"]["1"] == dict(name="dog", num_real=15, num_gen=12)
    assert all(", class" not in line["facts"][side]["fingerprint"] for side in ("data", "fakes"))
    assert (line["facts"]["data"]["num_images"], line["facts"]["fakes"]["num_images"]) == (30, 24)
    code, lines, err = call("--fakes", labelled("others", 8, ("cat", "cow")), "--reals", reals, "--per-class")
    assert code == 1 and not lines and "cow" in err and "dog" in err


def test_mirrored_copies_are_no_authentic_images_where_training_mirrored(call, tmp_path):
    reals, mirrored = folder(tmp_path / "reals", count=20), tmp_path / "mirrored"
    mirrored.mkdir()
    for path in reals.glob("*.png"):
        PIL.Image.open(path).transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored / path.name)
    given = ["--fakes", mirrored, "--reals", reals, "--metrics=madr_authenticity_10k", "--metric-space=pixels"]
    found = {}
    for mirror in (0, 1):
        code, [line], err = call(*given, f"--mirror={mirror}")
        assert code == 0, err
        found[mirror] = line["results"]["madr_authenticity_10k"]
        assert line["facts"]["data"]["xflip"] == bool(mirror) and line["facts"]["num_real"] == 20 * (1 + mirror)
    assert found[1] == 0 < found[0]
