"""Claims and verdicts: the rules on numbers whose answer is known, the page that is written from the files, and the terms where they are known."""

import json

import numpy as np
import pytest
import torch

from experiments import claim_rows, claims, published_terms, tables
from experiments.claims import FAILED, HELD, OPEN, Claim, Gain, Level

ALL = (*claim_rows.PAPER, *claim_rows.REMEDIES, *claim_rows.HERE)


@pytest.fixture
def results(tmp_path, monkeypatch):
    """results(file, method=[values by seed]) writes a result file of the measure `modes` to the folder that rules read."""
    monkeypatch.setattr(claims.records, "RESULTS", tmp_path)
    monkeypatch.setattr(claims, "REPO", tmp_path)

    def write(file, **runs):
        told = dict(date="2026-01-02", machine="m")
        entries = [dict(told, method=method, seed=seed, modes=value) for method, values in runs.items() for seed, value in enumerate(values)]
        (tmp_path / file).write_text(json.dumps(dict(facts={}, entries=entries)))

    return write


def gain(least=10.0, higher_is_better=True):
    return Gain("bed.json", "ours", "plain", "modes", "modes", 0, least, higher_is_better)


@pytest.mark.parametrize(
    "ours, plain, higher_is_better, verdict",
    [
        ([120, 131, 139], [100, 110, 120], True, HELD),
        ([120, 131, 139], [100, 110, 120], False, FAILED),
        ([100, 111, 119], [100, 110, 120], True, FAILED),  # no gain of 10: the interval ends at 2.5
        ([80, 91, 99], [100, 110, 120], True, FAILED),
        ([80, 91, 99], [100, 110, 120], False, HELD),
        ([150, 90, 130], [100, 110, 120], True, OPEN),
    ],
)
def test_gains_are_judged_by_their_paired_interval(results, ours, plain, higher_is_better, verdict):
    results("bed.json", ours=ours, plain=plain)
    found = gain(higher_is_better=higher_is_better).found()
    assert found.verdict == verdict and (found.seeds is None) == (verdict != OPEN)


def test_the_number_of_seeds_would_decide_wherever_the_middle_is(results):
    differences = np.array([35.0, -25.0, 5.0, 15.0])
    results("bed.json", ours=list(100 + differences), plain=[100] * 4)
    found = gain().found()
    half_width = claims.records.mean_and_interval(differences)[1]
    assert found.verdict == OPEN and found.seeds == int(np.ceil(4 * (2 * half_width / 10) ** 2))
    assert half_width * (4 / found.seeds) ** 0.5 <= 10 / 2  # an interval of 10 in all is above 0 or below 10
    told = claims.what_decides(Claim("c", gain(), "`run --seeds={seeds}`"), found)
    assert told == f"`run --seeds={found.seeds}`"


@pytest.mark.parametrize(
    "kind, bound, verdict",
    [("at least", 9, HELD), ("at least", 12, FAILED), ("at least", 10, OPEN), ("at most", 12, HELD), ("at most", 9, FAILED), ("at most", 10, OPEN)]
    + [("equal", 10.2, HELD), ("equal", 12, FAILED)],
)
def test_levels_are_judged_by_their_interval(results, kind, bound, verdict):
    results("bed.json", ours=[9.9, 10.0, 10.1])
    assert Level("bed.json", "ours", "modes", "modes", 1, kind, bound).found().verdict == verdict


def test_what_is_not_run_yet_is_open_and_names_its_command(results):
    claim = Claim("c", gain(), "`run --seeds={seeds}`")
    assert claim.found() == claims.Found("not run yet", OPEN)
    assert f"| **{OPEN}** | `run --seeds={claims.USUAL_SEEDS}` |" in claims.table([claim])
    results("bed.json", ours=[1], plain=[1])
    assert claim.found().verdict == OPEN  # one pair has no interval
    results("bed.json", ours=[3, 4, 5], plain=[1, 2, 3])
    assert claims.table([claim]).endswith("| **held** | `bed.json` |") and claims.in_numbers([claim]) == f"1 {HELD}, 0 {FAILED}, 0 {OPEN}"


