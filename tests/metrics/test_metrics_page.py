"""docs/metrics.md says of the metrics what is true, and what makes its pictures decides as the page does."""

import importlib.util
import json
import re

import numpy as np
import PIL.Image
import pytest
import torch

from madr_spaces import neighbours
from metrics import metric_main


@pytest.fixture
def make(repo, tmp_path, monkeypatch):
    """docs/metrics/make.py, writing into a folder of the test."""
    spec = importlib.util.spec_from_file_location("metrics_page", repo / "docs" / "metrics" / "make.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "metrics").mkdir()
    page = tmp_path / "metrics.md"
    page.write_text("before\n<!-- pictures: begin -->\nold\n<!-- pictures: end -->\nafter\n<!-- perfect: begin -->\n<!-- perfect: end -->\n")
    monkeypatch.setattr(module, "PAGE", page)
    monkeypatch.setattr(module, "HERE", tmp_path / "metrics")
    return module


def test_every_metric_of_diversity_is_explained(repo):
    """In words of somebody's own: the table that is made from the rows does not count."""
    text = re.sub(r"<!-- metrics: begin -->.*<!-- metrics: end -->", "", (repo / "docs" / "metrics.md").read_text(), flags=re.DOTALL)
    told = set(re.findall(r"`(\w+)`", text))
    for name in metric_main.list_valid_metrics():
        if name.startswith(("madr_", "fd_")):
            assert {name, name.removesuffix("_10k").removesuffix("5k")} & told, name


def test_coverage_of_perfect_data_is_as_stated(repo):
    text = (repo / "docs" / "metrics.md").read_text()
    assert f"{neighbours.expected_coverage(50_000, 50_000, 3):.3f}"[1:] + " for k = 3" in text
    assert f"{neighbours.expected_coverage(50_000, 50_000, 5):.3f}"[1:] + " for k = 5" in text
    assert "2,000 reals and 10,000 generated images " + f"{neighbours.expected_coverage(2000, 10_000, 5):.4f}"[1:] in text


HEALTHY = dict(variety=0.95, precision=0.7, coverage=0.9, expected_coverage=0.969)


@pytest.mark.parametrize(
    "change, cycling, words",
    [
        (dict(), 0.05, "diverse"),
        (dict(variety=0.1), 0.05, "collapse: "),
        (dict(variety=0.1, precision=0, coverage=0), None, "collapse: "),
        (dict(coverage=0.4), 0.05, "modes are missing"),
        (dict(coverage=0.4, precision=0.1), None, "not collapse but bad images"),
        (dict(), 0.6, "cycling"),
    ],
)
def test_the_path_decides_as_the_page_says(make, change, cycling, words):
    assert make.answer(dict(HEALTHY, **change), cycling).startswith(words)


def test_thresholds_are_those_of_the_page(make, repo):
    text = (repo / "docs" / "metrics.md").read_text()
    for words in (
        f"`variety` in the facts of `madr_vendi` below {make.ALIKE}",
        f"`madr_precision` at {make.GOOD_IMAGES} or above",
        f"below {make.COVERED} of `expected_coverage`",
        f"`madr_cycling` {make.CYCLING} or more above chance",
    ):
        assert words in text


def test_any_run_folder_becomes_a_section_with_a_picture(make, tmp_path, tiny_zip):
    import pickle

    from training.networks import Generator

    run = tmp_path / "00000-tiny"
    run.mkdir()
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip(num_images=200), use_labels=False, xflip=False, max_size=None)
    (run / "training_options.json").write_text(json.dumps(dict(training_set_kwargs=kwargs)))
    for kimg in (0, 2, 4):
        torch.manual_seed(kimg)
        G = Generator(
            z_dim=8,
            w_dim=8,
            c_dim=0,
            img_resolution=16,
            img_channels=3,
            mapping_kwargs=dict(num_layers=2),
            synthesis_kwargs=dict(channel_base=64, channel_max=8, num_fp16_res=0),
        ).eval()
        (run / f"network-snapshot-{kimg:06d}.pkl").write_bytes(pickle.dumps(dict(G=G, D=G, G_ema=G, augment_pipe=None, training_set_kwargs=kwargs)))
        PIL.Image.fromarray(np.full((64, 64, 3), 40 * kimg, np.uint8)).save(run / f"fakes{kimg:06d}.png")
    make.main.main([str(run), "--num-gen=100", "--num-real=100"], standalone_mode=False)
    text = make.PAGE.read_text()
    assert "old" not in text and text.startswith("before\n") and "after" in text
    assert len(re.findall(r"^\| [024] \|", text, re.MULTILINE)) == 3 and "By the path: **" in text and "madr_cycling" in text
    assert "(metrics/run1.png)" in text and PIL.Image.open(tmp_path / "metrics" / "run1.png").width > 300


def test_perfect_data_scores_as_the_formula_says(make):
    scores = make.perfect_scores(4, 600, 0)
    assert scores["coverage"] == pytest.approx(neighbours.expected_coverage(600, 600, 5), abs=0.03)
    assert scores["density"] == pytest.approx(1, abs=0.06) and scores["vendi"] == pytest.approx(1, abs=0.02) and 0.3 < scores["recall"] < 1
