"""python -m madr_plugin <fork's train.py> [the fork's flags] --madr=1 [--madr-...]: an unmodified fork with MADR."""
import sys

import click

from madr_plugin import forks, options
from madr_plugin.errors import MADRError


@click.command(context_settings=dict(ignore_unknown_options=True, help_option_names=["--madr-help"]))
@click.argument("script", type=click.Path())
@click.argument("fork_flags", nargs=-1, type=click.UNPROCESSED)
@options.madr_options
def main(script, fork_flags, **flags):
    """Run a fork's train.py with MADR. All flags that do not begin with --madr go to the fork."""
    try:
        options.from_flags(flags)  # mistakes are answered before anything is loaded
        train = forks.load_train_script(script)
        forks.wrap_seam(train, flags)
        if not callable(getattr(train, "main", None)):
            raise MADRError(f"{script} has no function main() to start")
    except MADRError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)
    sys.argv = [script, *fork_flags]
    try:
        train.main()
    except MADRError as error:
        print(f"Error: {error}", file=sys.stderr)
        sys.exit(1)


if __name__ == "__main__":
    main()
