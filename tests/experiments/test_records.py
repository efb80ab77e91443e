"""Result files: they grow, they resume, and they refuse to mix settings."""

import numpy as np
import pytest

from dnnlib.errors import UserError
from experiments import records
from madr_plugin import config


def test_a_store_keeps_what_was_put_and_refuses_other_settings(tmp_path):
    path = tmp_path / "bed.json"
    store = records.Store(path, dict(steps=10, betas=(0.5, 0.9)))
    assert store.get("plain", 0) is None
    store.put("plain", 1, dict(kl=0.5))
    store.put("plain", 0, dict(kl=0.25))
    again = records.Store(path, dict(steps=10, betas=(0.5, 0.9)))
    assert again.get("plain", 1)["kl"] == 0.5 and again.get("other", 1) is None
    facts, runs = records.load(path)
    assert facts["steps"] == 10 and list(runs["plain"]) == [0, 1] and {"machine", "date", "torch"} <= set(runs["plain"][0])
    with pytest.raises(UserError, match="steps"):
        records.Store(path, dict(steps=11, betas=(0.5, 0.9)))


def test_what_two_processes_have_run_is_kept_once(tmp_path):
    first, second = (records.Store(tmp_path / "bed.json", dict(steps=10)) for _ in range(2))
    first.put("plain", 0, dict(kl=0.5))
    second.put("plain", 0, dict(kl=0.25))
    _, runs = records.load(tmp_path / "bed.json")
    assert len(second.entries) == 1 and runs["plain"][0]["kl"] == 0.5


def test_interval_is_student_t():
    mean, half = records.mean_and_interval([1.0, 2.0, 3.0])
    assert mean == 2 and half == pytest.approx(4.302653 * 1 / np.sqrt(3), rel=1e-5)
    assert np.isnan(records.mean_and_interval([1.0])[1])


def test_knobs_that_came_later_stood_at_their_defaults(tmp_path):
    now = config.resolve(dict(preset="witness", weight=2.0)).as_dict()
    earlier = {name: value for name, value in now.items() if name != "start_step"}
    records.Store(tmp_path / "bed.json", dict(methods=dict(plain={}, witness=dict(madr=earlier)))).put("witness", 0, dict(kl=1.0))
    assert records.Store(tmp_path / "bed.json", dict(methods=dict(plain={}, witness=dict(madr=now)))).get("witness", 0)["kl"] == 1.0
    with pytest.raises(UserError, match="methods"):
        records.Store(tmp_path / "bed.json", dict(methods=dict(plain={}, witness=dict(madr=dict(now, start_step=3)))))


def test_a_study_may_get_further_methods(tmp_path):
    path = tmp_path / "bed.json"
    records.Store(path, dict(steps=10, methods=dict(plain={}, old=dict(pack=2)))).put("plain", 0, dict(kl=1.0))
    records.Store(path, dict(steps=10, methods=dict(new=dict(pack=3)))).put("new", 0, dict(kl=2.0))
    facts, runs = records.load(path)
    # Those without an entry leave no trace, those with one stay described.
    assert set(runs) == {"plain", "new"} and facts["methods"] == dict(plain={}, new=dict(pack=3))
    with pytest.raises(UserError, match="methods"):
        records.Store(path, dict(steps=10, methods=dict(plain=dict(pack=2))))


def test_a_file_of_another_kind_is_refused_in_a_sentence(tmp_path):
    for content, words in (('{"layout": "ring", "results": {}}', "move it away"), ('{"trunc', "is damaged.*move it away"), ("[1]", "move it away")):
        (tmp_path / "bed.json").write_text(content)
        with pytest.raises(UserError, match=words):
            records.Store(tmp_path / "bed.json", dict(steps=10))


def test_a_method_that_has_changed_its_meaning_does_not_stand_in_the_way_of_others(tmp_path):
    path = tmp_path / "bed.json"
    records.Store(path, dict(methods=dict(default=dict(pack=2)))).put("default", 0, dict(kl=1.0))
    records.Store(path, dict(methods=dict(other=dict(pack=3)))).put("other", 0, dict(kl=2.0))
    assert records.load(path)[0]["methods"] == dict(default=dict(pack=2), other=dict(pack=3))
    with pytest.raises(UserError, match="methods"):
        records.Store(path, dict(methods=dict(default=dict(pack=4))))
