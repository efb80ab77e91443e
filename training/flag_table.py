"""One row per flag of train.py: how it is typed, what its help says, which training options it sets, what --resume makes of it.

train.py's options, its help and docs/flags.md, config.py's pass-through and overrides, resume_options.py's rules and the
signature of a method in reporting/run_table are all read from these rows. The plugin's flags are rows of its own
(madr_plugin/options.py): all of them make another method. Must not import torch: --help shows these rows.
"""

import enum
from dataclasses import dataclass, replace

import click

from dnnlib import cli
from dnnlib.grouped_help import Option
from training import presets

SEED = "random_seed"  # at any depth: subsets and plugins have seeds of their own; it makes no other method
SNAP_WIDTHS = {"1080p": 1920, "4k": 3840, "8k": 7680}  # --snap-res: width in pixels of the sample grid


class How(enum.Enum):
    """How a flag gets into the training options."""

    RESOLVED = "resolved"  # by a function of training/config.py
    PASSED_ON = "passed on"  # as it is, to the one option of the row
    OVERRIDES = "overrides"  # a number of the base configuration, at each place of the row


class OnResume(enum.Enum):
    """What --resume=latest or --resume=RUN makes of a flag that was typed."""

    FIXED = "must agree"  # with what the run was started with
    MAY_CHANGE = "may change"
    NEW_RUNS_ONLY = "refused"  # it says how a new run starts
    NOT_COMPARED = "not compared"


@dataclass(frozen=True)
class Flag:
    """One flag. options: the training options that it decides, as dotted places."""

    name: str
    help: str
    type: object = None
    options: tuple = ()
    group: str = ""  # its heading in --help
    advanced: bool = False  # --help-all alone shows it
    metavar: str | None = None
    spellings: tuple = ()  # where it is not just --name
    is_switch: bool = False
    repeatable: bool = False
    required: bool = False
    default: object = None
    how: How = How.RESOLVED
    name_part: str | None = None  # of an override: its word in the name of the run folder
    on_resume: OnResume = OnResume.FIXED
    housekeeping: bool = False  # its options leave the method as it is: where, how often written, on how many processes, how long
    saves: tuple = ()  # (resource, advice) for the estimate: what to do with the flag when that resource runs short

    @property
    def text(self) -> str:
        """The flag as it is typed."""
        return next((spelling for spelling in self.spellings if spelling.startswith("--")), "--" + self.name.replace("_", "-"))

    @property
    def makes_method(self) -> bool:
        """Whether two runs that differ in it are of two methods."""
        return not self.housekeeping and any(place.rpartition(".")[2] != SEED for place in self.options)

    def click_option(self):
        """The click decorator of this row."""
        metavar = self.metavar or ("INT" if isinstance(self.type, click.IntRange) else "BOOL" if self.type is bool else None)
        details = dict(is_flag=True) if self.is_switch else dict(type=self.type, metavar=metavar, multiple=self.repeatable)
        if self.default is not None:
            details.update(default=self.default, show_default=True)
        spellings, look = self.spellings or [self.text], dict(help=self.help, help_group=self.group, advanced=self.advanced)
        return click.option(*spellings, self.name, cls=Option, required=self.required, **look, **details)


# ------------------------------------------------------------------------------------------
# The rows, by headings of --help and in its order; overrides appear in this order in the name of the run folder.

_COUNT, _NATURAL = cli.IntRange(min=1), cli.IntRange(min=0)
# Far beyond any machine or network: what a slip of the finger asks for would begin, and end neither in a sentence nor at all.
_UP_TO_1024, _IMAGES = cli.IntRange(1, 1024), cli.IntRange(1, 2**16)
_POSITIVE, _WEIGHT, _SHARE = cli.FloatRange(min=0, min_open=True), cli.FloatRange(min=0), cli.FloatRange(0, 1)

_G_SYNTHESIS, _D_BLOCK = "G_kwargs.synthesis_kwargs", "D_kwargs.block_kwargs"
_FP16 = (f"{_G_SYNTHESIS}.num_fp16_res", f"{_G_SYNTHESIS}.conv_clamp", "D_kwargs.num_fp16_res", "D_kwargs.conv_clamp")
_NHWC = (f"{_G_SYNTHESIS}.fp16_channels_last", f"{_D_BLOCK}.fp16_channels_last")


def _override(name, name_part, help, type, *options, **details):
    """A row for a number of the base configuration."""
    return Flag(name, help, type, options, how=How.OVERRIDES, name_part=name_part, advanced=True, **details)


def _aside(name, help, type, *options, how=How.PASSED_ON, **details):
    """A row that leaves the training as it is: what is written along the way, how long it goes on, on which machine."""
    return Flag(name, help, type, options, how=how, on_resume=OnResume.MAY_CHANGE, housekeeping=True, **details)


