"""The networks beside StyleGAN2's as training options: what --backbone=dcgan and the methods that change D's architecture write.

build(choice, values) and change(choice, values) -> sentences for --dry-run; choice: choosing.Choice. Must not import torch.
"""

import dnnlib
from dnnlib.errors import UserError
from training import reasons
from training.gan import changes

NETWORKS = "training.gan.networks"
SIZES = {"dcgan": (14, 16, 28, 32, 64, 128), "weak-dcgan": (28,)}  # pixels; those of networks.FIRST_SIDES
# Of G in the Stacked MNIST of Metz et al. 2017, from 4x4 up; those of D, from 14x14 down, are a share of all but the first.
_WEAK_CHANNELS = (64, 32, 16, 8)
# With a penalty on the gradient at single images D cannot normalise over the batch: each image's gradient would depend on the others.
SINGLE_IMAGE_METHODS = ("r1", "r2", "gradient-penalty")
# Flags of StyleGAN2's networks that DCGAN has no part for.
_WITHOUT_EFFECT = {
    "map_depth": "it has no mapping network",
    "mbstd_group": "its D has no minibatch standard deviation",
    "pl_weight": "it has no styles",
    "freezed": "its D has no layers that stay",
    "nhwc": "it has no float16",
    "noise_inputs": "it has no noise",
    "half": "it has no half precision",
}
# Those that the weak DCGAN has no part for besides.
_WITHOUT_EFFECT_WEAK = dict.fromkeys(["cbase", "cmax"], "its channels are those of its paper, in D times its share")


# ------------------------------------------------------------------------------------------
# DCGAN.


def has_batch_norm(values):
    """Whether D of DCGAN was asked to normalise over its batch."""
    return values["norm"] == "batch"


def dcgan(choice, values):
    """Generator and discriminator of Radford et al. 2015 (1511.06434). values: norm, z_dim."""
    options, flags = choice.options, choice.flags
    told, channels = _common(choice, values), {}
    if flags.get("cfg") == "tiny":
        channels = dict(channel_base=options.D_kwargs.channel_base, channel_max=options.D_kwargs.channel_max)
    else:
        text = "channels 64 at half the resolution, twice as many at each halving, at most 512: --backbone=dcgan, whatever --cfg says"
        told.append(reasons.About(reasons.CHANNELS, text))
    _write(options, values, channels, channels)
    return told


def weak_dcgan(choice, values):
    """Generator and discriminator of Stacked MNIST in Metz et al. 2017 (1611.02163). values: share, norm, z_dim."""
    told = _common(choice, values)
    narrowed = [max(round(channels * values["share"]), 1) for channels in reversed(_WEAK_CHANNELS[1:])]
    text = f"D has {', '.join(map(str, narrowed))} channels, {values['share']:g} times those of G: --backbone=weak-dcgan"
    told.append(reasons.About(reasons.CHANNELS, text))
    of_D = dict(channels=narrowed, kernel_size=3, norm_first=True, slope=0.3)
    _write(choice.options, values, dict(channels=list(_WEAK_CHANNELS), kernel_size=3), of_D)
    return told


def _common(choice, values):
    """What holds for every DCGAN: refuse flags without effect, choose D's normalisation. Returns sentences."""
    name = choice.backbone.name
    for flag, reason in {**_WITHOUT_EFFECT, **(_WITHOUT_EFFECT_WEAK if name == "weak-dcgan" else {})}.items():
        value = choice.flags.get(flag)
        # A 0 of the others changes nothing either, and of half precision 'auto' and 'off' say what is so anyway.
        if (value and value not in ("auto", "off")) or (flag == "noise_inputs" and value is not None):
            value = value if isinstance(value, str) else f"{value:g}"
            raise UserError(f"--{flag.replace('_', '-')}={value} has no effect on --backbone={name}, for {reason}; leave one of the two out")
    told = [f"no half precision and no noise: --backbone={name}; its latents have {values['z_dim']} values"]
    if values["norm"] is None:
        values["norm"], why = _norm_for(choice)
        told.append(f"D normalises by {values['norm']}: {why}")
    told.append("no average of G's weights (--ema-kimg joins one): G's batch normalisation keeps the statistics of its present weights")
    return told


