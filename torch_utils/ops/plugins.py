"""Which operators have a compiled kernel on which device, and whether it is to be used for a given tensor.

`impl='cuda'` (the family's name) asks for the kernel and means: take it where there is a row for the tensor's device and its plugin
is built, else compute the same in plain PyTorch. `impl='ref'` always means plain PyTorch.

A plugin is compiled where a program calls prepare(), as train.py does; elsewhere it is used if that has happened before, and nobody
waits. MADR_KERNELS=off does without kernels everywhere. docs/kernels.md tells how a kernel is added.
"""

import importlib
import os

import torch

from dnnlib.errors import UserError
from torch_utils import custom_ops

IMPLEMENTATIONS = ("ref", "cuda")
VARIABLE = "MADR_KERNELS"  # of the environment

# (operator, type of the device) -> the module with the kernel's functions: PLUGIN (a name), DTYPES, sources(), build_options(),
# and bind(compiled module), which returns the object with the functions.
ROWS: dict[tuple[str, str], str] = {
    ("bias_act", "cpu"): "torch_utils.ops.cpu_kernels",
    ("upfirdn2d", "cpu"): "torch_utils.ops.cpu_kernels",
    ("bias_act", "cuda"): "torch_utils.ops.cuda_kernels",
    ("upfirdn2d", "cuda"): "torch_utils.ops.cuda_kernels",
}

# Every operator that asks here, so that a report can name those without a kernel too.
OPERATORS = ("bias_act", "upfirdn2d")

_wanted = True  # whether this process may use kernels at all
_bound: dict[str, object] = {}  # module of a row -> what its bind() returned, or None where it could not be had


def choose(wanted: bool) -> None:
    """Use kernels in this process, or do without; MADR_KERNELS=off has the last word."""
    global _wanted
    _wanted = wanted


def allowed() -> bool:
    """Whether this process uses kernels where they are built. Raises UserError where the variable holds nonsense."""
    text = os.environ.get(VARIABLE) or "auto"
    if text not in ("auto", "off"):
        raise UserError(f"{VARIABLE}={text!r} in the environment; it must be auto or off")
    return _wanted and text != "off"


def prepare(device_type: str) -> bool:
    """Build the plugins for a device unless that was done before; a failure is told in one line. Whether all are there."""
    if not allowed():
        return False
    modules = sorted({module for (_, device), module in ROWS.items() if device == device_type})
    return all(_bind(name, custom_ops.get_plugin_or_none) is not None for name in modules)


def in_use(device_type: str) -> bool:
    """Whether every operator that has a kernel for such a device runs by it."""
    return allowed() and all(_functions(*row) is not None for row in ROWS if row[1] == device_type)


def describe(op_name: str, device_type: str) -> str:
    """One phrase for a report: how the operator runs on such a device, and why."""
    if (op_name, device_type) not in ROWS:
        return f"plain PyTorch (no compiled kernel exists for it on {device_type})"
    if not allowed():
        return f"plain PyTorch ({VARIABLE}=off)" if _wanted else "plain PyTorch (kernels are switched off)"
    if _functions(op_name, device_type) is None:
        return "plain PyTorch (its kernel is not built yet; train.py does it at its start)"
    return "compiled kernel"


def find(op_name: str, impl: str, x) -> object | None:
    """The object with the kernel's functions to use for x, or None for plain PyTorch."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)} (got {impl!r})")
    if impl == "ref" or (op_name, x.device.type) not in ROWS or not allowed() or _is_recorded(x):
        return None
    functions = _functions(op_name, x.device.type)
    return functions if functions is not None and x.dtype in functions.DTYPES else None


def _is_recorded(x):
    """Whether a program of the network is being made (torch.export, torch.compile, a trace): there are no numbers then to compute with."""
    return type(x) not in (torch.Tensor, torch.nn.Parameter) or torch.compiler.is_compiling() or torch.jit.is_tracing()


def _functions(op_name, device_type):
    name = ROWS[op_name, device_type]
    return _bound[name] if name in _bound else _bind(name, custom_ops.get_finished_or_none)


def _bind(name, get):
    """Get the plugin of a row's module in the way of `get`, and remember what comes of it."""
    if _bound.get(name) is None:
        module = importlib.import_module(name)
        compiled = get(module.PLUGIN, module.sources(), **module.build_options())
        _bound[name] = None if compiled is None else module.bind(compiled)
    return _bound[name]
