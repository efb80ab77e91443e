"""Make the page of one run: `python report.py runs/00000-...` writes report.html there.

Samples over time, what is missing, curves, metrics, settings and what to do next, in one file that opens offline; also
while the run goes on. What it finds out about a snapshot's diversity is kept in the run folder, so that the page can be
made again at once.
"""

import os

import click
from click.core import ParameterSource

from dnnlib import cli, console
from dnnlib.errors import UserError
from madr_spaces import names
from reporting import counts

# Whatever imports torch is imported inside the functions, so that --help comes at once.


def snapshot_of(run_dir, network):
    """Path of the snapshot to look at: the one asked for, which must lie in the run folder, else the newest; None if there is none."""
    from reporting import diversity_file
    from torch_utils import snapshot_names

    if network is None:
        saved = snapshot_names.list_network_snapshots(run_dir)
        return os.path.join(run_dir, saved[-1][1]) if saved else None
    path = network if os.path.dirname(network) else os.path.join(run_dir, network)
    if not os.path.isfile(path):
        raise UserError(f"--network={network} does not exist; leave it out for the newest snapshot of {run_dir}.")
    if os.path.realpath(os.path.dirname(path)) != os.path.realpath(run_dir) or diversity_file.path_for(path) is None:
        raise UserError(f"--network={network} is no network-snapshot-*.pkl in {run_dir}; the page is about that run's own snapshots.")
    return path


def look_at_diversity(network, *, data, num_gen, num_real, space, detector_paths, device, trust, copies=True):
    """The DiversityFile of a snapshot: kept and still true, else made now."""
    import torch

    import legacy
    from metrics.metric_utils import MetricOptions
    from metrics.progress import ProgressMonitor
    from reporting import diversity_file, diversity_sheets
    from training.trained_network import dataset_options, trained_in

    snapshot = legacy.open_network(network, trust=trust, verbose=False)
    G = snapshot["G_ema"].eval().requires_grad_(False).to(device)
    led_by = trained_in(network)
    space, reason = diversity_sheets.choose_space(space, led_by, detector_paths)
    opts = MetricOptions(
        G=G,
        dataset_kwargs=dict(dataset_options(snapshot, data, None, trust, data_has_moved=True)),
        device=device,
        progress=ProgressMonitor(verbose=True),
        detectors=detector_paths,
        space=space,
        trained_in=led_by,
    )
    path, key = diversity_file.path_for(network), diversity_file.key_of(diversity_sheets.inputs(opts, network, num_gen, num_real, copies))
    try:
        kept = diversity_file.load(path, key)
    except diversity_file.DAMAGED as error:
        print(f"{path} is damaged ({type(error).__name__}); making it again.", flush=True)
        kept = None
    if kept is None:
        print(f"Looking at the diversity of {os.path.basename(network)} in the space {space}{f' ({reason})' if reason else ''}...", flush=True)
        facts, arrays = diversity_sheets.compute(opts, num_gen, num_real, copies)
        facts.update(version=diversity_file.VERSION, space_reason=reason, torch=torch.__version__)
        kept = diversity_file.of_snapshot(network, facts, arrays)
        try:
            diversity_file.save(path, key, facts, arrays)
        except UserError as error:  # the run of somebody else: the page, which may go elsewhere, shows it all the same
            console.warn(f"What was found out is not kept: {error}")
    return kept


def check_beside_no_diversity(ctx):
    """Refuse what says how a network is looked at, where none is."""
    for param in ctx.command.params:
        of_page = param.name in ("run_folder_path", "dest", "no_diversity") or not param.expose_value
        if not of_page and ctx.get_parameter_source(param.name) is not ParameterSource.DEFAULT:
            raise UserError(f"{param.opts[0]} has no effect beside --no-diversity, which looks at no network; leave one of them out.")


@click.command()
@click.argument("run_folder_path", metavar="RUN_FOLDER")
@click.option("--dest", metavar="FILE", help="Where the page goes  [default: RUN_FOLDER/report.html]")
@click.option("--no-diversity", is_flag=True, help="Do not look at images and networks: quick; what was found out before is shown")
@click.option("--no-copies", is_flag=True, help="Do not look for copies of training images, which takes longest in a large set")
@click.option("--network", metavar="PKL", help="The snapshot of the run whose diversity is looked at  [default: the newest]")
@click.option("--data", metavar="PATH", help="The training data, zip or folder, if it has moved")
@click.option("--num-gen", type=cli.IntRange(min=10), default=counts.NUM_GEN, show_default=True, help="Generated images to look at")
@click.option(
    "--num-real",
    type=cli.IntRange(min=10),
    default=counts.NUM_REAL,
    show_default=True,
    help="Real images on the map of coverage, drawn at random; copies are looked for in all, "
    f"or in {counts.MAX_SEARCHED:,} evenly spread ones of a larger set",
)
@click.option(
    "--metric-space", metavar="NAME", help=f"Feature space: {names.HELP}  [default: dino if its weights are on this machine, else random-conv]"
)
@click.option("--madr-extractor", metavar="NAME", help="Old spelling of --metric-space")
@click.option("--madr-weights", metavar="PATH", help="File with the weights of that space")
@cli.device_option
@cli.trust_option
def main(
    run_folder_path, dest, no_diversity, no_copies, network, data, num_gen, num_real, metric_space, madr_extractor, madr_weights, device, trust_pickle
):
    """Write one HTML page about a training run: samples over time, what is missing, near copies, curves, metrics, settings.

    \b
    python report.py runs/00000-digits-tiny                       # runs/00000-digits-tiny/report.html
    python report.py runs/00000-digits-tiny --dest=digits.html    # elsewhere
    python report.py runs/00000-digits-tiny --no-diversity        # at once: no network is run
    """
    if no_diversity:
        check_beside_no_diversity(click.get_current_context())
    if not os.path.isdir(run_folder_path):
        raise UserError(f"{run_folder_path} is not a folder; give the run folder that train.py made, such as runs/00000-...")
    from madr_spaces.errors import MADRError
    from metrics import detectors
    from metrics.requested import with_weights
    from reporting import run_folder
    from reporting.run_page import page
    from torch_utils import devices

    run_folder.check_is_run(run_folder_path)
    page.check_dest(run_folder_path, dest)
    problems, found = [], None
    if not no_diversity:
        space = detectors.named_space(metric_space, madr_extractor)
        detector_paths = with_weights({}, space, madr_weights)
        snapshot = snapshot_of(run_folder_path, network)
        try:
            if snapshot is not None:
                found = look_at_diversity(
                    snapshot,
                    data=data,
                    num_gen=num_gen,
                    num_real=num_real,
                    space=space,
                    detector_paths=detector_paths,
                    device=devices.resolve(device),
                    trust=trust_pickle,
                    copies=not no_copies,
                )
        except (UserError, MADRError) as error:  # the rest of the page is worth having
            problems.append(f"What is missing could not be looked at: {error}")
            console.warn(problems[-1])
    path = page.write_report(run_folder_path, dest, problems=problems, diversity=found)
    print(f"Wrote {path} ({os.path.getsize(path) / 1e6:.1f} MB).")


if __name__ == "__main__":
    cli.run(main)