_OVERRIDES = [
    _override(
        *("cbase", "cbase", "Channels: min(cbase / resolution, cmax) at each resolution", cli.IntRange(min=4)),
        *(f"{_G_SYNTHESIS}.channel_base", "D_kwargs.channel_base"),
        saves=("memory", "lower --cbase"),
    ),
    _override("cmax", "cmax", "Upper bound of the channels", cli.IntRange(1, 2**14), f"{_G_SYNTHESIS}.channel_max", "D_kwargs.channel_max"),
    _override("glr", "glr", "Learning rate of G", _POSITIVE, "G_opt_kwargs.lr"),
    _override("dlr", "dlr", "Learning rate of D", _POSITIVE, "D_opt_kwargs.lr"),
    _override("lr_tail", "tail", "Last share of --kimg over which the learning rates fall to 0 [default: 0; tiny: 0.5]", _SHARE, "lr_tail"),
    _override("noise_inputs", "noise", "Noise per pixel in G [default: 1]", bool, f"{_G_SYNTHESIS}.use_noise"),
    _override("map_depth", "map", "Layers of the mapping network", cli.IntRange(1, 100), "G_kwargs.mapping_kwargs.num_layers"),
    _override("mbstd_group", "mbstd", "Group size of the minibatch standard deviation", _UP_TO_1024, "D_kwargs.epilogue_kwargs.mbstd_group_size"),
    _override("ema_kimg", "ema", "Half-life of the average of G's weights, in thousands of images", _WEIGHT, "ema_kimg"),
    _override("pl_weight", "pl", "Weight of the path-length penalty; 0 turns it off", _WEIGHT, "loss_kwargs.pl_weight"),
]
# Whole parts, and what other flags decide as well.
_BASE = ("G_kwargs", "D_kwargs", "G_opt_kwargs", "D_opt_kwargs", "loss_kwargs", "loss_kwargs.r1_gamma", "batch_size", "ema_rampup", "ada_kimg")
_BASE += ("half", *_FP16, *_NHWC, *(place for row in _OVERRIDES for place in row.options))

_RUN = [
    Flag(
        "outdir",
        "Where run folders are made",
        options=("run_dir",),
        metavar="DIR",
        required=True,
        on_resume=OnResume.NOT_COMPARED,
        housekeeping=True,
        saves=("disk", "choose another --outdir"),
    ),
    Flag(
        "data",
        "Training images: folder or zip, as dataset_tool.py writes them",
        options=("training_set_kwargs.path", "training_set_kwargs.resolution", "training_set_kwargs.max_size"),
        metavar="PATH",
        required=True,
    ),
    Flag(
        "cfg",
        f"Base configuration: {', '.join(presets.BASE_CONFIGS)} (for 16 to 64 pixels, on a CPU)",
        click.Choice(list(presets.BASE_CONFIGS)),
        _BASE,
        metavar="NAME",
    ),
    Flag(
        "resume",
        f"Continue exactly ('latest' or a run folder) or start from weights (pickle, URL, {', '.join(presets.RESUME_URLS)}, noresume)",
        options=("resume_pkl",),
        metavar="FROM",
        on_resume=OnResume.NOT_COMPARED,
    ),
    _aside("kimg", "Thousands of images to train for", _COUNT, "total_kimg", how=How.RESOLVED),
    Flag("seed", "Random seed [default: 0]", cli.IntRange(0, 2**32 - 1), ("random_seed", "training_set_kwargs.random_seed"), metavar="INT"),
    Flag("desc", "Text added to the name of the run folder", options=("desc",), metavar="TEXT", how=How.PASSED_ON, housekeeping=True, advanced=True),
    Flag(
        "dry_run",
        "Print the options, why they are so and what they cost, then exit",
        spellings=("-n", "--dry-run"),
        is_switch=True,
        on_resume=OnResume.NOT_COMPARED,
    ),
]

_DATA = [
    Flag("cond", "Train a conditional model from the labels of the data set [default: false]", bool, ("training_set_kwargs.use_labels",)),
    Flag(
        "subset",
        "Train on that many images only [default: all]",
        _COUNT,
        ("training_set_kwargs.max_size", "training_set_kwargs.random_seed"),
        advanced=True,
    ),
    Flag("mirror", "Add mirrored copies of all images [default: false]", bool, ("training_set_kwargs.xflip",)),
]

_LEARNING = [
    Flag("batch", "Images per step, all processes together", _IMAGES, ("batch_size",)),
    Flag("gamma", "Weight of the R1 penalty", _WEIGHT, ("loss_kwargs.r1_gamma",)),
    *_OVERRIDES,
]