def _write(options, values, of_G, of_D):
    """The options of both networks. of_G, of_D: further keywords of synthesis and of D."""
    options.G_kwargs = dnnlib.EasyDict(
        class_name=f"{NETWORKS}.DCGANGenerator", z_dim=values["z_dim"], mapping_kwargs=dnnlib.EasyDict(), synthesis_kwargs=dnnlib.EasyDict(of_G)
    )
    options.D_kwargs = dnnlib.EasyDict(class_name=f"{NETWORKS}.DCGANDiscriminator", norm=values["norm"], **of_D)
    # The running averages of batch normalisation are those of G's present weights, and fit no average of its weights.
    options.ema_kimg, options.ema_rampup = 0, None


def _norm_for(choice):
    if "spectral-norm" in choice.values:
        return "spectral", choice.why("spectral-norm")
    brought = [choice.why(name) for name in SINGLE_IMAGE_METHODS if name in choice.values]
    if choice.recipe.single_images or brought:
        return "layer", f"the penalty of {brought[0] if brought else f'--gan={choice.recipe.name}'} is of single images, which rules out the batch"
    return "batch", "as in its paper"


def of_generator(G_kwargs):
    """The backbone that the training options of a generator belong to, also where another class is wrapped around it."""
    if f"{NETWORKS}.DCGANGenerator" not in (G_kwargs.get("class_name"), G_kwargs.get("base_class_name")):
        return "stylegan2"
    return "weak-dcgan" if "kernel_size" in G_kwargs["synthesis_kwargs"] else "dcgan"


def check_size(side, where, name):
    """Refuse images that a backbone of SIZES cannot draw. side: pixels; where: the beginning of the sentence, such as '--data=PATH holds images of'."""
    if side not in SIZES[name]:
        near = min(SIZES[name], key=lambda size: abs(size - side))
        raise UserError(
            f"{where} {side}x{side} pixels; --backbone={name} draws {', '.join(map(str, SIZES[name]))}: convert with dataset_tool.py "
            f"--width={near} --height={near} --transform=center-crop, or use --backbone=stylegan2"
        )


# ------------------------------------------------------------------------------------------
# Methods that change D's architecture.


def spectral_norm(choice, values):
    """Every weight of D that images pass is divided by its largest singular value."""
    D_kwargs = choice.options.D_kwargs
    if "norm" in choice.backbone_values:
        if choice.backbone_values["norm"] != "spectral":
            raise UserError(
                f"--method=spectral-norm and --backbone={choice.backbone.name}:norm={choice.backbone_values['norm']} both choose D's normalisation: leave one of them out"
            )
        return ["D has spectral normalisation in the place of others: --method=spectral-norm"]
    D_kwargs.class_name, D_kwargs.spectral_norm = f"{NETWORKS}.StyleGAN2Discriminator", True
    return ["D has spectral normalisation in the place of equalised learning rates: --method=spectral-norm"]


def minibatch_discrimination(choice, values):
    """How close each image's features are to those of its microbatch joins what D's last layer reads. values: kernels, dim."""
    single = changes.single_image(choice)
    if single:
        flag, thing, least = single
        raise UserError(
            f"--method=minibatch-discrimination compares the images of a microbatch, and with {flag} that is a single {thing}: "
            f"use --batch-gpu={least} or more, and at least as large a --batch"
        )
    D_kwargs = choice.options.D_kwargs
    if choice.backbone.name == "stylegan2":
        D_kwargs.class_name = f"{NETWORKS}.StyleGAN2Discriminator"
    D_kwargs.minibatch_kernels, D_kwargs.minibatch_kernel_dim = values["kernels"], values["dim"]
    return [f"D compares the images of its microbatch by {values['kernels']} kernels: --method=minibatch-discrimination"]


def no_minibatch_std(choice, values):
    """StyleGAN2's D without the standard deviation of its minibatch."""
    if choice.backbone.name != "stylegan2":
        raise UserError(f"--method=no-minibatch-std takes away what D of --backbone={choice.backbone.name} does not have: leave it out")
    choice.options.D_kwargs.epilogue_kwargs.update(mbstd_num_channels=0, mbstd_group_size=1)
    return ["D does not see the standard deviation of its minibatch: --method=no-minibatch-std"]
