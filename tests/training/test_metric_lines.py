"""Quick looks by hand beside the training's own lines: what judges a snapshot, and what the page draws."""

import json

import pytest

from reporting.run_folder import MetricLine
from reporting.run_page import curves
from torch_utils import metric_lines
from training import snapshots

DATA = dict(fingerprint="a", xflip=False, max_size=None, num_images=30)
FIRST, SECOND = "network-snapshot-000010.pkl", "network-snapshot-000020.pkl"


def line(value, snapshot, by=None, **facts):
    by = {} if by is None else dict(by=by)
    return dict(results=dict(fid10k_full=value), snapshot_pkl=snapshot, facts=dict(dict(num_gen=10_000, seed=0, data=DATA), **facts), **by)


def best(folder, lines):
    for name in (FIRST, SECOND):
        (folder / name).write_bytes(b"x")
    (folder / "metric-fid10k_full.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return snapshots.best_snapshot(folder, "fid10k_full", False)


OTHERWISE = [
    dict(num_gen=500, counts_overridden=True),
    dict(drs=dict(gamma=1.0)),
    dict(data=dict(DATA, fingerprint="b")),
    dict(data=dict(DATA, xflip=True)),
    dict(seed=1),
    dict(repeats=dict(num=3)),
    dict(space="pixels"),
]


@pytest.mark.parametrize("facts", OTHERWISE)
def test_a_look_in_another_way_does_not_judge_a_snapshot(tmp_path, facts):
    own = [line(50.0, FIRST, space="dino"), line(80.0, SECOND, space="dino")]
    look = line(140.0, FIRST, metric_lines.BY_HAND, **{**dict(space="dino"), **facts})
    assert best(tmp_path, own) == best(tmp_path, [*own, look]) == best(tmp_path, [look, *own]) == FIRST


def test_a_look_in_the_same_way_does(tmp_path):
    own = [line(50.0, FIRST), line(80.0, SECOND)]
    assert best(tmp_path, [*own, line(140.0, FIRST, metric_lines.BY_HAND, comparison=dict(baseline="x"))]) == SECOND
    assert best(tmp_path, [line(50.0, FIRST, metric_lines.BY_HAND), line(40.0, SECOND, metric_lines.BY_HAND)]) == SECOND


def test_lines_without_facts_judge_as_ever(tmp_path):
    assert best(tmp_path, [dict(results=dict(fid10k_full=value), snapshot_pkl=name) for value, name in ((9.0, FIRST), (2.0, SECOND))]) == SECOND
    assert snapshots.metric_results(tmp_path, "kid") == {} and metric_lines.alike([]) == []


def test_the_page_draws_the_curve_without_quick_looks(monkeypatch):
    own = [line(50.0, FIRST), line(80.0, SECOND), line(777.0, FIRST, metric_lines.BY_HAND, counts_overridden=True)]
    lines = [MetricLine("fid10k_full", entry["results"], 10 * (1 + (entry["snapshot_pkl"] == SECOND)), entry["snapshot_pkl"], entry) for entry in own]
    drawn = []
    monkeypatch.setattr(curves, "chart", lambda name, series, *_, **__: drawn.append(series[0][1]) or "<svg/>")
    assert "777" in curves._metric_body("fid10k_full", lines)  # the table has it
    assert drawn == [[(10, 50.0), (20, 80.0)]]