# What of these is chosen stands at one place each. What else a row of training/gan/methods.py sets (networks, optimizers, batch) follows from
# it, and on a resume from --cfg as well, which need not be typed again.
_WHICH_GAN = [
    Flag("gan", "Adversarial loss with its penalty and optimizers, by name [default: StyleGAN2's]", None, ("loss_kwargs.gan",), metavar="NAME"),
    Flag(
        "method", "Add a method, such as pacgan:m=4; may be repeated", None, ("loss_kwargs.methods",), metavar="NAME[:KEY=VALUE,...]", repeatable=True
    ),
    Flag("backbone", "Networks, by name [default: stylegan2]", None, ("backbone",), metavar="NAME"),
]

_AUGMENTATION = [
    Flag(
        "aug",
        "Augmentation of what D sees [default: ada; noaug for a --gan whose logits cannot steer it]",
        click.Choice(["noaug", "ada", "fixed"]),
        ("ada_target", "ada_kimg", "augment_p", "augment_kwargs"),
    ),
    Flag("p", "Probability of augmentation with --aug=fixed", _SHARE, ("augment_p",), advanced=True),
    Flag("target", "Target of --aug=ada [default: 0.6]", _SHARE, ("ada_target",), advanced=True),
    Flag(
        "augpipe",
        f"Which augmentations: {', '.join(presets.AUGMENTATIONS)} [default: bgc]",
        click.Choice(list(presets.AUGMENTATIONS)),
        ("augment_kwargs",),
        metavar="NAME",
        advanced=True,
    ),
    Flag("initstrength", "Probability that --aug=ada starts from [default: 0]", _SHARE, ("augment_p",), advanced=True),
    # 1 loses nothing: at p = 1 every augmentation is applied to every image, and what p gains beyond it only delays
    # its way back. Caps below 1 keep augmentations from showing in generated images (2006.06676, section 2.2).
    Flag(
        "aug_max",
        "Highest probability that --aug=ada may reach [default: 1]",
        _SHARE,
        ("ada_max_p",),
        advanced=True,
        how=How.PASSED_ON,
        on_resume=OnResume.MAY_CHANGE,
    ),
]

_STARTING = [
    Flag("freezed", "Highest-resolution layers of D that stay frozen [default: 0]", _NATURAL, (f"{_D_BLOCK}.freeze_layers",), advanced=True),
    Flag(
        "resume_kimg",
        "Count kimg from here with --resume=<pkl>",
        _NATURAL,
        ("resume_kimg",),
        spellings=("--resume-kimg", "--nkimg"),
        advanced=True,
        how=How.PASSED_ON,
        on_resume=OnResume.NEW_RUNS_ONLY,
        housekeeping=True,
    ),
    Flag(
        "resume_partial",
        "Accept a pickle that fits in part only; the rest keeps its initial values",
        options=("resume_partial",),
        is_switch=True,
        advanced=True,
        how=How.PASSED_ON,
        on_resume=OnResume.NEW_RUNS_ONLY,
    ),
    _aside("trust_pickle", cli.TRUST_HELP, None, "trust_pickle", is_switch=True, advanced=True),
]

_WRITTEN = [
    _aside(
        "snap",
        "Ticks between snapshots [default: 50; tiny: 10]",
        _COUNT,
        "network_snapshot_ticks",
        "image_snapshot_ticks",
        "snapshots_apart",
        how=How.RESOLVED,
        saves=("disk", "raise --snap"),
    ),
    _aside(
        "metrics",
        "Metrics at every snapshot, comma-separated, or 'none' [default: fid50k_full; tiny: none]",
        cli.CommaList(),
        "metrics",
        how=How.RESOLVED,
    ),
    _aside(
        "detectors",
        "File of a metric's detector network; may be repeated",
        cli.NamedPath(),
        "detectors",
        spellings=("--detector",),
        repeatable=True,
        advanced=True,
    ),
    _aside(
        "metric_space",
        "Feature space of the madr_* metrics, by the names of --madr-extractor [default: dino]",
        None,
        "metric_space",
        metavar="NAME",
        advanced=True,
    ),
    _aside(
        "keep",
        "Network snapshots to keep: the newest N, and the best by the first metric [default: all]",
        None,
        "keep",
        metavar="N[,best]",
        saves=("disk", "use --keep=3,best"),
    ),
    _aside(
        "diversity_monitor",
        "Look at G's diversity every tick, warn of collapse and cycling [default: as --madr]",
        cli.IntRange(0, 1),
        "diversity_monitor",
        advanced=True,
    ),
    _aside("tick", "Thousands of images per tick [default: 4]", _POSITIVE, "kimg_per_tick", advanced=True),
    _aside("img_snap", "Ticks between pictures of samples [default: as --snap]", _COUNT, "image_snapshot_ticks", advanced=True),
    _aside("snap_res", "Size of the pictures of samples [default: 8k]", click.Choice(list(SNAP_WIDTHS)), "snap_res", advanced=True),
    _aside("cache", "Use and keep statistics of the real images for the metrics [default: on]", click.Choice(["on", "off"]), "cache", advanced=True),
    _aside("eval_at_start", "Evaluate metrics at tick 0, too", None, "eval_at_start", is_switch=True, advanced=True),
    _aside("nan_streak", "Stop after so many steps in a row with non-finite gradients", _COUNT, "nan_streak", advanced=True),
    _aside("wandb", "Log to this Weights & Biases project as well", None, "wandb_project", metavar="PROJECT", advanced=True),
]

