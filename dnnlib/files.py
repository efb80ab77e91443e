"""Files that are either the old one or the new one, never half of each.

Holds the atomic writer that everything in the project saves through, and the broom for what killed processes left
behind; and the trial whether a folder can be written to. Must not know what is written.
"""

import contextlib
import errno
import hashlib
import io
import os
import re
import socket
import sys
import tempfile
import uuid
from collections.abc import Iterator
from typing import IO, Any, Union

from .errors import UserError

PathLike = Union[str, "os.PathLike[str]"]

_STALE_NAME = re.compile(r"^\..*\.tmp-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}$")
_NO_SPACE = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def make_writable(folder: PathLike) -> None:
    """Make the folder and try to write there: now rather than after the work. Raises OSError."""
    os.makedirs(folder, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):
        pass


class _ErrorKeepingFile(io.FileIO):
    """A raw file that remembers its first failed write.

    Serialisers such as torch.save turn a full disk into an unrelated RuntimeError; without the memory here the person
    would never learn the cause.
    """

    write_error: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.write_error = self.write_error or error
            raise


def _host_tag() -> str:
    # A process id means something on its own host only; run folders often lie on a shared file system.
    return hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]


def _temporary_path(target: str) -> str:
    folder, name = os.path.split(target)
    # File systems allow 255 bytes; the marks take 36 of them.
    return os.path.join(folder, f".{name[:200]}.tmp-{_host_tag()}-{os.getpid()}-{uuid.uuid4().hex[:8]}")


def _cannot_write(path: str, error: OSError) -> UserError:
    folder = os.path.dirname(path) or "."
    if error.errno in _NO_SPACE:
        remedy = "free some space on that disk (or raise the quota), or choose another folder"
    elif isinstance(error, PermissionError) or error.errno == errno.EROFS:
        remedy = f"check that you may write into {folder}, or choose another folder"
    elif isinstance(error, FileNotFoundError):
        remedy = f"create the folder {folder} first"
    elif isinstance(error, (NotADirectoryError, IsADirectoryError)):
        remedy = "choose a path that is not taken by something of another kind"
    else:
        remedy = "check the disk, or choose another folder"
    return UserError(f"Cannot write {path}: {error.strerror or error}; {remedy}.")


def _sync_folder(folder: str) -> None:
    # Without this a power cut may undo the rename although the data is on the disk. Windows cannot open folders.
    if sys.platform == "win32":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:
        return  # a folder that may be written but not listed
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # network file systems that lack it
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def atomic_open(path: PathLike, mode: str = "wb") -> Iterator:
    """Open `path` for writing so that a reader sees the former file until the block has ended without an error.

    The data goes to a hidden file in the same folder, is forced to the disk and then takes the name. When the block
    raises, the hidden file is removed and the former file stays. Modes: 'wb', and 'w' for UTF-8 text, in
    which a file name's bytes that are no UTF-8 appear as \\udcff.
    """
    if mode not in ("wb", "w"):
        raise ValueError(f"atomic_open writes whole files: mode must be 'wb' or 'w' (got {mode!r})")
    target = os.path.realpath(os.fspath(path))  # so that a symbolic link stays one
    if os.path.isdir(target):
        raise UserError(f"Cannot write {target}: it is a folder; give the name of a file.")
    temporary = _temporary_path(target)
    try:
        raw = _ErrorKeepingFile(temporary, "wb")
    except OSError as error:
        raise _cannot_write(target, error) from error
    buffered = io.BufferedWriter(raw, buffer_size=1 << 20)
    stream: IO = io.TextIOWrapper(buffered, encoding="utf-8", errors="backslashreplace", newline="\n") if mode == "w" else buffered
    try:
        yield stream
        try:
            stream.flush()
            os.fsync(raw.fileno())
            stream.close()
            os.replace(temporary, target)
            _sync_folder(os.path.dirname(target))
        except OSError as error:
            raise _cannot_write(target, error) from error
    except BaseException as error:
        _discard(stream, temporary)
        if raw.write_error is not None and not isinstance(error, UserError):
            raise _cannot_write(target, raw.write_error) from error
        raise


def _discard(stream: IO, temporary: str) -> None:
    # Closing flushes once more, which fails again on a full disk; the first error is the one to report.
    with contextlib.suppress(OSError, ValueError):
        stream.close()
    with contextlib.suppress(FileNotFoundError):
        os.unlink(temporary)


def atomic_write_bytes(path: PathLike, data: bytes) -> None:
    """Write a whole binary file atomically."""
    with atomic_open(path, "wb") as file:
        file.write(data)


def atomic_write_text(path: PathLike, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    with atomic_open(path, "w") as file:
        file.write(text)


def _process_is_alive(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # signal 0 would end the process there; leaving a stale file is the lesser harm
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def clean_stale_temporaries(folder: PathLike) -> list[str]:
    """Remove the hidden files that killed writers of this host left in `folder`; returns the removed paths.

    Files of living processes and of other hosts are left alone.
    """
    removed = []
    for name in sorted(os.listdir(folder)):
        match = _STALE_NAME.match(name)
        if match is None or match["host"] != _host_tag() or _process_is_alive(int(match["pid"])):
            continue
        path = os.path.join(os.fspath(folder), name)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            removed.append(path)
    return removed
