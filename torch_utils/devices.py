"""Which device a run uses, chosen by name.

Touches CUDA only where CUDA is present. Must not know about networks, data or processes.
"""

import ctypes
import platform

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


def _resolve_cuda(index: int | None) -> torch.device:
    if not torch.cuda.is_available():
        built_for = getattr(torch.version, "cuda", None) or getattr(torch.version, "hip", None)
        why = "no GPU or driver was found" if built_for else "this PyTorch was built without CUDA"
        raise UserError(f"--device=cuda was asked for, but {why}; use --device=auto or --device=cpu")
    if index is not None and index >= torch.cuda.device_count():
        raise UserError(f"--device=cuda:{index} does not exist: this machine shows {torch.cuda.device_count()} CUDA device(s), counted from 0")
    return torch.device("cuda") if index is None else torch.device("cuda", index)


def supports_fp16(device: torch.device | str) -> bool:
    """Half precision is used on CUDA alone: a CPU is slower with it, and MPS lacks operators that the networks need."""
    return torch.device(device).type == "cuda"


def bf16_instructions(device: torch.device | str) -> str | None:
    """What this machine multiplies bfloat16 with, by name, or None where bfloat16 would be slower than float32.

    A CPU with AVX-512 alone counts as without: its libraries widen bfloat16 to float32 first.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return "CUDA" if torch.cuda.is_available() and torch.cuda.get_device_capability(device) >= (8, 0) else None  # Ampere
    if kind != "cpu" or not torch.backends.mkldnn.is_available():
        return None
    # PyTorch has no public question for this; a version without these functions answers no.
    for name, question in (("AMX", "_is_amx_tile_supported"), ("AVX512-BF16", "_is_avx512_bf16_supported")):
        if getattr(torch.cpu, question, bool)():
            return name
    if platform.machine().lower() in ("aarch64", "arm64") and hasattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported"):
        return "Arm BF16" if torch.ops.mkldnn._is_mkldnn_bf16_supported() else None
    return None


# Numbers of glibc's mallopt, and the largest size that it accepts for keeping blocks in the heap.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST_HEAP_BLOCK = 32 * 2**20


def keep_freed_memory() -> bool:
    """For training on a CPU: let the process keep the memory of freed tensors instead of returning it to the system each time.

    Otherwise every large tensor starts with a page fault per 4 KiB, which took 10-25% of the CPU time of training steps at
    32 px, for no gain: the next step wants the same memory again. The peak stays the same; it is given back when the process
    ends. Acts on the whole process. Returns whether it had an effect, which is so with glibc (Linux).
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return mallopt(_M_MMAP_THRESHOLD, _LARGEST_HEAP_BLOCK) == 1 and mallopt(_M_TRIM_THRESHOLD, 2**31 - 1) == 1
