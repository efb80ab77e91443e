"""Make the page of one run: `python report.py runs/00000-...` writes report.html there.

Samples over time, curves, metrics, settings and what to do next, in one file that opens offline; also while the run goes on.
"""
import os

import click

from dnnlib import cli
from training.report import page


@click.command()
@click.argument("run_folder", metavar="RUN_FOLDER")
@click.option("--dest", metavar="FILE", help="Where the page goes  [default: RUN_FOLDER/report.html]")
def main(run_folder, dest):
    """Write one HTML page about a training run: samples over time, curves, metrics, settings.

    \b
    python report.py runs/00000-digits-tiny                       # runs/00000-digits-tiny/report.html
    python report.py runs/00000-digits-tiny --dest=digits.html    # elsewhere; nothing in the run folder changes
    """
    path = page.write_report(run_folder, dest)
    print(f"Wrote {path} ({os.path.getsize(path) / 1e6:.1f} MB).")


if __name__ == "__main__":
    cli.run(main)
