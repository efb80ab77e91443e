"""One process at a time: a lock on a file that the operating system takes back when its owner dies.

The lock is the kernel's (flock), so a dead owner can never hold it. What the file says about its owner is for people only.
Must not know what is being protected.
"""

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

try:
    import fcntl
except ImportError:  # Windows: see ProcessLock
    fcntl = None  # type: ignore[assignment]

_POLL_SEC = 0.1
_SILENT_SEC = 1.0


class LockTimeout(Exception):
    """The owner is alive and kept the lock for longer than the limit. `owner` is its process id, 0 if unknown."""

    def __init__(self, path: Path, owner: int) -> None:
        super().__init__(f"{path} is still held by process {owner}")
        self.owner = owner


class ProcessLock:
    """with ProcessLock(path, limit_sec=600, say=print): ...

    A lock whose owner died is taken over at once, and `say` tells so; for a living owner it waits and tells that, up to
    limit_sec. Where the system has no such locks (Windows, some network file systems) the body runs unprotected, so it must be
    correct when two processes run it at once; the lock only saves doing the same work twice.
    """

    def __init__(self, path: str | os.PathLike, limit_sec: float, say: Callable[[str], object]) -> None:
        self.path, self.limit_sec, self.say = Path(path), limit_sec, say
        self._file: TextIO
        self._held = False

    def __enter__(self) -> "ProcessLock":
        self._file = open(self.path, "a+", encoding="ascii", errors="replace")
        try:
            self._acquire()
            former = self._owner()
            if self._held and former and former != os.getpid():
                self.say(f"Removed the stale lock of process {former}, which ended without releasing it ({self.path}).")
            self._write(f"{os.getpid()}\n")
        except BaseException:
            self._file.close()
            raise
        return self

    def fileno(self) -> int:
        """The descriptor of the lock while it is held: a process that inherits it holds the lock as well, until it ends."""
        return self._file.fileno()

    def __exit__(self, *_exception: object) -> None:
        self._write("")
        self._file.close()

    def _acquire(self) -> None:
        start = time.monotonic()
        told = False
        while not self._try():
            waited = time.monotonic() - start
            if waited > self.limit_sec:
                raise LockTimeout(self.path, self._owner())
            if waited > _SILENT_SEC and not told:
                told = True
                self.say(f"Waiting for process {self._owner()}, which is at the same work (at most {self.limit_sec:g} s).")
            time.sleep(_POLL_SEC)

    def _try(self) -> bool:
        """Whether the wait is over: the lock is held, or there are no locks here to be held."""
        if fcntl is None:
            return True
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._held = True
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
        return True

    def _owner(self) -> int:
        self._file.seek(0)
        text = self._file.read(32).strip()
        return int(text) if text.isascii() and text.isdecimal() else 0

    def _write(self, text: str) -> None:
        self._file.seek(0)
        self._file.truncate()
        self._file.write(text)
        self._file.flush()
