"""Runs an unmodified fork with MADR: python -m madr_plugin <fork's train.py> [the fork's flags] --madr=1 [--madr-...].

Without --madr=1 the script (also the fork's calc_metrics.py) runs as it is, with the madr_ metrics in its registry.
"""

import sys

import click

import madr_plugin
from madr_plugin import config, forks, metrics, options
from madr_spaces.errors import MADRError

SHOW_ALL = "madr_plugin.show_all"  # in click's ctx.meta


class _Command(click.Command):
    """Lists the first-class flags on --madr-help, all on --madr-help-all."""

    def format_options(self, ctx, formatter):
        shown = [option for option in self.get_params(ctx) if ctx.meta.get(SHOW_ALL) or not getattr(option, "advanced", False)]
        records = [record for record in (option.get_help_record(ctx) for option in shown) if record is not None]
        with formatter.section("Options"):
            formatter.write_dl(records)


def _show_all(ctx, _option, wanted):
    if wanted:
        ctx.meta[SHOW_ALL] = True
        click.echo(ctx.get_help())
        ctx.exit()


@click.command(cls=_Command, context_settings=dict(ignore_unknown_options=True, help_option_names=["--madr-help"]))
@click.argument("script", type=click.Path())
@click.argument("fork_flags", nargs=-1, type=click.UNPROCESSED)
@click.option("--madr-help-all", is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help="Show the flags of all knobs and exit.")
@options.madr_options
@click.version_option(madr_plugin.__version__, "--madr-version", message="MADR %(version)s")
def main(script, fork_flags, **flags):
    """Run a fork's train.py with MADR. All flags that do not begin with --madr go to the fork."""
    try:
        chosen = (
            _features_of_metrics(flags) if not flags.get("madr") else options.from_flags(flags)
        )  # mistakes are answered before anything is loaded
        train = forks.load_train_script(script)
        forks.wrap_seam(train, flags)
        metrics.register(chosen)
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


def _features_of_metrics(flags):
    """Resolve the options of a run without MADR: only the feature space, in which its metrics measure. Returns MADRConfig."""
    given = {name: flags.pop(f"madr_{name}") for name in metrics.FEATURE_KNOBS}
    for name in ("width", "input_size"):
        if flags.get(f"madr_{name}") is not None:
            raise MADRError(
                f"{config.flag_of(name)} has no effect without --madr=1, and never on metrics, where one name of a space is one network; "
                "add --madr=1 to train with MADR, or leave it out"
            )
    options.from_flags(flags)  # refuses all other flags without --madr=1
    return config.resolve(given)


if __name__ == "__main__":
    main()
