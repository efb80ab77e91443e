"""The CUDA sources go through nvcc. No GPU is needed; without nvcc the tests are skipped.

One target is compiled to PTX in every run of the tests, all of them to machine code with `make test-slow`.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from torch_utils import custom_ops
from torch_utils.ops import cuda_kernels

TARGETS = ("75", "80", "86", "89", "90", "100", "120")  # Turing, Ampere, its consumer cards, Ada, Hopper, Blackwell, its consumer cards
SOURCES = [path for path in cuda_kernels.sources() if path.suffix == ".cu"]
NVCC = shutil.which("nvcc")

pytestmark = pytest.mark.skipif(NVCC is None, reason="no nvcc on this machine")


def compile_source(source, target, folder, to_machine_code):
    """What nvcc says; its remarks on registers and memory with machine code."""
    options = (
        ["-cubin", "-Xptxas", "-v", f"-gencode=arch=compute_{target},code=sm_{target}"] if to_machine_code else ["-ptx", f"-arch=compute_{target}"]
    )
    command = [NVCC, "-std=c++17", "-Werror=all-warnings", *options, "-o", str(folder / "out"), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0 and (folder / "out").stat().st_size > 0, done.stderr
    return done.stderr


def known_targets():
    listed = subprocess.run([NVCC, "--list-gpu-arch"], capture_output=True, text=True, timeout=60, check=True).stdout
    return re.findall(r"compute_(\d+)", listed)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_sources_compile(source, tmp_path):
    compile_source(source, TARGETS[0], tmp_path, to_machine_code=False)
    text = (tmp_path / "out").read_text()
    assert text.count(".entry") > 20 and f".target sm_{TARGETS[0]}" in text


@pytest.mark.slow
@pytest.mark.timeout(1000)
@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_sources_compile_for_every_target(source, target, tmp_path):
    if target not in known_targets():
        pytest.skip(f"this nvcc does not know sm_{target}")
    remarks = compile_source(source, target, tmp_path, to_machine_code=True)
    # Sums and taps live in registers: an array that the compiler could not unroll would show as memory here.
    stacks = [int(size) for size in re.findall(r"(\d+) bytes stack frame", remarks)]
    assert len(stacks) > 20 and max(stacks) <= 64, remarks


PROGRAM = """
import torch
from torch_utils import custom_ops
from torch_utils.ops import cuda_kernels
compiled = custom_ops.get_plugin(cuda_kernels.PLUGIN, cuda_kernels.sources(), **cuda_kernels.build_options())
x, one = torch.zeros(2, 8, 4, 4), (1, 1)
calls = [
    lambda: compiled.activate(x, None, None, None, 1, 2, 0.2, 1.0, -1.0),
    lambda: compiled.derivative(x, x, 1, True, 2, 0.2, 1.0, -1.0),
    lambda: compiled.upfirdn2d(x, torch.zeros(4, 4), one, one, (2, 1), (4, 4), False, 1.0),
]
for call in calls:
    try:
        call()
    except RuntimeError as error:
        print(str(error).splitlines()[0])
"""


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_whole_extension_is_built_and_takes_cuda_tensors_alone(repo, tmp_path):
    lack = custom_ops.missing_tools(needs_cuda=False)
    home = next((home for home in (custom_ops.cuda_home(), "/usr/local/cuda") if home and (Path(home) / "include" / "cuda_runtime.h").exists()), None)
    if lack or home is None:
        pytest.skip(f"the extension cannot be built here: {lack[0] if lack else 'no headers of the CUDA toolkit'}")
    environment = {**os.environ, "CUDA_HOME": home, "TORCH_CUDA_ARCH_LIST": "7.5", "TORCH_EXTENSIONS_DIR": str(tmp_path), "PYTHONPATH": str(repo)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1400, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert done.stdout.splitlines() == [
        f'Setting up PyTorch plugin "{cuda_kernels.PLUGIN}"... Done.',
        *["a CUDA tensor is needed (got one on cpu)"] * 3,
    ]