def test_times_and_speeds_are_those_of_the_benchmarks(tmp_path, monkeypatch):
    path = tmp_path / "cost.json"
    path.write_text(json.dumps(dict(beds=dict(tiny={"paper": dict(times_plain=1.1, quartiles=[1.05, 1.18])}))))
    monkeypatch.setattr(claims.StepTime, "path", path)
    assert [claims.StepTime("tiny", "paper", bound).found().verdict for bound in (1.2, 1.1, 1.0)] == [HELD, OPEN, FAILED]
    path.write_text(json.dumps(dict(found=dict(cpu_ms=dict(anew=100, faiss=50, incremental=5), times_anew=20.0, times_faiss=10.0))))
    monkeypatch.setattr(claims.Speed, "path", path)
    assert claims.Speed("faiss", 10).found() == claims.Found("2.0 times (50 ms against 100)", FAILED)
    assert claims.Speed("incremental", 10).found().verdict == HELD


def test_the_page_is_that_of_the_files():
    page = tables.CLAIMS_PAGE.read_text(encoding="utf-8")
    assert tables.fill(page, tables.CLAIMS_PARTS, tables.CLAIMS_PAGE) == (page, []), "python -m experiments.tables"
    page = tables.PAGE.read_text(encoding="utf-8")
    part = {"what-to-use": tables.PARTS["what-to-use"]}
    assert tables.fill(page, part) == (page, []), "python -m experiments.tables"


def test_the_verdicts_stand_on_the_first_screen():
    lines = tables.PAGE.read_text(encoding="utf-8").splitlines()
    assert lines[2] == "## What to use when" and lines.index("<!-- what-to-use: end -->") < 24


def test_every_open_claim_names_what_would_decide_it():
    for claim in ALL:
        found = claim.found()
        decides = claims.what_decides(claim, found)
        assert found.verdict != OPEN or "`python " in decides or decides.startswith("no study: at this spread it would take "), claim.claim
        assert found.verdict == OPEN or claims.file_of(claim), claim.claim
        assert "{" not in claims.what_decides(claim, found)


def test_measured_terms_are_those_of_their_file():
    """A seed of each measurement again: the file holds what this code gives, up to rounding of another machine."""
    facts, entries = published_terms.records.load(published_terms.PATH)
    assert facts["settings"] == json.loads(json.dumps({name: settings for name, (_, settings) in published_terms.MEASUREMENTS.items()}))
    for name in ("outliers offered", "triples of digits"):
        function, settings = published_terms.MEASUREMENTS[name]
        again = function(0, **settings)
        assert {key: entries[name][0][key] for key in again} == pytest.approx(again, abs=0.01)


def test_the_published_strength_sees_a_gap_that_is_large_enough():
    """The measurement can come out the other way: modes that lie far apart are missed by the recall, and the strength rises."""
    torch.set_num_threads(1)
    near = published_terms.with_half_missing(0, num_modes=4, reals_per_mode=20, width=8, spread=0.5, memory=64, steps=200)
    assert set(near) >= {"strength_gained", "weight_of_missing", "recall_half_missing"} and 0 <= near["recall_half_missing"] <= 1
    centres = torch.zeros([2, 8])
    centres[1, 0] = 100.0
    draw = lambda mode: centres[mode] + 0.1 * torch.randn([40, 8], generator=torch.Generator().manual_seed(mode))
    reals = torch.cat([draw(0), draw(1)])
    half, none = (published_terms._published(reals, memory, "sigmoid", 200, 0) for memory in (draw(0), reals.clone()))
    assert half.recall == 0.5 and none.recall == 1 and half.strength > none.strength + 0.5
    assert half.weights_N[40:].mean() > 1.5 * half.weights_N[:40].mean()
