"""Compare training runs: `python compare_runs.py runs/*` prints a table of methods over seeds from the runs' metric lines.

How runs are read is in reporting/run_table/, with what is compared and written; nothing in the run folders changes.
"""

import click
from click.core import ParameterSource

from dnnlib import cli, console, files
from dnnlib.errors import UserError
from reporting.run_table import selection

# Whatever imports torch is imported inside the functions, so that --help comes at once.


@click.command(context_settings=dict(max_content_width=140))
@click.argument("run_folders", nargs=-1, metavar="RUN...")
@click.option(
    "--baseline", metavar="METHOD", help="Method that the others are compared with  [default: the one without MADR, if there is exactly one]"
)
@click.option("--metrics", type=cli.CommaList(), help="Metrics to compare, comma-separated  [default: all that the runs have lines of]")
@click.option(
    "--group",
    "groups",
    type=cli.NamedPath("plain='runs/*-plain'"),
    multiple=True,
    metavar="NAME=GLOB",
    help="Call the runs whose folder matches GLOB the method NAME; may be repeated  [default: by their options apart from the seed]",
)
@click.option(
    "--policy", type=click.Choice(selection.POLICIES), default="last", show_default=True, help="Which line up to that point stands for a run"
)
@click.option("--at", type=click.Choice(selection.POINTS), default="kimg", show_default=True, help="Compare at equal kimg or at equal training time")
@click.option("--kimg", type=cli.FloatRange(min=0), metavar="FLOAT", help="This kimg  [default: the largest that all runs have a line of]")
@click.option("--format", "form", type=click.Choice(selection.FORMATS), default="markdown", show_default=True, help="Form of the table")
@click.option("--out", metavar="FILE", help="Write the table there instead of printing it")
@click.option("--page", metavar="FILE", help="Write a page with the runs side by side, a column each, instead of the table (2 to 6 runs)")
@click.option("--force", is_flag=True, help="Compare lines that are not alike, with a note in the table")
@click.pass_context
def main(ctx, run_folders, baseline, metrics, groups, policy, at, kimg, form, out, page, force):
    """Compare training runs: mean and standard error over seeds, and the difference to a baseline paired by seed.

    \b
    python compare_runs.py runs/*                                       # methods by their options, at equal kimg
    python compare_runs.py runs/* --at=time --format=latex --out=table.tex
    python compare_runs.py runs/* --policy=best --metrics=fid10k_full
    python compare_runs.py runs/00000-* runs/00001-* --page=both.html   # samples, modes, coverage side by side
    python compare_runs.py runs/* --group 'tilt=*-tilt' --group 'plain=*-tiny' --baseline=plain

    Lines of other data, detectors, counts or rules are refused, by name of run and fact, unless --force.
    """
    if not run_folders:
        raise UserError("No run is named; give run folders, such as: compare_runs.py runs/*")
    if kimg is not None and kimg.is_integer():
        kimg = int(kimg)  # as snapshots are named, and shown
    if kimg is not None and at == "time":
        raise UserError(f"--kimg={kimg} and --at=time cannot be combined; leave one of them out.")
    if page is not None:
        check_beside_page(ctx, page)
        write_page(page, run_folders, groups)
        return
    from metrics import metric_main
    from reporting.run_table import render, runs
    from reporting.run_table.table import Choices, make_table

    found, notes = runs.read_runs(run_folders, groups)
    choices = Choices(policy=policy, at=at, kimg=kimg, baseline=baseline, only=tuple(metrics) if metrics is not None else None, force=force)
    table = make_table(found, choices, metric_main.higher_is_better, notes)
    text = render.render(table, form)
    if out is None:
        console.result(text.removesuffix("\n"))
        return
    files.atomic_write_text(out, text)
    print(f"Wrote {out}: {len(table.rows)} rows, {len(table.notes)} notes.")


def check_beside_page(ctx, dest):
    """Refuse what says something of the table, which is not made beside a page."""
    for param in ctx.command.params:
        of_both = param.name in ("run_folders", "groups", "page") or not param.expose_value
        if not of_both and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise UserError(f"{param.opts[0]} has no effect beside --page={dest}, which takes the place of the table; leave one of them out.")


def write_page(dest, run_folders, groups):
    """The runs side by side; --group names them, else their folders do."""
    from reporting import side_by_side
    from reporting.run_table import runs

    columns = side_by_side.read_columns(list(zip(runs.names_of(run_folders, groups), run_folders)))
    side_by_side.write(dest, columns, " beside ".join(column.name for column in columns))
    print(f"Wrote {dest}: {len(columns)} runs.")


if __name__ == "__main__":
    cli.run(main)
