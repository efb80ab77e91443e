"""Intervals of differences, and `calc_metrics.py --baseline` as its users call it."""

import json
import pickle

import numpy as np
import pytest
import torch

import calc_metrics
import dnnlib
from dnnlib import cli
from dnnlib.errors import UserError
from madr_spaces import neighbours, sampling
from metrics import comparison, holders
from training.networks import Discriminator, Generator


def test_interval_has_the_textbook_width():
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal(4000) + 0.1, rng.standard_normal(4000)
    low, high = comparison.bootstrap_interval(a, b, np.random.default_rng(1))
    half = 1.96 * (a - b).std() / 4000**0.5
    assert (low, high) == pytest.approx(((a - b).mean() - half, (a - b).mean() + half), abs=0.1 * half)


def test_interval_covers_the_truth_as_often_as_it_says():
    rng, covered = np.random.default_rng(2), 0
    for _ in range(200):
        shared = rng.standard_normal(150)
        a, b = (shared + rng.standard_normal(150) > 0.3).astype(float), (shared + rng.standard_normal(150) > 0.3).astype(float)
        low, high = comparison.bootstrap_interval(a, b, rng, num_resamples=200)
        covered += low <= 0 <= high
    assert 0.89 <= covered / 200 <= 0.995


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(3)
    shared = 10 * rng.standard_normal(500)
    a, b = shared + 0.1 * rng.standard_normal(500), shared + 0.1 * rng.standard_normal(500)
    width = lambda paired: np.diff(comparison.bootstrap_interval(a, b, np.random.default_rng(4), paired=paired))[0]
    assert width(True) < 0.05 * width(False)
    assert comparison.bootstrap_interval(a, a, rng) == (0, 0)
    with pytest.raises(UserError, match="same items"):
        comparison.bootstrap_interval(a, b[1:], rng)


def test_compare_states_items_and_lacks_intervals_where_there_are_no_items():
    items = dict(recall=("real", np.array([1.0, 0, 1, 0])), precision=("generated", np.ones(4)))
    compared = comparison.compare(
        dict(recall=0.5, precision=1.0, fid=3.0),
        dict(recall=0.25, precision=0.5, fid=5.0),
        items,
        items,
        np.random.default_rng(0),
        same_latents=False,
    )
    assert compared["recall"]["difference"] == 0.25 and compared["recall"]["items"] == "real, paired"
    assert compared["precision"]["items"] == "generated, unpaired"
    assert compared["fid"]["interval"] is None and compared["fid"]["difference"] == -2
    text = comparison.as_text(compared)
    assert "none: not a mean" in text and len(text.splitlines()) == 4
    assert "real, paired: the generated images held fixed, so too narrow; --repeats" in text and text.count("held fixed") == 1


def test_interval_of_recall_knows_that_generated_images_are_a_draw():
    """Two draws of one generator: with the generated images held fixed the interval missed the true difference 0 far too often."""
    rng, covered, of_items = np.random.default_rng(5), 0, 0
    for _ in range(80):
        real = rng.standard_normal((500, 8))
        pair = [0.8 * rng.standard_normal((80, 8)) for _ in range(2)]
        held = [(holders.of_reals(real, fake, 3), len(fake)) for fake in pair]
        low, high = comparison.recall_interval(*held, rng, same_latents=False, num_resamples=150)
        covered += low <= 0 <= high
        found = [(holders_NH < count).any(axis=1) for holders_NH, count in held]
        low, high = comparison.bootstrap_interval(*found, rng, num_resamples=150)
        of_items += low <= 0 <= high
    assert covered / 80 >= 0.9 and of_items / 80 < 0.8
    assert found[0].mean() == neighbours.precision_recall(real, pair[0], 3)[1]
    assert comparison.recall_interval(held[0], held[0], rng) == (0, 0)


def test_holders_are_those_of_the_balls_and_at_most_so_many():
    rng = np.random.default_rng(6)
    real, fake = rng.standard_normal((60, 3)), rng.standard_normal((40, 3))
    between = np.linalg.norm(fake[:, None] - fake, axis=2)
    inside = np.linalg.norm(real[:, None] - fake, axis=2) <= np.sort(between, axis=1)[:, 3]
    for tile_bytes in (2**20, 4096):
        found = holders.of_reals(real, fake, 3, tile_bytes=tile_bytes)
        for i in range(60):
            kept = found[i][found[i] < 40]
            assert len(kept) == len(set(kept)) == min(holders.MOST, inside[i].sum()) and inside[i][kept].all()


def write_pickle(path, dataset_kwargs, seed, z_dim=16, resolution=16):
    torch.manual_seed(seed)
    G = Generator(
        z_dim=z_dim,
        w_dim=16,
        c_dim=0,
        img_resolution=resolution,
        img_channels=3,
        mapping_kwargs=dict(num_layers=2),
        synthesis_kwargs=dict(channel_base=128, channel_max=8, num_fp16_res=0),
    ).eval()
    D = Discriminator(c_dim=0, img_resolution=resolution, img_channels=3, channel_base=128, channel_max=8, num_fp16_res=0)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=dataset_kwargs), file)
    return str(path)


@pytest.fixture
def run(tmp_path, tiny_zip):
    folder = tmp_path / "00000-ours"
    folder.mkdir()
    (folder / "training_options.json").write_text(json.dumps(dict(loss_kwargs=dict(madr=dict(extractor="pca")))))
    kwargs = dnnlib.EasyDict(
        class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30), use_labels=False, xflip=False, max_size=None
    )
    return dict(
        ours=write_pickle(folder / "network-snapshot-000004.pkl", kwargs, 0),
        ada=write_pickle(tmp_path / "ada.pkl", kwargs, 1),
        wide=write_pickle(tmp_path / "wide.pkl", kwargs, 1, z_dim=24),
        large=write_pickle(tmp_path / "large.pkl", kwargs, 1, resolution=32),
        folder=folder,
    )


