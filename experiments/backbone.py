"""MADR on and off on the StyleGAN2 backbone of this repository, in the CPU-sized configuration: trains the runs.

    python -m experiments.backbone --data emoji32=emoji32.zip --data stacked-mnist=stacked-mnist.zip --outdir=out/backbone

Runs lie in OUTDIR/<data>/<method>/; finished ones are not repeated. experiments/backbone_results.py judges them. To keep a
part of the images for that, give the training part that experiments/split_data.py writes.
"""

import json
import subprocess
import sys
from pathlib import Path

import click

from dnnlib import cli
from dnnlib.errors import UserError
from madr_plugin import config
from madr_plugin.options import ROWS
from torch_utils import devices
from training import half_precision

REPO = Path(__file__).resolve().parent.parent
PHOTO = "file:PHOTO"  # stands for --photo in what is written down: paths are a machine's own
METHODS = {
    "plain": ["--madr=0"],
    "witness": ["--madr=1", "--madr-preset=witness"],
    "witness+replay": ["--madr=1", "--madr-preset=witness", "--madr-replay-weight=1"],
    "default": ["--madr=1"],
    "tilt": ["--madr=1", "--madr-preset=replay", "--madr-tilt=1"],
    "witness+moments": ["--madr=1", "--madr-preset=moments"],
    # The memory-free twin: the same term and strength, moments of the batch alone.
    "witness+batch-moments": ["--madr=1", "--madr-preset=moments", "--madr-moments-horizon=0"],
    # Both in fewer components, as they once were.
    "witness+moments-64": ["--madr=1", "--madr-preset=moments", "--madr-width=64"],
    "witness+batch-moments-64": ["--madr=1", "--madr-preset=moments", "--madr-moments-horizon=0", "--madr-width=64"],
    # What the default is (docs/studies/default.md).
    "moments+fine-tilt": ["--madr=1", "--madr-preset=moments", "--madr-tilt=1", "--madr-tilt-sensor=fine"],
    # Its two parts alone, each as strong as both together.
    "moments": ["--madr=1", "--madr-preset=moments", "--madr-term=moments"],
    "witness-as-strong": ["--madr=1", "--madr-preset=moments", "--madr-term=witness"],
    # In the features of a photographs' network (--photo) instead of pixels' components.
    "witness+moments-photo": ["--madr=1", "--madr-preset=moments", f"--madr-extractor={PHOTO}"],
    # How long it remembers (.8 kimg else).
    "horizon-0.2": ["--madr=1", "--madr-preset=moments", "--madr-moments-horizon=0.2"],
    "horizon-0.4": ["--madr=1", "--madr-preset=moments", "--madr-moments-horizon=0.4"],
    "horizon-auto": ["--madr=1", "--madr-preset=moments", "--madr-moments-horizon=auto"],
    # Half precision on a CPU, against `plain` and `default` (docs/studies/half_precision.md).
    "plain-bf16": ["--madr=0", "--half=bf16"],
    "default-bf16": ["--madr=1", "--half=bf16"],
}
USUAL = ["--cfg=tiny", "--tick=2", "--snap=5", "--threads=1"]
FLOAT32 = ["--half=off"]  # of methods that name no precision: what a run is may not depend on the machine
# Stacked digits have no use for augmentation: mirrored digits are none. The first 20,000 images (20 per mode) keep the judging short.
DATA_FLAGS = {"stacked-mnist": ["--aug=noaug", "--subset=20000"], "stacked-digits": ["--aug=noaug"]}


def folder_of(outdir, data, method):
    return Path(outdir) / data / method


