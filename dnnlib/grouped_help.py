"""Help in headed groups: --help shows the options of the first hour, --help-all every option.

An option says where it belongs by two attributes, `help_group` (its heading) and `advanced` (shown by --help-all alone); options
without a heading stand under the last one. Must not know any option by name, nor import torch.
"""

import textwrap

import click

OTHER_GROUP = "Other"
FIRST_COLUMN = 34  # a longer option gets a row of its own before its help
_SHOWS_ALL = "dnnlib.grouped_help.shows_all"


class Option(click.Option):
    """An option with a heading."""

    def __init__(self, *args, help_group=None, advanced=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.help_group, self.advanced = help_group, advanced


def _show_all(ctx, _param, value):
    if value and not ctx.resilient_parsing:
        ctx.meta[_SHOWS_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


class GroupedCommand(click.Command):
    """A command with --help-all. more_help: function without arguments that gives paragraphs of help at the time they are shown."""

    def __init__(self, *args, more_help=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.more_help = more_help
        self.has_help_all = any(isinstance(param, click.Option) and is_advanced(param) for param in self.params)
        if self.has_help_all:
            self.params.append(
                Option(["--help-all"], is_flag=True, is_eager=True, expose_value=False, callback=_show_all, help="Show every option and exit.")
            )

    def format_help_text(self, ctx, formatter):
        super().format_help_text(ctx, formatter)
        if self.more_help is not None:
            with formatter.indentation():
                formatter.write_paragraph()
                formatter.write_text(self.more_help())

    def format_options(self, ctx, formatter):
        shows_all = ctx.meta.get(_SHOWS_ALL, False) or not self.has_help_all
        for heading, options in grouped(self.get_params(ctx), with_advanced=shows_all).items():
            records = [record(option, ctx) for option in options]
            with formatter.section(heading):
                formatter.write_dl(records if shows_all else _one_row_each(records, formatter.width), col_max=FIRST_COLUMN)


def record(option, ctx):
    """(how it is typed, what it does). What click calls a range is one number to the person who types it."""
    typed, meaning = option.get_help_record(ctx)
    if isinstance(option.type, click.Choice) and len(typed) > FIRST_COLUMN:
        typed, meaning = f"{option.opts[0]} NAME", f"{meaning} [{', '.join(map(str, option.type.choices))}]"
    return typed.replace("INTEGER RANGE", "INT").replace("FLOAT RANGE", "FLOAT"), meaning


def _one_row_each(records, width):
    """The same with every meaning cut to its row; whoever reads '...' finds the rest in --help-all."""
    column = min(max(len(typed) for typed, _ in records), FIRST_COLUMN)
    space = width - column - 4  # two blanks before and after the first column
    return [(typed, meaning if len(meaning) <= space else textwrap.shorten(meaning, space, placeholder=" ...")) for typed, meaning in records]


def is_advanced(option):
    """What the option says; one that says nothing is advanced, unless it ends the command at once (--help, --version)."""
    return bool(getattr(option, "advanced", not option.is_eager))


def grouped(options, with_advanced):
    """{heading: its options}, in the order of their first appearance; options without a heading come last."""
    groups, others = {}, []
    for option in options:
        if not isinstance(option, click.Option) or option.hidden or (is_advanced(option) and not with_advanced):
            continue
        heading = getattr(option, "help_group", None)
        (others if heading is None else groups.setdefault(heading, [])).append(option)
    return {**groups, OTHER_GROUP: others} if others else groups
