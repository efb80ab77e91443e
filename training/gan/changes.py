"""What methods write into the training options beside the loss: change(choice, values) -> sentences for --dry-run.

choice: choosing.Choice. values: all parameters of the method, to be completed where the default is None. Must not import torch.
"""

from dnnlib.errors import UserError
from training import reasons
from training.gan import schedule


def r1(choice, values):
    """R1's weight is --gamma's option, whichever of the two was typed."""
    if values["gamma"] is None:  # by --gamma or --cfg, which has told of it
        values["gamma"] = float(choice.options.loss_kwargs.r1_gamma)
        return []
    return [reasons.About(reasons.GAMMA, f"R1 gamma {values['gamma']:g}: {choice.why('r1')}")]


def r2(choice, values):
    """As heavy as R1 unless it says otherwise."""
    if values["gamma"] is None:
        of_r1 = choice.values.get("r1", {}).get("gamma")
        values["gamma"] = float(choice.options.loss_kwargs.r1_gamma if of_r1 is None else of_r1)
    return [f"R2 gamma {values['gamma']:g}: {choice.why('r2')}"]


def pacgan(choice, values):
    """D takes m images at once; where --batch is not typed, the batch is m times as large, for as many packs per step."""
    options, m = choice.options, values["m"]
    options.D_kwargs.img_channels = m * choice.image_shape[0]
    if options.training_set_kwargs.use_labels:
        options.D_kwargs.setdefault("c_dim", m * choice.label_dim)  # with VEEGAN it is more
    told = [f"D judges {m} images as one: {choice.why('pacgan')}"]
    if "batch" not in choice.flags:
        options.batch_size *= m
        if "batch_gpu" not in choice.flags:
            options.batch_gpu *= m
        text = (
            f"batch size {options.batch_size}, for as many packs per step as there would be images; --kimg counts images, so that it lasts for 1/{m} of "
            "the steps; --batch chooses another number of images"
        )
        told.append(reasons.About(reasons.BATCH, text))
    return told


def ttur(choice, values):
    """Learning rates apart."""
    told = []
    for letter, matter in (("G", reasons.RATE_G), ("D", reasons.RATE_D)):
        opt = choice.options[f"{letter}_opt_kwargs"]
        opt.lr = values[letter.lower()]
        told.append(reasons.About(matter, f"{letter} learns by {reasons.describe(opt)}: the rate by {choice.why('ttur')}"))
    return told


def n_critic(choice, values):
    """Steps of D per step of G."""
    return schedule.set_n_critic(choice.options, values["n"], choice.why("n-critic"))


def diffaugment(choice, values):
    """In the place of --aug, which would augment once more."""
    mode = choice.flags.get("aug", "noaug")
    typed = [flag for flag in ("p", "target", "augpipe", "initstrength", "aug_max") if flag in choice.flags]
    if mode != "noaug" or typed:
        against = f"--aug={mode}" if mode != "noaug" else f"--{typed[0].replace('_', '-')}"
        raise UserError(f"--method=diffaugment and {against} both augment what D sees: leave one of them out")
    for name in ("augment_kwargs", "ada_target", "ada_kimg", "augment_p"):
        choice.options.pop(name, None)
    return [reasons.About(reasons.AUGMENTATION, "no adaptive augmentation: --method=diffaugment takes its place")]


def bcr(choice, values):
    """The image must be larger than the shift."""
    side = choice.image_shape[1]
    if values["shift"] >= side:
        raise UserError(
            f"--method=bcr:shift={values['shift']} moves images of {side} pixels out of themselves: use shift={side // 8} or another below {side}"
        )
    return []


def image_pool(choice, values):
    """A batch must have a half."""
    options, pack = choice.options, choice.values.get("pacgan", {}).get("m", 1)
    if "batch" in choice.flags and options.batch_size < 2 * pack:
        raise UserError(
            f"--method=image-pool fills half of D's batch with fakes of the past, and --batch={options.batch_size} is a single "
            f"{'image' if pack == 1 else 'pack'}: use --batch={2 * pack} or more"
        )
    channels, height, width = choice.image_shape
    megabytes = values["size"] * channels * height * width * 2 / 1e6
    return [
        f"half of D's fakes come from a pool of {values['size']}, which takes {megabytes:.3g} MB in each process and training state: "
        f"{choice.why('image-pool')}"
    ]


