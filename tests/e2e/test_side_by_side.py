"""Two runs on one page: what is shown, what is the same, what is said of runs that cannot be compared."""

import json

import numpy as np
import PIL.Image
import pytest

import compare_runs
from dnnlib import cli
from dnnlib.errors import UserError
from reporting import diversity_file, side_by_side


@pytest.fixture
def make_run(tmp_path):
    """A run folder of 2 kimg with grids of 16 px; modes: how many of 1000 report.py has found, None for not looked at."""

    def make(name, modes=None, seed=0, data="digits.zip", coverage=None):
        folder = tmp_path / name
        folder.mkdir()
        options = dict(total_kimg=2, batch_size=16, random_seed=seed, training_set_kwargs=dict(path=f"/data/{data}", resolution=16, use_labels=False))
        (folder / "training_options.json").write_text(json.dumps(options))
        (folder / "stats.jsonl").write_text(json.dumps({"Progress/kimg": dict(num=1, mean=2.0, std=0.0), "timestamp": 1.0}) + "\n")
        (folder / "network-snapshot-000002.pkl").write_bytes(b"")
        for grid in ("reals", "fakes000002"):
            pixels = np.random.RandomState(len(name)).randint(0, 256, [32, 48, 3], dtype=np.uint8)
            PIL.Image.fromarray(pixels).save(folder / f"{grid}.png")
        if modes is not None or coverage is not None:
            facts = dict(version=diversity_file.VERSION, num_gen=5000, space="random-conv", problems=[])
            if modes is not None:
                facts["modes"] = dict(modes=modes, num_modes=1000, kl=1.234, floor_kl=0.106, floor_modes=993.2)
            if coverage is not None:
                facts.update(coverage=coverage, expected_coverage=0.97, num_real=10, num_missed=3, k=5)
            path = diversity_file.path_for(str(folder / "network-snapshot-000002.pkl"))
            diversity_file.save(path, "key", facts, dict(missing_real=np.zeros([3, 3, 16, 16], np.uint8), missing_ratio=np.ones(3)))
        return str(folder)

    return make


def page_of(tmp_path, *arguments):
    dest = tmp_path / "both.html"
    assert cli.call(compare_runs.main, [*arguments, f"--page={dest}"]) == 0
    return dest.read_text(encoding="utf-8")


def test_a_column_for_each_run_with_its_numbers(make_run, tmp_path):
    runs = [make_run("00000-plain", modes=420), make_run("00001-madr", modes=787)]
    page = page_of(tmp_path, *runs, "--group", "Plain GAN=*-plain", "--group", "With <MADR>=*-madr")
    assert page.index("Plain GAN</h2>") < page.index("<strong>420</strong> of 1000 modes") < page.index("<strong>787</strong> of 1000 modes")
    assert "With &lt;MADR&gt;</h2>" in page and "KL 1.23 (a perfect generator: 993 modes, KL 0.11)" in page
    assert "The same for all: data digits.zip, seed 0, kimg 2, batch 16." in page
    assert page.count('class="least"') == 3 and page.count("<img") == 6 + 2 + 2 * 3  # reals; grids; least covered ones


def test_what_differs_is_said(make_run, tmp_path):
    page = page_of(tmp_path, make_run("a", modes=1, seed=0), make_run("b", modes=2, seed=3, data="other.zip"))
    assert "Not the same: data (a: digits.zip; b: other.zip)." in page and "Not the same: seed (a: 0; b: 3)." in page
    assert 'class="reals"' not in page  # they have no reals in common


def test_data_sets_of_one_name_are_told_apart(make_run, tmp_path):
    runs = [make_run("a", modes=1), make_run("b", modes=2)]
    for run, fingerprint in zip(runs, ("1" * 64, "2" * 64)):
        with open(f"{run}/provenance.jsonl", "w") as file:
            file.write(json.dumps(dict(data_fingerprint=fingerprint)) + "\n")
    page = page_of(tmp_path, *runs)
    assert "Not the same: data (a: digits.zip (fingerprint 11111111); b: digits.zip (fingerprint 22222222))." in page
    assert 'class="reals"' not in page


def test_coverage_where_there_are_no_modes_and_the_command_where_nothing_was_looked_at(make_run, tmp_path):
    seen, unseen = make_run("seen", coverage=0.5), make_run("un seen")
    page = page_of(tmp_path, seen, unseen)
    assert "<strong>50%</strong> of the reals covered" in page and "a perfect generator: 97%" in page
    assert f"python report.py &#x27;{unseen}&#x27;" in page


def test_a_damaged_grid_is_named(make_run, tmp_path):
    first, second = make_run("a", modes=1), make_run("b", modes=2)
    (tmp_path / "b" / "fakes000002.png").write_bytes(b"not a picture")
    assert "b: fakes000002.png could not be read" in page_of(tmp_path, first, second)


def test_refusals(make_run, tmp_path, capsys):
    run = make_run("a", modes=1)
    assert cli.call(compare_runs.main, [run, "--page=x.html"]) == 1 and "takes 2 to 6 runs (got 1)" in capsys.readouterr().err
    assert cli.call(compare_runs.main, [run, str(tmp_path), f"--page={tmp_path}/x.html"]) == 1 and "Error: " in capsys.readouterr().err
    other = make_run("b")
    for flag in ("--out=table.md", "--metrics=fid50k_full", "--kimg=1", "--policy=best", "--force"):
        assert cli.call(compare_runs.main, [run, other, f"--page={tmp_path}/x.html", flag]) == 1
        assert f"{flag.split('=')[0]} has no effect beside --page" in capsys.readouterr().err and not (tmp_path / "x.html").exists()
    assert cli.call(compare_runs.main, [run, other, f"--page={tmp_path / 'gone' / 'x.html'}"]) == 1 and "does not exist" in capsys.readouterr().err
    with pytest.raises(UserError, match="that is a folder"):
        side_by_side.write(str(tmp_path), side_by_side.read_columns([("a", run), ("b", other)]), "title")
