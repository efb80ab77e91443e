"""Runs a study of experiments/studies/: `python -m experiments.run backbone --outdir=out/studies --jobs=2`.

Each run is one train.py command in OUTDIR/<study>/<bed>/<method>/seed-<n>/, judged by calc_metrics.py. Finished runs are not
repeated, stopped ones go on; what is done with the results is in experiments/report.py.
"""

import contextlib
import os
import shlex
import signal
import threading

import click

from dnnlib import cli, console
from dnnlib.errors import UserError

# Whatever imports torch is imported inside the functions, so that --help comes at once.

ENGINES = ("local", "ray", "slurm")


class StopSignals:
    """Counts what asks the study to stop: the first Ctrl-C or SIGTERM lets the runs save and stop, a second Ctrl-C ends them at once.

    Use as a context manager; call it for the level (experiments/commands.py).
    """

    def __init__(self):
        self._level, self._previous = 0, {}

    def __call__(self):
        return self._level

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_exception):
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number, _frame):
        self._level = 2 if self._level and number == signal.SIGINT else max(self._level, 1)


@click.command(context_settings=dict(max_content_width=140))
@click.argument("study_name", metavar="STUDY")
@click.option("--outdir", type=click.Path(file_okay=False), required=True, help="Folder of all studies; the runs lie in OUTDIR/<study>/")
@click.option("--jobs", type=cli.IntRange(min=1), default=1, show_default=True, help="Runs at a time; each gets its share of the cores")
@click.option(
    "--file",
    "given_files",
    type=cli.NamedPath("mnist=FOLDER"),
    multiple=True,
    help="A file that the study reads, such as cifar10=cifar-10-python.tar.gz; may be repeated",
)
@click.option("--only", metavar="KEY=VALUES", help="Some of the runs alone, such as method=plain,default,seed=0-2; keys: bed, method, seed")
@click.option("--dry-run", "-n", is_flag=True, help="Print the commands of all runs that are left; do nothing")
@click.option("--prepare", is_flag=True, help="Build the data sets and stop")
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default="local",
    show_default=True,
    help="local: processes of this machine. ray: the cluster of RAY_ADDRESS, or a local one. slurm: print a script for sbatch.",
)
@click.option("--index", type=cli.IntRange(min=0), metavar="INT", help="The run of that number alone, as tasks of a SLURM array ask for it")
def main(study_name, outdir, jobs, given_files, only, dry_run, prepare, engine, index):
    """Run every (bed, method, seed) of STUDY: a name in experiments/studies/, or a .py file that defines STUDY.

    \b
    python -m experiments.run backbone --outdir=out/studies --jobs=2 --file emoji64=emoji64.zip
    python -m experiments.run cifar10 --outdir=out/studies --file cifar10=cifar-10-python.tar.gz        on a GPU
    python -m experiments.run backbone --outdir=out/studies --only method=plain,default,seed=0 --dry-run
    python -m experiments.run cifar10 --outdir=/shared/studies --file cifar10=... --jobs=8 --engine=slurm > cifar10.sbatch

    Ctrl-C lets running trainings save their state and stop (exit code 75); the same command goes on.
    """
    from experiments import study

    chosen = study.load(study_name)
    rows = study.chosen_rows(chosen, only)
    spec = os.path.abspath(study_name) if study_name.endswith(".py") else study_name
    if engine == "slurm":
        _print_script(spec, chosen, rows, os.path.abspath(outdir), jobs, dict(given_files), only, index)
        return None
    if index is not None:
        if index >= len(rows):
            raise UserError(f"--index={index}: the study {chosen.name} has {len(rows)} runs here, numbered from 0; give a smaller one.")
        rows = rows[index : index + 1]
    given = {name: os.path.abspath(path) for name, path in dict(given_files).items()}
    return _run(spec, chosen, rows, outdir, jobs, given, dry_run, prepare, engine)


def _print_script(spec, chosen, rows, outdir, jobs, given, only, index):
    from experiments import commands, engines, study_data

    if index is not None:
        raise UserError(f"--index={index} belongs to one task of an array, and --engine=slurm prints the script for all; leave one of them out.")
    study_data.check_files(chosen, given)
    more = [f"--file={name}={os.path.abspath(path)}" for name, path in given.items()] + ([f"--only={only}"] if only else [])
    console.result(engines.slurm_script(spec, chosen.name, outdir, len(rows), jobs, commands.threads_of(jobs), more).rstrip("\n"))


