"""From command-line flags to the keyword arguments of the training loop.

`resolve` decides every value, names the run and remembers why; it reads the data set's index and writes nothing.
With the flags of the StyleGAN2-ADA interface alone, keys, values and the name of the run are that interface's; further
keys and parts of the name appear only when a further flag is given. Must not know click, processes or folders of runs.
"""

import dataclasses
import math

import dnnlib
from dnnlib.errors import UserError
from training import batches, flag_table, presets, reasons
from training.gan import backbones, choosing, rows

MOST_CLASSES = 1_000_000  # a layer of the mapping network has as many inputs
IMAGE_FOLDER = "training.dataset.ImageFolderDataset"  # what opens the data of every tool
BF16 = "bf16"


@dataclasses.dataclass
class Resolved:
    """What the flags come to."""

    options: dnnlib.EasyDict  # keyword arguments of training_loop, without run_dir
    name_parts: list  # joined by '-', the name of the run folder after its number
    reasons: list  # sentences: why a value is what it is
    image_shape: tuple = ()  # (channels, height, width) of the data set
    label_dim: int = 0
    remarks: list = dataclasses.field(default_factory=list)  # sentences of the data set on its labels

    @property
    def name(self) -> str:
        return "-".join(self.name_parts)


def resolve(flags: dict) -> Resolved:
    """Resolve all flags; what is absent or None counts as not given. Raises UserError for what cannot be."""
    flags = dnnlib.EasyDict({name: value for name, value in flags.items() if value is not None})
    run = Resolved(options=dnnlib.EasyDict(), name_parts=[], reasons=[])
    _general(run, flags)
    _data(run, flags)
    _base_configuration(run, flags)
    _batch(run, flags)
    _augmentation(run, flags)
    _transfer(run, flags)
    _performance(run, flags)
    choosing.apply(run, flags)
    _overrides(run, flags)
    _passed_on(run, flags)
    batches.check(run.options)
    name_snapshots(run.options)
    return run


def _general(run, flags):
    num_gpus = flags.get("gpus", 1)
    snapshot_ticks = flags.get("snap", presets.BASE_CONFIGS[flags.get("cfg", "auto")].snapshot_ticks)
    run.options.update(num_gpus=num_gpus, image_snapshot_ticks=snapshot_ticks, network_snapshot_ticks=snapshot_ticks)
    run.options.metrics = flags.get("metrics", list(presets.BASE_CONFIGS[flags.get("cfg", "auto")].metrics))
    run.options.random_seed = flags.get("seed", 0)


# ------------------------------------------------------------------------------------------
# Data.


def _data(run, flags):
    wants_labels = bool(flags.get("cond", False))
    kwargs = dnnlib.EasyDict(class_name=IMAGE_FOLDER, path=flags.data, use_labels=wants_labels, max_size=None, xflip=False)
    name, num_images, has_labels = _inspect(run, kwargs, rows.spelt_name(flags.get("backbone", "")))
    if wants_labels and not has_labels:
        raise UserError(
            "--cond=1 needs labels. "
            + (run.remarks[0] if run.remarks else f"{flags.data} has none; add them to its dataset.json")
            + " (dataset_tool.py --labels=folders makes labels from folder names), or leave out --cond"
        )
    kwargs.max_size = num_images
    run.name_parts.append(name)
    if wants_labels:
        run.name_parts.append("cond")
    if "subset" in flags:
        if not 1 <= flags.subset <= num_images:
            raise UserError(f"--subset must be between 1 and {num_images}, the number of images in {flags.data} (got {flags.subset})")
        run.name_parts.append(f"subset{flags.subset}")
        if flags.subset < num_images:
            kwargs.max_size = flags.subset
            kwargs.random_seed = run.options.random_seed
    if flags.get("mirror", False):
        run.name_parts.append("mirror")
        kwargs.xflip = True
    run.options.training_set_kwargs = kwargs
    run.options.data_loader_kwargs = dnnlib.EasyDict(pin_memory=True, num_workers=flags.get("workers", 3), prefetch_factor=2)


