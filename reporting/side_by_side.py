"""Two or more runs on one page, a column each: samples, modes, coverage, and the real images that each covers least.

Whatever is the same in all runs is said once, and so is what differs. Must not know how a run's diversity is found out.
"""

import datetime
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dnnlib import files
from dnnlib.errors import UserError
from reporting import run_folder
from reporting.run_page import page, pictures
from reporting.run_page.diversity_sections import picture_of
from reporting.run_page.markup import code, text

MOST_RUNS = 6
SHEET_BYTES = 400_000
NUM_REALS = 18  # in the line of real images
NUM_MISSING = 12  # least covered reals shown per run
STYLE = Path(__file__).resolve().parent / "side_by_side.css"


@dataclass
class Column:
    """One run under a name that a reader understands."""

    name: str
    run: run_folder.RunFolder

    @property
    def modes(self):
        """What report.py found of the modes of stacked digits, or None."""
        return None if self.run.diversity is None else self.run.diversity.facts.get("modes")


def read_columns(named_paths):
    """named_paths: [(name, run folder)] -> [Column]. Raises UserError for what is no run folder, and for too few or too many."""
    if not 2 <= len(named_paths) <= MOST_RUNS:
        raise UserError(f"A page of runs side by side takes 2 to {MOST_RUNS} runs (got {len(named_paths)}); name those that you want to see.")
    return [Column(name, run_folder.read_run(path)) for name, path in named_paths]


def render(columns, title, commands=()):
    """HTML of the page. commands: [(what it is for, command line)] to type next."""
    style = (page.HERE / "page.css").read_text(encoding="utf-8") + STYLE.read_text(encoding="utf-8")
    when = datetime.datetime.now(datetime.timezone.utc)
    cells = "".join(
        f'<section class="column"><h2>{text(column.name)}</h2>{_headline(column)}{_samples(column)}{_missing(column)}</section>' for column in columns
    )
    following = "".join(f"<p>{text(what)}</p>{code(command)}" for what, command in commands)
    problems = "".join(f"<li>{text(column.name)}: {text(problem)}</li>" for column in columns for problem in column.run.problems)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(title)}</title><style>\n{style}</style></head>\n<body>'
        f"<header><h1>{text(title)}</h1><p>{text(_shared_sentence(columns))} Made {when:%Y-%m-%d %H:%M} UTC.</p></header>\n"
        f'<main>{_reals(columns)}<div class="columns" style="--count: {len(columns)}">{cells}</div>'
        + (f'<ul class="problems">{problems}</ul>' if problems else "")
        + (f"<section><h2>What to type next</h2>{following}</section>" if following else "")
        + "</main></body></html>\n"
    )


def write(dest, columns, title, commands=()):
    """Write the page to a file, atomically. Raises UserError where it cannot be."""
    folder = os.path.dirname(os.path.abspath(dest))
    if os.path.isdir(dest) or not os.path.isdir(folder):
        raise UserError(
            f"--page={dest}: {'that is a folder' if os.path.isdir(dest) else f'the folder {folder} does not exist'}; name a file to write"
        )
    files.atomic_write_text(str(dest), render(columns, title, commands))


# ----------------------------------------------------------------------------------------------------------------
# What is the same.

# Shown name -> where it stands in training_options.json, and how it is written.
_FACTS = {
    "data": (("training_set_kwargs", "path"), os.path.basename),
    "seed": (("random_seed",), str),
    "kimg": (("total_kimg",), "{:g}".format),
    "batch": (("batch_size",), str),
}


def facts_of(column):
    """{name: text} of the facts that a fair comparison shares; those that the run does not state are left out."""
    found = {}
    for name, (keys, written) in _FACTS.items():
        value = column.run.options
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if value is not None:
            found[name] = written(value)
    reached = column.run.last("Progress/kimg")
    if reached is not None and column.run.total_kimg is not None and reached < column.run.total_kimg:
        found["reached"] = f"kimg {reached:g} only"
    return found


