"""calc_metrics.py --fakes: images of any program judged as those of a network are, and beside a network."""

import json
import pickle
import shutil
import zipfile

import numpy as np
import PIL.Image
import pytest
import torch

import calc_metrics
from dnnlib import cli
from metrics import metric_utils, two_sets
from metrics.metric import Takes
from training.dataset import ImageFolderDataset
from training.networks import Discriminator, Generator

NUM = 24


@pytest.fixture
def call(capfd, detector_file):
    """call(*arguments) -> (exit code, result lines, stdout, stderr)"""

    def run(*arguments):
        code = cli.call(calc_metrics.main, ["--verbose=0", "--device=cpu", f"--detector=inception={detector_file}", *map(str, arguments)])
        out, err = capfd.readouterr()
        return code, [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')], out, err

    return run


def write_network(path, data, resolution=16):
    torch.manual_seed(0)
    small = dict(channel_base=128, channel_max=8, num_fp16_res=0)
    G = Generator(z_dim=16, c_dim=0, w_dim=16, img_resolution=resolution, img_channels=3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=small)
    D = Discriminator(c_dim=0, img_resolution=resolution, img_channels=3, **small)
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=data, use_labels=False, xflip=True, max_size=None)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G.eval(), D=D.eval(), G_ema=G.eval(), augment_pipe=None, training_set_kwargs=kwargs), file)
    return G.eval()


@pytest.fixture
def drawn(tmp_path, tiny_zip):
    """(network pickle, folder of its first NUM images as calc_metrics.py draws them in batches of 8, data set)"""
    data, network, folder = tiny_zip(num_images=30), tmp_path / "net.pkl", tmp_path / "drawn"
    opts = metric_utils.MetricOptions(G=write_network(network, data), device="cpu")
    images = torch.cat(list(metric_utils.generate_images(opts, NUM, 8)))
    return network, save(folder, images.permute(0, 2, 3, 1).numpy()), data


def save(folder, images, ending=".png"):
    folder.mkdir()
    for i, image in enumerate(images):
        PIL.Image.fromarray(image).save(folder / f"{i:04d}{ending}")
    return folder


def noise(count, seed=0, size=16):
    return np.random.RandomState(seed).randint(0, 256, size=[count, size, size, 3]).astype(np.uint8)


def test_a_networks_images_get_the_numbers_of_the_network(call, drawn):
    network, folder, data = drawn
    names = "fid50k_full,kid50k_full,is50k,madr_prdc,madr_vendi_10k,madr_authenticity,madr_ndb"
    common = [f"--metrics={names}", "--metric-space=pixels", "--batch=8", "--data", data]
    code, of_network, _, err = call("--network", network, f"--num-gen={NUM}", *common)
    assert code == 0, err
    code, of_folder, _, err = call("--fakes", folder, *common)
    assert code == 0, err
    assert [line["metric"] for line in of_folder] == names.split(",")
    for of_set, theirs in zip(of_folder, of_network):
        # The score splits a set at random, for its files may follow its classes, and a network's images as they come.
        parted = of_set["metric"] == "is50k"
        assert of_set["results"] == (pytest.approx(theirs["results"], abs=0.01) if parted else theirs["results"])
    fakes = of_folder[0]["facts"]["fakes"]
    assert fakes["path"] == str(folder) and fakes["num_images"] == NUM and of_folder[0]["snapshot_pkl"] is None
    assert fakes["fingerprint"] == ImageFolderDataset(path=str(folder)).content_fingerprint()


def test_each_image_once_and_in_order(drawn, options):
    _, folder, _ = drawn
    dataset = ImageFolderDataset(path=str(folder))
    images = two_sets.Images(dataset, two_sets.Side("generated", str(folder), Takes.IMAGES, {}))
    seen = torch.cat(list(images.batches(options(), NUM, 7)))[:NUM]
    assert len(images) == NUM and torch.equal(seen, torch.from_numpy(np.stack([dataset[i][0] for i in range(NUM)])))