def snapshot_of(outdir, data, method, seed, kimg):
    """The network that a run has saved at `kimg`, or None. Seeds are told apart by the runs' own options.

    Passed over: runs of other MADR options, and longer ones whose learning rates fall at their end, which at `kimg` have not fallen yet.
    """
    for options in sorted(folder_of(outdir, data, method).glob("*/training_options.json")):
        network, stated = options.parent / f"network-snapshot-{kimg:06d}.pkl", json.loads(options.read_text(encoding="utf-8"))
        trained = {name: value for name, value in stated["loss_kwargs"].get("madr", {}).items() if name not in config.NOT_CONFIG}
        trained = config.resolve(trained).as_dict() if trained else trained  # a knob that came later stood at its default
        if trained.get("extractor", "").startswith("file:"):
            trained["extractor"] = PHOTO
        same_method = trained == madr_of(method) and stated.get("half") == half_of(method)
        as_long = not stated.get("lr_tail") or stated["total_kimg"] == kimg
        if stated["random_seed"] == seed and same_method and as_long and network.exists():
            return network
    return None


def madr_of(method):
    """Every knob of MADR that a method stands for, {} for none."""
    flags = {}
    for flag in METHODS[method]:
        name, _, value = flag.partition("=")  # a value may hold dashes and further signs of its own
        if name.startswith("--madr"):
            flags[name.removeprefix("--").replace("-", "_")] = value
    if flags.pop("madr") == "0":
        return {}
    return config.resolve({name.removeprefix("madr_"): ROWS[name.removeprefix("madr_")].parsed(value) for name, value in flags.items()}).as_dict()


def half_of(method):
    """'bf16' for the methods in half precision, else None, as training options state it."""
    return next((flag.partition("=")[2] for flag in METHODS[method] if flag.startswith("--half=")), None)


def check_half_precision(methods):
    """Refuse to train in half precision where it would be float32 under another name."""
    asked = [method for method in methods if half_of(method)]
    if asked and devices.bf16_instructions("cpu") is None:
        raise UserError(
            f"--methods={','.join(methods)}: {half_precision.left_out('cpu')}. {', '.join(asked)} would be float32 under another name; "
            "run them on another machine, together with what they are compared to."
        )


def needs_photo(method):
    return any(PHOTO in flag for flag in METHODS[method])


def train(outdir, data, path, method, seed, kimg, photo=None):
    """One run by the command that a user would type; its output goes into the run folder's log."""
    command = [
        sys.executable,
        str(REPO / "train.py"),
        f"--outdir={folder_of(outdir, data, method)}",
        f"--data={path}",
        *USUAL,
        *DATA_FLAGS.get(data, []),
        *(flag.replace(PHOTO, f"file:{photo}") for flag in METHODS[method]),
        *([] if half_of(method) else FLOAT32),
        f"--kimg={kimg}",
        f"--seed={seed}",
    ]
    print(" ".join(command[1:]), flush=True)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


@click.command()
@click.option(
    "--data", "datasets", type=cli.NamedPath("emoji32=emoji32.zip"), multiple=True, required=True, help="NAME=PATH of a data set; may be repeated"
)
@click.option("--methods", default="plain,default", show_default=True, help=f"Comma-separated, of {', '.join(METHODS)}")
@click.option("--seeds", type=click.IntRange(1, 1000), default=3, show_default=True, help="Seeds 0, 1, ...")
@click.option("--first-seed", type=click.IntRange(0), default=0, show_default=True, help="Start at another seed")
@click.option("--kimg", type=click.IntRange(1), default=20, show_default=True)
@click.option("--outdir", type=click.Path(file_okay=False), default="out/backbone", show_default=True)
@click.option(
    "--photo",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="Network of photographs for the methods that lead with one, as metrics.photo_export writes it",
)
def main(datasets, methods, seeds, first_seed, kimg, outdir, photo):
    """Train the runs of the comparison."""
    unknown = [method for method in methods.split(",") if method not in METHODS]
    if unknown:
        raise click.UsageError(f"--methods knows {', '.join(METHODS)}, not {unknown[0]!r}")
    check_half_precision(methods.split(","))
    if photo is None and any(map(needs_photo, methods.split(","))):
        raise click.UsageError(f"--methods={methods}: give the network of photographs with --photo=FILE; python -m metrics.photo_export writes one")
    for data, path in dict(datasets).items():
        for seed in range(first_seed, first_seed + seeds):
            for method in methods.split(","):
                if snapshot_of(outdir, data, method, seed, kimg) is None:
                    train(outdir, data, path, method, seed, kimg, photo)


if __name__ == "__main__":
    cli.run(main)
