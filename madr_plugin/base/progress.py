"""Tells how far a long step is: a bar with the time that is left on a terminal, a line now and then in a log. Must not know what is counted."""

import sys
import time

EVERY_SEC = 5  # between two lines


class Progress:
    """with Progress('images read', 500) as told: told(64) after each 64. Without a terminal it says nothing of what takes less than EVERY_SEC."""

    def __init__(self, what, total, announce=print):
        self.what, self.total, self.announce = what, total, announce
        self.done, self.start, self.bar = 0, time.monotonic(), None
        self.last = self.start

    def __enter__(self):
        if getattr(sys.stderr, "isatty", bool)():
            try:
                from tqdm import tqdm
            except ImportError:
                return self  # lines do
            self.bar = tqdm(total=self.total, desc=self.what, leave=False, file=sys.stderr)
        return self

    def __exit__(self, *_):
        if self.bar is not None:
            self.bar.close()

    def __call__(self, count=1):
        """Note that so many more are done."""
        self.done += count
        if self.bar is not None:
            self.bar.update(count)
            return
        now = time.monotonic()
        if now - self.last >= EVERY_SEC and self.done < self.total:
            self.last = now
            left = (now - self.start) / self.done * (self.total - self.done)
            self.announce(f"{self.what}: {self.done} / {self.total}, about {left:.0f} s left")
