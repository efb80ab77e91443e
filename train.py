"""Train a generative adversarial network with the techniques of StyleGAN2-ADA, and MADR on request.

Flags in, training options out, processes started: what the values mean is decided in training/config.py, what happens
with them in training/training_loop.py. This script and the other root scripts are the only places that name the plugin.
"""
import json
import os
import re
import shutil
import sys

import click
import torch

import dnnlib
from dnnlib import cli, files
from dnnlib.errors import UserError
from madr_plugin import options as madr
from metrics import detectors, metric_main
from torch_utils import devices, distributed
from training import config, estimate, presets, resume_options, snapshots, training_loop

SNAP_WIDTHS = {"1080p": 1920, "4k": 3840, "8k": 7680}  # --snap-res: width in pixels of the sample grid
UNUSED_RUN_FILES = {resume_options.OPTIONS_FILE, "log.txt"}  # all that a run holds that was refused before it began

general_options = cli.option_group(
    click.option("--outdir", required=True, metavar="DIR", help="Where run folders are made"),
    click.option("--gpus", type=cli.IntRange(min=1), metavar="INT", help="Processes, one per GPU [default: 1, under torchrun its number]"),
    click.option("--snap", type=cli.IntRange(min=1), metavar="INT", help="Ticks between snapshots [default: 50; tiny: 10]"),
    click.option("--metrics", type=cli.CommaList(), help="Metrics at every snapshot, comma-separated, or 'none' [default: fid50k_full; tiny: none]"),
    click.option("--seed", type=cli.IntRange(0, 2 ** 32 - 1), metavar="INT", help="Random seed [default: 0]"),
    click.option("-n", "--dry-run", is_flag=True, help="Print the options, why they are so and what they cost, then exit"),
    click.option("--desc", help="Text added to the name of the run folder"),
)

data_options = cli.option_group(
    click.option("--data", required=True, metavar="PATH", help="Training images: folder or zip, as dataset_tool.py writes them"),
    click.option("--cond", type=bool, metavar="BOOL", help="Train a conditional model from the labels of the data set [default: false]"),
    click.option("--subset", type=cli.IntRange(min=1), metavar="INT", help="Train on that many images only [default: all]"),
    click.option("--mirror", type=bool, metavar="BOOL", help="Add mirrored copies of all images [default: false]"),
)

base_options = cli.option_group(
    click.option("--cfg", type=click.Choice(list(presets.BASE_CONFIGS)), help="Base configuration; tiny is for 16 to 64 pixels on a CPU [default: auto]"),
    click.option("--gamma", type=cli.FloatRange(min=0), help="Weight of the R1 penalty"),
    click.option("--kimg", type=cli.IntRange(min=1), metavar="INT", help="Thousands of images to train for"),
    click.option("--batch", type=cli.IntRange(min=1), metavar="INT", help="Images per step, all processes together"),
    click.option("--batch-gpu", type=cli.IntRange(min=1), metavar="INT", help="Images at a time per process; fewer need less memory"),
    click.option("--cbase", type=cli.IntRange(min=4), metavar="INT", help="Channels: min(cbase / resolution, cmax) at each resolution"),
    click.option("--cmax", type=cli.IntRange(min=1), metavar="INT", help="Upper bound of the channels"),
    click.option("--glr", type=cli.FloatRange(min=0, min_open=True), help="Learning rate of G"),
    click.option("--dlr", type=cli.FloatRange(min=0, min_open=True), help="Learning rate of D"),
    click.option("--map-depth", type=cli.IntRange(min=1), metavar="INT", help="Layers of the mapping network"),
    click.option("--mbstd-group", type=cli.IntRange(min=1), metavar="INT", help="Group size of the minibatch standard deviation"),
    click.option("--ema-kimg", type=cli.FloatRange(min=0), help="Half-life of the average of G's weights, in thousands of images"),
    click.option("--pl-weight", type=cli.FloatRange(min=0), help="Weight of the path-length penalty; 0 turns it off"),
)

