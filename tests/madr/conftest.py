"""Forks in folders of their own, and processes that see nothing but them and the plugin."""

import os
import textwrap

import pytest

from tests.madr.stand_ins import COMMON


@pytest.fixture
def make_fork(tmp_path, repo, runner):
    """make_fork(style) -> (folder of the fork, run(*args) -> finished process)."""

    def make(style, install="", folder="fork"):
        fork, only_plugin = tmp_path / folder, tmp_path / "site"
        for name, text in {**COMMON, **style}.items():
            (fork / name).parent.mkdir(parents=True, exist_ok=True)
            (fork / name).write_text(textwrap.dedent(text.replace("{install}", install)))
        only_plugin.mkdir(exist_ok=True)
        if not (only_plugin / "madr_plugin").exists():
            for package in ("madr_plugin", "madr_spaces"):  # what one wheel brings
                os.symlink(repo / package, only_plugin / package)
        return fork, lambda *args: runner.run(args, tmp_path, only_plugin)

    return make
