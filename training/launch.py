"""From training options to a run: checks of this machine, the run folder, what is printed, the processes.

What the options mean is decided in training/config.py, what happens with them in training/training_loop.py. Must not know click
or any flag's type.
"""

import contextlib
import json
import os
import re
import shutil
import traceback

import torch

import dnnlib
from dnnlib import cli, console, files
from dnnlib.errors import UserError
from torch_utils import devices, distributed
from training import estimate, presets, resume_options, run_lock, training_loop

UNUSED_RUN_FILES = {resume_options.OPTIONS_FILE, "log.txt"}  # all that a run holds that was refused before it began


# ------------------------------------------------------------------------------------------
# Before anything is made.


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


def is_first_process():
    """Whether this process speaks and writes; under torchrun every process reads the command line."""
    return not distributed.under_torchrun() or int(os.environ["RANK"]) == 0


def check_device(options):
    """The device that the run will use, by name. Raises UserError when there are too few of them."""
    device = devices.resolve(options.get("device", "auto")).type
    if device == "cuda" and not distributed.under_torchrun() and options.num_gpus > torch.cuda.device_count():
        raise UserError(
            f"--gpus={options.num_gpus}, but this machine shows {torch.cuda.device_count()} CUDA device(s); "
            "lower --gpus, or use --device=cpu to try the set-up"
        )
    if device == "mps" and options.num_gpus > 1:
        raise UserError(f"--gpus={options.num_gpus} with mps: an Apple GPU trains in one process; use --gpus=1 or --device=cpu")
    return device


def check_resume_pickle(options):
    path = options.get("resume_pkl")
    if path is not None and not dnnlib.util.is_url(path) and not os.path.isfile(path):
        raise UserError(
            f"--resume={path}: no such file; give a network pickle, a URL, a run folder, 'latest', or one of " + ", ".join(presets.RESUME_URLS)
        )


def next_run_dir(outdir, name):
    """Highest existing number + 1."""
    numbers = [
        int(match.group(1))
        for match in map(re.compile(r"(\d+)").match, os.listdir(outdir) if os.path.isdir(outdir) else [])
        if match and os.path.isdir(os.path.join(outdir, match.string))
    ]
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
    estimate.check_unrolled(options, costs, resolved.image_shape[1])
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


def _alone(options, is_first):
    """Holds the run folder's lock: in the process that starts the others, which end with it."""
    return run_lock.held(options.run_dir) if is_first else contextlib.nullcontext()


def begin_run(resolved, outdir, device, is_first):
    """Start a new run. One that is refused before it wrote anything leaves no folder behind."""
    options = resolved.options
    outdir_is_new = not os.path.isdir(outdir)
    if is_first:
        for doubt in costs_and_doubts(resolved, outdir)[1]:
            console.warn(doubt)
        print("Creating output directory...")
    try:
        if is_first:
            create_run_dir(options, outdir, resolved.name)
            add_to_log(options.run_dir, console.take_told())
        with _alone(options, is_first):
            start(options, device)
    except (Exception, KeyboardInterrupt) as error:
        expected = _why_it_ended(error) is not None
        if is_first and expected and os.path.isdir(options.run_dir) and set(os.listdir(options.run_dir)) <= UNUSED_RUN_FILES:
            shutil.rmtree(options.run_dir)
            if outdir_is_new:
                os.rmdir(outdir)
        elif is_first:
            note_end(options.run_dir, error)
        raise


def add_to_log(run_dir, lines):
    """Add lines to a run's log.txt from outside of the training loop, which opens it."""
    try:
        with open(os.path.join(run_dir, "log.txt"), "a", encoding="utf-8", errors="backslashreplace") as file:
            file.writelines(line + "\n" for line in lines)
    except OSError as error:  # a full disk, say, which may be the very reason of the end
        console.warn(f"log.txt in {run_dir} cannot be written ({error.strerror}); what is told stands here alone.")


def note_end(run_dir, error):
    """Add why a run ended to its log.txt: the terminal that showed it may be gone when somebody asks."""
    sentence = _why_it_ended(error)
    if os.path.isdir(run_dir):
        add_to_log(run_dir, "".join(traceback.format_exception(error)).splitlines() if sentence is None else [f"Error: {sentence}"])


def _why_it_ended(error):
    """The sentence that the terminal shows; None for a fault of the program, which shows its traceback."""
    return cli.INTERRUPTED if isinstance(error, KeyboardInterrupt) else cli.user_sentence(error)


def continue_run(options, device, is_first):
    """Go on with a run, if no other process is at it. If that is refused, its options file is as before."""
    with _alone(options, is_first):
        _continue_alone(options, device, is_first)


def _continue_alone(options, device, is_first):
    path = os.path.join(options.run_dir, resume_options.OPTIONS_FILE)
    with open(path, encoding="utf-8") as file:
        former = file.read()
    if is_first:
        print("Continuing in that directory...")
        save_options(options)
        add_to_log(options.run_dir, console.take_told())
    try:
        start(options, device)
    except (Exception, KeyboardInterrupt) as error:
        if is_first and cli.user_sentence(error) is not None:
            files.atomic_write_text(path, former)
        if is_first:
            note_end(options.run_dir, error)
        raise
