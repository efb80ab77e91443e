"""What every command-line tool of this project shares: how it ends, and a few option types and decorators.

`run(main)` is the only place where exceptions become sentences and exit codes; docs/commands.md lists the codes. Must not import torch.
"""

import copy
import errno
import math
import os
import re
import sys

import click

from dnnlib import console, version
from dnnlib.grouped_help import Option

EXIT_ERROR = 1  # a UserError: something that the person at the keyboard can mend
EXIT_USAGE = 2  # click's own: an unknown option, a value out of range
EXIT_INTERRUPTED = 130  # Ctrl-C, by the shell's convention 128 + SIGINT

INTERRUPTED = "interrupted by Ctrl-C; what was finished is kept, and no file is half-written."

# Operating-system errors that are the user's to mend, and how.
_OS_REMEDIES = {
    errno.ENOSPC: "free some space or choose a folder on another disk",
    errno.EDQUOT: "free some of the quota or choose a folder on another disk",
    errno.EROFS: "choose a folder that can be written to",
    errno.EACCES: "check the permissions or choose another path",
    errno.EPERM: "check the permissions or choose another path",
}

_CPU_MEMORY = "DefaultCPUAllocator: "  # as torch's words begin, behind a place in its sources


# ------------------------------------------------------------------------------------------
# Ending a command.


def run(command, args=None):
    """Run a click command as a program: `if __name__ == "__main__": cli.run(main)`."""
    sys.exit(call(command, args))


def prepared(command):
    """A copy of the command with what all tools share: --version, --quiet, and `~` for the home folder in every path."""
    extended = copy.copy(command)
    extended.params = [_with_home(param) for param in command.params]
    extended.params.append(
        Option(["-q", "--quiet"], is_flag=True, expose_value=False, callback=_silence, help="Print results, warnings and errors alone.")
    )
    return click.version_option(version.number(), message="MADR %(version)s")(extended)


def _silence(ctx, _param, value):
    if value and not ctx.resilient_parsing:
        console.silence()


def _with_home(param):
    """A copy of the option or argument whose text may begin with `~`. A shell expands that only at the beginning of a word, not in --data=~/x."""
    if not isinstance(param.type, (type(click.STRING), click.Path)):
        return param
    extended = copy.copy(param)
    extended.type = _HomeText(param.type)
    return extended


def expand_home(text):
    """`~/x`, `~name/x`, `name=~/x` and `file:~/x` with the home folder in it; all other text as it is. No text but a path begins so."""
    match = re.match(r"[\w-]+=(?=~)|file:(?=~)", text)
    prefix = match.group() if match else ""
    return prefix + os.path.expanduser(text[len(prefix) :])


class _HomeText(click.ParamType):
    """Text or a path of click's in which the home folder may be written as `~`."""

    def __init__(self, inner):
        self.inner, self.name = inner, inner.name

    def convert(self, value, param, ctx):
        return self.inner.convert(expand_home(value) if isinstance(value, str) else value, param, ctx)

    def get_metavar(self, *args, **kwargs):  # versions of click differ in them
        return self.inner.get_metavar(*args, **kwargs)

    def shell_complete(self, ctx, param, incomplete):
        # Names of files: whatever begins as text here is mostly a path.
        return click.Path().shell_complete(ctx, param, incomplete)


def call(command, args=None) -> int:
    """Run a click command and return its exit code; what the user can mend is said in a sentence on stderr.

    Anything else is a fault of the program and keeps its traceback.
    """
    console.make_printable()
    with console.one_command():
        return _call(command, args)


def _call(command, args):
    try:
        extended = prepared(command)
        _refuse_swallowed_option(extended, sys.argv[1:] if args is None else args)
        result = extended.main(args=args, standalone_mode=False)
        # Without standalone mode click hands back the code of ctx.exit() (--help: 0), else what the function returned.
        return result if isinstance(result, int) else 0
    except (click.exceptions.Abort, KeyboardInterrupt) as error:  # the first is click's form of the second
        said = (error.__cause__ or error).args  # by a tool that knows better what was kept
        console.error(said[0] if said and isinstance(said[0], str) else INTERRUPTED)
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        _show_refusal(error)
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: nobody is left to tell, and flushing at exit would fail again.
        sys.stdout = None
        return EXIT_ERROR
    except Exception as error:
        sentence = user_sentence(error)
        if sentence is None:
            raise
        console.error(sentence)
        return EXIT_ERROR


def _refuse_swallowed_option(command, args):
    """Refuse `--madr --cond`: an option that takes a value would take the next option for it."""
    if command.context_settings.get("ignore_unknown_options"):  # then what follows may be another program's
        return
    by_name = {name: param for param in command.params if isinstance(param, click.Option) for name in param.opts + param.secondary_opts}
    for given, following in zip(map(str, args), map(str, args[1:])):
        if given == "--":
            return
        param = by_name.get(given)
        if param is None or param.is_flag or param.count or getattr(param, "_flag_needs_value", False):
            continue
        if following.startswith("--") and following.split("=")[0] in by_name:
            is_switch = isinstance(param.type, click.types.BoolParamType) or getattr(param.type, "max", None) == 1
            value = "1" if is_switch else param.metavar or param.type.name.upper()
            raise click.UsageError(f"{given} takes a value, but {following} follows; write {given}={value}")


