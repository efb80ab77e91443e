"""Every metric's line states what its number depends on, and lines of two networks under one protocol count as alike."""

import json

import numpy as np
import pytest
import torch

from metrics import digit_network, diversity, held_out_kernels, metric_main, metric_utils
from reporting.run_table import likeness
from training.data.builders import build_stacked_digits

ON_DIGITS = ["madr_modes", "madr_modes5k"]
# metric -> (k, tie rule)
NEIGHBOURS = {
    "pr50k3_full": (3, "<="),
    "pr50k3": (3, "<="),
    "pr10k3_full": (3, "<="),
    "madr_recall": ({"recall": 3}, "<="),
    "madr_precision": ({"precision": 3}, "<="),
    "madr_density": ({"density": 5}, "<="),
    "madr_coverage": ({"coverage": 5}, "<="),
    "madr_smooth_recall": (4, None),
    "madr_authenticity": (1, ">"),
}
OTHERS = sorted(set(metric_main.list_valid_metrics()) - set(ON_DIGITS))


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    """(path of a small stacked set, an untrained classifier: what it answers does not matter here)"""
    path = tmp_path_factory.mktemp("digits") / "stacked.zip"
    build_stacked_digits(str(path), num_images=300)
    torch.manual_seed(0)
    return str(path), digit_network.DigitClassifier(digit_network.DigitNet().eval(), 0.5, 0.5, 1, 1, "c" * 64)


def check_complete(facts):
    missing = {*metric_utils.FACTS_OF_EVERY_LINE, "metrics_version", "torch"} - set(facts)
    assert not missing
    assert len(facts["data"]["fingerprint"]) >= 32 and facts["seed"] == 3 and facts["num_gen"] == 40 and facts["truncation_psi"] == 1
    assert len(facts["detector"]["sha256"]) == 64 and facts["detector"]["name"] and facts["detector"]["resize_filter"]
    json.dumps(facts)


def line_of(metric, networks, **kwargs):
    snapshots = {f"{number}.pkl": lambda G=G: G for number, G in enumerate(networks)}
    result = metric_main.calc_metric(metric, G=networks[0], device="cpu", num_gen=40, seed=3, snapshots=snapshots, **kwargs)
    return json.loads(json.dumps(result))


@pytest.mark.parametrize("metric", OTHERS)
def test_every_line_states_what_it_depends_on(metric, options, toy_generator, monkeypatch, tiny_zip):
    beside = {}
    if metric_main.row_of(metric).needs_held_out:
        beside = dict(held_out=tiny_zip(num_images=40, num_classes=3, seed=1))
        monkeypatch.setattr(held_out_kernels, "rare_classes", lambda class_N, num_classes: np.array([2]))  # all are as large here
    if metric == "fd_dino50k_full":  # DINO's weights are not here
        monkeypatch.setattr(diversity.detectors, "space_url", lambda space: "extractor:pixels")
    lines = []
    for scale, trained_in in ((1.0, None), (0.3, "pca")):
        opts = options()
        lines.append(
            line_of(
                metric,
                [toy_generator(scale=scale), toy_generator(scale=2 * scale)],
                dataset_kwargs=opts.dataset_kwargs,
                detectors=opts.detectors,
                space="pixels",
                trained_in=trained_in,
                **beside,
            )
        )
    check_complete(lines[0]["facts"])
    if not metric.startswith(("is", "ppl")):
        assert lines[0]["facts"]["num_real"] == 30
    if metric.removesuffix("_10k") in NEIGHBOURS:
        assert (lines[0]["facts"]["k"], lines[0]["facts"]["tie_rule"]) == NEIGHBOURS[metric.removesuffix("_10k")]
    # A fact that is measured must be listed in reporting/run_table/likeness.py, or runs could never be compared.
    assert lines[0]["results"] != lines[1]["results"] or metric == "madr_cycling"
    assert likeness.differences([("a", lines[0]), ("b", lines[1])]) == ([], [])


@pytest.mark.parametrize("metric", [*ON_DIGITS, "madr_cycling"])
def test_metrics_of_digits(metric, digits, toy_generator, monkeypatch):
    path, classifier = digits
    monkeypatch.setattr(digit_network, "obtain", lambda *args, **kwargs: classifier)
    dataset_kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=path)
    lines = [
        line_of(metric, [toy_generator(resolution=32, scale=scale), toy_generator(resolution=32)], dataset_kwargs=dict(dataset_kwargs))
        for scale in (1.0, 0.1)
    ]
    check_complete(lines[0]["facts"])
    assert lines[0]["facts"]["detector"]["name"] == "digit-classifier" and lines[0]["facts"]["detector"]["sha256"] == classifier.key
    assert lines[0]["facts"]["classifier"]["weights_sha256"] == classifier.weights_digest()
    assert likeness.differences([("a", lines[0]), ("b", lines[1])]) == ([], [])


def test_the_digest_of_the_weights_follows_them(digits):
    _, classifier = digits
    torch.manual_seed(1)
    other = digit_network.DigitClassifier(digit_network.DigitNet().eval(), 0.5, 0.5, 1, 1, "c" * 64)
    assert classifier.weights_digest() != other.weights_digest()
    again = digit_network.DigitClassifier.from_plain(classifier.to_plain(), torch.device("cpu"))
    assert again.weights_digest() == classifier.weights_digest()


def test_a_metric_without_data_says_so(options, monkeypatch):
    monkeypatch.setattr(metric_main, "_metrics", dict(metric_main._metrics))

    @metric_main.register_metric
    def my_number(opts):
        return dict(my_number=1.0)

    facts = metric_main.calc_metric("my_number").facts
    assert facts["data"] is None and facts["detector"] is None and facts["k"] is None
    assert metric_main.calc_metric("my_number", dataset_kwargs=options().dataset_kwargs).facts["data"]["num_images"] == 30