def test_a_network_beside_its_own_images_differs_by_nothing(call, drawn, tmp_path):
    network, folder, data = drawn
    common = ["--metrics=madr_prdc", "--metric-space=pixels", "--batch=8"]
    for pair in (["--network", network, "--baseline", folder], ["--fakes", folder, "--baseline", network, "--data", data]):
        code, lines, out, err = call(*pair, *common)
        assert code == 0 and len(lines) == 2, err
        compared = lines[1]["facts"]["comparison"]
        assert compared["baseline"] == str(pair[3]) and not compared["same_latents"]
        recall, precision = (compared["results"][f"madr_prdc_{name}"] for name in ("recall", "precision"))
        assert recall["difference"] == precision["difference"] == 0
        assert "both drawn again" in recall["items"] and recall["interval"][0] <= 0 <= recall["interval"][1]
        assert precision["items"] == "generated, unpaired"
        assert "95% interval" in out and [line["facts"]["num_gen"] for line in lines] == [NUM, NUM]
    assert lines[0]["snapshot_pkl"] == str(network) and lines[1]["snapshot_pkl"] is None
    run = tmp_path / "00000-run"
    run.mkdir()
    (run / "training_options.json").write_text("{}")
    shutil.copy(network, run / "network-snapshot-000004.pkl")
    code, lines, _, err = call("--run", run, "--baseline", folder, *common)
    assert code == 0 and (run / "metric-madr_prdc.jsonl").read_text().count("\n") == 1, err
    code, lines, _, err = call("--fakes", folder, "--baseline", run, "--data", data, *common)
    assert code == 0 and lines[0]["snapshot_pkl"].endswith("network-snapshot-000004.pkl"), err


def test_two_sets_are_compared_at_equal_numbers(call, tmp_path, tiny_zip):
    data = tiny_zip(num_images=30)
    ours, theirs = save(tmp_path / "ours", noise(20)), save(tmp_path / "theirs", noise(26, seed=1))
    common = ["--fakes", ours, "--baseline", theirs, "--data", data, "--metrics=madr_recall,fid50k_full", "--metric-space=pixels"]
    code, lines, _, err = call(*common)
    assert code == 1 and not lines and "holds 20" in err and "holds 26" in err and "--num-gen=20" in err
    code, lines, out, err = call(*common, "--num-gen=20")
    assert code == 0 and "none: not a mean over items\n" in out, err
    assert [line["facts"]["fakes"]["path"] for line in lines] == [str(theirs), str(ours)] * 2
    assert lines[1]["facts"]["comparison"]["results"]["madr_recall"]["items"] == "reals and generated images, both drawn again; neighbourhoods held"
    assert lines[3]["facts"]["comparison"]["results"]["fid50k_full"]["interval"] is None


def test_jpeg_and_nested_folders_and_the_score_without_reals(call, tmp_path):
    folder = save(tmp_path / "jpeg", noise(12), ending=".jpg")
    save(folder / "more", noise(8, seed=1), ending=".jpeg")
    code, [line], _, err = call("--fakes", folder, "--metrics=is50k")
    assert code == 0, err
    assert line["facts"]["fakes"]["num_images"] == line["facts"]["num_gen"] == 20 and line["facts"]["data"] is None


def test_few_images_are_told_and_too_few_refused(call, tmp_path, tiny_zip):
    data = tiny_zip(num_images=30)
    code, [line], _, err = call("--fakes", save(tmp_path / "few", noise(8)), "--data", data, "--metrics=madr_recall_10k", "--metric-space=pixels")
    assert code == 0 and "8 images, fewer than madr_recall_10k (10,000)" in err
    assert line["facts"]["num_gen"] == 8 and line["facts"]["usual_num_gen"] == 10_000 and line["facts"]["counts_overridden"]
    one = save(tmp_path / "one", noise(1))
    for metric, words in (("fid50k_full", "at least two generated images (got 1)"), ("is50k", "at least 10 generated images (got 1)")):
        code, lines, _, err = call("--fakes", one, "--data", data, f"--metrics={metric}")
        assert code == 1 and not lines and words in err and "put more pictures into --fakes" in err


def test_images_against_held_out_ones(call, tmp_path, tiny_zip):
    code, [line], _, err = call(
        *("--fakes", save(tmp_path / "fakes", noise(20)), "--data", tiny_zip(num_images=30), "--held-out", tiny_zip(num_images=20, seed=5)),
        *("--metrics=madr_fdr_10k", "--metric-space=pixels"),
    )
    assert code == 0 and line["results"]["madr_fdr_10k"] > 1 and line["facts"]["num_compared"] == 20, err


