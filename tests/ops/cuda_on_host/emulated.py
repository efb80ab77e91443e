"""The CUDA kernels on a CPU: their sources compiled by a C++ compiler and run thread after thread, behind the functions of the compiled module."""

import ctypes
import os
import subprocess
from pathlib import Path

import torch

from torch_utils import custom_ops

HERE = Path(__file__).resolve().parent
SOURCES = HERE.parent.parent.parent / "torch_utils" / "ops"
FORMATS = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
# So few that even small tensors take several rounds of the kernels' loops.
MOST_BLOCKS = 2


def cuda_headers():
    """A folder with the CUDA toolkit's headers, of a toolkit or of the packages that PyTorch's wheels need; None without."""
    places = [Path(home) / "include" for home in (os.environ.get("CUDA_HOME"), custom_ops.cuda_home(), "/usr/local/cuda") if home]
    places += sorted(Path(torch.__file__).parent.parent.glob("nvidia/*/include"))
    return next((str(place) for place in places if (place / "cuda_fp16.h").exists() and (place / "cuda_runtime.h").exists()), None)


def build(folder):
    """Compile into `folder` and load."""
    library = Path(folder) / "cuda_on_host.so"
    command = [os.environ.get("CXX", "c++"), "-std=c++17", "-O0", "-w", "-shared", "-fPIC", "-o", str(library), "-x", "c++"]
    command += ["-include", str(HERE / "host.h"), "-I", cuda_headers(), "-I", str(SOURCES)]
    sources = [HERE / "entry.cpp", SOURCES / "upfirdn2d_cuda.cu", SOURCES / "bias_act_cuda.cu"]
    done = subprocess.run([*command, *map(str, sources)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def _pointer(tensor):
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())


def _numbers(values):
    return (ctypes.c_int64 * len(values))(*values)


def is_channels_last(x):
    return x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last)


class Emulated:
    """As kernels_cuda.cpp, for CPU tensors; `calls` counts the kernels that were put on the stream."""

    def __init__(self, library, most_blocks=MOST_BLOCKS):
        self.library, self.most_blocks, self.calls = library, most_blocks, 0

    def _check(self, code):
        assert code == 0, f"the launch failed with error {code}"
        self.calls += 1

    def _activation(self, kind, alpha, gain, limit):
        return kind, ctypes.c_double(alpha), ctypes.c_double(gain), ctypes.c_double(limit)

    def activate(self, x, bias, scale, noise, dim, kind, alpha, gain, limit):
        if is_channels_last(x):
            assert dim == 1
            middle, inner, channel_is_inner = x.shape[2] * x.shape[3], x.shape[1], 1
        else:
            assert x.is_contiguous() and 0 <= dim < x.ndim
            middle, inner, channel_is_inner = x.shape[dim], x[(0,) * (dim + 1)].numel() if x.numel() else 1, 0
        for beside in (bias, scale, noise):
            assert beside is None or (beside.is_contiguous() and beside.dtype == x.dtype)
        out = torch.empty_like(x)
        sizes = [ctypes.c_int64(number) for number in (x.numel(), middle, inner)]
        tensors = [_pointer(tensor) for tensor in (x, bias, scale, noise, out)]
        activation = self._activation(kind, alpha, gain, limit)
        self._check(self.library.activate(FORMATS[x.dtype], *activation, *tensors, *sizes, channel_is_inner, self.most_blocks))
        return out

    def derivative(self, gradient, reference, order, from_result, kind, alpha, gain, limit):
        assert gradient.stride() == reference.stride() and gradient.dtype == reference.dtype and gradient.shape == reference.shape
        out = torch.empty_like(gradient)
        assert out.stride() == gradient.stride()
        activation = self._activation(kind, alpha, gain, limit)
        where = (_pointer(gradient), _pointer(reference), order, int(from_result), _pointer(out), ctypes.c_int64(gradient.numel()))
        self._check(self.library.derivative(FORMATS[gradient.dtype], *activation, *where, self.most_blocks))
        return out

    def problem(self, x, taps, up, down, before, size, correlate, out):
        """The numbers that entry.cpp reads."""
        horizontal = [x.shape[3], size[0], taps[1], up[0], down[0], before[0]]
        vertical = [x.shape[2], size[1], taps[0], up[1], down[1], before[1]]
        return _numbers([*horizontal, *vertical, *x.shape[:2], *x.stride(), *out.stride(), int(is_channels_last(x)), int(correlate)])

    def upfirdn2d(self, x, filter, up, down, before, size, correlate, gain):
        assert filter.is_contiguous() and filter.dtype == (torch.float64 if x.dtype == torch.float64 else torch.float32)
        layout = torch.channels_last if is_channels_last(x) else torch.contiguous_format
        # Any number that stays is one that was not written.
        out = torch.full([*x.shape[:2], size[1], size[0]], float("nan"), dtype=x.dtype).contiguous(memory_format=layout)
        problem = self.problem(x, filter.shape, up, down, before, size, correlate, out)
        code = self.library.upfirdn2d(
            FORMATS[x.dtype], problem, _pointer(x), _pointer(filter), _pointer(out), ctypes.c_double(gain), self.most_blocks
        )
        self._check(code)
        return out
