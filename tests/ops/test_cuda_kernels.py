"""What Python says and does about the CUDA kernels, on machines with a card and without."""

import pytest
import torch

from torch_utils import custom_ops
from torch_utils.ops import cpu_kernels, cuda_kernels, plugins


def test_every_source_is_there_with_the_headers_that_it_includes():
    for source in cuda_kernels.sources():
        for line in source.read_text().splitlines():
            if line.startswith('#include "'):
                assert (source.parent / line.split('"')[1]).is_file(), line


def test_both_operators_have_a_row():
    for name in plugins.OPERATORS:
        assert plugins.ROWS[name, "cuda"] == "torch_utils.ops.cuda_kernels"


def test_formats_are_numbered_alike_on_both_sides():
    text = (cuda_kernels.sources()[0].parent / "kernel_launch.h").read_text()
    assert "enum class Format : int { kFloat64, kFloat32, kFloat16, kBFloat16 };" in text
    assert set(cuda_kernels.DTYPES) == {torch.float64, torch.float32, torch.float16, torch.bfloat16}


def test_both_devices_know_the_same_activations():
    assert list(cuda_kernels.bind(None).activations()) == list(cpu_kernels.bind(None).activations())


@pytest.mark.parametrize("is_whole", [True, False])
def test_half_a_toolkit_is_told_as_such(tmp_path, monkeypatch, is_whole):
    """A link or script named nvcc leads PyTorch to a folder without the rest; compiling there fails after a minute."""
    (tmp_path / "include").mkdir()
    if is_whole:
        (tmp_path / "include" / "cuda_runtime.h").write_text("")
    monkeypatch.setattr(custom_ops, "cuda_home", lambda: str(tmp_path))
    monkeypatch.setattr(custom_ops, "_ninja_folder", lambda: "/bin")
    monkeypatch.setattr(custom_ops.shutil, "which", lambda name, path=None: f"/bin/{name}")
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    lack = custom_ops.missing_tools(needs_cuda=True)
    if is_whole:
        assert lack is None
    else:
        assert "is no whole CUDA toolkit" in lack[0] and lack[1] == "set CUDA_HOME to the toolkit's folder"
    assert custom_ops.missing_tools(needs_cuda=False) is None
