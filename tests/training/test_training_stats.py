"""torch_utils.training_stats: what is counted, per Collector; several processes; a restart in the middle of a tick."""

import inspect
import math

import numpy as np
import pytest
import torch

from tests import warm_start
from torch_utils import training_stats


@pytest.fixture(autouse=True)
def clean_slate():
    training_stats.reset()
    yield
    training_stats.reset()


def test_signatures(golden):
    api = golden("api.json")["torch_utils.training_stats"]
    for name in ("init_multiprocessing", "report", "report0"):
        assert str(inspect.signature(getattr(training_stats, name))) == api[name]
    for name, signature in api["Collector"]["methods"].items():
        assert str(inspect.signature(getattr(training_stats.Collector, name))) == signature
    for name in ("_num_moments", "_rank", "_sync_device", "_sync_called"):
        assert repr(getattr(training_stats, name)) == api[name]


def test_mean_and_std_of_everything_reportable():
    collector = training_stats.Collector()
    values = [
        1.5,
        [2, 3],
        np.float32([[4], [5]]),
        torch.tensor([6.0, 7.0], requires_grad=True),
        torch.tensor(8),
        [torch.tensor(9.0), 10.0],
        np.int64(11),
        torch.tensor([12], dtype=torch.float16),
        [],
        torch.zeros(0, 3),
        True,
    ]
    for value in values:
        assert training_stats.report("x", value) is value
    assert training_stats.report0("y", value) is value
    collector.update()
    flat = [1.5, *range(2, 13), 1]
    assert collector.num("x") == len(flat)
    assert collector.mean("x") == pytest.approx(np.mean(flat), rel=1e-12) and collector["x"] == collector.mean("x")
    assert collector.std("x") == pytest.approx(np.std(flat), rel=1e-12)
    assert collector.names() == ["x", "y"]
    stats = collector.as_dict()
    assert stats.x.num == len(flat) and stats["y"] == dict(num=1, mean=1, std=0)


def test_what_is_not_finite_is_forgotten_after_the_update_that_tells_it():
    """ADA reads the mean sign of D's logits every few steps: one nan must not keep it from ever adapting again."""
    often, seldom, alone = (training_stats.Collector(regex) for regex in ("x", ".*", "y"))
    for value in (1.0, [2.0, float("nan")], 3.0):
        training_stats.report("x", value)
        training_stats.report("y", 5.0)
        often.update()
        assert often.num("x") == np.size(value) and (often["x"] == value or math.isnan(often["x"]) == (value not in (1.0, 3.0)))
    state = [training_stats.state_dict(), often.state_dict(), seldom.state_dict()]
    training_stats.reset()
    for part, saved in zip((training_stats, often, seldom), state):
        part.load_state_dict(saved)
    seldom.update()
    alone.update()
    assert seldom.num("x") == 4 and math.isnan(seldom["x"]) and seldom["y"] == alone["y"] == 5
    training_stats.report("x", float("inf"))
    often.update()
    assert often["x"] == float("inf") or math.isnan(often["x"])
    training_stats.report("x", [6.0, 8.0])
    often.update()
    assert (often["x"], often.std("x")) == (7, 1)
    seldom.update()
    assert seldom.num("x") == 3 and not math.isfinite(seldom["x"])


def test_sums_are_float64():
    collector = training_stats.Collector()
    training_stats.report("x", torch.full([10], 16777216.0))
    training_stats.report("x", torch.ones(10))
    collector.update()
    assert collector.mean("x") == (16777216 + 1) / 2
    assert collector.std("x") == pytest.approx((16777216 - 1) / 2, rel=1e-15)


def test_unknown_single_constant_and_not_finite():
    collector = training_stats.Collector()
    assert collector.num("x") == 0 and math.isnan(collector.mean("x")) and math.isnan(collector.std("x"))
    training_stats.report("single", 3)
    training_stats.report("constant", [0.1] * 7)
    training_stats.report("bad", [1, float("inf")])
    training_stats.report("never", [])
    collector.update()
    assert collector.std("single") == 0 and collector.std("constant") < 1e-8
    assert collector.mean("bad") == float("inf") and math.isnan(collector.std("bad"))
    assert collector.as_dict()["never"]["num"] == 0 and math.isnan(collector.mean("never"))


def test_collectors_are_independent():
    training_stats.report("Loss/a", 100)
    every, loss, fresh = training_stats.Collector(), training_stats.Collector(regex="Loss/.*"), training_stats.Collector(keep_previous=False)
    assert every.num("Loss/a") == 0
    training_stats.report("Loss/a", 1)
    training_stats.report("Time/b", 2)
    training_stats.report("xLoss/c", 2)
    loss.update()
    every.update()
    assert loss.names() == ["Loss/a"] and loss.mean("Loss/a") == 1
    assert every.mean("Loss/a") == 1 and every.mean("Time/b") == 2
    training_stats.report("Loss/a", 5)
    fresh.update()
    every.update()
    assert every.mean("Loss/a") == 5 and every.mean("Time/b") == 2
    assert fresh.mean("Loss/a") == 3
    fresh.update()
    every.update()
    assert fresh.num("Loss/a") == 0 and every.num("Loss/a") == 1


