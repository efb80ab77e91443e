"""Names and signatures that forks call: those of golden/api.json, with at most keyword-only additions."""

import ast
import importlib
import inspect
from pathlib import Path

import pytest


def modules():
    import json

    api = json.loads((Path(__file__).parent.parent / "golden" / "api.json").read_text())
    return {name: entries for name, entries in api.items() if name.startswith("metrics.")}


def parameters(text):
    """'(a, b=1)' -> [('a', None), ('b', '1')]"""
    arguments = ast.parse(f"def f{text}: pass").body[0].args
    names = [argument.arg for argument in arguments.args]
    defaults = [None] * (len(names) - len(arguments.defaults)) + [ast.unparse(default) for default in arguments.defaults]
    return list(zip(names, defaults)), arguments.kwarg and arguments.kwarg.arg


def check(function, text, where):
    expected, extra = parameters(text)
    given = list(inspect.signature(function).parameters.values())
    positional = [p for p in given if p.kind is p.POSITIONAL_OR_KEYWORD]
    found = [(p.name, None if p.default is p.empty else p.default) for p in positional]
    namespace = {"torch": importlib.import_module("torch")}
    assert found == [(name, None if default is None else eval(default, namespace)) for name, default in expected], where
    assert [p.name for p in given if p.kind is p.VAR_KEYWORD] == ([extra] if extra else []), where


@pytest.mark.parametrize("module_name", sorted(modules()))
def test_public_names_and_signatures(module_name):
    module = importlib.import_module(module_name)
    for name, entry in modules()[module_name].items():
        if isinstance(entry, str):
            check(getattr(module, name), entry, f"{module_name}.{name}")
            continue
        cls = getattr(module, name)
        for method, signature in entry["methods"].items():
            if signature != "property":
                check(getattr(cls, method), signature, f"{module_name}.{name}.{method}")


def test_metrics_import_no_plugin_and_nothing_of_training_above_data():
    folder = Path(importlib.import_module("metrics").__file__).parent
    for path in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not any(name.split(".")[0] in ("madr_plugin", "training") for name in names), path
