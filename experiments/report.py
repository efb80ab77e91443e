"""Writes the page of a study: `python -m experiments.report backbone --outdir=out/studies` fills docs/studies/backbone.md.

The results that the page is made from are kept in experiments/results/<study>/, and without --outdir it is made from these. Everything
between marks on the page is made anew; what stands around them is left as it is.
"""

from pathlib import Path

import click

from dnnlib import cli
from dnnlib.errors import UserError


@click.command(context_settings=dict(max_content_width=140))
@click.argument("study_name", metavar="STUDY")
@click.option(
    "--outdir", type=click.Path(file_okay=False, exists=True), help="Where the study was run  [default: the results kept in experiments/results/]"
)
@click.option(
    "--page",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write this page, pictures beside it, and keep no results  [default: docs/studies/<study>.md]",
)
def main(study_name, outdir, page):
    """Write tables and plots of STUDY: a name in experiments/studies/, or a .py file that defines STUDY.

    \b
    python -m experiments.report backbone --outdir=out/studies                     docs/studies/backbone.md, from the runs there
    python -m experiments.report backbone                                          the same page from the results kept here
    python -m experiments.report my_study.py --outdir=out --page=out/my_study.md   a page of your own
    """
    from experiments import commands, study

    chosen = study.load(study_name)
    if page is not None and not page.resolve().parent.is_dir():
        raise UserError(f"--page={page}: there is no folder {page.parent}; make it first, or choose another.")
    results, sources = _results(chosen, outdir)
    kept = commands.REPO / "experiments" / "results" / chosen.name
    if page is None:
        page = commands.REPO / "docs" / "studies" / f"{chosen.name}.md"
        if outdir is not None:
            _keep(sources, kept)
    _write(chosen, results, page)
    print(f"Written: {page}")
    missing = [bed.name for bed in chosen.beds if bed.name not in results]
    if missing:
        print(f"Without results so far: {', '.join(missing)}.")


def _results(chosen, outdir):
    """({bed: (facts, {method: {seed: entry}})}, {bed: path}) of the beds that have some."""
    from experiments import commands, one_run, records

    if outdir is not None:
        one_run.check_version(chosen, outdir)
    results, sources = {}, {}
    for bed in chosen.beds:
        kept = commands.REPO / "experiments" / "results" / chosen.name / f"{bed.name}.json"
        path = kept if outdir is None else Path(outdir) / chosen.name / bed.name / one_run.RESULTS
        if not path.exists():
            continue
        facts, runs = records.load(path)
        if facts.get("version") != chosen.version:
            raise UserError(
                f"{path} holds results of version {facts.get('version')} of the study {chosen.name}, and this is version {chosen.version}; move it away, "
                "or report with the code of that version."
            )
        results[bed.name], sources[bed.name] = (facts, runs), path
    if outdir is not None and not results:
        raise UserError(f"--outdir={outdir}: no run of the study {chosen.name} has finished there; check the folder, or run the study first.")
    return results, sources


def _keep(sources, folder):
    """Copies of the results, from which the page can be made again."""
    from dnnlib.files import atomic_write_bytes

    folder.mkdir(parents=True, exist_ok=True)
    for bed, path in sources.items():
        atomic_write_bytes(folder / f"{bed}.json", path.read_bytes())


def _write(chosen, results, page):
    from dnnlib.files import atomic_write_bytes, atomic_write_text
    from experiments import pages, study_page

    text = page.read_text(encoding="utf-8") if page.exists() else study_page.skeleton(chosen)
    for mark, part in study_page.parts_of(chosen, results).items():
        text = pages.replaced(text, mark, part, page)
    for bed in chosen.beds:
        if chosen.curve and bed.name in results:
            atomic_write_bytes(page.parent / study_page.picture_name(chosen, bed), study_page.draw(chosen, bed, results[bed.name][1]))
    atomic_write_text(page, text)


if __name__ == "__main__":
    cli.run(main)
