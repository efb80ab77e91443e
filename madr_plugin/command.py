"""Runs the plugin's own commands: turns what a user can mend into one sentence, opens the user's images."""

import copy
import os
import sys

import click

import madr_plugin
from madr_plugin.host.construct import construct
from madr_spaces.errors import MADRError

EXIT_INTERRUPTED = 130  # Ctrl-C, by the shell's convention 128 + SIGINT
SEED = click.IntRange(0, 2**32 - 1)  # NumPy's generator takes no larger one


class HomePath(click.ParamType):
    """A path in which the home folder may be written as ~: shells leave that as it is behind --data=."""

    name = "path"

    def convert(self, value, param, ctx):
        return os.path.expanduser(value)


def run(main):
    """Call a click command; what the user can mend is printed as one sentence, with exit code 1. It also answers --version."""
    make_printable()
    extended = copy.copy(main)
    extended.params = list(main.params)
    click.version_option(madr_plugin.__version__, message="MADR %(version)s")(extended)
    try:
        sys.exit(extended.main(standalone_mode=False) or 0)  # of --help the code 0
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.exceptions.Abort, KeyboardInterrupt):
        print("Error: interrupted; files are written at the end, so nothing was", file=sys.stderr)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # sorted right below: only errors that bear the mark are for the user
        if not getattr(error, "is_user_error", False):
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


def make_printable():
    """Let both streams show as escapes what their encoding lacks: paths may hold any letter."""
    for stream in (sys.stdout, sys.stderr):
        if getattr(stream, "errors", None) in ("strict", "surrogateescape") and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def open_images(path):
    """Open the folder or zip as the host's data set, with its labels if it has any."""
    try:
        return construct(class_name="training.dataset.ImageFolderDataset", path=path, use_labels=True)
    except ImportError as error:
        raise MADRError(
            "no package training.dataset here: start this in the folder of the training code (this one or a fork of StyleGAN2-ADA)"
        ) from error
    except OSError as error:
        raise MADRError(f"--data={path} cannot be read as images: {error}; give a folder or zip made by dataset_tool.py") from error