def test_report_keeps_no_graph_alive_and_no_alias():
    x = torch.ones(3, requires_grad=True)
    training_stats.report("x", x * 2)
    collector = training_stats.Collector(regex="nothing")
    assert collector.as_dict() == {}
    assert all(not counter.requires_grad for counter in training_stats._counters["x"].values())


def test_reset_leaves_nothing():
    training_stats.init_multiprocessing(rank=1, sync_device=None)
    training_stats.report("x", 1)
    training_stats.Collector()
    with pytest.raises(RuntimeError, match="reset"):
        training_stats.init_multiprocessing(rank=0, sync_device=None)
    training_stats.reset()
    assert training_stats._rank == 0 and not training_stats._sync_called
    assert training_stats.state_dict() == dict(counters={}, cumulative={}, nonfinite={})
    collector = training_stats.Collector()
    training_stats.report("y", 1)
    collector.update()
    assert collector.names() == ["y"]


def test_report0_counts_on_rank_0_only():
    training_stats.init_multiprocessing(rank=1, sync_device=None)
    collector = training_stats.Collector()
    assert training_stats.report0("x", 5) == 5
    collector.update()
    assert collector.names() == ["x"] and collector.num("x") == 0


# ---------------------------------------------------------------------------------------------------------------


def _reports(start, stop):
    for i in range(start, stop):
        training_stats.report("Loss/a", torch.from_numpy(np.random.RandomState(i).randn(13) * 10.0 ** (i % 5)))
        training_stats.report("Loss/b", 0.1 * i)
        if i % 4 == 0:
            training_stats.report("rare", 1 / (1 + i))


def _run(checkpoints, tmp_path):
    """Three ticks of ten steps; before each step in `checkpoints` everything is saved, wiped and restored."""
    training_stats.reset()
    collector = training_stats.Collector()
    lines = []
    for step in range(30):
        if step in checkpoints:
            path = tmp_path / "state.pt"
            torch.save(dict(module=training_stats.state_dict(), collector=collector.state_dict()), path)
            training_stats.reset()
            training_stats.report("Loss/a", 1e9)
            state = torch.load(path, weights_only=True)
            collector = training_stats.Collector()
            training_stats.load_state_dict(state["module"])
            collector.load_state_dict(state["collector"])
        _reports(step, step + 1)
        if step % 10 == 9:
            collector.update()
            lines.append(collector.as_dict())
    return repr(lines)


@pytest.mark.parametrize("checkpoints", [[4], [10], [3, 9, 17, 20, 29], range(30)])
def test_restart_reproduces_every_bit(tmp_path, checkpoints):
    assert _run(checkpoints, tmp_path) == _run([], tmp_path)


def test_state_is_a_copy():
    training_stats.report("x", 1)
    state = training_stats.state_dict()
    training_stats.report("x", 1)
    assert state["counters"]["x"]["cpu"].tolist() == [1, 1, 1]
    training_stats.load_state_dict(state)
    training_stats.report("x", 1)
    assert state["counters"]["x"]["cpu"].tolist() == [1, 1, 1]
    assert training_stats.state_dict()["counters"]["x"]["cpu"].tolist() == [2, 2, 2]


def test_state_of_an_absent_device_goes_to_the_cpu():
    if torch.cuda.is_available():
        pytest.skip("the device is present")
    training_stats.load_state_dict(
        dict(counters={"x": {"cuda:1": torch.tensor([2.0, 4.0, 8.0]), "cpu": torch.tensor([1.0, 1.0, 1.0])}}, cumulative={})
    )
    assert training_stats.state_dict()["counters"]["x"]["cpu"].tolist() == [3, 5, 9]


def _stats_worker(rank, init_file, queue):
    torch.distributed.init_process_group("gloo", init_method=f"file://{init_file}", rank=rank, world_size=2)
    training_stats.init_multiprocessing(rank=rank, sync_device=torch.device("cpu"))
    calls = []
    original = torch.distributed.all_reduce
    torch.distributed.all_reduce = lambda *args, **kwargs: (calls.append(1), original(*args, **kwargs))[1]
    collector = training_stats.Collector()
    # In another order on each rank.
    for name in ["a", "b"] if rank == 0 else ["b", "a"]:
        training_stats.report(name, [1.0, 2.0] if rank == 0 else [6.0])
    training_stats.report0("zero", 10 + rank)
    training_stats.report("uneven", [] if rank == 0 else [4])
    collector.update()
    first = dict(collector.as_dict())
    training_stats.report("a", rank)
    collector.update()
    queue.put((rank, first, collector.mean("a"), len(calls)))
    torch.distributed.destroy_process_group()


def test_two_processes(tmp_path):
    context = warm_start.CONTEXT
    queue = context.Queue()
    workers = [context.Process(target=_stats_worker, args=(rank, tmp_path / "init", queue)) for rank in range(2)]
    for worker in workers:
        worker.start()
    results = sorted((queue.get(timeout=120) for _ in workers), key=lambda result: result[0])
    for worker in workers:
        worker.join(60)
    for _rank, first, second_mean, num_reduces in results:
        assert first["a"] == first["b"] == dict(num=3, mean=3, std=pytest.approx(np.std([1, 2, 6])))
        assert first["zero"] == dict(num=1, mean=10, std=0) and first["uneven"] == dict(num=1, mean=4, std=0)
        assert second_mean == 0.5 and num_reduces == 2