def _show_refusal(error):
    """click's own errors in the form of all others, with the usage in front where an option is wrong."""
    context = getattr(error, "ctx", None)
    if context is not None:
        print(context.get_usage(), file=sys.stderr)
        print(f"Try '{context.command_path} {context.help_option_names[0]}' for help.\n", file=sys.stderr)
    console.error(error.format_message())


def user_sentence(error: BaseException) -> str | None:
    """The sentence for an error that the user can mend; None when it is a fault of the program."""
    if getattr(error, "is_user_error", False):
        return str(error)
    if isinstance(error, OSError) and error.errno in _OS_REMEDIES:
        place = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror}{place}; {_OS_REMEDIES[error.errno]}"
    if type(error).__name__ == "OutOfMemoryError":  # torch's, recognised by name: torch isn't imported here
        return f"the device ran out of memory; lower --batch-gpu or --batch ({str(error).splitlines()[0]})"
    if isinstance(error, RuntimeError) and _CPU_MEMORY in str(error):  # on a CPU torch has no class for it
        return f"this machine ran out of memory; lower --batch-gpu or --batch ({str(error).partition(_CPU_MEMORY)[2].splitlines()[0]})"
    return None


# ------------------------------------------------------------------------------------------
# Option types.


class NumRange(click.ParamType):
    """'0,3,5-7' -> [0, 3, 5, 6, 7]: numbers and inclusive ranges, in the order given."""

    name = "num_range"
    _MAX_COUNT = 10_000_000  # a slip such as 0-99999999999 must not fill the memory

    def convert(self, value, param, ctx):
        if isinstance(value, (list, tuple)):
            return list(value)
        numbers: list[int] = []
        for part in str(value).split(","):
            match = re.fullmatch(r"\s*(\d+)(?:-(\d+))?\s*", part)
            if match is None:
                self.fail(f"{value!r} is not a list of numbers; write it like 0,3,5-7.", param, ctx)
            first = int(match.group(1))
            last = first if match.group(2) is None else int(match.group(2))
            if last < first:
                self.fail(f"the range {part.strip()!r} runs backwards; write {last}-{first}.", param, ctx)
            if len(numbers) + last - first >= self._MAX_COUNT:
                self.fail(f"{value!r} holds more than {self._MAX_COUNT} numbers; write a shorter range.", param, ctx)
            numbers.extend(range(first, last + 1))
        return numbers


class CommaList(click.ParamType):
    """'a,b' -> ['a', 'b']; '' and 'none' -> []."""

    name = "list"

    def convert(self, value, param, ctx):
        if isinstance(value, (list, tuple)):
            return list(value)
        if value.strip().lower() in ("", "none"):
            return []
        names = [name.strip() for name in value.split(",")]
        if "" in names:
            self.fail(f"{value!r} has an empty entry; write it like a,b or 'none'.", param, ctx)
        return names


class IntRange(click.IntRange):
    """click's range of whole numbers, shown as INTEGER."""

    name = "integer"


class FloatRange(click.FloatRange):
    """click's range of numbers, shown as FLOAT; 'nan' and 'inf', which no comparison stops, are refused."""

    name = "float"

    def convert(self, value, param, ctx):
        number = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number

    def _describe_range(self) -> str:
        """What --help shows of the range; nothing where there are no limits, for which click writes 'x<=None'."""
        return "" if self.min is None and self.max is None else super()._describe_range()


class NamedPath(click.ParamType):
    """'name=path' -> (name, path), for options given several times."""

    name = "name=path"

    def __init__(self, example: str = "inception=/models/inception.pt") -> None:
        self.example = example

    def convert(self, value, param, ctx):
        if isinstance(value, tuple):
            return value
        name, separator, path = value.partition("=")
        if not (name and separator and path):
            self.fail(f"{value!r} does not have the form name=path; write it like {self.example}.", param, ctx)
        return name, os.path.expanduser(path)


# ------------------------------------------------------------------------------------------
# Options of several tools.


def option_group(*decorators):
    """One decorator of several, in the order of the help text."""

    def decorate(function):
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


DEVICE_NAMES = ["auto", "cuda", "mps", "cpu"]
DEVICE_HELP = "Where to compute; auto takes the first of cuda, mps, cpu that is there"
TRUST_HELP = "Run the code that a pickle brings with it; only for files whose origin you trust"

device_option = click.option(
    "--device", cls=Option, help_group="Machine", type=click.Choice(DEVICE_NAMES), default="auto", show_default=True, help=DEVICE_HELP
)
trust_option = click.option("--trust-pickle", cls=Option, help_group="Machine", is_flag=True, default=False, help=TRUST_HELP)
