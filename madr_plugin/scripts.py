"""Starts a script of a fork as if it had been called itself, whatever its command is called, and shortens errors to their sentence.

Must not know MADR's options or seams.
"""

import ast
import contextlib
import importlib.util
import os
import re
import runpy
import sys

import click

from madr_spaces.errors import MADRError

_MARK = f"{MADRError.__module__}.{MADRError.__qualname__}: "  # how a traceback begins the line of our error


class Script:
    """A Python file: load() brings in its functions, start() does what it does when called."""

    def __init__(self, path):
        self.path = os.path.abspath(os.path.expanduser(path))
        if os.path.isdir(self.path):
            raise MADRError(f"{self.path} is a folder; give the path of the fork's train.py")
        if not os.path.isfile(self.path):
            raise MADRError(f"{self.path} does not exist; give the path of the fork's train.py")
        with open(self.path, "rb") as file:
            self.source = file.read()
        try:
            tree = ast.parse(self.source, self.path)
        except (SyntaxError, ValueError) as error:
            raise MADRError(f"{self.path} is no Python script ({error}); give the path of the fork's train.py") from error
        self.guards = [node for node in tree.body if isinstance(node, ast.If) and _asks_for_main(node.test)]
        self.has_main = any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)
        self.module = None

    @property
    def can_load(self):
        """Whether bringing in its functions leaves the work to start(): a script without either would do it at once."""
        return bool(self.guards) or self.has_main

    def mentions(self, name):
        return re.search(rf"\b{re.escape(name)}\b".encode(), self.source) is not None

    def enter(self):
        """Put its folder first on the path, as if it had been started there."""
        folder = os.path.dirname(self.path)
        if folder not in sys.path[:1]:
            sys.path.insert(0, folder)

    def load(self):
        """Import it under its own name: processes that the fork spawns import its functions by this name. Returns the module."""
        self.enter()
        name = os.path.splitext(os.path.basename(self.path))[0]
        spec = importlib.util.spec_from_file_location(name, self.path)
        self.module = importlib.util.module_from_spec(spec)
        sys.modules[name] = self.module
        spec.loader.exec_module(self.module)
        return self.module

    def start(self, arguments, shown_as=None):
        """Do what the script does when called with these arguments. shown_as: its name as the user typed it."""
        sys.argv = [shown_as or self.path, *arguments]
        with _named_in_help(os.path.basename(self.path)):
            if self.module is None:
                self.enter()
                runpy.run_path(self.path, run_name="__main__")
            elif self.guards:
                for guard in self.guards:
                    exec(compile(ast.Module(guard.body, type_ignores=[]), self.path, "exec"), self.module.__dict__)
            else:
                self.module.main()


def _asks_for_main(test):
    """Whether an expression is __name__ == "__main__"."""
    if not isinstance(test, ast.Compare) or len(test.ops) != 1 or not isinstance(test.ops[0], ast.Eq):
        return False
    sides = [test.left, *test.comparators]
    names = [side.id for side in sides if isinstance(side, ast.Name)]
    return names == ["__name__"] and [side.value for side in sides if isinstance(side, ast.Constant)] == ["__main__"]


@contextlib.contextmanager
def _named_in_help(name):
    """Inside: a click command that is called without a name for its usage line takes this one; its own guess would be the plugin."""
    original = click.Command.main

    def main(self, args=None, prog_name=None, *rest, **kwargs):
        return original(self, args, prog_name or name, *rest, **kwargs)

    click.Command.main = main
    try:
        yield
    finally:
        click.Command.main = original


def sentence_of(error):
    """What the user is to be told of an exception: MADR's own sentence, also out of a process that the fork has spawned; None for others'."""
    if isinstance(error, MADRError):
        return str(error)
    _, found, rest = str(error).rpartition(_MARK)
    # torch.multiprocessing brings no exception of another process but its printed traceback.
    return rest.strip() if found and type(error).__module__.startswith("torch.multiprocessing") else None
