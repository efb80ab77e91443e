"""Telling how a run goes: the tick line, stats.jsonl, TensorBoard, W&B; and hearing that it should stop.

Must not know networks, losses or data.
"""

import importlib.util
import json
import os
import signal
import threading
import time

import psutil
import torch

import dnnlib
from dnnlib import console
from dnnlib.errors import UserError
from torch_utils import training_stats


class StopRequest:
    """Turns SIGTERM and SIGINT into a flag that the loop reads between two steps. A second SIGINT interrupts at once.

    Use as a context manager; the previous handlers come back at the end. Outside the main thread, where Python allows no
    handlers, it never fires.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.signal_name = None
        self._interrupted = False
        self._previous = {}

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {signum: signal.signal(signum, self._on_signal) for signum in self.SIGNALS}
        return self

    def __exit__(self, *_exc):
        for signum, handler in self._previous.items():
            signal.signal(signum, handler)

    def _on_signal(self, signum, _frame):
        if signum == signal.SIGINT and self._interrupted:
            raise KeyboardInterrupt
        self._interrupted = self._interrupted or signum == signal.SIGINT
        self.signal_name = signal.Signals(signum).name

    @property
    def requested(self):
        return self.signal_name is not None


class PhaseTimer:
    """Milliseconds of the last run of one phase; on a GPU by events, so that nothing waits for it."""

    def __init__(self, device):
        self.on_cuda = device.type == "cuda"
        self._begin = self._end = None

    def _now(self):
        if not self.on_cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def __enter__(self):
        self._begin, self._end = self._now(), None

    def __exit__(self, *_exc):
        self._end = self._now()

    def milliseconds(self):
        """None as long as the phase has not run."""
        if self._end is None:
            return None
        if self.on_cuda:
            self._end.synchronize()
            return self._begin.elapsed_time(self._end)
        return (self._end - self._begin) * 1000


def tick_line(tick, kimg, total_sec, tick_sec, sec_per_kimg, maintenance_sec, cpu_mem_gb, gpu_mem_gb, augment_p, extra=()):
    """The line of a tick; its fields up to `augment` are parsed by people's scripts. extra: (name, value) pairs behind them."""
    fields = [
        f"tick {tick:<5d}",
        f"kimg {kimg:<8.1f}",
        f"time {dnnlib.util.format_time(total_sec):<12s}",
        f"sec/tick {tick_sec:<7.1f}",
        f"sec/kimg {sec_per_kimg:<7.2f}",
        f"maintenance {maintenance_sec:<6.1f}",
        f"cpumem {cpu_mem_gb:<6.2f}",
        f"gpumem {gpu_mem_gb:<6.2f}",
        f"augment {augment_p:.3f}",
    ]
    return " ".join(fields + [f"{name} {value:.3f}" for name, value in extra])


class Clock:
    """Wall time of a run that may have begun in an earlier process."""

    def __init__(self, elapsed_sec=0.0, maintenance_sec=0.0):
        """maintenance_sec: the part of elapsed_sec that was maintenance and that no tick has told yet."""
        now = time.time()
        self.start, self.tick_start, self.tick_end = now - elapsed_sec, now, now - maintenance_sec
        self.maintenance_sec = maintenance_sec

    def elapsed_sec(self):
        return time.time() - self.start

    def end_tick(self):
        self.tick_end = time.time()

    def begin_tick(self):
        """After the maintenance (snapshots, metrics) that follows a tick."""
        self.tick_start = time.time()
        self.maintenance_sec = self.tick_start - self.tick_end

    def untold_maintenance_sec(self):
        """What the next tick will tell, as far as it has come: the maintenance before this tick, or the one that is going on."""
        return time.time() - self.tick_end if self.tick_end > self.tick_start else self.maintenance_sec