def _inspect(run, kwargs, backbone):
    """Open the data set once; fills kwargs.resolution. backbone: its name. Returns (name, number of images, has labels)."""
    try:
        dataset = dnnlib.util.construct_class_by_name(**kwargs)
        try:
            run.image_shape, run.label_dim = tuple(dataset.image_shape), dataset.label_dim
            facts = dataset.name, len(dataset), dataset.has_labels
            run.remarks = dataset.remarks
        finally:
            dataset.close()
    except (OSError, UserError) as error:
        text = str(error)
        raise UserError(text if "--data" in text else f"--data={kwargs.path}: {text}") from error
    channels, height, width = run.image_shape
    if backbone in backbones.SIZES and height == width:
        backbones.check_size(height, f"--data={kwargs.path} holds images of", backbone)
    elif height != width or height < 8 or height & (height - 1):
        size = max(1 << (min(height, width).bit_length() - 1), 8)
        raise UserError(
            f"--data={kwargs.path} holds images of {width}x{height} pixels; the networks need squares of 8, 16, 32, ... pixels: "
            f"convert with dataset_tool.py --width={size} --height={size} --transform=center-crop"
        )
    if channels not in (1, 3):
        raise UserError(f"--data={kwargs.path} holds images of {channels} channels; convert to grey (1) or RGB (3) with dataset_tool.py")
    if run.label_dim > MOST_CLASSES:
        raise UserError(
            f"--data={kwargs.path} has labels of {run.label_dim:,} numbers, for which the networks would not fit any memory: class numbers with gaps? "
            "Close them with dataset_tool.py --labels=renumber, or train with --cond=0"
        )
    kwargs.resolution = height
    return facts


# ------------------------------------------------------------------------------------------
# Networks, optimizers, loss.


def _base_configuration(run, flags):
    cfg = flags.get("cfg", "auto")
    options, resolution = run.options, run.options.training_set_kwargs.resolution
    row = presets.base_config(cfg, resolution, options.num_gpus)
    run.name_parts.append(f"{cfg}{options.num_gpus}" if cfg == "auto" else cfg)

    channels = dict(channel_base=row.channel_base, channel_max=row.channel_max, num_fp16_res=row.num_fp16_res, conv_clamp=row.conv_clamp)
    options.G_kwargs = dnnlib.EasyDict(
        class_name="training.networks.Generator",
        z_dim=row.latent_dim,
        w_dim=row.latent_dim,
        mapping_kwargs=dnnlib.EasyDict(num_layers=row.map_depth),
        synthesis_kwargs=dnnlib.EasyDict(channels),
    )
    options.D_kwargs = dnnlib.EasyDict(
        class_name="training.networks.Discriminator",
        block_kwargs=dnnlib.EasyDict(),
        mapping_kwargs=dnnlib.EasyDict(),
        epilogue_kwargs=dnnlib.EasyDict(mbstd_group_size=row.mbstd_group),
        **channels,
    )
    if row.architecture is not None:
        options.D_kwargs.architecture = row.architecture
    for name in ("G_opt_kwargs", "D_opt_kwargs"):
        options[name] = dnnlib.EasyDict(class_name="torch.optim.Adam", lr=row.lr, betas=[0, 0.99], eps=1e-8)
    options.loss_kwargs = dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=row.gamma, **dict(row.loss))
    options.update(
        total_kimg=row.kimg, batch_size=row.batch_size, batch_gpu=row.batch_size // row.ref_gpus, ema_kimg=row.ema_kimg, ema_rampup=row.ema_rampup
    )
    if row.lr_tail:
        options.lr_tail = row.lr_tail
    if row.kimg_per_tick is not None:
        options.kimg_per_tick = row.kimg_per_tick
    reasons.tell(run.reasons, reasons.of_base(cfg, row, resolution, options.num_gpus))

    if "gamma" in flags:
        run.name_parts.append(f"gamma{flags.gamma:g}")
        options.loss_kwargs.r1_gamma = flags.gamma
        reasons.tell(run.reasons, [reasons.About(reasons.GAMMA, f"R1 gamma {flags.gamma:g}: --gamma, in place of {row.gamma:g}")])
    if "kimg" in flags:
        run.name_parts.append(f"kimg{flags.kimg:d}")
        options.total_kimg = flags.kimg


