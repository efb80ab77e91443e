"""How long a study will still take, from the runs that have finished; and what the person sees of it.

Must not know folders or commands.
"""

import heapq
import sys
import time
from collections.abc import Mapping, Sequence

from dnnlib.util import format_time
from experiments.study import Row

LINE_INTERVAL_SEC = 600.0  # between the lines that tell how far running runs are, where no terminal shows bars


def expected_seconds(row: Row, finished: Mapping[Row, float]) -> float | None:
    """Seconds that a run should take: the mean of those finished of its bed and method, else of its bed, else of all; None without any."""
    alike = [
        [seconds for other, seconds in finished.items() if (other.bed, other.method) == (row.bed, row.method)],
        [seconds for other, seconds in finished.items() if other.bed == row.bed],
        list(finished.values()),
    ]
    return next((sum(group) / len(group) for group in alike if group), None)


def seconds_left(waiting: Sequence[Row], running: Mapping[Row, float], finished: Mapping[Row, float], jobs: int) -> float | None:
    """Seconds until the last run ends; None as long as none has finished.

    running: {run: share that it has done}. Each of `jobs` places takes the next waiting run when it is free, as the engine does.
    """
    if not finished:
        return None
    free = sorted((1 - min(share, 1.0)) * (expected_seconds(row, finished) or 0.0) for row, share in running.items())
    free = [0.0] * max(jobs - len(free), 0) + free
    heapq.heapify(free)
    for row in waiting:
        heapq.heapreplace(free, free[0] + (expected_seconds(row, finished) or 0.0))
    return max(free)


class Board:
    """Tells how a study goes: bars at a terminal, lines in a log. share(row): how much of a running run is done."""

    def __init__(self, waiting, finished, total, jobs, share, stream=None):
        self.waiting, self.finished, self.total, self.jobs, self.share = list(waiting), dict(finished), total, jobs, share
        self.running, self.done, self.failed = {}, total - len(self.waiting), 0
        self.stream = stream or sys.stderr
        self.bars = self._open_bars() if self.stream.isatty() else None
        self.told = time.monotonic()

    def _open_bars(self):
        from tqdm import tqdm

        shown = dict(file=self.stream, dynamic_ncols=True, leave=False)
        whole = tqdm(total=self.total, initial=self.done, position=0, bar_format="{bar} {n_fmt}/{total_fmt} runs{postfix}", **shown)
        single = [tqdm(total=1.0, position=place + 1, bar_format="{desc} {bar} {percentage:3.0f}%", **shown) for place in range(self.jobs)]
        return [whole, *single]

    def begin(self, row):
        """A run is being worked on from now on."""
        self.waiting.remove(row)
        self.running[row] = time.monotonic()
        self.say(f"{row}: begun")

    def end(self, row, kind, told="", seconds=None, is_done=False):
        """It is not any more. seconds: how long the whole run took, where it finished and that is known."""
        self.running.pop(row, None)
        self.done += is_done
        if seconds is not None:
            self.finished[row] = seconds
        self.say(f"{row}: {kind}{f' ({told})' if told else ''}; {self.state()}")

    def state(self):
        """How many runs are done, and what is left."""
        left = seconds_left(self.waiting, {row: self.share(row) for row in self.running}, self.finished, self.jobs)
        if not self.waiting and not self.running:
            return f"{self.done} of {self.total} runs done"
        return f"{self.done} of {self.total} runs done, {'time left not known yet' if left is None else f'about {format_time(left)} left'}"

    def say(self, text):
        """A line above the bars, or in the log."""
        if self.bars is None:
            print(text, file=self.stream, flush=True)
        else:
            self.bars[0].write(text, file=self.stream)
            self.look()

    def look(self):
        """Bring the bars up to date; in a log a line per running run now and then."""
        if self.bars is not None:
            self._draw()
        elif time.monotonic() - self.told >= LINE_INTERVAL_SEC:
            self.told = time.monotonic()
            shares = ", ".join(f"{row} {self.share(row):.0%}" for row in self.running)
            print(f"running: {shares}; {self.state()}", file=self.stream, flush=True)

    def _draw(self):
        whole, *single = self.bars
        whole.n = self.done
        whole.set_postfix_str(self.state().partition(", ")[2], refresh=True)
        for bar, row in zip(single, [*self.running, *[None] * len(single)]):
            bar.n = self.share(row) if row else 0.0
            bar.set_description_str(str(row or "free"), refresh=True)

    def close(self):
        for bar in self.bars or []:
            bar.close()