def report_resources(clock, tick_nimg, device):
    """Report timing and memory of the tick that just ended; returns the tick line's values for them."""
    tick_sec, total_sec = clock.tick_end - clock.tick_start, clock.tick_end - clock.start
    values = {
        "Timing/total_sec": total_sec,
        "Timing/sec_per_tick": tick_sec,
        "Timing/sec_per_kimg": tick_sec / max(tick_nimg, 1) * 1000,
        "Timing/maintenance_sec": clock.maintenance_sec,
        "Resources/cpu_mem_gb": psutil.Process(os.getpid()).memory_info().rss / 2**30,
        "Resources/peak_gpu_mem_gb": torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else 0.0,
    }
    for name, value in values.items():
        training_stats.report0(name, value)
    training_stats.report0("Timing/total_hours", total_sec / 3600)
    training_stats.report0("Timing/total_days", total_sec / 86400)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    return dict(
        total_sec=total_sec,
        tick_sec=tick_sec,
        sec_per_kimg=values["Timing/sec_per_kimg"],
        maintenance_sec=clock.maintenance_sec,
        cpu_mem_gb=values["Resources/cpu_mem_gb"],
        gpu_mem_gb=values["Resources/peak_gpu_mem_gb"],
    )


def check_wandb():
    """Refuse before anything is written."""
    if importlib.util.find_spec("wandb") is None:
        raise UserError("--wandb needs the package wandb: pip install wandb, or leave --wandb out")


class StatsWriter:
    """stats.jsonl, TensorBoard events and, if asked for, W&B; on rank 0 only. Closed with close()."""

    def __init__(self, run_dir, resume_bytes=None, start_kimg=0, wandb_project=None, options=None):
        """resume_bytes: length of stats.jsonl at the resumed state; later lines will be produced again and are cut off."""
        path = os.path.join(run_dir, "stats.jsonl")
        self._jsonl = open(path, "a" if resume_bytes is not None else "w")
        if resume_bytes is not None and self._jsonl.tell() > resume_bytes:
            self._jsonl.truncate(resume_bytes)
            self._jsonl.seek(resume_bytes)
        self._tensorboard = self._open_tensorboard(run_dir, start_kimg if resume_bytes is not None else None)
        self._wandb = self._open_wandb(wandb_project, run_dir, options) if wandb_project else None

    @staticmethod
    def _open_tensorboard(run_dir, purge_kimg):
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            console.note("no TensorBoard events will be written: pip install tensorboard")
            return None
        try:
            os.path.abspath(run_dir).encode()
        except UnicodeEncodeError:  # bytes that are no text: TensorBoard would raise
            console.note(f"no TensorBoard events will be written: the name of {run_dir} is no UTF-8; all curves are in stats.jsonl and report.html")
            return None
        return SummaryWriter(run_dir, purge_step=None if purge_kimg is None else int(purge_kimg * 1e3) + 1)

    @staticmethod
    def _open_wandb(project, run_dir, options):
        import wandb

        return wandb.init(project=project, dir=run_dir, name=os.path.basename(os.path.abspath(run_dir)), config=options, resume="allow")

    def bytes_written(self):
        return self._jsonl.tell()

    def write(self, stats, cur_nimg, elapsed_sec):
        """One tick. stats: {name: {num, mean, std}}."""
        self._jsonl.write(json.dumps({**stats, "timestamp": time.time()}) + "\n")
        self._jsonl.flush()
        self.write_scalars({name: value["mean"] for name, value in stats.items()}, cur_nimg, elapsed_sec)

    def write_scalars(self, scalars, cur_nimg, elapsed_sec):
        """For curves only, e.g. {'Metrics/fid50k_full': 12.3}."""
        if self._tensorboard is not None:
            for name, value in scalars.items():
                self._tensorboard.add_scalar(name, value, global_step=int(cur_nimg), walltime=time.time())
            self._tensorboard.flush()
        if self._wandb is not None:
            self._wandb.log(dict(scalars), step=int(cur_nimg))

    def close(self):
        self._jsonl.close()
        if self._tensorboard is not None:
            self._tensorboard.close()
        if self._wandb is not None:
            self._wandb.finish()
