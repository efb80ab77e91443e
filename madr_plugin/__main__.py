"""Runs an unmodified fork with MADR: python -m madr_plugin <fork's train.py> [the fork's flags] --madr=1 [--madr-...].

Without --madr=1 the script (also the fork's calc_metrics.py) runs as it is, with the madr_ metrics in its registry.
"""

import os
import sys

import click

import madr_plugin
from madr_plugin import command, config, options, scripts
from madr_plugin.base.knobs import nearest_name
from madr_spaces.errors import MADRError

SHOW_ALL = "madr_plugin.show_all"  # in click's ctx.meta
FEATURE_KNOBS = ("extractor", "weights", "weights_sha256")  # all that a metric takes from a run's options
HELP_NAMES = ("--help", "-h")
HELP_LINE = "MADR's own flags, which may stand beside these: python -m madr_plugin --madr-help"


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
@click.pass_context
def main(ctx, script, fork_flags, **flags):
    """Run a fork's train.py with MADR. All flags that do not begin with --madr go to the fork."""
    command.make_printable()
    if script in HELP_NAMES:
        click.echo(ctx.get_help())
        return
    try:
        if script.startswith("-"):
            raise MADRError(f"the path of the fork's train.py comes first (got {script}): python -m madr_plugin train.py {script} ...")
        for flag in fork_flags:
            if flag.startswith("--madr"):
                raise MADRError(unknown_flag(flag.partition("=")[0]))
        prepare(found := scripts.Script(script), flags)
        _start(found, fork_flags, script)
    except Exception as error:  # sorted right below: the fork's own errors stay as they are
        sentence = scripts.sentence_of(error)
        if sentence is None:
            raise
        print(f"Error: {sentence}", file=sys.stderr)
        sys.exit(1)


def prepare(script, flags):
    """Load a Script and put MADR into it: into the options that it will prepare, and its metrics into the registry of the fork."""
    # Mistakes are answered before anything is loaded.
    chosen = options.from_flags(flags) if flags.get("madr") else _features_of_metrics(flags)
    from madr_plugin import forks, metrics  # here: torch, which --madr-help does without

    if flags.get("madr"):
        forks.check_script(script)
    if script.can_load:
        forks.wrap_seam(script.load(), flags)
    script.enter()
    if os.path.isfile(os.path.join(os.path.dirname(script.path), "metrics", "metric_main.py")):
        forks.load_metrics()  # some scripts import it when they start
    metrics.register(chosen)


def unknown_flag(flag):
    """What to say of a flag that would go to the fork and is meant for us."""
    meant = nearest_name(flag.removeprefix("--madr-"), options.ROWS)
    return f"there is no {flag}{f', perhaps {config.flag_of(meant)} is meant' if meant else ''}; python -m madr_plugin --madr-help-all lists all"


def _start(script, arguments, shown_as):
    try:
        script.start(arguments, shown_as)
    except SystemExit as leaving:
        if not leaving.code and set(arguments) & set(HELP_NAMES):
            print(f"\n{HELP_LINE}")
        raise


def _features_of_metrics(flags):
    """Resolve the options of a run without MADR: only the feature space, in which its metrics measure. Returns MADRConfig."""
    given = {name: flags.pop(f"madr_{name}") for name in FEATURE_KNOBS}
    for name in ("width", "input_size"):
        if flags.get(f"madr_{name}") is not None:
            raise MADRError(
                f"{config.flag_of(name)} has no effect without --madr=1, and never on metrics, where one name of a space is one network; "
                "add --madr=1 to train with MADR, or leave it out"
            )
    options.from_flags(flags)  # refuses all other flags without --madr=1
    return config.resolve(options.with_home(given))


if __name__ == "__main__":
    main()
