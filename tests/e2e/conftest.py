"""What the tests of the drawing tools share."""

import pytest

from dnnlib import cli


@pytest.fixture
def call(capsys):
    """call(command, *args) -> (exit code, stdout, stderr)."""

    def run(command, *args):
        code = cli.call(command, [*map(str, args), "--device=cpu"])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run
