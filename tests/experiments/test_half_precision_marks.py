"""The marks of bfloat16: what they compare, and the page that states them."""

import json

import pytest

from experiments import backbone, half_precision, moments, pages, records, tables


def runs(change):
    """Five seeds of every method; in half precision each measure is worse by `change`, give or take a little."""
    found = {}
    for ours, theirs in half_precision.PAIRS.items():
        for seed in range(half_precision.BED.seeds):
            level = dict(madr_modes=800.0 + seed, madr_modes_kl=0.5 + 0.01 * seed, digits_frechet=20.0 + seed)
            found.setdefault(theirs, {})[seed] = level
            harm = change + 0.1 * (-1) ** seed
            sign = dict(madr_modes=-1, madr_modes_kl=1, digits_frechet=1)
            found.setdefault(ours, {})[seed] = {name: value + sign[name] * harm for name, value in level.items()}
    return found


@pytest.mark.parametrize("change, verdict", [(0.0, moments.MET), (-5.0, moments.MET), (5.0, moments.MISSED)])
def test_sure_harm_alone_misses_a_mark(change, verdict):
    found = half_precision.rows(runs(change))
    assert len(found) == 6 and {row[-1] for row in found} == {verdict}
    assert ("Missed" in half_precision.conclusion(found)) == (verdict == moments.MISSED)
    assert ("Every mark is met" in half_precision.conclusion(found)) == (verdict == moments.MET)


def test_each_method_is_compared_to_its_own_in_float32():
    for ours, theirs in half_precision.PAIRS.items():
        assert [flag for flag in backbone.METHODS[ours] if flag != "--half=bf16"] == backbone.METHODS[theirs]
    found = runs(0.0)
    del found["default-bf16"][4]
    verdicts = {(method, measure): verdict for method, measure, _, _, verdict in half_precision.rows(found)}
    assert verdicts["plain-bf16", "KL"] == moments.MET and verdicts["default-bf16", "KL"] == "4 of 5 seeds so far"


def test_the_page_states_the_marks_and_shows_the_verdicts(repo):
    page = (repo / "docs" / "studies" / "half_precision.md").read_text(encoding="utf-8")
    assert pages.replaced(page, "half-precision-marks", tables.half_marks(None)) == page, "run python -m experiments.tables"
    assert all(f"<!-- {name}: begin -->" in page and f"<!-- {name}: end -->" in page for name in tables.HALF_PARTS)
    for ours, theirs in half_precision.PAIRS.items():
        assert f"`{ours}` against `{theirs}`" in page
    assert f"--out=experiments/results/{half_precision.BED.file}" in page


def test_figures_of_the_page(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    with pytest.raises(FileNotFoundError):
        tables.half_part([("madr_modes_kl", "KL", 2, False)])
    entries = [
        dict(entry, method=method, seed=seed, date="2026-01-02", machine="m", torch="2")
        for method, by_seed in runs(5.0).items()
        for seed, entry in by_seed.items()
    ]
    facts = dict(kimg=20, configuration=["--cfg=tiny"], num_gen=50, space="s")
    (tmp_path / half_precision.BED.file).write_text(json.dumps(dict(facts=facts, entries=entries)))
    text = tables.half_part([("madr_modes_kl", "KL", 2, False)])
    assert text.count("| +5.02 ") == 2 and text.count("worse") == 2 and "| plain-bf16 minus |" in text
