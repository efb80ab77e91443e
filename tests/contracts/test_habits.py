"""What CONTRIBUTING.md and its companions promise: links lead somewhere, golden files are explained, one command is what runs everywhere."""

import re

import pytest


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", "tests/golden/README.md"])
def test_links_lead_somewhere(repo, page):
    for name in re.findall(r"\]\(([^)#:]+)\)", (repo / page).read_text()):
        assert (repo / page).parent.joinpath(name).exists(), name


def test_every_golden_file_is_explained(repo):
    text = (repo / "tests" / "golden" / "README.md").read_text().replace("<configuration>", "r32_uncond")
    told = set(re.findall(r"`([\w.]+\.(?:json|npz))`", text))
    there = {path.name for path in (repo / "tests" / "golden").iterdir() if path.suffix in (".json", ".npz")}
    # Each network_*.npz is one of those that the row with <configuration> stands for.
    assert {name for name in there if not name.startswith("network_")} == {name for name in told if not name.startswith("network_")}
    for name in re.findall(r"`((?:contracts|compat|ops|metrics)/test_\w+\.py)`", text):
        assert (repo / "tests" / name).is_file(), name


def test_one_command_runs_everywhere(repo):
    steps = re.findall(r"^ +- run: (.+)$", (repo / ".github" / "workflows" / "ci.yml").read_text(), re.MULTILINE)
    assert steps == [".ci/run"]
    assert (repo / ".ci" / "run").read_text().splitlines()[-2:] == ["make lint", "make test"]
    assert "make lint" in (repo / "CONTRIBUTING.md").read_text() and "make test" in (repo / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("tool", ["ruff", "mypy"])
def test_the_lock_pins_what_pyproject_names(repo, tool):
    [stated] = re.findall(rf'"{tool}==([\d.]+)"', (repo / "pyproject.toml").read_text())
    assert f"{tool}=={stated}" in (repo / "requirements.lock").read_text().splitlines()