augmentation_options = cli.option_group(
    click.option("--aug", type=click.Choice(["noaug", "ada", "fixed"]), help="Augmentation of what D sees [default: ada]"),
    click.option("--p", type=cli.FloatRange(0, 1), help="Probability of augmentation with --aug=fixed"),
    click.option("--target", type=cli.FloatRange(0, 1), help="Target of --aug=ada [default: 0.6]"),
    click.option("--augpipe", type=click.Choice(list(presets.AUGMENTATIONS)), help="Which augmentations [default: bgc]"),
    click.option("--initstrength", type=cli.FloatRange(0, 1), help="Probability that --aug=ada starts from [default: 0]"),
    # 1 loses nothing: at p = 1 every augmentation is applied to every image, and what p gains beyond it only delays
    # its way back. Caps below 1 keep augmentations from showing in generated images (2006.06676, section 2.2).
    click.option("--aug-max", type=cli.FloatRange(0, 1), help="Highest probability that --aug=ada may reach [default: 1]"),
)

starting_options = cli.option_group(
    click.option("--resume", metavar="FROM", help="Network pickle or URL, ffhq256, ffhq512, ffhq1024, celebahq256, lsundog256, or noresume to start "
                                            "a new run; 'latest' or a run folder to continue a run exactly"),
    click.option("--resume-kimg", "--nkimg", "resume_kimg", type=cli.IntRange(min=0), metavar="INT", help="Count kimg from here with --resume=<pkl>"),
    click.option("--resume-partial", is_flag=True, help="Accept a pickle that fits in part only; the rest keeps its initial values"),
    click.option("--freezed", type=cli.IntRange(min=0), metavar="INT", help="Highest-resolution layers of D that stay frozen [default: 0]"),
    cli.trust_option,
)

running_options = cli.option_group(
    click.option("--fp32", type=bool, metavar="BOOL", help="No float16 anywhere"),
    click.option("--nhwc", type=bool, metavar="BOOL", help="Channels-last memory with float16"),
    click.option("--nobench", type=bool, metavar="BOOL", help="No search for the fastest cuDNN algorithms"),
    click.option("--allow-tf32", type=bool, metavar="BOOL", help="Allow TF32 in PyTorch's own operations"),
    click.option("--workers", type=cli.IntRange(min=1), metavar="INT", help="Processes that read images, per GPU [default: 3]"),
    cli.device_option,
    click.option("--threads", type=cli.IntRange(min=1), metavar="INT", help="CPU threads per process [default: PyTorch's choice]"),
    click.option("--tick", type=cli.FloatRange(min=0, min_open=True), help="Thousands of images per tick [default: 4]"),
    click.option("--img-snap", type=cli.IntRange(min=1), metavar="INT", help="Ticks between pictures of samples [default: as --snap]"),
    click.option("--snap-res", type=click.Choice(list(SNAP_WIDTHS)), help="Size of the pictures of samples [default: 8k]"),
    click.option("--keep", metavar="N[,best]", help="Network snapshots to keep: the newest N, and the best by the first metric [default: all]"),
    click.option("--nan-streak", type=cli.IntRange(min=1), metavar="INT", help="Stop after so many steps in a row with non-finite gradients"),
    click.option("--eval-at-start", is_flag=True, help="Evaluate metrics at tick 0, too"),
    click.option("--detector", "detectors", type=cli.NamedPath(), multiple=True, help="File of a metric's detector network; may be repeated"),
    click.option("--diversity-monitor", type=cli.IntRange(0, 1), help="Look at G's diversity every tick, warn of collapse and cycling [default: as --madr]"),
    click.option("--wandb", metavar="PROJECT", help="Log to this Weights & Biases project as well"),
)


# ------------------------------------------------------------------------------------------
# Flags to options.

def build(flags):
    """All flags to a config.Resolved, the plugin's part included."""
    resolved = config.resolve({name: value for name, value in flags.items() if not name.startswith("madr")})
    madr.apply(resolved.options, flags)
    if flags.get("madr"):
        resolved.name_parts.append("-".join(filter(None, ["madr", flags.get("madr_preset")])))
        resolved.options.setdefault("diversity_monitor", 1)  # without --madr=1 a run stays what it is elsewhere
    return resolved


def tidy(flags):
    """Check flags that stand for themselves and bring them to the form that the loop takes."""
    flags = dict(flags)
    if flags["snap_res"] is not None:
        flags["snap_res"] = SNAP_WIDTHS[flags["snap_res"]]
    flags["detectors"] = detectors.check_overrides(flags["detectors"]) or None
    if flags["desc"] is not None and not re.fullmatch(r"[\w.+=,@-]{1,100}", flags["desc"]):
        raise UserError(f"--desc={flags['desc']!r} becomes part of a folder name; use up to 100 letters, digits and . _ - + = , @")
    snapshots.parse_keep(flags["keep"])
    check_metrics(flags["metrics"])
    return flags