def single_image(choice):
    """Words for --batch or --batch-gpu where D sees one image, or one pack, at a time: (flag, thing, least --batch-gpu); None where it sees more."""
    options, pack = choice.options, choice.values.get("pacgan", {}).get("m", 1)
    typed = next((flag for flag in ("batch_gpu", "batch") if flag in choice.flags), None)
    if not typed or options.batch_gpu >= 2 * pack:
        return None
    return f"--{typed.replace('_', '-')}={choice.flags[typed]}", "image" if pack == 1 else "pack", 2 * pack


def top_k(choice, values):
    """Of a microbatch's logits some are left out, so that it needs two."""
    single = single_image(choice)
    if single:
        flag, thing, least = single
        raise UserError(
            f"--method=top-k leaves out the lowest logits of each microbatch, and with {flag} that is a single {thing}: "
            f"use --batch-gpu={least} or more, and at least as large a --batch"
        )
    return []


def feature_matching(choice, values):
    """It stands in the adversarial term's place, unless that has a weight."""
    if values["adversarial"] == 0 and "top-k" in choice.values:
        raise UserError(
            "--method=feature-matching takes the place of the adversarial term, in which --method=top-k chooses: use "
            "--method=feature-matching:adversarial=1, or leave one of them out"
        )
    if values["adversarial"] == values["weight"] == 0:
        raise UserError("--method=feature-matching:weight=0 leaves G nothing to learn from: give a weight, or adversarial=1, or leave it out")
    return []


# Of GM-GAN: number of means, their radius, standard deviation of each component.
_MIXTURES = {"circle": (8, 2.0, 1.0), "uniform": (10, 0.1, 0.15)}


def gm_gan(choice, values):
    """The generator maps its normal latents to a mixture."""
    for name, default in zip(("means", "radius", "std"), _MIXTURES[values["kind"]]):
        if values[name] is None:
            values[name] = default
    base = choice.options.G_kwargs
    if values["kind"] == "circle" and base.z_dim < 2:
        raise UserError(
            f"--method=gm-gan lays its means on a circle, for which latents of {base.z_dim} value are too few: use --method=gm-gan:kind=uniform, or "
            f"--backbone={choice.backbone.name}:z_dim=2 or more"
        )
    choice.options.G_kwargs = type(base)(
        class_name="training.gan.latents.MixtureGenerator",
        base_class_name=base.class_name,
        kind=values["kind"],
        num_means=values["means"],
        radius=values["radius"],
        std=values["std"],
        **{name: value for name, value in base.items() if name != "class_name"},
    )
    return [
        f"latents of {values['means']} normal distributions ({values['kind']}, radius {values['radius']:g}, standard deviation {values['std']:g}): "
        f"{choice.why('gm-gan')}"
    ]


def unrolled(choice, values):
    """The rule of the unrolled steps must be that of D's optimizer, whose moments it begins with."""
    name = choice.options.D_opt_kwargs.class_name.rpartition(".")[2]
    if values["surrogate"] == "adam" and name != "Adam":
        raise UserError(f"--method=unrolled unrolls Adam, and D learns by {name}: use --method=unrolled:surrogate=sgd, or another --gan")
    return []


def veegan(choice, values):
    """D is told latents beside labels, of every image of a pack."""
    options = choice.options
    labels = choice.label_dim if options.training_set_kwargs.use_labels else 0
    options.D_kwargs.c_dim = choice.values.get("pacgan", {}).get("m", 1) * (labels + options.G_kwargs.z_dim)
    return [f"D judges images beside their {options.G_kwargs.z_dim} latents: {choice.why('veegan')}"]


def dia_gan(choice, values):
    """When logits are noted, and when they begin to count, by the length of the run."""
    kimg = choice.options.total_kimg
    if values["start"] is None:
        values["start"] = float(f"{0.75 * kimg:.5g}")
    if values["record"] is None:
        values["record"] = float(f"{values['start'] / 2:.5g}")
    record, start = values["record"], values["start"]
    if not record < start < kimg:
        raise UserError(
            f"--method=dia-gan:record={record:g},start={start:g}: logits are noted from record to start, and reals drawn from start to the end of "
            f"the run (--kimg={kimg:g}): use record < start < {kimg:g}"
        )
    return [f"logits of reals are noted from kimg {record:g}, reals drawn by them from kimg {start:g}: {choice.why('dia-gan')}"]
