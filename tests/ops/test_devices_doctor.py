"""Devices by name, the seam for compiled kernels, and the report."""

import os
import platform
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner

import doctor
from dnnlib import cli
from dnnlib.errors import UserError
from torch_utils import devices
from torch_utils.ops import bias_act, upfirdn2d


def test_device_names(monkeypatch):
    assert list(devices.DEVICE_NAMES) == list(cli.DEVICE_NAMES)
    assert devices.resolve("cpu") == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(devices, "mps_available", lambda: False)
    assert devices.resolve("auto") == torch.device("cpu")
    for name, message in [
        ("cuda", "--device=cuda was asked for, but .*; use --device=auto"),
        ("mps", "--device=mps needs an Apple GPU"),
        ("tpu", "--device must be one of auto, cuda, mps, cpu .got 'tpu'."),
        ("cuda:x", "--device must be"),
        ("cpu:1", "--device must be"),
        ("", "--device must be"),
    ]:
        with pytest.raises(UserError, match=message):
            devices.resolve(name)
    monkeypatch.setattr(devices, "mps_available", lambda: True)
    assert devices.resolve("auto") == devices.resolve("mps") == torch.device("mps")


def test_cuda_is_preferred_and_its_index_checked(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert devices.resolve("auto") == devices.resolve("cuda") == torch.device("cuda")
    assert devices.resolve("cuda:1") == torch.device("cuda:1")
    with pytest.raises(UserError, match="cuda:2 does not exist: this machine shows 2"):
        devices.resolve("cuda:2")


def test_kept_memory_is_not_faulted_in_again(repo):
    """Tensors of 80 MB in all, made and freed over and over: after the call they cost no page faults."""
    program = """
import resource, torch
from torch_utils import devices
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(6):
        tensors = [torch.ones(5 * 2**20) for _ in range(4)]
        del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
ordinary, had_effect = faults(), devices.keep_freed_memory()
faults()
print(had_effect, faults() < max(ordinary, 4096) / 10)
"""
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "LD_PRELOAD"))}
    result = subprocess.run([sys.executable, "-c", program], cwd=repo, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() in (("True True",) if platform.libc_ver()[0] == "glibc" else ("False True", "False False"))


def test_memory_is_left_alone_without_glibc(monkeypatch):
    monkeypatch.setattr(platform, "libc_ver", lambda: ("", ""))
    assert devices.keep_freed_memory() is False


def test_half_precision_on_cuda_alone():
    assert [devices.supports_fp16(name) for name in ("cuda", "cuda:1", "cpu", "mps")] == [True, True, False, False]
    assert devices.supports_fp16(torch.device("cuda", 0))


@pytest.mark.parametrize("impl", ["ref", "cuda"])
def test_both_names_work_without_a_kernel(impl):
    x = torch.randn(1, 2, 6, 6)
    assert torch.equal(bias_act.bias_act(x, torch.ones(2), act="lrelu", impl=impl), bias_act.bias_act(x, torch.ones(2), act="lrelu"))
    f = upfirdn2d.setup_filter([1, 3, 3, 1])
    for function in (upfirdn2d.filter2d, upfirdn2d.upsample2d, upfirdn2d.downsample2d):
        assert torch.equal(function(x, f, impl=impl), function(x, f))


def test_report_names_what_a_bug_report_needs(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("HOME_OF_SECRETS", "hunter2")
    result = CliRunner().invoke(doctor.main)
    assert result.exit_code == 0, result.output
    assert "failed" not in result.output and "hunter2" not in result.output
    for title, _gather in doctor.SECTIONS:
        assert f"[{title}]" in result.output
    for text in (
        torch.__version__,
        sys.version.split()[0],
        "GiB free",
        "--device=auto is",
        "OMP_NUM_THREADS",
        "C++ compiler",
        "ninja",
        "bias_act",
        "upfirdn2d",
        "threads",
        "\nonnx ",
        "\nonnxscript ",
        "\nonnxruntime ",
    ):
        assert text in result.output, text


def test_report_survives_what_is_broken(monkeypatch):
    def broken():
        yield "begun", "fine"
        raise ImportError("libcudart.so.99: cannot open\nmore")

    monkeypatch.setattr(doctor, "SECTIONS", (("broken", broken), ("after", lambda: [("still", "here")])))
    output = CliRunner().invoke(doctor.main).output
    assert "failed             ImportError: libcudart.so.99: cannot open\n" in output and "more" not in output and "still              here" in output


def test_report_from_any_folder_without_tools(tmp_path, repo):
    environment = {**os.environ, "PATH": str(tmp_path)}
    result = subprocess.run([sys.executable, str(repo / "doctor.py")], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0 and result.stderr == ""
    assert "C++ compiler       not found" in result.stdout and "cannot be built: no C++ compiler" in result.stdout


def test_helpers_of_the_report(tmp_path, monkeypatch):
    monkeypatch.setattr("pathlib.Path.home", lambda: tmp_path)
    assert doctor.shorten_home(f"{tmp_path}/cache") == "~/cache"
    assert doctor.folder_state(tmp_path).startswith("writable") and doctor.folder_state(tmp_path / "a" / "b").startswith("not made yet")
    (tmp_path / "file").write_text("")
    assert doctor.folder_state(tmp_path / "file").startswith("is no folder")
    script = tmp_path / "tool"
    script.write_text("#!/bin/sh\necho; echo tool; echo tool release 7\n")
    script.chmod(0o755)
    assert doctor.program_version(str(script)) == f"{script}: tool release 7"
    assert doctor.program_version("no-such-program") == "not found"
