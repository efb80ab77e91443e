"""The tables behind --cfg, --augpipe and --resume: base configurations, augmentation presets, published networks.

Numbers only; how they become training options is training/config.py's business. Imports nothing of this project.
"""

import dataclasses

# ------------------------------------------------------------------------------------------
# Base configurations.


@dataclasses.dataclass(frozen=True)
class BaseConfig:
    """One row of the --cfg table.

    What is None in `auto` and `tiny` depends on the resolution and the number of GPUs; see `base_config`.
    """

    kimg: int  # length of training
    batch_size: int | None  # images per step, all processes together
    ref_gpus: int | None  # the batch is cut into this many microbatches; None: one per GPU
    mbstd_group: int | None  # group size of the minibatch standard deviation
    channel_base: int | None  # channels at resolution r are min(channel_base / r, channel_max)
    lr: float | None  # learning rate of G and D
    gamma: float | None  # weight of R1
    ema_kimg: float | None  # half-life of the moving average of G's weights
    ema_rampup: float | None  # the half-life is at most this share of the images seen so far
    map_depth: int  # layers of the mapping network
    channel_max: int = 512
    latent_dim: int = 512  # z_dim and w_dim
    num_fp16_res: int = 4  # this many of the highest resolutions run in float16
    conv_clamp: float | None = 256  # bound on activations, needed by float16 only
    cpu_bf16_res: int | None = 0  # with --half=auto, this many run in bfloat16 on a CPU that multiplies it; 0: none
    loss: tuple = ()  # further keywords of the loss, as (name, value) pairs
    architecture: str | None = None  # of D; None leaves the network's own default
    lr_tail: float = 0  # the learning rates fall to 0 over this last share of the run
    snapshot_ticks: int = 50
    kimg_per_tick: float | None = None  # None leaves the loop's own default
    ada_kimg: int | None = None  # None leaves the loop's own default
    metrics: tuple = ("fid50k_full",)  # when --metrics is not given


KIMG_PER_TICK = 4  # the loop's own default
_PAPER = dict(kimg=25000, ref_gpus=8, ema_rampup=None, map_depth=8)

BASE_CONFIGS = {
    "auto": BaseConfig(
        kimg=25000,
        batch_size=None,
        ref_gpus=None,
        mbstd_group=None,
        channel_base=None,
        lr=None,
        gamma=None,
        ema_kimg=None,
        ema_rampup=0.05,
        map_depth=2,
    ),
    "stylegan2": BaseConfig(**_PAPER, batch_size=32, mbstd_group=4, channel_base=32768, lr=0.002, gamma=10, ema_kimg=10),
    "paper256": BaseConfig(**_PAPER, batch_size=64, mbstd_group=8, channel_base=16384, lr=0.0025, gamma=1, ema_kimg=20),
    "paper512": BaseConfig(**_PAPER, batch_size=64, mbstd_group=8, channel_base=32768, lr=0.0025, gamma=0.5, ema_kimg=20),
    "paper1024": BaseConfig(**_PAPER, batch_size=32, mbstd_group=4, channel_base=32768, lr=0.002, gamma=2, ema_kimg=10),
    # StyleGAN2-ADA's setting for CIFAR-10 (2006.06676, appendix): no path-length term, no style mixing, plain D.
    "cifar": BaseConfig(
        kimg=100000,
        batch_size=64,
        ref_gpus=2,
        mbstd_group=32,
        channel_base=32768,
        lr=0.0025,
        gamma=0.01,
        ema_kimg=500,
        ema_rampup=0.05,
        map_depth=2,
        architecture="orig",
        loss=(("pl_weight", 0), ("style_mixing_prob", 0)),
    ),
    # 16 to 64 pixels on two CPU cores: something to see within minutes. No float16 (CPUs have none), no path-length
    # term (it doubles the time per step), a short average because the whole run is short. Small batches and a high
    # learning rate, since the first strokes take some 1000 steps; a firm R1, or the small D wins within those.
    # The rates fall to 0 over the second half, with which more modes are hit. Chosen on seeds of 100 and up, on which no study
    # is judged (docs/studies/tiny.md). bfloat16 from 32 pixels on, where it makes no worse networks (docs/studies/half_precision.md); smaller
    # images were not judged.
    "tiny": BaseConfig(
        kimg=200,
        batch_size=16,
        ref_gpus=None,
        mbstd_group=4,
        channel_base=None,
        lr=0.01,
        gamma=None,
        ema_kimg=2,
        ema_rampup=None,
        map_depth=2,
        channel_max=64,
        latent_dim=64,
        lr_tail=0.5,
        num_fp16_res=0,
        conv_clamp=None,
        cpu_bf16_res=None,
        loss=(("pl_weight", 0),),
        snapshot_ticks=10,
        ada_kimg=100,
        metrics=(),
    ),
}