_MACHINE = [
    _aside("device", cli.DEVICE_HELP, click.Choice(cli.DEVICE_NAMES), "device", default="auto"),
    _aside("gpus", "Processes, one per GPU [default: 1, under torchrun its number]", _UP_TO_1024, "num_gpus", how=How.RESOLVED),
    _aside(
        "batch_gpu",
        "Images at a time per process; fewer need less memory",
        _IMAGES,
        "batch_gpu",
        how=How.RESOLVED,
        saves=("memory", "lower --batch-gpu"),
    ),
    _aside("threads", "CPU threads per process [default: PyTorch's choice]", _UP_TO_1024, "threads", advanced=True),
    _aside("workers", "Processes that read images, per GPU [default: 3]", _UP_TO_1024, "data_loader_kwargs", how=How.RESOLVED, advanced=True),
    Flag(
        "half",
        "Half precision: fp16 on CUDA; bf16 on CUDA, and on CPUs with AVX512-BF16 or AMX; off [default: auto, as --cfg says]",
        click.Choice(["auto", "fp16", "bf16", "off"]),
        ("half", *_FP16, *_NHWC),
        advanced=True,
    ),
    Flag("fp32", "No half precision anywhere, as --half=off", bool, ("half", *_FP16), advanced=True),
    Flag("nhwc", "Channels-last memory with half precision [default: with bf16]", bool, _NHWC, advanced=True),
    _aside(
        "kernels",
        "Compiled kernels: 'auto' builds those of the device once per machine and goes on without where that fails, 'off' does without [default: auto]",
        click.Choice(["auto", "off"]),
        "kernels",
        advanced=True,
    ),
    _aside("profile", "Trace this many steps into trace.json", cli.IntRange(1, 100), "profile_steps", metavar="N", advanced=True),
    _aside("nobench", "No search for the fastest cuDNN algorithms", bool, "cudnn_benchmark", how=How.RESOLVED, advanced=True),
    Flag("allow_tf32", "Allow TF32 in PyTorch's own operations", bool, ("allow_tf32",), on_resume=OnResume.MAY_CHANGE, advanced=True),
]

_GROUPS = {
    "Run and data": [*_RUN, *_DATA],
    "Networks and learning": [*_WHICH_GAN, *_LEARNING],
    "Augmentation": _AUGMENTATION,
    "Starting from a network": _STARTING,
    "Written along the way": _WRITTEN,
    "Machine and speed": _MACHINE,
}
FLAGS = tuple(replace(row, group=group) for group, rows in _GROUPS.items() for row in rows)


# ------------------------------------------------------------------------------------------
# What others read from them.


def add_options(function):
    """Click decorator: adds all flags; the command receives them by the rows' names."""
    return cli.option_group(*(row.click_option() for row in FLAGS))(function)


def passed_on() -> dict:
    """{flag: keyword of the training loop} of the flags that are handed on as they are."""
    return {row.name: row.options[0] for row in FLAGS if row.how is How.PASSED_ON}


def overrides() -> dict:
    """{flag: (part of the name, places)} of the flags that override a number of the base configuration."""
    return {row.name: (row.name_part, [tuple(place.split(".")) for place in row.options]) for row in FLAGS if row.how is How.OVERRIDES}


def decided_by() -> dict:
    """{place of an option: flags that decide it}, those that decide little before those that decide much."""
    deciding = {}
    for row in sorted((row for row in FLAGS if row.on_resume is OnResume.FIXED), key=lambda row: len(row.options)):
        for place in row.options:
            deciding.setdefault(place, []).append(row.name)
    return deciding


def may_change() -> dict:
    """{flag: options that it sets} of the flags that may differ from one part of a run to the next."""
    return {row.name: list(row.options) for row in FLAGS if row.on_resume is OnResume.MAY_CHANGE}


def new_runs_only() -> list:
    """The rows of flags that say how a new run starts from a network."""
    return [row for row in FLAGS if row.on_resume is OnResume.NEW_RUNS_ONLY]


def housekeeping() -> set:
    """The options that leave a run's method as it is."""
    return {place for row in FLAGS if row.housekeeping for place in row.options}


def remedies(resource) -> str:
    """What to do when 'memory' or 'disk' runs short."""
    return " or ".join(row.saves[1] for row in FLAGS if row.saves[:1] == (resource,))
