"""benchmarks/gpu.py, as far as a machine without a card can say: its list, its refusal, and its cases on a CPU."""

import json
import time

import pytest
import torch
from click.testing import CliRunner

from benchmarks import gpu, gpu_cases
from torch_utils.ops import plugins


def test_dry_run_lists_every_section():
    result = CliRunner().invoke(gpu.main, ["--dry-run"])
    assert result.exit_code == 0
    for text in (
        "operators: bias_act lrelu, second, bfloat16, channels-last",
        "operators: upfirdn2d shrink, first, float16, contiguous",
        "training step: G+D step, 256 px, 16 images, bfloat16",
        "MADR: ",
        "coverage: ",
        "gpu.md",
    ):
        assert text in result.output


def test_without_a_device_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    result = CliRunner().invoke(gpu.main, [f"--out={tmp_path}"])
    assert result.exit_code == gpu.NO_DEVICE == 3 and result.output == "not run: no CUDA device\n"
    assert list(tmp_path.iterdir()) == []
    for arguments, message in ((["--only=nothing"], "--only=nothing fits no case"), (["--batch=6"], "--batch must be a multiple of 4")):
        result = CliRunner().invoke(gpu.main, arguments)
        assert result.exit_code != 0 and message in result.output


@pytest.fixture
def on_cpu(monkeypatch):
    """The cases in a small size on the CPU, in the CPU's time."""

    def milliseconds(function, calls):
        start = time.perf_counter()
        for _ in range(calls):
            function()
        return (time.perf_counter() - start) * 1000 / calls

    monkeypatch.setattr(gpu, "milliseconds", milliseconds)
    monkeypatch.setattr(gpu_cases, "DEVICE", "cpu")
    monkeypatch.setattr(gpu_cases, "SHAPES", ((2, 4, 8),))
    monkeypatch.setattr(gpu_cases, "WIDTH_OF_NETWORKS", dict(channel_base=64, channel_max=4))
    monkeypatch.setattr(gpu_cases, "REALS", 100)
    monkeypatch.setattr(gpu_cases, "CYCLE", 1)
    monkeypatch.setattr(plugins, "choose", lambda wanted: None)


@pytest.mark.parametrize("only", ["lrelu, second", "shrink, first", "training step: G+D step, 64 px, 4 images, float32", "MADR: ", "coverage: "])
def test_every_case_runs_and_is_told(on_cpu, only):
    cases = [case for case in gpu_cases.all_cases(batch=4) if only in f"{case.section}: {case.name}" and "float16" not in case.name]
    results = gpu.measure_all(cases, rounds=1, calls=1)
    told = [found for rows in results.values() for found in rows.values()]
    assert len(told) == len(cases) > 0 and all(value >= 0 for found in told for value in found.values())
    facts = dict(card="none", driver="none", torch="0", date="2000-01-01")
    text = gpu.as_markdown(dict(machine=facts, results=results))
    assert all(f"| {case.name} | " in text for case in cases) and json.loads(json.dumps(results)) == results


def test_ways_that_compute_something_else_are_not_timed():
    one = torch.ones(4)
    gpu.check_alike(dict(a=lambda: one, b=lambda: one + 1e-5), "float32")
    with pytest.raises(Exception, match="apart, more than rounding"):
        gpu.check_alike(dict(a=lambda: one, b=lambda: one + 0.1), "float32")
    with pytest.raises(Exception, match="apart"):
        gpu.check_alike(dict(a=lambda: one, b=lambda: one * float("nan")), "float32")


def test_a_case_too_large_for_the_card_says_so(monkeypatch):
    def ways():
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    found = gpu.measure_all([gpu_cases.Case("training step", "huge", ways)], rounds=1, calls=1)
    assert found == {"training step": {"huge": "needs more memory than the card has"}}
