"""What needs a CUDA device: `pytest tests/gpu` on a machine that has one. Without, all of it is skipped for one reason.

The kernels are compiled once per machine, into the folder that users have. Not for several workers (-n): tests measure memory.
"""

import pytest
import torch

from tests.conftest import BUILDS

_told = []  # lines for the end of the report


@pytest.fixture(scope="session", autouse=True)
def card():
    """The device that the tests run on."""
    if not torch.cuda.is_available():
        pytest.skip("not run: no CUDA device")
    properties = torch.cuda.get_device_properties(0)
    _told.append(f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability {properties.major}.{properties.minor}")
    return torch.device("cuda")


@pytest.fixture(scope="session")
def compiled_kernels(card):
    """The functions of the CUDA kernels. Where they could be compiled but are not, the test fails."""
    from torch_utils import custom_ops
    from torch_utils.ops import cuda_kernels

    lack = custom_ops.missing_tools(needs_cuda=True)
    if lack:
        pytest.skip(f"the CUDA kernels cannot be compiled here: {lack[0]}; {lack[1]}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TORCH_EXTENSIONS_DIR", BUILDS)
        return cuda_kernels.bind(custom_ops.get_plugin(cuda_kernels.PLUGIN, cuda_kernels.sources(), **cuda_kernels.build_options()))


@pytest.fixture
def kernels(compiled_kernels, private_cache, monkeypatch):
    """Kernels are on in this test and in the programs that it starts. Gives their functions."""
    from torch_utils.ops import plugins

    monkeypatch.setenv(plugins.VARIABLE, "auto")
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", BUILDS)
    monkeypatch.setattr(plugins, "_wanted", True)
    monkeypatch.setattr(plugins, "_bound", {"torch_utils.ops.cuda_kernels": compiled_kernels})
    return compiled_kernels


@pytest.fixture
def tell():
    """tell(line): shown at the end of the report, whether or not tests fail."""
    return _told.append


@pytest.fixture
def exactly():
    """float32 products in float32, not in TF32."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


@pytest.fixture
def room(card):
    """room(bytes): skips the test where the card has less memory free."""

    def check(needed):
        torch.cuda.empty_cache()
        free, _total = torch.cuda.mem_get_info()
        if free < needed:
            pytest.skip(f"needs {needed / 2**30:.0f} GiB free on the card (there are {free / 2**30:.1f})")

    return check


@pytest.fixture
def several(card):
    """Skips the test where there is one card."""
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")


def pytest_terminal_summary(terminalreporter):
    for line in _told:
        terminalreporter.write_line(line)