def _batch(run, flags):
    """--batch and --batch-gpu; --batch is shared by the GPUs."""
    options = run.options
    if "batch" in flags:
        run.name_parts.append(f"batch{flags.batch:d}")
        options.batch_size, options.batch_gpu = flags.batch, max(flags.batch // options.num_gpus, 1)
    elif options.batch_gpu * options.num_gpus > options.batch_size:
        # More GPUs than the base configuration was written for: each takes its share of the step in one piece.
        options.batch_gpu = max(options.batch_size // options.num_gpus, 1)
    if "batch" in flags:
        reasons.tell(run.reasons, [reasons.About(reasons.BATCH, f"batch size {flags.batch}: --batch")])
    if "batch_gpu" in flags:
        options.batch_gpu = flags.batch_gpu


def name_snapshots(options):
    """Have snapshots and pictures of one kimg named apart where ticks are so short that there are several: else each would replace
    the one before, and results would stand beside the wrong networks."""
    batch_size, ticks = options["batch_size"], [options[name] for name in ("network_snapshot_ticks", "image_snapshot_ticks")]
    images_per_tick = math.ceil(options.get("kimg_per_tick", presets.KIMG_PER_TICK) * 1000 / batch_size) * batch_size
    options.pop("snapshots_apart", None)
    if any(count is not None and count * images_per_tick < 1000 for count in ticks):
        options["snapshots_apart"] = True


# ------------------------------------------------------------------------------------------
# Augmentation.


def _augmentation(run, flags):
    options, mode = run.options, choosing.augmentation(flags, run.reasons)
    if "aug" in flags:
        run.name_parts.append(mode)
    _refuse_foreign_strength_flags(flags, mode)
    if mode == "ada":
        options.ada_target = flags.get("target", presets.DEFAULT_ADA_TARGET)
        ada_kimg = presets.BASE_CONFIGS[flags.get("cfg", "auto")].ada_kimg
        if ada_kimg is not None:
            options.ada_kimg = ada_kimg
        if "initstrength" in flags:
            options.augment_p = flags.initstrength
        text = (
            f"augmentation: p follows D's overfitting (target {options.ada_target:g}), from {options.get('augment_p', 0):g} to the cap "
            f"{flags.get('aug_max', 1):g}; beyond 1 there is nothing to gain, p would only be slow to come back"
        )
        reasons.tell(run.reasons, [reasons.About(reasons.AUGMENTATION, text)])
    elif mode == "fixed":
        options.augment_p = flags.p
    if "p" in flags:
        run.name_parts.append(f"p{flags.p:g}")
    if "target" in flags:
        run.name_parts.append(f"target{flags.target:g}")
    if "augpipe" in flags:
        run.name_parts.append(flags.augpipe)
    if mode != "noaug":
        kind = flags.get("augpipe", presets.DEFAULT_AUGMENTATION)
        options.augment_kwargs = dnnlib.EasyDict(class_name="training.augment.AugmentPipe", **presets.AUGMENTATIONS[kind])


def _refuse_foreign_strength_flags(flags, mode):
    if mode == "fixed" and "p" not in flags:
        raise UserError("--aug=fixed needs the probability of augmentation; add --p=0.3 or another number between 0 and 1")
    if mode != "fixed" and "p" in flags:
        raise UserError(f"--p={flags.p:g} belongs to --aug=fixed, but --aug is {mode}; add --aug=fixed or leave out --p")
    for flag, text in (("target", "--target"), ("initstrength", "--initstrength"), ("aug_max", "--aug-max")):
        if flag in flags and mode != "ada":
            raise UserError(f"{text}={flags[flag]:g} steers --aug=ada, but --aug is {mode}; leave out one of the two")
    if "augpipe" in flags and mode == "noaug":
        raise UserError(f"--augpipe={flags.augpipe} chooses augmentations, but --aug=noaug turns them off; leave out one of the two")
    if flags.get("initstrength", 0) > flags.get("aug_max", 1):
        raise UserError(f"--initstrength={flags.initstrength:g} is above the cap --aug-max={flags.aug_max:g}; lower the first or raise the second")


# ------------------------------------------------------------------------------------------
# Starting from other weights.


def _transfer(run, flags):
    options, resume = run.options, flags.get("resume", "noresume")
    if resume == "noresume":
        if "resume" in flags:
            run.name_parts.append("noresume")
        for row in flag_table.new_runs_only():
            if flags.get(row.name):
                raise UserError(f"{row.text} says how to go on from a network, but --resume names none; add --resume=<pkl> or leave out {row.text}")
    else:
        run.name_parts.append(f"resume{resume}" if resume in presets.RESUME_URLS else "resumecustom")
        options.resume_pkl = presets.RESUME_URLS.get(resume, resume)
        options.ada_kimg = presets.RESUME_ADA_KIMG
        options.ema_rampup = None
        run.reasons.append(f"ADA speed {presets.RESUME_ADA_KIMG} kimg and no ramp-up of the average: --resume starts from trained weights")
    if "freezed" in flags:
        run.name_parts.append(f"freezed{flags.freezed:d}")
        options.D_kwargs.block_kwargs.freeze_layers = flags.freezed


# ------------------------------------------------------------------------------------------
# Speed, overrides, and what only the loop understands.


def _performance(run, flags):
    options = run.options
    _half_precision(run, flags)
    if flags.get("nhwc", options.get("half") == BF16):
        options.G_kwargs.synthesis_kwargs.fp16_channels_last = True
        options.D_kwargs.block_kwargs.fp16_channels_last = True
    if flags.get("nobench", False):
        options.cudnn_benchmark = False
    if flags.get("allow_tf32", False):
        options.allow_tf32 = True


def _half_precision(run, flags):
    """--half and --fp32: how many resolutions are for half precision, with which bound, and whether that is bfloat16."""
    options, asked = run.options, flags.get("half", "auto")
    row = presets.base_config(flags.get("cfg", "auto"), options.training_set_kwargs.resolution, options.num_gpus)
    if flags.get("fp32", False):
        if asked in ("fp16", BF16):
            raise UserError(f"--fp32=1 asks for float32 everywhere, --half={asked} for half precision; leave out one of the two")
        asked = "off"
    elif asked == "auto" and row.cpu_bf16_res and _networks_have_half_precision(flags) and _runs_on_a_cpu_with_bf16(flags):
        asked = BF16
    if asked == "auto":
        return
    resolutions = {"off": 0, "fp16": row.num_fp16_res or presets.HALF_RES, BF16: row.cpu_bf16_res or row.num_fp16_res or presets.HALF_RES}[asked]
    for kwargs in (options.G_kwargs.synthesis_kwargs, options.D_kwargs):
        kwargs.num_fp16_res = resolutions
        kwargs.conv_clamp = (row.conv_clamp or presets.HALF_CLAMP) if resolutions else None
    if asked == BF16:
        options.half = BF16
        why = "--half=bf16" if "half" in flags and flags.half != "auto" else f"--cfg={flags.get('cfg', 'auto')} on a CPU that multiplies it"
        run.reasons.append(f"bfloat16 in the {resolutions} highest resolutions: {why}; --half=off turns it off")
    if flags.get("half") in ("fp16", BF16):
        run.name_parts.append(asked)


def _networks_have_half_precision(flags):
    return rows.spelt_name(flags.get("backbone", "")) not in backbones.SIZES


def _runs_on_a_cpu_with_bf16(flags):
    from torch_utils import devices  # torch, which --help is not to wait for

    kind = flags.get("device", "auto")
    return (devices.resolve("auto").type if kind == "auto" else kind) == "cpu" and devices.bf16_instructions("cpu") is not None


def _overrides(run, flags):
    for flag, (name, places) in flag_table.overrides().items():
        if flag not in flags:
            continue
        run.name_parts.append(f"{name}{flags[flag]:g}")
        for *path, key in places:
            target = run.options
            for step in path:
                target = target[step]
            target[key] = flags[flag]
    reasons.tell(run.reasons, reasons.of_overrides(flags, run.options))


def _passed_on(run, flags):
    for flag, keyword in flag_table.passed_on().items():
        # False, empty and 'auto' are what the loop does anyway. By identity: a zero is a value.
        if flag in flags and flags[flag] is not False and flags[flag] not in ({}, "auto"):
            run.options[keyword] = flags[flag]
    if "desc" in flags:
        run.name_parts.append(flags.desc)