@pytest.fixture
def call(capfd):
    def run(*arguments):
        code = cli.call(calc_metrics.main, ["--device=cpu", "--num-gen=24", *arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return run


def json_lines(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')]


def test_baseline_on_the_same_images(run, call, detector_file):
    code, out, err = call(
        "--network",
        run["ours"],
        "--baseline",
        run["ada"],
        "--metrics=madr_prdc,fid50k_full",
        "--madr-extractor=random-conv",
        "--detector",
        f"inception={detector_file}",
        "--seed=5",
    )
    assert code == 0, err
    lines = {(line["metric"], "comparison" in line["facts"]): line for line in json_lines(out)}
    ours, theirs = lines["madr_prdc", True], lines["madr_prdc", False]
    facts = ours["facts"]["comparison"]
    assert (facts["baseline"], facts["bootstrap_seed"], facts["sampling_seed"], facts["num_resamples"]) == (run["ada"], 5, 5, 1000)
    for name, entry in facts["results"].items():
        assert (entry["ours"], entry["baseline"]) == (ours["results"][name], theirs["results"][name])
        assert (
            entry["difference"] == pytest.approx(entry["ours"] - entry["baseline"])
            and entry["interval"][0] <= entry["difference"] <= entry["interval"][1]
        )
    assert ours["facts"]["data"]["fingerprint"] == theirs["facts"]["data"]["fingerprint"]
    assert lines["fid50k_full", True]["facts"]["comparison"]["results"]["fid50k_full"]["interval"] is None
    kept = json.loads((run["folder"] / "metric-madr_prdc.jsonl").read_text())
    assert (
        kept == ours
        and kept["by"] == "calc_metrics.py"
        and set(kept["results"]) == {f"madr_prdc_{n}" for n in ("precision", "recall", "density", "coverage")}
    )
    assert "difference" in out and "Seed 5 of latents" in out and "the same latents" in out
    alone = json_lines(call("--network", run["ada"], "--metrics=madr_prdc", "--madr-extractor=random-conv", "--seed=5", "--verbose=0")[1])[0]
    assert alone["results"] == theirs["results"]


def test_a_network_against_itself_has_no_difference(run, call):
    code, out, err = call(
        "--network", run["ours"], "--baseline", run["ours"], "--metrics=madr_coverage", "--madr-extractor=random-conv", "--verbose=0"
    )
    assert code == 0, err
    entry = json_lines(out)[-1]["facts"]["comparison"]["results"]["madr_coverage"]
    assert entry["difference"] == 0 and entry["interval"] == [0, 0]


def test_other_latents_are_not_paired(run, call):
    code, out, err = call(
        "--network", run["ours"], "--baseline", run["wide"], "--metrics=madr_prdc_10k", "--madr-extractor=random-conv", "--verbose=0"
    )
    assert code == 0, err
    facts = json_lines(out)[-1]["facts"]["comparison"]
    assert not facts["same_latents"] and facts["results"]["madr_prdc_10k_precision"]["items"] == "generated, unpaired"
    assert facts["results"]["madr_prdc_10k_recall"]["items"] == "reals and generated images, both drawn again; neighbourhoods held"
    assert facts["results"]["madr_prdc_10k_coverage"]["items"] == "real, paired"


def test_own_space_ties_and_two_processes(run, call):
    code, out, err = call(
        "--network", run["ours"], "--metrics=madr_prdc", "--madr-extractor=pixels", "--madr-ties=ignore", "--batch=4", "--verbose=0"
    )
    assert code == 0 and "Warning: the network was trained to cover the features of pca" in err, out
    line = json_lines(out)[0]
    assert line["facts"]["tie_rule"] == "<" and line["facts"]["trained_in_own_space"] and line["facts"]["space"] == "pixels"
    code, out, err = call(
        "--network", run["ours"], "--metrics=madr_prdc", "--madr-extractor=pixels", "--madr-ties=ignore", "--batch=4", "--verbose=0", "--gpus=2"
    )
    assert code == 0, err
    assert json_lines(out)[0]["results"] == pytest.approx(line["results"], abs=1e-12)


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--baseline=large"], ["--baseline", "resolution 32", "16"]),
        (["--baseline=/nowhere.pkl"], ["/nowhere.pkl"]),
        (["--madr-extractor=dinosaur"], ["--madr-extractor", "random-conv", "dinosaur"]),
        (["--madr-extractor=pixels", "--madr-weights=/x.pth"], ["--madr-weights=/x.pth", "no effect", "pixels"]),
        (["--madr-weights=/x.pth"], ["--madr-weights=/x.pth", "does not exist"]),
        (["--madr-ties=maybe"], ["--madr-ties", "count", "ignore"]),
    ],
)
def test_faults_are_sentences(arguments, words, run, call):
    arguments = [f"--baseline={run['large']}" if argument == "--baseline=large" else argument for argument in arguments]
    code, _, err = call("--network", run["ours"], "--metrics=madr_recall", *arguments)
    assert code != 0 and "Traceback" not in err and all(word in err for word in words), err
    assert not list(run["folder"].glob("*.jsonl"))


def test_the_bootstrap_has_its_own_stream():
    draws = [sampling.stream(name, 0).integers(2**62) for name in ("latents", "labels", "subsets", "floor", "bootstrap")]
    assert len(set(draws)) == 5