TINY_BF16_FROM = 32  # pixels from which `tiny` is in bfloat16 on a CPU that multiplies it
MAX_AUTO_BATCH_SIZE = 64  # `auto` stays at or below it, unless there are more GPUs than that
MAX_AUTO_GROUP = 4  # images over which `auto` takes the minibatch standard deviation, where a GPU has as many
# What --half adds to a configuration that is without half precision; those of the other rows.
HALF_RES = BaseConfig.num_fp16_res
HALF_CLAMP = BaseConfig.conv_clamp
GAMMA_PER_PIXEL = 0.0002  # the gamma rule: 0.0002 * resolution^2 / batch
TINY_GAMMA_PER_PIXEL = 0.016  # the same for the small networks of `tiny`


def gamma_per_pixel(name: str) -> float:
    """Factor of the gamma rule in the configurations that follow it."""
    return TINY_GAMMA_PER_PIXEL if name == "tiny" else GAMMA_PER_PIXEL


def base_config(name: str, resolution: int, num_gpus: int) -> BaseConfig:
    """The row `name` with every number filled in for this resolution and number of GPUs."""
    row = BASE_CONFIGS[name]
    ref_gpus = row.ref_gpus if row.ref_gpus is not None else num_gpus
    batch_size = row.batch_size if row.batch_size is not None else _auto_batch_size(resolution, num_gpus)
    filled = dict(ref_gpus=ref_gpus, batch_size=batch_size)
    if row.mbstd_group is None:
        filled["mbstd_group"] = min(batch_size // num_gpus, MAX_AUTO_GROUP)
    if row.channel_base is None:
        filled["channel_base"] = 16 * resolution if name == "tiny" else (32768 if resolution >= 512 else 16384)
    if row.lr is None:
        filled["lr"] = 0.002 if resolution >= 1024 else 0.0025
    if row.gamma is None:
        filled["gamma"] = gamma_per_pixel(name) * resolution**2 / batch_size
    if row.cpu_bf16_res is None:
        filled["cpu_bf16_res"] = HALF_RES if resolution >= TINY_BF16_FROM else 0
    if row.ema_kimg is None:
        filled["ema_kimg"] = batch_size * 10 / 32
    return dataclasses.replace(row, **filled)


def _auto_batch_size(resolution: int, num_gpus: int) -> int:
    """As many images as a GPU takes well (32 at up to 128 pixels, fewer above), at most 64 in all, at least one each."""
    size = max(min(num_gpus * min(4096 // resolution, 32), MAX_AUTO_BATCH_SIZE), num_gpus)
    # A number of GPUs that is no power of two must still share it evenly, each in whole groups of the minibatch standard deviation.
    each = size // num_gpus
    return num_gpus * (each - each % MAX_AUTO_GROUP if each > MAX_AUTO_GROUP else each)


# ------------------------------------------------------------------------------------------
# Augmentation presets: keyword arguments of the augmentation pipe.

_BLIT = dict(xflip=1, rotate90=1, xint=1)
_GEOM = dict(scale=1, rotate=1, aniso=1, xfrac=1)
_COLOR = dict(brightness=1, contrast=1, lumaflip=1, hue=1, saturation=1)
_FILTER = dict(imgfilter=1)
_NOISE = dict(noise=1)
_CUTOUT = dict(cutout=1)

AUGMENTATIONS = {
    "blit": _BLIT,
    "geom": _GEOM,
    "color": _COLOR,
    "filter": _FILTER,
    "noise": _NOISE,
    "cutout": _CUTOUT,
    "bg": _BLIT | _GEOM,
    "bgc": _BLIT | _GEOM | _COLOR,
    "bgcf": _BLIT | _GEOM | _COLOR | _FILTER,
    "bgcfn": _BLIT | _GEOM | _COLOR | _FILTER | _NOISE,
    "bgcfnc": _BLIT | _GEOM | _COLOR | _FILTER | _NOISE | _CUTOUT,
}
DEFAULT_AUGMENTATION = "bgc"
DEFAULT_ADA_TARGET = 0.6

# ------------------------------------------------------------------------------------------
# Published networks to start from.

_SOURCE_NETS = "https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/transfer-learning-source-nets"

RESUME_URLS = {
    "ffhq256": f"{_SOURCE_NETS}/ffhq-res256-mirror-paper256-noaug.pkl",
    "ffhq512": f"{_SOURCE_NETS}/ffhq-res512-mirror-stylegan2-noaug.pkl",
    "ffhq1024": f"{_SOURCE_NETS}/ffhq-res1024-mirror-stylegan2-noaug.pkl",
    "celebahq256": f"{_SOURCE_NETS}/celebahq-res256-mirror-paper256-kimg100000-ada-target0.5.pkl",
    "lsundog256": f"{_SOURCE_NETS}/lsundog-res256-paper256-kimg100000-noaug.pkl",
}
# Training on from published weights: ADA moves five times faster, as there is less time to adapt.
RESUME_ADA_KIMG = 100
