"""What long computations show of themselves, and what is left of them when they are interrupted."""

import io
import json
import sys

import pytest

import calc_metrics
from dnnlib import cli, console
from metrics import kernels, metric_main, progress
from metrics.metric_utils import MetricOptions


class Clock:
    """Stands in for time: every look at it takes `step` seconds."""

    def __init__(self, step):
        self.now, self.step = 0.0, step

    def monotonic(self):
        self.now += self.step
        return self.now


def test_slow_items_are_told_every_half_minute(monkeypatch, capsys):
    monkeypatch.setattr(progress, "time", Clock(console.LINE_INTERVAL_SEC / 10))
    monitor = progress.ProgressMonitor(tag="generator features", num_items=100, verbose=True)
    for done in range(1, 51):
        monitor.update(done)
    lines = capsys.readouterr().out.splitlines()
    assert 2 <= len(lines) < 25 and all(" left " in line for line in lines)


@pytest.mark.parametrize("seconds, is_shown", [(0.001, False), (5, True)])
def test_a_stage_of_a_moment_shows_nothing(monkeypatch, capsys, seconds, is_shown):
    monkeypatch.setattr(progress, "time", Clock(seconds))
    opts = MetricOptions(device="cpu", progress=progress.ProgressMonitor(verbose=True))
    update = opts.stage("kernel distance", 3)
    for done in (1, 2, 3):
        update(done)
    assert ("kernel distance" in capsys.readouterr().out) is is_shown


def test_the_kernel_distance_tells_how_far_it_is():
    import numpy as np

    rng, told = np.random.default_rng(0), []
    kernels.kernel_distance(rng.normal(size=(20, 3)), rng.normal(size=(20, 3)), 5, 10, rng, told.append)
    assert told == [1, 2, 3, 4, 5]


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_bars_end_where_the_work_is_interrupted(monkeypatch):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    with pytest.raises(KeyboardInterrupt), progress.bars_ended():
        monitor = progress.ProgressMonitor(tag="dataset features", num_items=10, verbose=True)
        monitor.update(3)
        raise KeyboardInterrupt
    assert "dataset features" in terminal.getvalue() and terminal.getvalue().endswith("\n")


def test_an_interrupted_evaluation_keeps_the_metrics_that_were_done(monkeypatch, capfd, tiny_zip, detector_file):
    def interrupted(opts):
        raise KeyboardInterrupt

    interrupted.__name__ = "breaks_off"
    monkeypatch.setitem(
        metric_main._metrics,
        "breaks_off",
        metric_main.rows.Metric("breaks_off", lambda *_: interrupted(None), "", metric_main.rows.Group.OWN, takes=metric_main.rows.Takes.IMAGES),
    )
    path = tiny_zip(num_images=30)
    code = cli.call(
        calc_metrics.main,
        [
            "--fakes",
            path,
            "--reals",
            path,
            "--metrics=fid50k_full,breaks_off",
            "--device=cpu",
            "--verbose=0",
            f"--detector=inception={detector_file}",
        ],
    )
    out, err = capfd.readouterr()
    assert code == cli.EXIT_INTERRUPTED and json.loads(out)["metric"] == "fid50k_full"
    assert "Traceback" not in err and err.strip().endswith(cli.INTERRUPTED)
