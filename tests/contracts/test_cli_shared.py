"""dnnlib.cli: exit codes, sentences instead of tracebacks, option types."""

import errno
import subprocess
import sys

import click
import pytest

from dnnlib import cli
from dnnlib.errors import UserError


def command_raising(error):
    @click.command()
    @click.option("--count", type=click.IntRange(min=1))
    def main(count):
        if error is not None:
            raise error

    return main


def test_success_and_usage_exit_codes(capsys):
    assert cli.call(command_raising(None), []) == 0
    assert cli.call(command_raising(None), ["--help"]) == 0
    assert cli.call(command_raising(None), ["--count=0"]) == cli.EXIT_USAGE
    assert "--count" in capsys.readouterr().err
    assert cli.call(command_raising(None), ["--cuont=1"]) == cli.EXIT_USAGE
    assert "--count" in capsys.readouterr().err


class ForeignUserError(Exception):
    is_user_error = True


@pytest.mark.parametrize("error", [UserError("--x is 1; use 2"), ForeignUserError("--x is 1; use 2")])
def test_user_errors_become_one_line(error, capsys):
    assert cli.call(command_raising(error), []) == cli.EXIT_ERROR
    assert capsys.readouterr().err == "Error: --x is 1; use 2\n"


def test_full_disk_is_a_sentence(capsys):
    error = OSError(errno.ENOSPC, "No space left on device", "out/x.pkl")
    assert cli.call(command_raising(error), []) == cli.EXIT_ERROR
    message = capsys.readouterr().err
    assert "out/x.pkl" in message and "free some space" in message


def test_a_cpu_without_memory_is_a_sentence(capsys):
    @click.command()
    def greedy():
        import torch

        torch.zeros([2**50])

    assert cli.call(greedy, []) == cli.EXIT_ERROR
    message = capsys.readouterr().err
    assert message.startswith("Error: this machine ran out of memory; lower --batch-gpu or --batch (") and "alloc_cpu" not in message


def test_interrupt_exits_130(capsys):
    assert cli.call(command_raising(KeyboardInterrupt()), []) == 130


def test_faults_of_the_program_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.call(command_raising(ZeroDivisionError()), [])


def convert(param_type, value):
    return param_type.convert(value, None, None)


def test_num_range():
    assert convert(cli.NumRange(), "0,3,5-7") == [0, 3, 5, 6, 7]
    assert convert(cli.NumRange(), "4") == [4]
    for wrong in ("", "a", "3-1", "-1", "1,,2", "0-99999999999"):
        with pytest.raises(click.BadParameter):
            convert(cli.NumRange(), wrong)


def test_comma_list():
    assert convert(cli.CommaList(), "a, b") == ["a", "b"]
    assert convert(cli.CommaList(), "none") == [] == convert(cli.CommaList(), "")
    with pytest.raises(click.BadParameter):
        convert(cli.CommaList(), "a,,b")


def test_ranges_refuse_what_no_comparison_stops():
    assert convert(cli.FloatRange(0, 1), "0.5") == 0.5 and convert(cli.IntRange(min=1), "3") == 3
    for wrong in ("nan", "inf", "-1", "x"):
        with pytest.raises(click.BadParameter):
            convert(cli.FloatRange(min=0), wrong)


def test_named_path():
    assert convert(cli.NamedPath(), "inception=a=b.pt") == ("inception", "a=b.pt")
    for wrong in ("inception", "=a", "a="):
        with pytest.raises(click.BadParameter):
            convert(cli.NamedPath(), wrong)
    with pytest.raises(click.BadParameter, match="write it like mnist=FOLDER"):
        convert(cli.NamedPath("mnist=FOLDER"), "mnist")


def test_no_torch_import(repo):
    subprocess.run([sys.executable, "-c", "import sys, dnnlib.cli; assert 'torch' not in sys.modules"], cwd=repo, check=True)
