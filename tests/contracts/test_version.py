"""One version for all: stated once, printed by every tool, noted by every run together with the commit."""

import ast
import importlib
import os
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import madr_plugin
from dnnlib import cli, version
from madr_plugin import __main__ as plugin_main
from training import provenance

PRINTED = f"MADR {madr_plugin.__version__}\n"


def tools(repo):
    """Names of the root scripts that are programs, and of the plugin's."""
    scripts = [path.stem for path in sorted(repo.glob("*.py"))]
    plugin = [f"madr_plugin.{path.stem}" for path in sorted((repo / "madr_plugin").glob("*.py")) if path.stem != "__main__"]
    return [name for name in [*scripts, *plugin] if last_statement(repo, name).startswith("if __name__ == '__main__':")]


def last_statement(repo, name):
    path = repo / (name.replace(".", "/") + ".py")
    return ast.unparse(ast.parse(path.read_text(encoding="utf-8")).body[-1])


def test_every_tool_prints_it(repo, capsys):
    found = tools(repo)
    assert set(found) >= {"train", "calc_metrics", "toy_2d", "export", "doctor", "report", "compare_runs", "madr_plugin.own_extractor"}
    for name in found:
        runner = "command" if name.startswith("madr_plugin.") else "cli"
        assert last_statement(repo, name).splitlines()[1:] == [f"    {runner}.run(main)"], name
        main = importlib.import_module(name).main
        own_options = list(main.params)
        with pytest.raises(SystemExit) as ended:
            run_as_program(name, main)
        assert (ended.value.code, capsys.readouterr().out) == (0, PRINTED), name
        assert main.params == own_options, name


def run_as_program(name, main):
    if not name.startswith("madr_plugin."):
        cli.run(main, ["--version"])
    arguments, sys.argv = sys.argv, [name, "--version"]
    try:
        importlib.import_module("madr_plugin.command").run(main)
    finally:
        sys.argv = arguments


def test_the_plugin_around_a_fork_prints_it():
    done = CliRunner().invoke(plugin_main.main, ["--madr-version"])
    assert (done.exit_code, done.output) == (0, PRINTED)


def test_as_a_program(repo):
    done = subprocess.run([sys.executable, "compare_runs.py", "--version"], cwd=repo, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, PRINTED), done.stderr


def test_stated_once(repo, tmp_path):
    assert version.number() == madr_plugin.__version__
    assert madr_plugin.__version__ not in (repo / "pyproject.toml").read_text()
    assert f"## [{madr_plugin.__version__}]" in (repo / "CHANGELOG.md").read_text()
    assert f"version: {madr_plugin.__version__}\n" in (repo / "CITATION.cff").read_text()
    assert version.number(tmp_path) == "unknown"


# ----------------------------------------------------------------------------------------------------------------
# The commit.


@pytest.fixture
def checkout(tmp_path):
    """git(...) in a fresh repository with one commit; git.root is its folder."""
    root = tmp_path / "checkout"
    (root / "inner").mkdir(parents=True)
    (root / "code.py").write_text("x = 1\n")

    def git(*arguments):
        identity = ["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "commit.gpgsign=false"]
        return subprocess.run(["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True).stdout.strip()

    git.root = root
    git("init", "--quiet")
    git("add", "code.py")
    git("commit", "--quiet", "--message=first")
    return git


def test_commit_and_whether_the_code_was_changed(checkout):
    sha = checkout("rev-parse", "HEAD")
    assert version.commit(checkout.root) == version.Commit(sha, changed=False)
    (checkout.root / "run.log").write_text("untracked files are output, not code\n")
    assert not version.commit(checkout.root).changed
    (checkout.root / "code.py").write_text("x = 2\n")
    assert version.commit(checkout.root) == version.Commit(sha, changed=True)


def test_a_copy_inside_another_checkout_has_no_commit(checkout):
    assert version.commit(checkout.root / "inner") is None


def test_inside_a_hook_the_own_repository_is_asked(checkout, monkeypatch, tmp_path):
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert version.commit(checkout.root) is not None


def test_never_fails_without_git(tmp_path, monkeypatch):
    assert version.commit(tmp_path) is None  # no checkout
    monkeypatch.setenv("PATH", str(tmp_path))
    assert version.commit() is None  # no git


def test_a_git_that_hangs_is_given_up(tmp_path, monkeypatch):
    (tmp_path / "git").write_text("#!/bin/sh\nexec sleep 60\n")
    (tmp_path / "git").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setattr(version, "_GIT_PATIENCE_SEC", 0.1)
    assert version.commit() is None


def test_a_run_notes_version_and_commit(tmp_path, monkeypatch):
    monkeypatch.setattr(version, "commit", lambda: version.Commit("1" * 40, changed=True))
    provenance.record(str(tmp_path), provenance.gather("fingerprint", 3, torch.device("cpu"), 0))
    noted = provenance.newest(str(tmp_path))
    assert (noted["version"], noted["commit"], noted["code_changed"]) == (madr_plugin.__version__, "1" * 40, True)
    monkeypatch.setattr(version, "commit", lambda: None)
    noted = provenance.gather("fingerprint", 3, torch.device("cpu"), 0)
    assert (noted["commit"], noted["code_changed"]) == (None, None)
