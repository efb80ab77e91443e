"""The public names and signatures that forks, notebooks and pickled sources call: golden/api.json, module by module."""

import ast
import importlib
import inspect
import json
from pathlib import Path

import click
import pytest

API = json.loads((Path(__file__).parent.parent / "golden" / "api.json").read_text())
MISSING = "no default"


def arguments_of(signature_text):
    """'(a, b=1)' -> {'a': 'no default', 'b': 1}; defaults that are no literals are compared by presence only."""
    arguments = ast.parse(f"def f{signature_text}: pass").body[0].args
    positional = arguments.posonlyargs + arguments.args
    defaults = [MISSING] * (len(positional) - len(arguments.defaults)) + arguments.defaults
    found = {argument.arg: default for argument, default in zip(positional, defaults)}
    found.update(
        {argument.arg: default if default is not None else MISSING for argument, default in zip(arguments.kwonlyargs, arguments.kw_defaults)}
    )
    return {name: default if default == MISSING else literal(default) for name, default in found.items()}


def literal(node):
    try:
        return ast.literal_eval(node)
    except ValueError:
        return ...


def own_arguments(function):
    function = function.callback if isinstance(function, click.Command) else function
    return [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]


def assert_callable_as_before(function, signature_text, where):
    """Every call that was valid stays valid and means the same: names, order, defaults; new arguments come last."""
    expected, own = arguments_of(signature_text), own_arguments(function)
    assert [parameter.name for parameter in own][: len(expected)] == list(expected), where
    for parameter, (name, default) in zip(own, expected.items()):
        if default is not ... and default != MISSING:
            assert parameter.default == default, f"{where}: {name}"
        if default is ...:
            assert parameter.default is not parameter.empty, f"{where}: {name}"
    for parameter in own[len(expected) :]:
        assert parameter.default is not parameter.empty, f"{where}: the new argument {parameter.name} needs a default"


@pytest.mark.parametrize("module_name", sorted(API))
def test_names_and_signatures(module_name):
    module = importlib.import_module(module_name)
    for name, entry in API[module_name].items():
        where = f"{module_name}.{name}"
        assert hasattr(module, name), f"{where} is missing"
        own = getattr(module, name)
        if isinstance(entry, list):
            assert set(entry) <= set(own), where
        elif isinstance(entry, dict):
            assert inspect.isclass(own), where
            for base in entry["bases"]:
                assert base.rsplit(".", 1)[-1] in [cls.__name__ for cls in own.__mro__], f"{where} should derive from {base}"
            for method, signature in entry["methods"].items():
                attribute = inspect.getattr_static(own, method)
                if signature == "property":
                    assert isinstance(attribute, property), f"{where}.{method}"
                else:
                    assert_callable_as_before(getattr(attribute, "__func__", attribute), signature, f"{where}.{method}")
        elif entry.startswith("("):
            assert_callable_as_before(own, entry, where)
        # What is left are module variables: that they exist has been checked; their values may depend on the machine.
