"""The marks of remembered moments: verdicts on numbers whose answer is known, and the page that states them."""

import json

import pytest

from experiments import moments, pages, records, tables

BED = moments.Bed("bed", "bed.json", 3)


def mark(kind, higher_is_better=True, **more):
    return moments.Mark(BED, "value", "value", 2, higher_is_better, kind, **more)


def runs(**values):
    """{method: {seed: dict(value=...)}}; names written with _ for the signs that no keyword may hold."""
    names = dict(ours=moments.OURS, twin=moments.TWIN)
    return {names.get(method, method): {seed: dict(value=value) for seed, value in enumerate(numbers)} for method, numbers in values.items()}


@pytest.mark.parametrize(
    "asked, values, expected",
    [
        (mark("at least", bound=800), dict(ours=[799, 801, 800]), moments.MET),
        (mark("at least", bound=800), dict(ours=[799.9, 800, 800]), moments.MISSED),  # what is shown rounded is not what counts
        (mark("at least", bound=8.0, compared_to=1), dict(ours=[7.97, 8, 8]), moments.MET),
        (mark("at most", bound=0.65), dict(ours=[0.6, 0.7, 0.7]), moments.MISSED),
        (mark("better", False, other=moments.TWIN), dict(ours=[1, 2, 3], twin=[2, 3.1, 4]), moments.MET),
        (mark("better", False, other=moments.TWIN), dict(ours=[1, 2, 3], twin=[2, 1, 5]), moments.MISSED),  # the interval holds zero
        (mark("better", True, other=moments.TWIN), dict(ours=[1, 2, 3], twin=[2, 3.1, 4]), moments.MISSED),
        (mark("not worse", False, other="witness"), dict(ours=[1, 2, 3], witness=[2, 1, 5]), moments.MET),
        (mark("not worse", True, other="witness"), dict(ours=[1, 2, 3], witness=[2, 3.1, 4]), moments.MISSED),
        (mark("not worse", True, other="witness"), dict(ours=[1, 2], witness=[2, 3.1, 4]), "2 of 3 seeds so far"),
        (mark("not worse", True, other="witness"), dict(ours=[1, 2, 3]), moments.NOT_RUN),
        (mark("at least", bound=1), dict(witness=[1, 2, 3]), moments.NOT_RUN),
    ],
)
def test_verdicts(asked, values, expected):
    assert moments.verdict(asked, runs(**values))[1] == expected


def test_seeds_beyond_those_of_the_mark_do_not_count():
    """Knobs are chosen on other seeds; their runs may lie in the same file."""
    found = runs(ours=[800, 800, 800])
    found[moments.OURS][100] = dict(value=0)
    assert moments.verdict(mark("at least", bound=800), found) == ("800.00 [800.00, 800.00]", moments.MET)


def test_the_time_counts_by_its_median_ratio(tmp_path):
    path = tmp_path / "cost.json"
    assert moments.time_verdict(path)[1] == moments.NOT_RUN
    for ratio, expected in ((1.08, moments.MET), (1.081, moments.MISSED)):
        path.write_text(json.dumps(dict(beds=dict(tiny={moments.OURS: dict(times_plain=ratio, quartiles=[1.0, 1.2])}))))
        assert moments.time_verdict(path)[1] == expected
    path.write_text(json.dumps(dict(beds=dict(tiny=dict(plain=dict(times_plain=1.0, quartiles=[1, 1]))))))
    assert moments.time_verdict(path)[1] == moments.NOT_RUN


def test_it_becomes_the_default_only_with_every_mark_met():
    row = lambda verdict: ("bed", "modes", "at least 1", "", verdict)
    assert "Every mark is met" in moments.conclusion([row(moments.MET)] * 2)
    assert "1 of 2 marks are open" in moments.conclusion([row(moments.MET), row(moments.NOT_RUN)])
    assert "Missed: bed, modes at least 1" in moments.conclusion([row(moments.MISSED), row(moments.NOT_RUN)])


def test_a_bed_shows_this_studys_methods_and_the_scale_of_its_measures(tmp_path, monkeypatch):
    monkeypatch.setattr(records, "RESULTS", tmp_path)
    entry = dict(modes=700.0, hit=1.0, date="2026-01-02", machine="m", torch="2")
    entries = [
        dict(entry, method=method, seed=seed, kl=kl + seed) for method, kl in (("r1", 9), ("witness", 2), (moments.OURS, 1)) for seed in range(2)
    ]
    entries.append(dict(entry, method=records.TRAINING_IMAGES, seed=0, kl=0.25, num_images=60, held_out_part_authenticity=71.0))
    facts = dict(kimg=20, configuration=["--cfg=tiny"], num_gen=50, space="s", held_out=dict(num_images=30), training=dict(num_images=60))
    measures, path = [("kl", "KL", 2, False)], tmp_path / "bed.json"
    path.write_text(json.dumps(dict(facts=facts, entries=entries[:4])))
    with pytest.raises(FileNotFoundError):  # nothing of ours yet: the page stays as it is
        tables.moments_part((BED, measures))
    tried = [dict(entry, method=method, seed=100, kl=-50) for method in ("witness", moments.OURS)]  # knobs are chosen on such seeds
    path.write_text(json.dumps(dict(facts=facts, entries=[*entries, *tried])))
    text = tables.moments_part((BED, measures))
    assert "| witness | -1.00 ± 0.00 better |" in text and "r1" not in text and "judged against 30 images held out, trained on 60" in text
    assert "60 training images in place of generated ones get: KL 0.25. Authenticity of the held-out images: 71.0%." in text
    assert [line.split(" |")[0] for line in text.splitlines() if line.startswith(("| witness", "| plain"))][:2] == ["| witness", f"| {moments.OURS}"]


def test_every_part_has_its_place_on_the_page_and_the_marks_are_those_of_the_files(repo):
    page = (repo / "docs" / "studies" / "moments.md").read_text(encoding="utf-8")
    assert all(f"<!-- {name}: begin -->" in page and f"<!-- {name}: end -->" in page for name in tables.MOMENTS_PARTS)
    assert pages.replaced(page, "moments-marks", tables.moments_marks(None)) == page, "run python -m experiments.tables"


def test_marks_ask_what_the_page_stated_before_the_runs(repo):
    stated = (repo / "docs" / "studies" / "moments.md").read_text(encoding="utf-8").split("## Whether the marks were reached")[0]
    bounds = {(mark.bed.name, mark.heading): mark.bound for mark in moments.MARKS if mark.bound is not None}
    assert "at least 800; at most .65" in stated and "| at most 1.08 |" in stated and "modes held | 8.0 |" in stated
    assert set(bounds.values()) == {800, 0.65, 8.0} and moments.MOST_TIME == 1.08
    assert {mark.bed.seeds for mark in moments.MARKS} == {3, 5, 10}
