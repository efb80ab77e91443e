"""Runs the plugin's own commands: turns what a user can mend into one sentence, opens the user's images."""

import copy
import sys

import click

import madr_plugin
from madr_plugin.host.construct import construct
from madr_spaces.errors import MADRError


def run(main):
    """Call a click command; what the user can mend is printed as one sentence, with exit code 1. It also answers --version."""
    extended = copy.copy(main)
    extended.params = list(main.params)
    click.version_option(madr_plugin.__version__, message="MADR %(version)s")(extended)
    try:
        extended()
    except Exception as error:  # sorted right below: only errors that bear the mark are for the user
        if not getattr(error, "is_user_error", False):
            raise
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


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
