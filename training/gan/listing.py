"""--list-methods: the table of methods as text. Must not import torch."""

import click

from dnnlib.grouped_help import Option
from training.gan import methods
from training.gan.rows import TOUCHES


def listing():
    """One line per row: name, what it touches, meaning, parameters with defaults, source, cost."""
    lines = ["Touches: " + ", ".join(f"{letter} {what}" for letter, what in TOUCHES.items())]
    for flag, table in (("--gan", methods.RECIPES), ("--method", methods.METHODS), ("--backbone", methods.BACKBONES)):
        takes_values = any(row.parameters for row in table.values())
        lines += ["", f"{flag}=NAME" + ("[:KEY=VALUE,...]" if takes_values else "")]
        longest = max(map(len, table))
        for row in table.values():
            keys = "".join(f" {parameter.name}={parameter.shown_default}" for parameter in row.parameters)
            lines.append(
                f"  {row.name.ljust(longest)}  {row.touches.ljust(3)}  {row.meaning}{';' if keys else ''}{keys}. {row.source}. Cost: {row.cost}."
            )
    return "\n".join(lines)


def _show(ctx, _param, value):
    if value and not ctx.resilient_parsing:
        click.echo(listing())
        ctx.exit()


def list_option(function):
    """Click decorator: adds --list-methods, which prints the table and ends."""
    return click.option(
        "--list-methods",
        cls=Option,
        help_group="Networks and learning",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show,
        help="Print all of --gan, --method and --backbone with source and cost, then exit",
    )(function)
