"""One process per run folder: two that train in one would write each other's snapshots and statistics.

The lock is the kernel's, on the folder itself: no file of its own, and a dead process holds none. Where a system has no such locks
(Windows, some network file systems) nothing is refused. Must not know what a run is.
"""

import contextlib
import errno
import os

from dnnlib.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextlib.contextmanager
def held(run_dir: str | os.PathLike):
    """Inside: no other process gets this lock. Raises UserError where another one has it."""
    if fcntl is None:
        yield
        return
    descriptor = os.open(run_dir, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EAGAIN, errno.EACCES):
                raise UserError(f"{run_dir} is being trained by another process; wait for it or stop it, or start another run") from None
        yield
    finally:
        os.close(descriptor)
