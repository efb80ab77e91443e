"""Repeats over seeds, by function and as `calc_metrics.py --repeats` and `--modes`; one repeat is the plain call."""

import json
import pickle

import numpy as np
import pytest
import scipy.stats
import torch

import calc_metrics
import dnnlib
from dnnlib import cli
from metrics import comparison, metric_main, metric_utils, repeats, stats_cache
from training.networks import Discriminator, Generator


def calc(metric, options, calculate=repeats.calc_repeated, **kwargs):
    opts = options()
    kwargs = {**dict(num_gen=40, space="pixels", device="cpu", seed=0), **kwargs}
    return calculate(metric, G=opts.G, dataset_kwargs=opts.dataset_kwargs, detectors=opts.detectors, **kwargs)


@pytest.mark.parametrize("metric", ["fid50k_full", "madr_prdc"])
def test_one_repeat_is_the_plain_call(metric, options):
    plain, once = calc(metric, options, metric_main.calc_metric), calc(metric, options, repeats=1)
    assert json.dumps(once.results) == json.dumps(plain.results) and once.facts == plain.facts and list(once) == list(plain)


def test_mean_deviation_and_each_value(options):
    singles = [calc("madr_prdc", options, metric_main.calc_metric, seed=seed) for seed in (5, 6, 7)]
    together = calc("madr_prdc", options, seed=5, repeats=3)
    assert list(together.results) == list(singles[0].results)
    stated = together.facts["repeats"]
    assert (stated["num"], stated["seeds"], together.facts["seed"]) == (3, [5, 6, 7], 5)
    for name, mean in together.results.items():
        values = [single.results[name] for single in singles]
        assert stated["values"][name] == values
        assert mean == pytest.approx(np.mean(values)) and stated["std"][name] == pytest.approx(np.std(values, ddof=1))
    assert any(stated["std"].values()) and stated["differing"] == ["held_out"] and together.facts["held_out"] == singles[0].facts["held_out"]
    assert together.total_time_str == dnnlib.util.format_time(together.total_time)


@pytest.mark.parametrize("cache", [True, False])
def test_reals_are_read_once(options, monkeypatch, cache):
    runs = []
    compute = metric_utils._real_features
    monkeypatch.setattr(metric_utils, "_real_features", lambda *args: runs.append(1) or compute(*args))
    calc("madr_prdc", options, repeats=3, cache=cache)
    assert len(runs) == 2  # one per space: the metric's own and the held-out one
    if not cache:
        monkeypatch.setattr(stats_cache, "load", lambda *args: pytest.fail("--cache=off must not read"))
        calc("madr_prdc", options, repeats=2, cache=False)


def test_items_of_the_repeats_have_the_mean_of_the_repeats(options):
    items = {}
    result = calc("madr_prdc", options, repeats=3, per_item=items)
    for name, (which, values) in items.items():
        assert len(values) == (30 if which == "real" else 3 * 40) and values.mean() == pytest.approx(result.results[name])


def test_seeds_give_an_interval_where_there_are_no_items():
    compared = comparison.compare(
        dict(fid=4.0), dict(fid=6.0), {}, {}, np.random.default_rng(0), our_repeats=dict(fid=[3.0, 5.0]), their_repeats=dict(fid=[6.0, 6.0])
    )
    half = scipy.stats.t.ppf(0.975, 1) * np.std([-3, -1], ddof=1) / 2**0.5
    assert compared["fid"]["interval"] == pytest.approx([-2 - half, -2 + half]) and compared["fid"]["items"] == "2 seeds, paired, Student's t"


def test_t_interval_covers_the_truth_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = sum(low <= 0.3 <= high for low, high in (comparison.t_interval(rng.standard_normal(3) + 0.3) for _ in range(1000)))
    assert 930 <= covered <= 970
    assert comparison.t_interval([1.0]) is None and comparison.t_interval([2.0, 2.0]) == (2, 2)


# ----------------------------------------------------------------------------------------------------------------
# The command.


