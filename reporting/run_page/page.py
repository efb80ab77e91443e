"""One run folder -> one HTML file that needs nothing else: no network, no other file, no library.

Must not know what the sections show.
"""

import datetime
import os
from pathlib import Path

from dnnlib import files
from dnnlib.errors import UserError
from reporting import run_folder
from reporting.run_page import sections
from reporting.run_page.markup import text

FILE_NAME = "report.html"
HERE = Path(__file__).resolve().parent


def render(run, section_functions=None):
    """HTML of a RunFolder; section_functions: each (run) -> Section or None, in the order of the page."""
    functions = sections.SECTIONS if section_functions is None else section_functions
    made = {function: function(run) for function in functions if function is not sections.overview_section}
    # Last, since the others may have met problems that it tells.
    made.update({function: function(run) for function in functions if function is sections.overview_section})
    parts = [made[function] for function in functions if made[function] is not None]
    links = "".join(f'<a href="#{part.address}">{text(part.title)}</a>' for part in parts)
    bodies = "".join(f'<section id="{part.address}"><h2>{text(part.title)}</h2>{part.body}</section>' for part in parts)
    style, script = ((HERE / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    when = datetime.datetime.fromtimestamp(run.now, datetime.timezone.utc)
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{text(run.name)}</title><style>\n{style}</style></head>\n<body>'
        f"<header><h1>{text(run.name)}</h1><p>Made {when:%Y-%m-%d %H:%M} UTC</p><nav>{links}</nav></header>\n<main>{bodies}</main>\n"
        f"<script>\n{script}</script></body></html>\n"
    )


def check_dest(run_dir, dest=None):
    """Where the page goes. Raises UserError where it cannot."""
    dest = os.path.join(run_dir, FILE_NAME) if dest is None else dest
    if os.path.isdir(dest):
        raise UserError(f"--dest={dest} is a folder; name the file to write, such as {os.path.join(dest, FILE_NAME)}")
    folder = os.path.dirname(os.path.abspath(dest))
    if not os.path.isdir(folder):
        raise UserError(f"--dest={dest}: the folder {folder} does not exist; make it, or choose another place")
    return dest


def write_report(run_dir, dest=None, section_functions=None, now=None, problems=(), diversity=None):
    """Write the page of a run folder, by default into it; problems: sentences that it shall tell, too. Returns its path.

    diversity: the DiversityFile to show in place of that of the newest snapshot. Raises UserError for what is no run folder.
    """
    run = run_folder.read_run(run_dir, now)
    run.problems += problems
    if diversity is not None:
        run.diversity = diversity
    dest = check_dest(run_dir, dest)
    page = render(run, section_functions)
    try:
        files.atomic_write_text(dest, page)
    except PermissionError as error:
        raise UserError(f"{dest} cannot be written ({error.strerror}); choose another place with --dest=FILE") from error
    return dest


def write_report_of_training(run_dir, say):
    """The page of the run so far. What goes wrong there is told and stops nothing."""
    try:
        write_report(run_dir)
    except Exception as err:  # a page must not end a training run
        say(f"report.html was not written: {type(err).__name__}: {err}")