def _run(spec, chosen, rows, outdir, jobs, given, dry_run, prepare, engine):
    from experiments import commands, engines, one_run, study_data
    from torch_utils import distributed

    study_data.check_files(chosen, given)
    if engine == "ray":
        engines.import_ray()
    one_run.check_version(chosen, outdir)
    works = [one_run.Work(chosen, row, outdir, given, commands.threads_of(jobs)) for row in rows]
    todo, finished = _left_to_do(works)
    if dry_run:
        _print_commands(todo, finished)
        return None
    with StopSignals() as stop:
        try:
            prepared = _prepared(chosen, [work.bed for work in todo], outdir, given, stop)
        except study_data.Stopped:
            print(f"Stopped while the data were built; the same command goes on. Exit code {distributed.EXIT_STOPPED}.")
            return distributed.EXIT_STOPPED
        if prepare or not todo:
            print(f"{len(finished)} of {len(works)} runs of the study {chosen.name} are done{'; the data sets are there' if prepare else ''}.")
            return None
        outcomes = _work_on(spec, todo, finished, prepared, jobs, stop, engine)
        return _told_end(chosen, outcomes, len(works), len(finished), bool(stop()))


def _left_to_do(works):
    """([Work] without a result yet, {row: result} of the others); refuses folders of other runs at once."""
    from experiments import one_run, study_data

    todo, finished, stores = [], {}, {}
    for work in works:
        if work.bed.name not in stores:
            stores[work.bed.name] = one_run.store(work.study, work.bed, work.outdir, study_data.hashes(work.study, work.bed, work.outdir))
        result = stores[work.bed.name].get(work.row.method, work.row.seed)
        if result is None:
            one_run.check_folder(work, None)
            todo.append(work)
        else:
            finished[work.row] = result
    return todo, finished


def _print_commands(todo, finished):
    from experiments import one_run, study_data

    printed = set()
    for work in todo:
        for part, command in study_data.build_commands(work.study, work.bed, work.outdir, work.files).items():
            if (work.bed.name, part) not in printed:
                printed.add((work.bed.name, part))
                console.result(shlex.join(command))
        console.result(shlex.join(one_run.train_command(work)))
        for judge in work.bed.judges:
            console.result(shlex.join(one_run.judge_command(work, judge, "SNAPSHOT")))
    console.note(f"{len(todo)} runs are left, {len(finished)} are done; --dry-run: nothing was done.")


def _prepared(chosen, beds, outdir, given, stop):
    from experiments import one_run, study_data

    one_run.note_version(chosen, outdir)
    return {bed.name: study_data.prepare(chosen, bed, outdir, given, stop) for bed in {bed.name: bed for bed in beds}.values()}


def _work_on(spec, todo, finished, prepared, jobs, stop, engine):
    from experiments import engines, one_run, pace

    times = {row: result["wall_seconds"] for row, result in finished.items() if result["wall_seconds"] is not None}
    of_row = {work.row: work for work in todo}
    share = lambda row: one_run.reached_kimg(of_row[row]) / of_row[row].kimg
    board = pace.Board([work.row for work in todo], times, len(todo) + len(finished), jobs, share)
    with contextlib.closing(board):
        if engine == "ray":
            return engines.run_on_ray(spec, todo, prepared, jobs, stop, board)
        return engines.run_locally(todo, prepared, jobs, stop, board)


def _told_end(chosen, outcomes, total, done_before, stopped):
    """The last sentences -> exit code; what failed is told with its log."""
    from experiments import one_run
    from torch_utils import distributed

    of_kind = lambda kind: [outcome for outcome in outcomes if outcome.kind == kind]
    done = done_before + len(of_kind(one_run.FINISHED))
    print(f"{done} of {total} runs of the study {chosen.name} are done.")
    for outcome in of_kind(one_run.BUSY):
        console.note(f"{outcome.row}: another process is at it; left to that.")
    failed = of_kind(one_run.FAILED)
    if failed:
        told = "\n".join(f"  {outcome.row}: {outcome.reason} ({outcome.log})" for outcome in failed)
        raise UserError(f"{len(failed)} {'run' if len(failed) == 1 else 'runs'} failed:\n{told}\nMend the cause and give the same command again.")
    if stopped or of_kind(one_run.STOPPED):
        print(f"Stopped; what was trained is saved, and the same command goes on. Exit code {distributed.EXIT_STOPPED}.")
        return distributed.EXIT_STOPPED
    return None


if __name__ == "__main__":
    cli.run(main)
