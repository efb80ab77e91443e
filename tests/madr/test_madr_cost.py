"""The line that says what MADR costs."""

import re
import time

import pytest

from madr_plugin.host import cost
from tests.madr.toy_host import Host, madr_loss


def test_the_meter_counts_its_own_time_in_the_measured_steps_only(monkeypatch):
    clock = iter(range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: float(next(clock)))  # one second per look at the clock
    meter, told = cost.CostMeter("cpu"), []
    for step in range(60):
        with meter.running():
            pass
        told += [step] * meter.step_done()
    assert told == [meter.LAST - 1]
    milliseconds, share = meter.figures()
    assert milliseconds == 1000 and share == pytest.approx(32 / 65)  # two looks per step, one at the end


def test_a_run_tells_its_cost_once(capsys):
    host = Host(madr_loss(dict(capacity=64)))
    for _ in range(60):
        host.step()
    lines = [line for line in capsys.readouterr().out.splitlines() if "costs" in line]
    assert len(lines) == 1
    milliseconds, share, total, *parts = map(float, re.findall(r"\d+\.?\d*", lines[0]))
    assert milliseconds > 0 and 0 < share < 100 and total == pytest.approx(sum(parts), abs=0.2)
    assert all(word in lines[0] for word in ("features of the reals", "memory", "extractor"))


def test_the_cost_is_among_the_hosts_statistics_of_times_and_resources():
    """There no comparison of two runs looks for equal numbers."""
    from torch_utils import training_stats

    collector = training_stats.Collector(regex="(Timing|Resources)/MADR.*")
    host = Host(madr_loss(dict(capacity=64)))
    for _ in range(60):
        host.step()
    collector.update()
    told = {name: entry for name, entry in collector.as_dict().items() if entry["num"]}
    assert set(told) == {"Timing/MADR", "Timing/MADR_share", "Resources/MADR_mib"} and all(entry["num"] == 1 for entry in told.values())
    assert told["Timing/MADR"]["mean"] > 0 and 0 < told["Timing/MADR_share"]["mean"] < 1 and told["Resources/MADR_mib"]["mean"] > 0


def test_memory_is_that_of_the_tensors():
    host = Host(madr_loss(dict(capacity=64)))
    host.step()
    kept = host.loss.engine.kept_tensors()
    assert cost.num_bytes(kept["features of the reals"]) >= 200 * 64 * 4
    assert cost.num_bytes(kept["extractor"]) == (192 * 64 + 192) * 4
    assert cost.num_bytes(kept["memory"]) > 64 * 64 * 4
