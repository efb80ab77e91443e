"""The one page of results: every number from a file, and what is not there said so."""

import json

import pytest

from experiments import records, results_page, tables


def write(folder, file, **runs):
    """A result file of method=[(modes, kl), ...], by seed."""
    told = dict(machine="m", torch="2", date="2026-01-02", threads=1, gpu=None, cpu_seconds=3.0, quality=0.5, modes_5hits=1)
    entries = [dict(told, method=method, seed=seed, modes=modes, kl=kl) for method, pairs in runs.items() for seed, (modes, kl) in enumerate(pairs)]
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    (folder / file).write_text(json.dumps(dict(facts=dict(kimg=5), entries=entries)))


@pytest.fixture
def results(tmp_path, monkeypatch):
    monkeypatch.setattr(tables.records, "RESULTS", tmp_path)
    return tmp_path


def test_the_page_is_that_of_the_files(repo):
    page = (repo / "docs" / "results.md").read_text(encoding="utf-8")
    assert tables.fill(page, results_page.PARTS, results_page.PAGE) == (page, []), "python -m experiments.tables"


def test_the_best_mean_is_on_top_and_what_lacks_is_left_out(results):
    [ring] = [bed for bed in results_page.BEDS if bed.mark == "results-methods-ring"]
    assert results_page.bed_part(ring) == "Not run yet: `python -m experiments.run methods --outdir=OUTDIR --file mnist=PATH`."
    write(results, "methods/ring.json", plain=[(2, 1.0), (4, 2.0)], madr=[(8, 0.5)])
    lines = results_page.bed_part(ring).splitlines()
    assert lines[0] == "| method | seeds | modes | high quality | KL (nats) | CPU s |" and lines[2] == "| madr | 1 | 8.0 | 0.500 | 0.500 | 3 |"
    assert lines[3].startswith("| plain | 2 | 3.0 ± 12.7 |") and "5 kimg. 2026-01-02; m; 1 thread per run" in lines[-1]
    [half] = [bed for bed in results_page.BEDS if bed.mark == "results-methods-stacked-half"]
    write(results, "methods/stacked-half.json", plain=[(100, 5.0)])
    assert "| plain | 1 | 100 | 1 | 5.00 | 3 |" in results_page.bed_part(half)
    table = results_page.rivals_part(None).splitlines()
    assert table[0] == "| method | ring: modes | ring: KL (nats) | stacked-half: modes of 1000 | stacked-half: KL (nats) |"  # beds with runs alone
    assert table[2] == "| no remedy | 3.0 ± 12.7 | 1.500 ± 6.353 | 100 | 5.00 |"
    assert "| MADR | 8.0 | 0.500 | not run yet | not run yet |" in table


def test_rivals_are_found_under_the_names_of_either_kind_of_bed(results):
    entry = dict(modes=8.0, quality=1.0, kl=0.5, seconds=3.0)
    for file, runs in (("toy/ring.json", {"witness+moments": entry}), ("methods/grid.json", {"madr-moments": entry})):
        path = results / file
        path.parent.mkdir(parents=True, exist_ok=True)
        store = records.Store(path, {})
        for method, found in runs.items():
            store.put(method, 0, found)
    table = results_page.rivals_part(None).splitlines()
    assert table[0] == "| method | ring of 8: modes held | grid: modes | grid: KL (nats) |"
    assert "| MADR without its tilt | 8.0 | 8.0 | 0.500 |" in table and "| imle | not run yet |" in "\n".join(table)


def test_tables_write_the_readme_where_it_has_the_mark(results, monkeypatch, tmp_path, capsys):
    pages = {
        name: tmp_path / f"{name}.md" for name in ("PAGE", "MOMENTS_PAGE", "DEFAULT_PAGE", "HALF_PAGE", "CLAIMS_PAGE", "SENSOR_PAGE", "MONITOR_PAGE")
    }
    parts = {
        "PAGE": tables.PARTS,
        "MOMENTS_PAGE": tables.MOMENTS_PARTS,
        "DEFAULT_PAGE": tables.DEFAULT_PARTS,
        "HALF_PAGE": tables.HALF_PARTS,
        "CLAIMS_PAGE": tables.CLAIMS_PARTS,
    }
    parts |= {"SENSOR_PAGE": tables.SENSOR_PARTS, "MONITOR_PAGE": tables.MONITOR_PARTS}
    places = lambda names: "".join(f"<!-- {name}: begin -->\n<!-- {name}: end -->\n" for name in names)
    for name, path in pages.items():
        path.write_text(places(parts[name]))
        monkeypatch.setattr(tables, name, path)
    for name, marks in (("PAGE", results_page.PARTS), ("README", [results_page.RIVALS_MARK])):
        path = tmp_path / f"results-{name}.md"
        path.write_text(places(marks))
        monkeypatch.setattr(results_page, name, path)
    tables.main.callback()
    assert "| method |" in results_page.README.read_text() and "Not run yet" in results_page.PAGE.read_text()
    results_page.README.write_text("without marks")
    tables.main.callback()
    assert results_page.README.read_text() == "without marks"