def check_metrics(names):
    unknown = [name for name in names or [] if not metric_main.is_valid_metric(name)]
    if unknown:
        raise UserError(f"--metrics does not know {', '.join(unknown)}; choose among {', '.join(metric_main.list_valid_metrics())}, or use --metrics=none")


def check_outdir(outdir):
    """Refuse now what would fail after the data was read; creates nothing."""
    nearest = os.path.abspath(outdir)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise UserError(f"--outdir={outdir}: {nearest} is a file; name a folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise UserError(f"--outdir={outdir}: {nearest} cannot be written to; check its permissions or choose another folder")


def number_of_processes(gpus):
    """--gpus, or under torchrun the number of processes that it started."""
    if not distributed.under_torchrun():
        return gpus
    world_size = int(os.environ["WORLD_SIZE"])
    if gpus is not None and gpus != world_size:
        raise UserError(f"--gpus={gpus}, but torchrun started {world_size} process(es); leave out --gpus")
    return world_size


def check_device(options):
    """The device that the run will use, by name. Raises UserError when there are too few of them."""
    device = devices.resolve(options.get("device", "auto")).type
    if device == "cuda" and not distributed.under_torchrun() and options.num_gpus > torch.cuda.device_count():
        raise UserError(f"--gpus={options.num_gpus}, but this machine shows {torch.cuda.device_count()} CUDA device(s); "
                        "lower --gpus, or use --device=cpu to try the set-up")
    if device == "mps" and options.num_gpus > 1:
        raise UserError(f"--gpus={options.num_gpus} with mps: an Apple GPU trains in one process; use --gpus=1 or --device=cpu")
    return device


def check_resume_pickle(options):
    path = options.get("resume_pkl")
    if path is not None and not dnnlib.util.is_url(path) and not os.path.isfile(path):
        raise UserError(f"--resume={path}: no such file; give a network pickle, a URL, a run folder, 'latest', or one of "
                        + ", ".join(presets.RESUME_URLS))


def next_run_dir(outdir, name):
    """Highest existing number + 1."""
    numbers = [int(match.group(1)) for match in map(re.compile(r"(\d+)").match, os.listdir(outdir) if os.path.isdir(outdir) else [])
               if match and os.path.isdir(os.path.join(outdir, match.string))]
    return os.path.join(outdir, f"{max(numbers, default=-1) + 1:05d}-{name}")


# ------------------------------------------------------------------------------------------
# Telling and starting.

def print_options(options, image_count):
    kwargs = options.training_set_kwargs
    print("\nTraining options:")
    print(json.dumps(options, indent=2))
    print()
    print(f"Output directory:   {options.run_dir}")
    print(f"Training data:      {kwargs.path}")
    print(f"Training duration:  {options.total_kimg} kimg")
    print(f"Number of GPUs:     {options.num_gpus}")
    print(f"Number of images:   {image_count}")
    print(f"Image resolution:   {kwargs.resolution}")
    print(f"Conditional model:  {kwargs.use_labels}")
    print(f"Dataset x-flips:    {kwargs.xflip}")


def costs_and_doubts(resolved, outdir):
    """(text for a dry run, warnings)."""
    nearest = os.path.abspath(outdir)
    while not os.path.isdir(nearest):
        nearest = os.path.dirname(nearest)
    options = resolved.options
    costs = estimate.estimate(options, resolved.image_shape, resolved.label_dim)
    doubts = estimate.warnings_for(options, costs, resolved.image_shape, options.training_set_kwargs.max_size, shutil.disk_usage(nearest).free)
    return estimate.report(resolved, costs, doubts), doubts


def create_run_dir(options, outdir, name):
    """Make the folder and write training_options.json. Another run may have taken the number since."""
    for _ in range(100):
        try:
            os.makedirs(outdir, exist_ok=True)
            os.mkdir(options.run_dir)
            break
        except FileExistsError:
            options.run_dir = next_run_dir(outdir, name)
            print(f"That name was taken just now; output directory: {options.run_dir}")
        except OSError as error:
            raise UserError(f"--outdir={outdir}: cannot create {options.run_dir} ({error.strerror}); choose another folder") from error
    save_options(options)


def save_options(options):
    kept = {name: value for name, value in options.items() if name != "resume_state"}
    files.atomic_write_text(os.path.join(options.run_dir, resume_options.OPTIONS_FILE), json.dumps(kept, indent=2))


def train_process(rank, options):
    """Body of one process."""
    # Under torchrun every process has read the command line for itself; the first one has named the folder.
    options = distributed.gather_objects(options)[0]
    arguments = {name: value for name, value in options.items() if name != "threads"}
    threads = options.get("threads")
    if threads is None and options.num_gpus > 1 and options.get("device", "auto") in ("auto", "cpu") and not torch.cuda.is_available():
        threads = max((os.cpu_count() or 1) // options.num_gpus, 1)  # or all processes together ask for that many times the cores
    if threads is not None:
        torch.set_num_threads(threads)
    if devices.resolve(options.get("device", "auto")).type == "cpu":
        devices.keep_freed_memory()
    if rank != 0:
        training_loop.training_loop(rank=rank, **arguments)
        return
    with dnnlib.util.Logger(file_name=os.path.join(options.run_dir, "log.txt"), file_mode="a", should_flush=True):
        training_loop.training_loop(rank=rank, **arguments)


def start(options, device):
    print("Launching processes...", flush=True)
    distributed.launch(train_process, options, num_processes=options.num_gpus, device_name=device)


def begin_run(resolved, outdir, device, is_first):
    """Start a new run. One that is refused before it wrote anything leaves no folder behind."""
    options = resolved.options
    outdir_is_new = not os.path.isdir(outdir)
    if is_first:
        for doubt in costs_and_doubts(resolved, outdir)[1]:
            print(f"Warning: {doubt}", file=sys.stderr)
        print("Creating output directory...")
    try:
        if is_first:
            create_run_dir(options, outdir, resolved.name)
        start(options, device)
    except Exception as error:
        refused = is_first and cli.user_sentence(error) is not None
        if refused and os.path.isdir(options.run_dir) and set(os.listdir(options.run_dir)) <= UNUSED_RUN_FILES:
            shutil.rmtree(options.run_dir)
            if outdir_is_new:
                os.rmdir(outdir)
        raise


def continue_run(options, device, is_first):
    """Go on with a run. If that is refused, its options file is as before."""
    path = os.path.join(options.run_dir, resume_options.OPTIONS_FILE)
    with open(path, encoding="utf-8") as file:
        former = file.read()
    if is_first:
        print("Continuing in that directory...")
        save_options(options)
    try:
        start(options, device)
    except Exception as error:
        if is_first and cli.user_sentence(error) is not None:
            files.atomic_write_text(path, former)
        raise


# ------------------------------------------------------------------------------------------
# The command.

@click.command(context_settings=dict(max_content_width=140))
@click.pass_context
@general_options
@data_options
@base_options
@augmentation_options
@starting_options
@running_options
@madr.madr_options
def main(ctx, outdir, dry_run, **flags):
    """Train a network on the images of --data and keep everything about the run in a new folder below --outdir.

    \b
    Examples:
      python train.py --outdir=runs --data=images.zip --gpus=1                      one GPU, settings by resolution
      python train.py --outdir=runs --data=images.zip --cfg=tiny                    16 to 64 pixels, on a CPU
      python train.py --outdir=runs --data=images.zip --cfg=tiny --resume=latest    go on where it stopped
      python train.py --outdir=runs --data=images.zip --madr=1                      with MADR
      python train.py --outdir=runs --data=images.zip --resume=ffhq256 --dry-run    what would be done, and its cost
    """
    given = {name for name in flags if ctx.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT}
    check_outdir(outdir)
    flags["gpus"] = number_of_processes(flags["gpus"])
    flags = tidy(flags)
    is_first = not distributed.under_torchrun() or int(os.environ["RANK"]) == 0

    continued = resume_options.names_a_run(flags["resume"])
    if continued:
        plugin_flags = [name for name in flags if name.startswith("madr")]
        options, _folder = resume_options.continue_run(flags, given, outdir, build, plugin_flags)
    else:
        resolved = build(flags)
        options = resolved.options
        options.run_dir = next_run_dir(outdir, resolved.name)
    if is_first:
        print_options(options, options.training_set_kwargs.max_size)
    if dry_run:
        print("Dry run; exiting.")
        if not continued:
            print(costs_and_doubts(resolved, outdir)[0])
        return

    device = check_device(options)
    if continued:
        continue_run(options, device, is_first)
    else:
        check_resume_pickle(options)
        begin_run(resolved, outdir, device, is_first)


if __name__ == "__main__":
    cli.run(main)