def _facts_of_all(columns):
    """The facts of each. Data sets of one name are told apart by their fingerprints, as far as the runs noted them."""
    facts = [facts_of(column) for column in columns]
    fingerprints = [column.run.provenance.get("data_fingerprint") for column in columns]
    if len(set(filter(None, fingerprints))) > 1:
        for part, fingerprint in zip(facts, fingerprints):
            if "data" in part and fingerprint:
                part["data"] += f" (fingerprint {str(fingerprint)[:8]})"
    return facts


def _shared_sentence(columns):
    facts = _facts_of_all(columns)
    names = list(dict.fromkeys(name for part in facts for name in part))
    same = [name for name in names if len({part.get(name) for part in facts}) == 1]
    parts = []
    if same:
        parts.append("The same for all: " + ", ".join(f"{name} {facts[0][name]}" for name in same) + ".")
    for name in (name for name in names if name not in same):
        each = "; ".join(f"{column.name}: {part.get(name, 'not stated')}" for column, part in zip(columns, facts))
        parts.append(f"Not the same: {name} ({each}).")
    return " ".join(parts)


# ----------------------------------------------------------------------------------------------------------------
# One column.


def _headline(column):
    """The number that matters most, large, and one line below it."""
    if column.modes is not None:
        modes = column.modes
        return (
            f'<p class="big"><strong>{modes["modes"]}</strong> of {modes["num_modes"]} modes</p>'
            f'<p class="below">in {column.run.diversity.facts["num_gen"]:,} images, at kimg {column.run.diversity.kimg:g}; KL {modes["kl"]:.2f} '
            f"(a perfect generator: {modes['floor_modes']:.0f} modes, KL {modes['floor_kl']:.2f})</p>"
        )
    diversity = column.run.diversity
    if diversity is not None and "coverage" in diversity.facts:
        return (
            f'<p class="big"><strong>{diversity.facts["coverage"]:.0%}</strong> of the reals covered</p>'
            f'<p class="below">in {text(diversity.facts["space"])}, at kimg {diversity.kimg:g} (a perfect generator: {diversity.facts["expected_coverage"]:.0%})</p>'
        )
    return f'<p class="below">Diversity was not looked at yet:</p>{code("python report.py " + shlex.quote(column.run.path))}'


def _sheet(run, name):
    """A grid of pictures of the run, or None where it cannot be read."""
    kwargs = run.part("training_set_kwargs")
    resolution = kwargs.get("resolution") if isinstance(kwargs.get("resolution"), int) and kwargs["resolution"] > 0 else None
    return pictures.read_sheets(run.path, [name], resolution, bool(kwargs.get("use_labels")), run.problems).get(name)


def _reals(columns):
    """A line of real images, where all runs learn from the same set."""
    run = columns[0].run
    if len({facts.get("data") for facts in _facts_of_all(columns)}) > 1 or not os.path.isfile(os.path.join(run.path, "reals.png")):
        return ""
    sheet = _sheet(run, "reals.png")
    if sheet is None:
        return ""
    tiles = sheet.tiles.reshape(-1, *sheet.tiles.shape[2:])[:NUM_REALS]
    shown = "".join(picture_of(np.moveaxis(tile, 2, 0)) for tile in tiles)
    return f'<section class="reals"><h2>Real images</h2><div class="least">{shown}</div></section>'


def _samples(column):
    if not column.run.fakes:
        return "<p>There are no sample pictures yet.</p>"
    kimg, name = column.run.fakes[-1]
    sheet = _sheet(column.run, name)
    if sheet is None:
        return ""
    pixels = sheet.pixels
    crisp = ' class="crisp"' if sheet.tiles.shape[2] <= 64 else ""
    caption = "Generated, untrained" if kimg is None else f"Generated at kimg {kimg:g}"
    return (
        f'<figure class="samples"><img{crisp} src="{pictures.jpeg_address(pixels, SHEET_BYTES)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}" '
        f'alt="{text(caption + ": " + column.name)}"><figcaption>{caption}</figcaption></figure>'
    )


def _missing(column):
    found = column.run.diversity
    if found is None or "missing_real" not in found or not len(found["missing_real"]):
        return ""
    shown = "".join(picture_of(image) for image in found["missing_real"][:NUM_MISSING])
    return f'<h3>Real images that it covers least</h3><div class="least">{shown}</div>'