def test_two_processes_judge_as_one(call, tmp_path, tiny_zip):
    common = ["--fakes", save(tmp_path / "fakes", noise(21)), "--data", tiny_zip(num_images=30), "--metrics=madr_prdc", "--metric-space=pixels"]
    lines = [call(*common, f"--gpus={gpus}", "--batch=4", "--cache=off")[1][0] for gpus in (1, 2)]
    assert lines[0]["results"] == lines[1]["results"] and [line["num_gpus"] for line in lines] == [1, 2]


def faulty(name, folder):
    """A fault of --fakes by its name."""
    if name == "broken image":
        (save(folder, noise(8)) / "0003.png").write_bytes(b"\x89PNG\r\n\x1a\nbroken")
    elif name == "cut image":
        place = save(folder, noise(8)) / "0003.png"
        place.write_bytes(place.read_bytes()[:400])
    elif name == "texts only":
        folder.mkdir()
        (folder / "notes.txt").write_text("no image")
    elif name == "text file":
        folder.write_text("no image")
    elif name == "no zip":
        folder = folder.with_suffix(".zip")
        folder.write_text("no zip")
    elif name == "empty zip":
        folder = folder.with_suffix(".zip")
        zipfile.ZipFile(folder, "w").close()
    elif name == "a run":
        (save(folder, noise(8)) / "training_options.json").write_text("{}")
    return folder


@pytest.mark.parametrize(
    "name, words",
    [
        ("broken image", ["1 of 8 images", "0003.png"]),
        ("cut image", ["0003.png", "dataset_tool.py --fix"]),
        ("texts only", ["holds no images"]),
        ("text file", ["neither a folder, nor a zip of images"]),
        ("no zip", ["--fakes.zip"]),
        ("empty zip", ["holds no images"]),
        ("a run", ["the folder of a run", "--network="]),
    ],
)
def test_what_is_no_set_of_images_is_told_in_a_sentence(call, tmp_path, tiny_zip, name, words):
    path = faulty(name, tmp_path / "--fakes")
    code, lines, _, err = call(f"--fakes={path}", "--data", tiny_zip(num_images=30), "--metrics=fid50k_full")
    assert code == 1 and not lines and "Traceback" not in err
    assert err.count("Error") == 1 and all(word in err for word in words), err


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--network=NET", "--fakes=SET", "--data=DATA"], ["one thing is judged", "--baseline"]),
        (["--network=NET", "--baseline=SET", "--repeats=2"], ["--repeats=2 has no effect", "drawn already"]),
        (["--network=NET", "--baseline=SET", "--metrics=ppl2_wend"], ["needs the network itself", "--network=PATH alone"]),
        (["--fakes=SET", "--baseline=NET", "--metrics=madr_cycling", "--data=DATA"], ["needs the network itself"]),
        (["--fakes=SET", "--data=DATA", "--baseline=NET", "--per-class"], ["--baseline does not go with --per-class"]),
        (["--fakes=SET", "--data=DATA", "--trust-pickle"], ["--trust-pickle has no effect"]),
        (["--network=NET", "--baseline=LARGE"], ["16x16 pixels", "32x32 pixels", "dataset_tool.py"]),
        (["--fakes=LARGE", "--baseline=NET", "--data=LARGEDATA"], ["16x16 pixels", "32x32 pixels", "a network draws one size"]),
        (["--network=NET", "--baseline=SET", "--num-gen=500"], ["--num-gen=500 asks for more images than the 8"]),
    ],
)
def test_what_does_not_go_together_is_told_in_a_sentence(call, drawn, tmp_path, tiny_zip, arguments, words):
    network, _, data = drawn
    places = dict(LARGEDATA=tiny_zip(num_images=30, resolution=32), DATA=data, NET=network)
    places.update(SET=save(tmp_path / "set", noise(8)), LARGE=save(tmp_path / "large", noise(8, size=32)))
    for name, place in places.items():
        arguments = [argument.replace(f"={name}", f"={place}") for argument in arguments]
    code, lines, _, err = call(*arguments)
    assert code == 1 and not lines and "Traceback" not in err
    assert all(word in err for word in words), err
