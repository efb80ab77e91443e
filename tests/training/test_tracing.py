"""--profile: a trace of some steps in the run folder, a table in the log, and a run that is the same but for that."""

import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner

import train
from training import state, tracing
from training.training_loop import training_loop

CPU = torch.device("cpu")


@pytest.fixture
def soon(monkeypatch):
    monkeypatch.setattr(tracing, "WARM_UP_STEPS", 1)


def work(trace, num_steps):
    for _ in range(num_steps):
        trace.begin_step()
        torch.ones(8, 8) @ torch.ones(8, 8)
        trace.end_step()


def test_a_run_with_a_trace_is_the_run_without(tmp_path, loop_options, capfd, soon):
    weights = []
    for name, steps in (("plain", None), ("traced", 2)):
        (tmp_path / name).mkdir()
        options = loop_options(total_kimg=0.024, kimg_per_tick=0.024, network_snapshot_ticks=1)
        training_loop(run_dir=str(tmp_path / name), **{**options, "profile_steps": steps})
        weights.append(state.load_state(state.latest_state(tmp_path / name))["parts"]["G"])
        told = capfd.readouterr()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    assert not (tmp_path / "plain" / tracing.TRACE_FILE).exists()
    assert "Profile of 2 steps: " in told.out and "ms per step" in told.out and "aten::" in told.out and "USDT" not in told.out + told.err
    trace = json.loads((tmp_path / "traced" / tracing.TRACE_FILE).read_text())
    names = [event.get("name") for event in trace["traceEvents"]]
    assert names.count("G: adversarial term") + names.count("G: path length") >= 1 and any("convolution" in str(name) for name in names)
    assert not list((tmp_path / "traced").glob("*.tmp"))


def test_the_trace_has_the_steps_that_were_asked_for(tmp_path, soon):
    said = []
    trace = tracing.StepTrace(2, str(tmp_path), CPU, said.append)
    work(trace, 6)
    trace.close()
    products = [e for e in json.loads((tmp_path / tracing.TRACE_FILE).read_text())["traceEvents"] if e.get("name") == "aten::mm"]
    assert len(products) == 2 and len(said) == 2


def test_a_run_that_ends_early(tmp_path, soon):
    said = []
    trace = tracing.StepTrace(5, str(tmp_path), CPU, said.append)
    work(trace, 3)
    trace.close()
    assert said[0].startswith("Profile of 2 steps") and (tmp_path / tracing.TRACE_FILE).exists()
    said.clear()
    trace = tracing.StepTrace(5, str(tmp_path / "none"), CPU, said.append)
    work(trace, 1)
    trace.close()
    assert said == ["Profile: no trace.json, for this part of the run had 1 steps and the trace begins after 1."]


def test_a_folder_that_cannot_be_written_stops_no_training(tmp_path, soon):
    said = []
    trace = tracing.StepTrace(1, str(tmp_path / "absent"), CPU, said.append)
    work(trace, 4)
    assert len(said) == 1 and "could not be written" in said[0] and "training goes on" in said[0]


def test_the_table_is_by_own_time_and_step():
    events = [SimpleNamespace(key=name, self_cpu_time_total=time, count=4) for name, time in (("small", 1000), ("large", 3000), ("none", 0))]
    lines = tracing.table(events, num_steps=2)
    assert [line.split() for line in lines[1:3]] == [["1.50", "75.0%", "2.0", "large"], ["0.50", "25.0%", "2.0", "small"]]


@pytest.mark.parametrize("value", ["0", "101", "many"])
def test_nonsense_is_refused_in_a_sentence(value):
    result = CliRunner().invoke(train.main, ["--outdir=out", "--data=data", f"--profile={value}"])
    assert result.exit_code == 2 and "--profile" in result.output and value in result.output
