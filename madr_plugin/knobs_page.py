"""Writes docs/madr_knobs.md, the page of all knobs, from the table: python -m madr_plugin.knobs_page > docs/madr_knobs.md."""

import click

from madr_plugin import command, config

HEAD = """# Knobs of MADR

Written by `python -m madr_plugin.knobs_page > docs/madr_knobs.md` from the table of knobs; a test keeps it up to date.

`--madr-preset` names a set of values and the knobs beside it override single ones. Those marked with a star are in `train.py --help`. Every
knob has a flag (`--madr-dead-zone=2`) and can be set by name (`--madr-set dead_zone=2`, which may be repeated). Each stands in
`training_options.json` under `loss_kwargs.madr`. What each of them does to the equations: [madr_plugin/README.md](../madr_plugin/README.md).
"""


def page():
    """Return the page as text."""
    groups = {}
    for row in config.KNOBS:
        groups.setdefault(row.group, []).append(row)
    parts = [HEAD]
    for group, rows in groups.items():
        parts.append(f"\n## {group.capitalize()}\n\n| knob | range | default | what it does |\n|---|---|---|---|\n")
        parts.extend(
            f"| `{row.name}`{' *' if row.first else ''} | {row.range} | {_default(row)} | {row.meaning.replace('|', '/')} |\n" for row in rows
        )
    parts.append("\n## Presets\n\n| preset | sets |\n|---|---|\n")
    parts.extend(f"| `{name}` | {_differing(name)} |\n" for name in config.PRESETS)
    return "".join(parts)


def _differing(preset):
    """Tell what a preset sets otherwise than the default."""
    values = {row.name: config.value_of(preset, row) for row in config.KNOBS}
    told = [f"{row.name}={values[row.name]}" for row in config.KNOBS if values[row.name] != config.value_of("default", row)]
    return ", ".join(told) or "nothing: the defaults above"


def _default(row):
    value = config.value_of("default", row)
    return f"`{value}`" if value != "" else "none"


@click.command()
def main():
    """Print the page of all knobs."""
    print(page(), end="")


if __name__ == "__main__":
    command.run(main)
