"""Which device a run uses, chosen by name.

Touches CUDA only where CUDA is present. Must not know about networks, data or processes.
"""
import torch

from dnnlib.errors import UserError

DEVICE_NAMES = ("auto", "cuda", "mps", "cpu")


def mps_available() -> bool:
    """Whether this build of PyTorch can use an Apple GPU here."""
    backend = getattr(torch.backends, "mps", None)
    return backend is not None and backend.is_available()


def resolve(name: str) -> torch.device:
    """'auto' -> the best device present; 'cuda', 'cuda:1', 'mps', 'cpu' -> that one, or a UserError when it is absent."""
    kind, _, index = str(name).lower().partition(":")
    if kind not in DEVICE_NAMES or (index and (kind != "cuda" or not index.isdecimal())):
        raise UserError(f"--device must be one of {', '.join(DEVICE_NAMES)} (got {name!r}); cuda may carry an index, as in cuda:0")
    if kind == "auto":
        kind = "cuda" if torch.cuda.is_available() else "mps" if mps_available() else "cpu"
    if kind == "cuda":
        return _resolve_cuda(int(index) if index else None)
    if kind == "mps" and not mps_available():
        raise UserError("--device=mps needs an Apple GPU and a PyTorch built for it, and none was found; use --device=auto or --device=cpu")
    return torch.device(kind)


def _resolve_cuda(index):
    if not torch.cuda.is_available():
        built_for = getattr(torch.version, "cuda", None) or getattr(torch.version, "hip", None)
        why = "no GPU or driver was found" if built_for else "this PyTorch was built without CUDA"
        raise UserError(f"--device=cuda was asked for, but {why}; use --device=auto or --device=cpu")
    if index is not None and index >= torch.cuda.device_count():
        raise UserError(f"--device=cuda:{index} does not exist: this machine shows {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return torch.device("cuda") if index is None else torch.device("cuda", index)


def supports_fp16(device) -> bool:
    """Half precision is used on CUDA alone: a CPU is slower with it, and MPS lacks operators that the networks need."""
    return torch.device(device).type == "cuda"
