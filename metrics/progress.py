"""Showing how far a long computation is: a bar on a terminal, lines with the expected time otherwise, or a callback.

Must not know what is being computed.
"""

import contextlib
import sys
import time
import weakref

from tqdm import tqdm

from dnnlib import console
from dnnlib.util import format_time

_told = set()


def warn(text):
    """Say what may spoil a number; a text that comes again, at every snapshot of a run, is said once."""
    if text not in _told:
        _told.add(text)
        console.warn(text)


_bars = weakref.WeakSet()


@contextlib.contextmanager
def bars_ended():
    """Close the bars that an interruption or an error leaves behind, so that what is said next has a line of its own."""
    try:
        yield
    finally:
        for bar in list(_bars):
            bar.close()
        _bars.clear()


class ProgressMonitor:
    """Reports `update(number of finished items)` of one named task.

    verbose: print (a bar when standard output is a terminal, else a line every `flush_interval` items, or half a minute if these
    are slow).
    progress_fn(cur, total): also called, with `cur` running from pfn_lo to pfn_hi; total is pfn_total.
    """

    after_sec = 0.0  # nothing is shown of a task that takes less

    def __init__(self, tag=None, num_items=None, flush_interval=1000, verbose=False, progress_fn=None, pfn_lo=0, pfn_hi=1000, pfn_total=1000):
        self.tag, self.num_items = tag, num_items
        self.flush_interval, self.verbose = flush_interval, verbose
        self.progress_fn = progress_fn
        self.pfn_lo, self.pfn_hi, self.pfn_total = pfn_lo, pfn_hi, pfn_total
        self._started = self._printed_at = time.monotonic()
        self._printed_items = 0
        self._bar = None
        self._report(share=0)

    def _report(self, share):
        if self.progress_fn is not None:
            self.progress_fn(self._position(share), self.pfn_total)

    def _position(self, share):
        """Where the callback's counter stands when this share of the task is done."""
        return self.pfn_lo + (self.pfn_hi - self.pfn_lo) * share

    def update(self, cur_items):
        """Tell that so many items are finished, counted from the start of the task."""
        if self.num_items:
            self._report(min(cur_items / self.num_items, 1))
        if self.verbose and self.tag is not None:
            self._show(cur_items, done=self.num_items is not None and cur_items >= self.num_items)

    def _show(self, cur_items, done):
        if self._bar is None and time.monotonic() - self._started < self.after_sec:
            return
        if sys.stdout.isatty():
            if self._bar is None:
                self._bar = tqdm(desc=self.tag, total=self.num_items, file=sys.stdout, dynamic_ncols=True)
                _bars.add(self._bar)
            self._bar.update(cur_items - self._bar.n)
            if done:
                self._bar.close()
        elif done or self._is_due(cur_items):
            self._print_line(cur_items)

    def _is_due(self, cur_items):
        if self.flush_interval is None or cur_items >= self._printed_items + self.flush_interval:
            return True
        return time.monotonic() - self._printed_at >= console.LINE_INTERVAL_SEC

    def _print_line(self, cur_items):
        now = time.monotonic()
        per_item_ms = (now - self._printed_at) / max(cur_items - self._printed_items, 1) * 1e3
        line = f"{self.tag:<22s} items {cur_items:<7d} time {format_time(now - self._started):<11s} ms/item {per_item_ms:<8.2f}"
        if self.num_items and cur_items:
            left_sec = (now - self._started) * max(self.num_items - cur_items, 0) / cur_items
            line += f" of {self.num_items:<7d} left {format_time(left_sec)}"
        print(line, flush=True)
        self._printed_at, self._printed_items = now, cur_items

    def sub(self, tag=None, num_items=None, flush_interval=1000, rel_lo=0, rel_hi=1):
        """A monitor for a part of this task, which fills the share rel_lo..rel_hi of its range."""
        part = dict(tag=tag, num_items=num_items, flush_interval=flush_interval)
        counter = dict(pfn_lo=self._position(rel_lo), pfn_hi=self._position(rel_hi), pfn_total=self.pfn_total)
        return ProgressMonitor(verbose=self.verbose, progress_fn=self.progress_fn, **part, **counter)
