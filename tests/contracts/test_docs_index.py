"""docs/README.md names everything that there is to find, and what it names exists."""

import re

import pytest


@pytest.fixture
def index(repo):
    return (repo / "docs" / "README.md").read_text(encoding="utf-8")


def test_every_page_and_folder_of_docs_is_in_the_index(repo, index):
    linked = {link.split("#")[0].split("/")[0] for link in re.findall(r"\]\(([^):]+)\)", index)}
    assert {path.name for path in (repo / "docs").iterdir() if path.name not in ("README.md", "__pycache__")} <= linked


@pytest.mark.parametrize("folder", ["experiments/results", "benchmarks/results"])
def test_every_result_file_is_in_the_index_and_exists(repo, index, folder):
    section = index.split(f"| file in `{folder}/` |")[1].split("\n\n")[0]
    told = set(re.findall(r"`([\w.+/-]+\.(?:json|png))`", section))
    assert told == {path.relative_to(repo / folder).as_posix() for path in (repo / folder).rglob("*") if path.suffix in (".json", ".png")}


def test_links_of_all_pages_lead_somewhere(repo):
    for page in (repo / "docs").rglob("*.md"):
        for link in re.findall(r"\]\(([^):]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / link.split("#")[0]).exists(), f"{page.relative_to(repo)} links to {link}"


def test_scripts_of_the_index_exist(repo, index):
    for words in re.findall(r"`python ([^`]+)`", index):
        first, second, *_ = [*words.split(), ""]
        assert (repo / (second.replace(".", "/") + ".py" if first == "-m" else first)).is_file(), words
