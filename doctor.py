"""Print a report on this machine and this installation, to be pasted into a bug report.

Every line is gathered on its own: whatever is broken is reported as such and the rest still appears. Must not need a network,
a GPU or even a working PyTorch.
"""

import importlib
import importlib.metadata
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import click

from dnnlib import cli, console, make_cache_dir_path
from dnnlib.machine import memory, processor_name, usable_cpus

PACKAGES = (
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "pillow",
    "click",
    "timm",
    "faiss-cpu",
    "faiss-gpu-cu12",
    "scikit-learn",
    "requests",
    "psutil",
    "tqdm",
    "tensorboard",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "ray",
    "matplotlib",
    "ninja",
    "setuptools",
    "imageio",
    "imageio-ffmpeg",
    "lmdb",
    "wandb",
    "triton",
)
# Settings that change what is computed, where or how fast. None of them holds a secret.
VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "CUDA_HOME",
    "CXX",
    "TORCH_CUDA_ARCH_LIST",
    "TORCH_EXTENSIONS_DIR",
    "MADR_KERNELS",
    "DNNLIB_CACHE_DIR",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ENABLE_MPS_FALLBACK",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_RANK",
    "MASTER_ADDR",
)
LABEL_WIDTH = 18


@click.command()
def main():
    """Print a report on this machine and installation, to be pasted into a bug report."""
    for title, gather in SECTIONS:
        console.result(f"[{title}]")
        for label, value in guarded(gather):
            console.result(f"{label:<{LABEL_WIDTH}} {shorten_home(str(value))}")
        console.result("")


def guarded(gather):
    """The section's lines; one that breaks off ends with a line that says how."""
    try:
        yield from gather()
    except Exception as error:  # a report must not die of what it reports on
        yield "failed", first_line(error)


def first_line(error) -> str:
    text = str(error).strip().splitlines()
    return f"{type(error).__name__}: {text[0] if text else ''}"


def shorten_home(text: str) -> str:
    """The user's name is nobody's business."""
    home = str(Path.home())
    return text.replace(home, "~") if len(home) > 1 else text


def program_version(command) -> str:
    """The first line that `command --version` prints, after the program's place; 'not found' without it."""
    path = shutil.which(command)
    if path is None:
        return "not found"
    try:
        result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"{path}: {first_line(error)}"
    lines = [line.strip() for line in (result.stdout + result.stderr).splitlines() if line.strip()]
    # nvcc names its release in a later line.
    wanted = next((line for line in lines if "release" in line), lines[0] if lines else "says nothing")
    return f"{path}: {wanted}"


def machine():
    yield "system", platform.platform()
    yield "processor", f"{processor_name()}, {os.cpu_count()} threads, {usable_cpus():g} usable by this process"
    yield "memory", memory()
    yield "Python", f"{sys.version.split()[0]} ({sys.executable})"
    for name in VARIABLES:
        if name in os.environ:
            yield name, os.environ[name]


def pytorch():
    torch = importlib.import_module("torch")
    yield "torch", torch.__version__
    yield "built for", f"CUDA {torch.version.cuda}" if torch.version.cuda else f"ROCm {torch.version.hip}" if torch.version.hip else "CPU"
    yield "threads", f"{torch.get_num_threads()} within an operator, {torch.get_num_interop_threads()} between operators"
    yield "CPU instructions", torch.backends.cpu.get_cpu_capability()
    devices = importlib.import_module("torch_utils.devices")
    yield "--device=auto is", devices.resolve("auto")
    yield "fp16", "used" if devices.supports_fp16(devices.resolve("auto")) else "not used on this device"
    yield "bf16", devices.bf16_instructions(devices.resolve("auto")) or "slower than float32 on this device"
    yield "MPS", "available" if devices.mps_available() else "not available"
    if not torch.cuda.is_available():
        yield "CUDA", "no device" if torch.version.cuda or torch.version.hip else "no device; this PyTorch could not use one"
        return
    yield "cuDNN", torch.backends.cudnn.version()
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        yield (
            f"cuda:{index}",
            f"{properties.name}, {properties.total_memory / 2**30:.1f} GiB, compute capability {properties.major}.{properties.minor}",
        )


def compiling():
    yield "C++ compiler", program_version(os.environ.get("CXX") or ("cl" if os.name == "nt" else "c++"))
    yield "ninja", program_version("ninja")
    yield "nvcc", program_version("nvcc")
    custom_ops = importlib.import_module("torch_utils.custom_ops")
    for label, needs_cuda in (("C++ plugins", False), ("CUDA plugins", True)):
        lack = custom_ops.missing_tools(needs_cuda)
        yield label, "can be built" if lack is None else f"cannot be built: {lack[0]}; to change that: {lack[1]}"
    device_type = importlib.import_module("torch_utils.devices").resolve("auto").type
    plugins = importlib.import_module("torch_utils.ops.plugins")
    for name in plugins.OPERATORS:
        importlib.import_module(f"torch_utils.ops.{name}")
        yield name, plugins.describe(name, device_type)


def packages():
    for name in PACKAGES:
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, "-"


def folders():
    extensions = os.path.expanduser(os.environ.get("TORCH_EXTENSIONS_DIR") or "~/.cache/torch_extensions")
    for label, path in (
        ("this checkout", Path(__file__).resolve().parent),
        ("working folder", Path.cwd()),
        ("downloads, metrics", Path(make_cache_dir_path())),
        ("plugins", Path(extensions)),
    ):
        yield label, f"{path}: {folder_state(path)}"


def folder_state(path: Path) -> str:
    """Whether it is there and can be written to (or made), and the space on its disk."""
    existing = next(place for place in [path, *path.parents] if place.exists())
    state = (
        "is no folder"
        if not existing.is_dir()
        else "not writable"
        if not os.access(existing, os.W_OK)
        else "writable"
        if existing == path
        else "not made yet"
    )
    usage = shutil.disk_usage(existing)
    return f"{state}, {usage.free / 2**30:.1f} of {usage.total / 2**30:.1f} GiB free"


SECTIONS = (("machine", machine), ("PyTorch", pytorch), ("compiled operators", compiling), ("packages", packages), ("folders", folders))


if __name__ == "__main__":
    cli.run(main)
