"""Which operators have a compiled kernel, and whether it is to be used for a given tensor.

`impl='cuda'` asks for the kernel and means: take it where the tensor is on a CUDA device and the kernel has been built, else
compute the same in plain PyTorch. `impl='ref'` always means plain PyTorch. Must not build anything itself.
"""

from collections.abc import Callable

IMPLEMENTATIONS = ("ref", "cuda")

# Every operator that asks here, so that a report can name those without a kernel too.
OPERATORS = ("bias_act", "upfirdn2d")

# Operator name -> function that returns the compiled module, or None where it cannot be had. A kernel enters itself here.
_loaders: dict[str, Callable] = {}


def register(op_name: str, loader: Callable) -> None:
    """Make a kernel known. `loader()` is called at most when a CUDA tensor arrives; it caches its own outcome."""
    _loaders[op_name] = loader


def describe(op_name: str, device_type: str) -> str:
    """One phrase for a report: how the operator runs on such a device, and why."""
    if op_name not in _loaders:
        return "plain PyTorch (no compiled kernel exists for it)"
    if device_type != "cuda":
        return f"plain PyTorch (its compiled kernel needs a CUDA device, not {device_type})"
    return "compiled kernel" if _loaders[op_name]() is not None else "plain PyTorch (its kernel could not be built, see above)"


def find(op_name: str, impl: str, x) -> object | None:
    """The compiled module to use for x, or None for plain PyTorch."""
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"impl must be one of {', '.join(IMPLEMENTATIONS)} (got {impl!r})")
    if impl == "ref" or x.device.type != "cuda" or op_name not in _loaders:
        return None
    return _loaders[op_name]()
