"""Tell which code runs: the version that it states and, in a git checkout, the commit. Must not import torch.

The version stands in one place, madr_plugin/__init__.py, because the plugin must know it alone inside a fork. pyproject.toml
takes it from there, and here it is read as text: the frame never imports the plugin.
"""

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
_STATED = re.compile(r'^__version__ = "([^"]+)"', re.MULTILINE)
_GIT_PATIENCE_SEC = 10  # a checkout on a slow network disk must not hold up a run


def number(root: Path = ROOT) -> str:
    """The version as stated; 'unknown' where these folders were copied without the plugin."""
    try:
        stated = _STATED.search((root / "madr_plugin" / "__init__.py").read_text(encoding="utf-8"))
    except OSError:
        return "unknown"
    return stated[1] if stated else "unknown"


@dataclass(frozen=True)
class Commit:
    """The commit that is checked out, and whether tracked files differ from it."""

    sha: str
    changed: bool


def commit(root: Path = ROOT) -> Commit | None:
    """The commit of this code; None without git, outside a checkout, or where the checkout is somebody else's around a copy of this code."""
    head = _git(root, "rev-parse", "--show-prefix", "HEAD")
    if head is None:
        return None
    # The prefix is the path from the top of the checkout to here: empty at the top itself.
    prefix, _, sha = head.partition("\n")
    changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    return None if prefix or changes is None else Commit(sha.strip(), changed=bool(changes.strip()))


def _git(root: Path, *arguments: str) -> str | None:
    """What git prints; None when it cannot answer."""
    # In a hook git names its own repository by these variables; and asking must not write (the index's time stamps).
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")} | {"GIT_OPTIONAL_LOCKS": "0"}
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, errors="replace", timeout=_GIT_PATIENCE_SEC, env=environment
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout if done.returncode == 0 else None
