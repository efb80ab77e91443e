"""experiments/backbone_results.py: what a file of results states."""

import pytest

from experiments import backbone_results


@pytest.mark.parametrize("place", ["", "{folder}/"])
def test_a_space_of_a_file_is_told_by_its_name_wherever_it_lies(place, tmp_path, monkeypatch):
    """Else results of two places could not be joined in one file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "network.pt").write_bytes(b"a network")
    facts = backbone_results.facts_of("emoji32", 1, 100, f"file:{place.format(folder=tmp_path)}network.pt", ["plain"])
    assert facts["space"] == "network.pt" and len(facts["space_sha256"]) == 64
