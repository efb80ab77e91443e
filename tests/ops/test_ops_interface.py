"""Names, signatures and defaults that the code inside existing pickles and forks relies on."""

import importlib
import inspect

import pytest
import torch

MODULES = [
    "torch_utils.custom_ops",
    *(f"torch_utils.ops.{name}" for name in ("bias_act", "upfirdn2d", "conv2d_resample", "conv2d_gradfix", "grid_sample_gradfix", "fma")),
]


@pytest.mark.parametrize("name", MODULES)
def test_frozen_interface(golden, name):
    module = importlib.import_module(name)
    frozen = golden("api.json")[name]
    assert frozen
    for attribute, wanted in frozen.items():
        actual = getattr(module, attribute)
        if isinstance(wanted, list):
            assert list(actual) == wanted
        elif wanted.startswith("("):
            scope = {"torch": torch}
            exec(f"def frozen{wanted}: pass", scope)
            assert inspect.signature(actual) == inspect.signature(scope["frozen"]), f"{name}.{attribute}"
        else:
            assert type(actual) is type(eval(wanted)), f"{name}.{attribute}"


def test_activations_can_be_added_by_a_fork(monkeypatch):
    from torch_utils.ops import bias_act

    monkeypatch.setitem(bias_act.activation_funcs, "cube", bias_act.Activation(lambda x, **_: x**3, def_gain=2.0))
    assert bias_act.bias_act(torch.full([1, 1], 2.0), act="cube").item() == 16
