"""Write the reference from the rows: docs/flags.md of train.py's flags, the table of all metrics in docs/metrics.md, their names for --help,
the table of methods in docs/baselines.md.

    python docs/make_reference.py

Must not hold a sentence about any one flag or metric: these are in training/flag_table.py, in the plugin's options and at the ends of
the files of metrics.
"""

import json
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPO))

import click

import train
from dnnlib import cli
from dnnlib.files import atomic_write_text
from dnnlib.grouped_help import grouped, record
from metrics import metric_main
from metrics.metric import Group, Reals
from training import flag_table
from training.gan import methods

FLAGS_PAGE, METRICS_PAGE, LISTING = REPO / "docs" / "flags.md", REPO / "docs" / "metrics.md", REPO / "metrics" / "listing.py"
BEGIN, END = "<!-- metrics: begin -->", "<!-- metrics: end -->"
METHODS_PAGE, METHODS_BEGIN, METHODS_END = REPO / "docs" / "baselines.md", "<!-- methods: begin -->", "<!-- methods: end -->"
_HEAD = """# The flags of train.py

Made by `python docs/make_reference.py` from the rows of `training/flag_table.py` and of `madr_plugin/options.py`. `train.py --help` shows those in
bold, `train.py --help-all` shows all.

Sets: the training options (`training_options.json`) that the flag decides. On --resume: what becomes of the flag when it is typed with
`--resume=latest` or `--resume=RUN`; a flag that must agree is refused with a table if it does not. Another method: whether `compare_runs.py`
takes two runs that differ in it for two methods.
"""


def flags_page():
    """The text of docs/flags.md."""
    rows = {row.name: row for row in flag_table.FLAGS}
    context = click.Context(train.main, info_name="train.py")
    sections = []
    for heading, options in grouped([option for option in train.main.params if not option.is_eager], with_advanced=True).items():
        lines = ["| flag | meaning | sets | on --resume | another method |", "|---|---|---|---|---|"]
        for option in options:
            lines.append("| " + " | ".join(map(_cell, _flag_cells(option, rows.get(option.name), context))) + " |")
        sections.append("\n".join([f"## {heading}", "", *lines]))
    return "\n\n".join([_HEAD.rstrip(), *sections]) + "\n"


def _flag_cells(option, row, context):
    typed, meaning = record(option, context)
    typed = f"`{typed}`" if getattr(option, "advanced", True) else f"**`{typed}`**"
    if row is None:  # the plugin's: its options lie inside the loss's, and each of them makes another method
        is_knob = option.name.startswith("madr_") and option.expose_value  # else the switch, or a way to set several of them
        place = f"loss_kwargs.madr.{option.name.removeprefix('madr_')}" if is_knob else "loss_kwargs.madr"
        return typed, meaning, f"`{place}`", "must agree", "yes"
    parts = [place for place in row.options if not any(place.startswith(f"{whole}.") for whole in row.options)]
    sets = ", ".join(f"`{place}`" for place in parts) or "nothing"
    return typed, meaning, sets, row.on_resume.value, "yes" if row.makes_method else "no"


def metrics_table():
    """The table of all metrics, by groups."""
    own = [metric_main.row_of(name) for name in metric_main.list_valid_metrics()]
    lines = ["| metric | what | looks through | reals | generated | better |", "|---|---|---|---|---|---|"]
    for group in Group:
        rows = [row for row in own if row.group is group]
        lines += [f"| **{group.value}** | | | | | |"] if rows else []
        lines += ["| " + " | ".join(map(_cell, _metric_cells(row))) + " |" for row in rows]
    return "\n".join(lines)


_DETECTORS = {
    "inception": "Inception",
    "vgg16": "VGG16",
    "dino": "DINO ViT-S/8",
    "space": "`--metric-space`",
    "digits": "the digit classifier",
    None: "nothing",
}


def _metric_cells(row):
    max_real = row.counts.get("max_real")
    reals = ("all" if max_real is None else f"at most {max_real:,}") + ("" if row.reals is Reals.ALL else ", mirrored as in the training")
    reals = reals if row.compares_with_reals else "none"
    return f"`{row.name}`", row.meaning, _DETECTORS[row.detector], reals, f"{row.num_gen:,}", "up" if row.higher_is_better else "down"


def _cell(text):
    return text.replace("|", "\\|")


def metrics_page():
    """The text of docs/metrics.md with its table made anew."""
    before, _, rest = METRICS_PAGE.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{metrics_table()}\n{END}{after}"


def methods_page():
    """The text of docs/baselines.md with its table made anew from the rows of training/gan/."""
    before, _, rest = METHODS_PAGE.read_text(encoding="utf-8").partition(METHODS_BEGIN)
    _, _, after = rest.partition(METHODS_END)
    lines = []
    for flag, rows in (("--gan", methods.RECIPES), ("--method", methods.METHODS), ("--backbone", methods.BACKBONES)):
        lines += ["", f"| `{flag}` | touches | what | values, with defaults | cost | source |", "|---|---|---|---|---|---|"]
        for row in rows.values():
            values = ", ".join(f"`{parameter.name}={parameter.shown_default}`" for parameter in row.parameters)
            lines.append("| " + " | ".join(map(_cell, (f"`{row.name}`", row.touches, row.meaning, values, row.cost, row.source))) + " |")
    return f"{before}{METHODS_BEGIN}\n" + "\n".join(lines[1:]) + f"\n{METHODS_END}{after}"


def listing():
    """The text of metrics/listing.py with the names of all metrics made anew."""
    rows = [metric_main.row_of(name) for name in metric_main.list_valid_metrics()]
    named = {group.value: [row.name for row in rows if row.group is group] for group in Group}
    lines = [f"    {json.dumps(heading)}: {json.dumps(names)},\n" for heading, names in named.items() if names]
    before, begin, _ = LISTING.read_text(encoding="utf-8").partition("NAMES = {\n")
    return f"{before}{begin}{''.join(lines)}}}\n"


@click.command()
def main():
    """Write docs/flags.md, the tables of metrics and methods in docs/metrics.md and docs/baselines.md, and the names in metrics/listing.py."""
    for path, text in ((FLAGS_PAGE, flags_page()), (METRICS_PAGE, metrics_page()), (METHODS_PAGE, methods_page()), (LISTING, listing())):
        atomic_write_text(str(path), text)
        print(f"Wrote {path.relative_to(REPO)}.")


if __name__ == "__main__":
    cli.run(main)
