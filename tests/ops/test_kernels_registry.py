"""When a kernel is used: the registry, the switches, and machines on which nothing can be compiled."""

import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

from dnnlib.errors import UserError
from torch_utils import custom_ops
from torch_utils.ops import bias_act, cpu_kernels, plugins, upfirdn2d

HEADERS = ("activations.h", "cpu_tools.h")


@pytest.fixture
def nothing_bound(monkeypatch):
    """A process that has not asked for a kernel yet, where they are allowed."""
    monkeypatch.setenv("MADR_KERNELS", "auto")
    monkeypatch.setattr(plugins, "_bound", {})
    monkeypatch.setattr(plugins, "_wanted", True)
    monkeypatch.setattr(custom_ops, "_outcomes", {})
    monkeypatch.setattr(custom_ops, "_explained", False)


def test_every_row_leads_to_sources(repo):
    for (operator, device_type), name in plugins.ROWS.items():
        assert operator in plugins.OPERATORS and device_type in ("cpu", "cuda")
        module = __import__(name, fromlist=["sources"])
        assert all(path.is_file() for path in module.sources()) and module.DTYPES and module.PLUGIN
        assert isinstance(module.build_options(), dict)
    page = (repo / "docs" / "kernels.md").read_text(encoding="utf-8")
    for operator, device_type in plugins.ROWS:
        assert f"| {operator} | {device_type} |" in page
    assert list(bias_act.activation_funcs) == list(cpu_kernels._KINDS)


def test_what_is_asked_for_decides(nothing_bound, monkeypatch):
    kernel = SimpleNamespace(DTYPES=(torch.float32,))
    monkeypatch.setattr(plugins, "_bound", {"torch_utils.ops.cpu_kernels": kernel})
    x = torch.zeros(2, 3)
    assert plugins.find("bias_act", "cuda", x) is plugins.find("upfirdn2d", "cuda", torch.nn.Parameter(x)) is kernel
    assert plugins.find("bias_act", "ref", x) is None
    assert plugins.find("bias_act", "cuda", x.half()) is None
    assert plugins.find("bias_act", "cuda", x.to("meta")) is None
    assert plugins.find("other", "cuda", x) is None
    assert plugins.describe("bias_act", "cpu") == "compiled kernel" and plugins.in_use("cpu")
    assert "no compiled kernel exists for it on mps" in plugins.describe("bias_act", "mps")

    class Subclass(torch.Tensor):
        pass

    assert plugins.find("bias_act", "cuda", x.as_subclass(Subclass)) is None
    plugins.choose(False)
    assert plugins.find("bias_act", "cuda", x) is None and "switched off" in plugins.describe("bias_act", "cpu") and not plugins.in_use("cpu")
    plugins.choose(True)
    monkeypatch.setenv("MADR_KERNELS", "off")
    assert plugins.find("bias_act", "cuda", x) is None and "MADR_KERNELS=off" in plugins.describe("bias_act", "cpu")
    assert plugins.prepare("cpu") is False
    monkeypatch.setenv("MADR_KERNELS", "yes")
    with pytest.raises(UserError, match="MADR_KERNELS='yes' in the environment; it must be auto or off"):
        plugins.find("bias_act", "cuda", x)


def test_other_tools_never_build_nor_speak(nothing_bound, monkeypatch, capsys):
    monkeypatch.setattr(custom_ops, "get_plugin", lambda *_, **__: pytest.fail("built"))
    x = torch.randn(1, 2, 4, 4)
    assert torch.equal(bias_act.bias_act(x, act="lrelu"), bias_act.bias_act(x, act="lrelu", impl="ref"))
    assert upfirdn2d.upsample2d(x, upfirdn2d.setup_filter([1, 3, 3, 1])).shape == (1, 2, 8, 8)
    assert "not built yet" in plugins.describe("bias_act", "cpu")
    assert capsys.readouterr() == ("", "")


def test_without_a_compiler_training_is_told_once(nothing_bound, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert not plugins.prepare("cpu") and not plugins.prepare("cpu")
    told = capsys.readouterr().out
    assert (
        told.count("\n") == 1 and told.startswith('Setting up PyTorch plugin "cpu_ops_plugin"... Failed! No C++ compiler') and "install one" in told
    )
    x = torch.randn(2, 3)
    assert torch.equal(bias_act.bias_act(x, act="lrelu"), bias_act.bias_act(x, act="lrelu", impl="ref"))
    assert plugins.prepare("mps")  # no row, nothing to build


def test_headers_change_the_build(tmp_path, monkeypatch):
    for source in cpu_kernels.sources():
        (tmp_path / source.name).write_bytes(source.read_bytes())
    for name in HEADERS:
        (tmp_path / name).write_bytes((cpu_kernels.sources()[0].parent / name).read_bytes())
    digest = lambda: custom_ops._digest([tmp_path / source.name for source in cpu_kernels.sources()], cpu_kernels.build_options())
    before = digest()
    assert before == digest()
    with open(tmp_path / "activations.h", "a") as file:
        file.write("// changed\n")
    assert digest() != before


def test_kernels_on_in_another_process(cpu_kernels, repo):
    """What is built is taken at once, by any program, without the compiler."""
    program = "import torch; from torch_utils.ops import bias_act, plugins; bias_act.bias_act(torch.ones(2, 3)); print(plugins.in_use('cpu'))"
    done = subprocess.run([sys.executable, "-c", program], cwd=repo, capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.returncode) == ("True\n", 0), done.stderr
