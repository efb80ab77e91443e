"""What a tool says at a terminal: errors, warnings and notes, alike in every tool; progress; and what --quiet leaves.

Errors, warnings and notes go to stderr, within the width of the terminal; in a training run they stand in log.txt, too. Must not
know any command, nor import torch.
"""

import contextlib
import shutil
import sys
import textwrap
import time

from dnnlib.util import format_time

# Seconds between the lines of progress where no terminal shows a bar: a log should show that the work goes on, and not be full of it.
LINE_INTERVAL_SEC = 30.0

_silenced: "list[_Silenced]" = []  # the stream that --quiet put in the place of stdout; empty without --quiet
_told: list[str] = []  # sentences of this command that no log file has got yet


# ------------------------------------------------------------------------------------------
# Sentences.


def error(text):
    """Say why the command ends."""
    _tell("Error", text)


def warn(text):
    """Say what may spoil the result."""
    _tell("Warning", text)


def note(text):
    """Say what the person would like to know and need not act on; with --quiet in the log alone."""
    # The stdout of --quiet shows nothing and yet ends in log.txt.
    _tell("Note", text, sys.stdout if is_quiet() else sys.stderr)


def _tell(label, text, stream=None):
    stream = stream or sys.stderr
    _told.append(f"{label}: {text}")
    encoding = getattr(stream, "encoding", None) or "utf-8"  # escaped here as well: programs that call the loop have streams of their own
    print(fitted(_told[-1]).encode(encoding, "backslashreplace").decode(encoding), file=stream, flush=True)


def take_told():
    """The errors, warnings and notes since the last call, for a log file that did not exist when they were told."""
    told = _told[:]
    _told.clear()
    return told


def fitted(text, width=None):
    """The text in lines that fit the terminal; whole where stderr is none, so that logs can be searched. Indented lines are tables and stay."""
    width = width or (shutil.get_terminal_size().columns if _is_terminal(sys.stderr) else None)
    if width is None:
        return text
    wrapped = (
        line if line.startswith(" ") else textwrap.fill(line, max(width - 1, 20), break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
    return "\n".join(wrapped)


def _is_terminal(stream):
    return stream is not None and hasattr(stream, "isatty") and not getattr(stream, "closed", False) and stream.isatty()


# ------------------------------------------------------------------------------------------
# Streams.


def make_printable():
    """Let stdout and stderr show what their encoding lacks as \\u escapes: paths may hold any letter, also bytes that are no text."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


class _Silenced:
    """Stands in for stdout under --quiet: only what result() prints gets through."""

    def __init__(self, stream):
        self.stream, self.shows = stream, False

    def write(self, text):
        return self.stream.write(text) if self.shows else len(text)

    def flush(self):
        self.stream.flush()

    def isatty(self):
        return False

    def __getattr__(self, name):
        return getattr(self.stream, name)


@contextlib.contextmanager
def one_command():
    """One command: nothing is told yet, and if --quiet takes stdout away, it comes back at the end."""
    stdout = sys.stdout
    _told.clear()
    try:
        yield
    finally:
        if _silenced:
            _silenced.clear()
            sys.stdout = stdout


def silence():
    """Print results, warnings and errors alone from now on (--quiet). A run's log.txt gets everything still."""
    if not _silenced and sys.stdout is not None:
        _silenced.append(_Silenced(sys.stdout))
        sys.stdout = _silenced[0]


def is_quiet():
    """Whether --quiet was given."""
    return bool(_silenced)


def result(text):
    """Print what the command was called for, also under --quiet."""
    for stream in _silenced:
        stream.shows = True
    try:
        print(text, flush=True)
    finally:
        for stream in _silenced:
            stream.shows = False


# ------------------------------------------------------------------------------------------
# Progress.


def progress(items, total, text, unit="img", line_interval_sec=None):
    """Yield the items and show how far the work is: a bar with the time left at a terminal, else a line now and then; on stderr."""
    if is_quiet():
        yield from items
    elif _is_terminal(sys.stderr):
        from tqdm import tqdm

        yield from tqdm(items, total=total, desc=text, unit=unit, mininterval=0.5, delay=1, dynamic_ncols=True, leave=False, file=sys.stderr)
    else:
        yield from _with_lines(items, total, text, LINE_INTERVAL_SEC if line_interval_sec is None else line_interval_sec)


def _with_lines(items, total, text, interval_sec):
    started = told = time.monotonic()
    for done, item in enumerate(items):
        now = time.monotonic()
        if now - told >= interval_sec:
            told = now
            left = f" ({done / total:.0%}), {format_time((now - started) / done * (total - done))} left" if total and done else ""
            print(f"{text}: {done}{f' of {total}' if total else ''}{left}", file=sys.stderr, flush=True)
        yield item