def write_pickle(path, dataset_kwargs, seed):
    torch.manual_seed(seed)
    small = dict(channel_base=128, channel_max=8, num_fp16_res=0)
    G = Generator(z_dim=16, w_dim=16, c_dim=0, img_resolution=16, img_channels=3, mapping_kwargs=dict(num_layers=2), synthesis_kwargs=small).eval()
    D = Discriminator(c_dim=0, img_resolution=16, img_channels=3, **small)
    with open(path, "wb") as file:
        pickle.dump(dict(G=G, D=D, G_ema=G, augment_pipe=None, training_set_kwargs=dataset_kwargs), file)
    return str(path)


@pytest.fixture
def networks(tmp_path, tiny_zip):
    kwargs = dnnlib.EasyDict(
        class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=30), use_labels=False, xflip=False, max_size=None
    )
    return [write_pickle(tmp_path / f"{seed}.pkl", kwargs, seed) for seed in (0, 1)]


@pytest.fixture
def call(capfd, detector_file):
    def run(*arguments):
        code = cli.call(
            calc_metrics.main, ["--device=cpu", "--num-gen=24", "--madr-extractor=pixels", "--detector", f"inception={detector_file}", *arguments]
        )
        return code, *capfd.readouterr()

    return run


def json_lines(out):
    return [json.loads(line) for line in out.splitlines() if line.startswith('{"results"')]


def test_repeats_on_the_command_line(networks, call):
    code, out, err = call("--network", networks[0], "--metrics=fid50k_full", "--repeats=2", "--seed=3")
    assert code == 0, err
    (line,) = json_lines(out)
    assert list(line["results"]) == ["fid50k_full"] and line["facts"]["repeats"]["seeds"] == [3, 4]
    assert line["results"]["fid50k_full"] == pytest.approx(np.mean(line["facts"]["repeats"]["values"]["fid50k_full"]))
    assert "Over 2 seeds of latents, labels and subsets (3 to 4)" in out
    single = json_lines(call("--network", networks[0], "--metrics=fid50k_full", "--seed=4", "--verbose=0")[1])[0]
    assert single["results"]["fid50k_full"] == line["facts"]["repeats"]["values"]["fid50k_full"][1] and "repeats" not in single["facts"]


def test_repeats_with_a_baseline(networks, call):
    code, out, err = call("--network", networks[0], "--baseline", networks[1], "--metrics=fid50k_full,madr_prdc", "--repeats=3", "--verbose=0")
    assert code == 0, err
    lines = {(line["metric"], "comparison" in line["facts"]): line for line in json_lines(out)}
    ours, theirs = lines["fid50k_full", True], lines["fid50k_full", False]
    entry = ours["facts"]["comparison"]["results"]["fid50k_full"]
    differences = np.subtract(*(line["facts"]["repeats"]["values"]["fid50k_full"] for line in (ours, theirs)))
    assert entry["difference"] == pytest.approx(differences.mean()) and entry["interval"] == pytest.approx(list(comparison.t_interval(differences)))
    assert "seeds, paired" in entry["items"]
    prdc = lines["madr_prdc", True]["facts"]["comparison"]["results"]
    assert {entry["items"] for entry in prdc.values()} == {"3 seeds, paired, Student's t"}
    for entry in prdc.values():
        assert entry["interval"][0] <= entry["difference"] + 1e-12 and entry["difference"] <= entry["interval"][1] + 1e-12


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--repeats=0"], ["--repeats"]),
        (["--repeats=3", f"--seed={2**31 - 2}"], ["--seed=2147483646", "--repeats=3", "smaller --seed"]),
        (["--modes=777"], ["--modes=777 has no effect on fid50k_full", "madr_modes", "madr_cycling"]),
        (["--modes=1001", "--metrics=madr_modes"], ["--modes", "1000"]),
    ],
)
def test_faults_are_sentences(networks, call, arguments, words):
    code, out, err = call("--network", networks[0], *arguments)
    assert code != 0 and "Traceback" not in err and all(word in err for word in words), err
    assert not json_lines(out)
