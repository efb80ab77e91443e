"""A trace of some training steps: what PyTorch's profiler saw, as a file for a viewer and as a short table for the log.

Must not know what a step consists of.
"""

import contextlib
import os
import sys

import torch

WARM_UP_STEPS = 20  # of this process, before the traced ones: caches are filled, operators chosen
TRACE_FILE = "trace.json"
COSTLIEST = 10


class StepTrace:
    """Traces num_steps steps after the first WARM_UP_STEPS, once. num_steps None: does nothing. say: where the table goes."""

    def __init__(self, num_steps, run_dir, device, say):
        self.num_steps, self.path, self.device, self.say = num_steps, os.path.join(run_dir, TRACE_FILE), device, say
        self.steps_seen, self._profiler = 0, None

    def begin_step(self):
        """To be called before every step."""
        if self.num_steps is None or self.steps_seen != WARM_UP_STEPS:
            return
        activities = [torch.profiler.ProfilerActivity.CPU]
        if self.device.type == "cuda":
            activities.append(torch.profiler.ProfilerActivity.CUDA)
        self._profiler = torch.profiler.profile(activities=activities)
        with silent_libraries():
            self._profiler.start()

    def end_step(self):
        """To be called after every step. Writes the trace after the last one that is traced."""
        self.steps_seen += 1
        if self._profiler is not None and self.steps_seen == WARM_UP_STEPS + self.num_steps:
            self._finish(self.num_steps)

    def close(self):
        """To be called when the run ends: writes what there is, or says why there is nothing."""
        if self._profiler is not None:
            self._finish(max(self.steps_seen - WARM_UP_STEPS, 1))
        elif self.num_steps is not None and self.steps_seen <= WARM_UP_STEPS:
            self.say(f"Profile: no {TRACE_FILE}, for this part of the run had {self.steps_seen} steps and the trace begins after {WARM_UP_STEPS}.")

    def _finish(self, num_steps):
        profiler, self._profiler = self._profiler, None
        temporary = f"{self.path}.tmp"
        try:
            with silent_libraries():
                profiler.stop()
                profiler.export_chrome_trace(temporary)
            os.replace(temporary, self.path)
        except (OSError, RuntimeError) as error:
            return self.say(f"Profile: {self.path} could not be written ({error}); training goes on without")
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.remove(temporary)
        self.say(f"Profile of {num_steps} steps: {self.path}, for https://ui.perfetto.dev or chrome://tracing")
        self.say("\n".join(table(profiler.key_averages(), num_steps, self.device.type == "cuda")))


def table(events, num_steps, on_gpu=False):
    """The lines of the costliest operators. events: of a profiler's key_averages(); a time is an operator's own, without what it calls."""
    own = {event.key: (event.self_device_time_total if on_gpu else event.self_cpu_time_total, event.count) for event in events}
    total = sum(time for time, _ in own.values()) or 1
    lines = [f"{'ms per step':>12} {'share':>7} {'calls':>8}  operator"]
    for name, (time, calls) in sorted(own.items(), key=lambda item: -item[1][0])[:COSTLIEST]:
        lines.append(f"{time / num_steps / 1000:12.2f} {time / total:7.1%} {calls / num_steps:8.1f}  {name[:90]}")
    return lines


@contextlib.contextmanager
def silent_libraries():
    """Inside, what C++ libraries write to the two streams is dropped: the profiler tells of every tracing point that a system lacks."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(number) for number in (1, 2)]
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        for number in (1, 2):
            os.dup2(nowhere, number)
        yield
    finally:
        for number, copy in zip((1, 2), kept):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nowhere)
