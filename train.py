"""Train a generative adversarial network with the techniques of StyleGAN2-ADA, and MADR on request.

Flags in, training options out, processes started: a flag is a row of training/flag_table.py, what the values mean is decided in
training/config.py, what happens with them in training/training_loop.py. This script and the other root scripts are the only places
that name the plugin.
"""

import os
import re

import click

from dnnlib import cli, console
from dnnlib.errors import UserError
from dnnlib.grouped_help import GroupedCommand
from madr_plugin import options as madr
from training import config, flag_table
from training.gan import choosing, listing

# Whatever imports torch is imported inside the functions, so that --help comes at once.


def build(flags):
    """All flags to a config.Resolved, the plugin's part included."""
    resolved = config.resolve({name: value for name, value in flags.items() if not name.startswith("madr")})
    madr.apply(resolved.options, flags)
    if flags.get("madr"):
        if madr.weighs_logits(resolved.options):
            choosing.check_logits_are_of_single_reals(resolved.options, "--madr-tilt-form=weight", "--madr-tilt-form=draw")
        if resolved.options.loss_kwargs["madr"]["tilt"]:
            choosing.check_reals_come_in_order(resolved.options, "--madr-tilt=1")
        resolved.name_parts.append("-".join(filter(None, ["madr", flags.get("madr_preset")])))
        resolved.options.setdefault("diversity_monitor", 1)  # without --madr=1 a run stays what it is elsewhere
    return resolved


def tidy(flags):
    """Check flags that stand for themselves and bring them to the form that the loop takes."""
    from metrics import detectors, metric_main
    from training import snapshots

    flags = dict(flags)
    if flags["snap_res"] is not None:
        flags["snap_res"] = flag_table.SNAP_WIDTHS[flags["snap_res"]]
    paths = detectors.with_space(detectors.check_overrides(flags["detectors"], announce=console.note), flags["metric_space"])
    flags["metric_space"], flags["detectors"] = paths.pop(detectors.SPACE, None), paths or None
    if flags["desc"] is not None and not re.fullmatch(r"[\w.+=,@-]{1,100}", flags["desc"]):
        raise UserError(f"--desc={flags['desc']!r} becomes part of a folder name; use up to 100 letters, digits and . _ - + = , @")
    snapshots.parse_keep(flags["keep"])
    metric_main.check_names(flags["metrics"] or [], or_none=True)
    return flags


@click.command(cls=GroupedCommand, context_settings=dict(max_content_width=140))
@click.pass_context
@flag_table.add_options
@listing.list_option
@madr.madr_options
def main(ctx, outdir, dry_run, **flags):
    """Train a network on the images of --data and keep everything about the run in a new folder below --outdir.

    \b
    python train.py --outdir=runs --data=images.zip --cfg=tiny --madr=1            16 to 64 pixels on a CPU, with MADR
    python train.py --outdir=runs --data=images.zip --gpus=8                       settings by resolution, without MADR
    python train.py --outdir=runs --data=images.zip --cfg=tiny --resume=latest     go on where it stopped
    python train.py --outdir=runs --data=images.zip --resume=ffhq256 --dry-run     what would be done, and its cost
    """
    if not os.path.exists(flags["data"]):  # answered before anything heavy is loaded
        raise UserError(
            f"--data={flags['data']}: there is no data set; check the path (from {os.getcwd()}), or make one with "
            f"dataset_tool.py --source=... --dest={flags['data']}"
        )
    from training import launch, resume_options

    given = {name for name in flags if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT}
    launch.check_outdir(outdir)
    flags["gpus"] = launch.number_of_processes(flags["gpus"])
    flags = tidy(flags)
    if flags["metric_space"] is not None:  # also when it came in its old spelling, --detector madr=NAME
        given.add("metric_space")

    continued = resume_options.names_a_run(flags["resume"])
    if continued:
        plugin_flags = [name for name in flags if name.startswith("madr")]
        options, _folder = resume_options.continue_run(flags, given, outdir, build, plugin_flags)
    else:
        resolved = build(flags)
        options = resolved.options
        options.run_dir = launch.next_run_dir(outdir, resolved.name)
    is_first = launch.is_first_process()
    if is_first:
        for remark in [] if continued else resolved.remarks:
            console.note(remark)
        launch.print_options(options, options.training_set_kwargs.max_size)
        if not continued:
            madr.check_features(options, may_fetch=not dry_run)
    if dry_run:
        print("Dry run; exiting.")
        if not continued:
            print(launch.costs_and_doubts(resolved, outdir)[0])
        return

    device = launch.check_device(options)
    madr.check_device(options, device)
    if continued:
        launch.continue_run(options, device, is_first)
    else:
        launch.check_resume_pickle(options)
        launch.begin_run(resolved, outdir, device, is_first)


if __name__ == "__main__":
    cli.run(main)
