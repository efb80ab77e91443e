"""From --gan, --method and --backbone to training options: what is chosen, whether it fits together, what it sets.

Must not import torch, nor know what a method does.
"""

import dataclasses
from typing import Any

import dnnlib
from dnnlib.errors import UserError
from training import reasons
from training.gan import backbones, methods, rows

LOSS_CLASS = "training.gan.loss.GANLoss"
ADA_GOES_ON = "ada_goes_on"  # among the flags of a run that is continued: it was begun with ADA
SETTLED = ("D_kwargs.minibatch_images",)  # options that stay as a run began, on how many images at a time it may go on
WITHOUT_BOUNDARY = ("critic", "relativistic")  # the adversarial terms whose boundary is None; their table imports torch


@dataclasses.dataclass
class Choice:
    """What the flags come to. options: the training options, written in place. values: {method: {parameter: value}} in the order of use."""

    options: Any
    flags: dict
    image_shape: tuple
    label_dim: int
    recipe: rows.Recipe
    backbone: rows.Backbone
    values: dict
    typed: dict  # of values, what came from --method
    backbone_values: dict

    def why(self, method):
        """The flag that brought a method: '--method=pacgan' or '--gan=wgan'; of R1, it may be '--gamma=1'."""
        if method == "r1" and method not in self.typed and "gamma" in self.flags:
            return f"--gamma={self.flags.gamma:g}"
        return f"--method={method}" if method in self.typed else f"--gan={self.recipe.name}"


def apply(run, flags):
    """Write the choice into run.options (config.Resolved). Without any of the flags nothing is touched."""
    empty = next((name for name in ("gan", "backbone") if flags.get(name) == ""), None)
    if empty:
        raise UserError(f"--{empty} is empty; name a row of --list-methods, or leave --{empty} out")
    if not any(flags.get(name) for name in ("gan", "method", "backbone")):
        return
    choice = _read(run, flags)
    _check(choice)
    for sentences in _changes(choice):
        reasons.tell(run.reasons, sentences)
    _write_loss(choice)
    run.name_parts += _name_parts(flags)


# ------------------------------------------------------------------------------------------
# Reading.


def _read(run, flags):
    backbone, backbone_values = rows.parse(flags.get("backbone") or methods.DEFAULT_BACKBONE, methods.BACKBONES, "--backbone")
    backbone_values = {**_defaults(backbone), **backbone_values}
    recipe = _recipe(flags, backbone)
    own = {name: {**_defaults(methods.METHODS[name]), **values} for name, values in recipe.methods}
    typed = _typed_methods(flags.get("method") or ())
    if "gamma" in flags:
        if typed.get("r1", {}).get("gamma", flags.gamma) != flags.gamma:
            raise UserError(
                f"--method=r1:gamma={typed['r1']['gamma']:g} and --gamma={flags.gamma:g} are both the weight of R1: leave one of them out"
            )
        if flags.gamma:
            own.setdefault("r1", _defaults(methods.METHODS["r1"]))
        else:
            own.pop("r1", None)
    values = dict(own)
    for name, given in typed.items():
        values[name] = {**values.get(name, _defaults(methods.METHODS[name])), **given}
    return Choice(run.options, flags, run.image_shape, run.label_dim, recipe, backbone, values, typed, backbone_values)


def _recipe(flags, backbone):
    return rows.parse(flags.get("gan") or backbone.recipe or methods.DEFAULT_RECIPE, methods.RECIPES, "--gan")[0]


def _defaults(row):
    return {parameter.name: parameter.default for parameter in row.parameters}


def _typed_methods(texts):
    """{method: its typed parameters}; a row that stands for several gives theirs."""
    typed, from_text = {}, {}
    for text in texts:
        row, values = rows.parse(text, methods.METHODS, "--method")
        for name in row.stands_for or (row.name,):
            if name in typed:
                raise UserError(f"--method={text}: {name} is given by --method={from_text[name]} already; leave one of them out")
            known = _defaults(methods.METHODS[name])
            typed[name], from_text[name] = {key: value for key, value in values.items() if key in known}, text
    return typed


# ------------------------------------------------------------------------------------------
# Augmentation.

_STEER_ADA = ("target", "initstrength", "aug_max", "augpipe")  # where --aug is not typed


def augmentation(flags, sentences):
    """--aug, or what it is where it is not typed: ADA, unless the sign of D's logits, which ADA follows, means nothing. Adds to the sentences of why.

    A run that was begun with ADA goes on with it.
    """
    backbone, _ = rows.parse(flags.get("backbone") or methods.DEFAULT_BACKBONE, methods.BACKBONES, "--backbone")
    recipe = _recipe(flags, backbone)
    if recipe.terms not in WITHOUT_BOUNDARY or flags.get(ADA_GOES_ON):
        return flags.get("aug", "ada")
    why = "follows the sign of D's logits, and here they have no boundary between real and generated images"
    steering = [name for name in _STEER_ADA if name in flags] if "aug" not in flags else ["aug"] if flags.aug == "ada" else []
    if steering:
        raise UserError(
            f"--gan={recipe.name} and --{steering[0].replace('_', '-')}={flags[steering[0]]} contradict each other: adaptive augmentation {why}; "
            "use --aug=fixed --p=0.3 or another probability, or --aug=noaug"
        )
    if "aug" in flags:
        return flags.aug
    if "p" not in flags:  # refused elsewhere
        told = f"no adaptive augmentation: --gan={recipe.name}. It {why}; --aug=fixed --p=0.3 augments by one probability"
        reasons.tell(sentences, [reasons.About(reasons.AUGMENTATION, told)])
    return "noaug"


# ------------------------------------------------------------------------------------------
# Whether it fits together.


def _check(choice):
    chosen = {choice.recipe.name: choice.recipe, **{name: methods.METHODS[name] for name in choice.values}}
    for row in chosen.values():
        said = choice.why(row.name) if isinstance(row, rows.Method) else f"--gan={row.name}"
        for other, remedy in row.excludes.items():
            if other in chosen and other != row.name:
                against = choice.why(other) if other in choice.values else f"--gan={other}"
                raise UserError(f"{said} and {against} contradict each other: {remedy}")
        for flag, remedy in getattr(row, "flags_excluded", {}).items():
            if flag in choice.flags:
                raise UserError(f"{said} and --{flag.replace('_', '-')}={choice.flags[flag]} contradict each other: {remedy}")
        only = getattr(row, "only_terms", ())
        if only and choice.recipe.terms not in only:
            fitting = ", ".join(recipe.name for recipe in methods.RECIPES.values() if recipe.terms in only)
            raise UserError(f"{said} does not go with --gan={choice.recipe.name}: use it with --gan={fitting.replace(', ', ' or ')}, or leave it out")
    by_kind = {}
    for name in choice.values:
        kind = methods.METHODS[name].kind
        if kind and kind in by_kind:
            raise UserError(f"{choice.why(by_kind[kind])} and {choice.why(name)} both choose the {kind}: leave one of them out")
        by_kind[kind] = name
    _check_backbone(choice)


def _check_backbone(choice):
    row = choice.backbone
    penalties = [name for name in backbones.SINGLE_IMAGE_METHODS if name in choice.values]
    if penalties and row.D_batch_norm is not None and row.D_batch_norm(choice.backbone_values):
        of_recipe = [name for name in penalties if name in dict(choice.recipe.methods)]
        by = f"--gan={choice.recipe.name}" if of_recipe else choice.why(penalties[0])
        without = "use --gan=lsgan or another loss without that penalty" if of_recipe else f"leave out {by}"
        raise UserError(
            f"{by} penalises D's gradient image by image, and D of --backbone={row.name} normalises over its batch: leave out norm=batch, or {without}"
        )
    if not row.has_styles and choice.flags.get("pl_weight"):
        raise UserError(f"--pl-weight={choice.flags.pl_weight:g} is of styles, which --backbone={row.name} lacks: leave it out")


# ------------------------------------------------------------------------------------------
# What it sets.


def _changes(choice):
    """Sentences, while the options are written: networks, then optimizers, then methods, so that the later one has the word."""
    row, options = choice.backbone, choice.options
    if row.build is not None:
        yield row.build(choice, choice.backbone_values)
    yield row.schedule.apply(options, f"--backbone={row.name}")
    if not row.has_styles:
        options.loss_kwargs.pl_weight = options.loss_kwargs.style_mixing_prob = 0
    yield choice.recipe.schedule.apply(options, f"--gan={choice.recipe.name}")
    for name, values in choice.values.items():
        change = methods.METHODS[name].change
        if change is not None:
            yield change(choice, values)
    if "r1" not in choice.values:
        without = "--gamma=0" if "r1" in dict(choice.recipe.methods) else f"--gan={choice.recipe.name} has none; --method=r1 or --gamma joins it"
        yield [reasons.About(reasons.GAMMA, f"no R1: {without}")]
    if choice.flags.get("gan") or row.name != methods.DEFAULT_BACKBONE:  # rates are not shrunk for regularisers that are not there
        if choice.flags.get("pl_weight", options.loss_kwargs.get("pl_weight", 2)) == 0:
            options.G_reg_interval = None
        if not any(methods.METHODS[name].lazy for name in choice.values):
            options.D_reg_interval = None
    if choice.flags.get("backbone"):
        options.backbone = rows.as_text(row.name, choice.backbone_values)


def _write_loss(choice):
    options = choice.options
    loss = options.loss_kwargs
    loss.class_name = LOSS_CLASS
    loss.r1_gamma = choice.values.get("r1", {}).get("gamma", 0)
    loss.gan = choice.recipe.name
    loss.methods = [dnnlib.EasyDict(name=name, **values) for name, values in choice.values.items()]
    if "minibatch_kernels" in options.D_kwargs:  # here, since packs may change the batch after it was chosen
        options.D_kwargs.minibatch_images = options.batch_gpu // pack_of(options)


def _name_parts(flags):
    """What was typed, as parts of the name of the run folder: 'PacGAN:m=4' -> 'pacgan-m4'."""
    typed = [("backbone", flags.get("backbone"), methods.BACKBONES), ("gan", flags.get("gan"), methods.RECIPES)]
    typed += [("method", text, methods.METHODS) for text in flags.get("method") or ()]
    for flag, text, table in typed:
        if text:
            row, values = rows.parse(text, table, f"--{flag}")
            yield rows.as_text(row.name, values, exact=False).replace(":", "-").replace(",", "-").replace("=", "")


# ------------------------------------------------------------------------------------------
# Reading options again.


def flags_of(options, given=()):
    """The flags that make a run with these training options: {'gan': text, 'method': [text, ...], 'backbone': text}; {} without any.

    given: flags that are typed besides; a weight that one of them sets is not repeated.
    """
    loss = options["loss_kwargs"]
    if "gan" not in loss:
        return {}
    texts = []
    for entry in loss["methods"]:
        values = {key: value for key, value in entry.items() if key != "name" and not (entry["name"] == "r1" and "gamma" in given)}
        texts.append(rows.as_text(entry["name"], values))
    return dict(gan=loss["gan"], method=texts, **({"backbone": options["backbone"]} if "backbone" in options else {}))


def not_typed(options, flags, given):
    """Of the flags that make a run with these training options, those that were not typed (`given`: names that were);
    and whether it was begun with ADA, which --gan may refuse since."""
    kept = {flag: text for flag, text in flags_of(options, given).items() if flag not in given}
    weights = [entry["gamma"] for entry in options["loss_kwargs"].get("methods", ()) if entry["name"] == "r1"]
    names_r1 = "r1" in map(rows.spelt_name, flags.get("method") or ())
    if "method" in given:
        kept["method"] = [_completed(text, options, given) for text in flags["method"] or ()]
    if "method" in given and "gamma" not in given and weights and not names_r1:
        kept["gamma"] = weights[0]  # else it would be that of --cfg, which need not be typed again
    if options.get("ada_target") is not None:
        kept[ADA_GOES_ON] = True
    return kept


def logits_have_boundary(options):
    """Whether the sign of D's logits, which ADA follows, means something."""
    gan = options["loss_kwargs"].get("gan")
    return gan is None or methods.RECIPES[gan].terms not in WITHOUT_BOUNDARY


def _completed(text, options, given):
    """A typed method with the parameters that were derived from other options when the run began, if it is one of the run's."""
    row, values = rows.parse(text, methods.METHODS, "--method")
    of_run = next((entry for entry in options["loss_kwargs"].get("methods", ()) if entry["name"] == row.name), {})
    if any(of_run.get(name) != value for name, value in values.items()):
        return text
    derived = [parameter.name for parameter in row.parameters if parameter.default is None and parameter.name in of_run]
    if row.name == "r1" and "gamma" in given:
        return text
    return rows.as_text(row.name, {**values, **{name: of_run[name] for name in derived}})


def refused_flags(flags):
    """The flags that --method and --backbone do not go with, so that none of them is to be joined that nobody typed."""
    chosen = {rows.spelt_name(text) for text in flags.get("method") or ()} & methods.METHODS.keys()
    refused = {flag for name in chosen for flag in methods.METHODS[name].flags_excluded}
    if "diffaugment" in chosen:
        refused.add("aug")
    if rows.spelt_name(flags.get("backbone") or methods.DEFAULT_BACKBONE) != methods.DEFAULT_BACKBONE:
        refused |= {"mbstd_group", "half"}
    return refused


# Of these alone the order counts: whether weights are bounded before or after their average takes them in.
_IN_ORDER = ("clip", "historical-averaging")


def in_one_order(entries):
    """The methods of a run, so ordered that two lists are equal where they mean the same."""
    ordered = [entry for entry in entries if entry["name"] in _IN_ORDER]
    return sorted((entry for entry in entries if entry["name"] not in _IN_ORDER), key=lambda entry: entry["name"]) + ordered


def pack_of(options):
    """How many images D judges as one."""
    entries = options["loss_kwargs"].get("methods", ())
    return next((entry["m"] for entry in entries if entry["name"] == "pacgan"), 1)


def penalties_of(options):
    """The names of the methods that differentiate a gradient of D."""
    return [entry["name"] for entry in options["loss_kwargs"].get("methods", ()) if entry["name"] in ("r1", "r2", "gradient-penalty")]


def check_logits_are_of_single_reals(options, asking, instead):
    """Refuse methods with which D's logits are not each of one real as it came. asking: the flag that needs it; instead: the other one."""
    loss = options["loss_kwargs"]
    if "gan" not in loss:
        return
    why = {"pacgan": "D judges packs of images", "diffaugment": "D sees no image as it came"}
    against = next((f"--method={entry['name']}" for entry in loss["methods"] if entry["name"] in why), None)
    reason = why.get((against or "").removeprefix("--method="), "each real is judged against a fake")
    if against is None and methods.RECIPES[loss["gan"]].terms == "relativistic":
        against = f"--gan={loss['gan']}"
    if against is not None:
        raise UserError(f"{asking} weighs D's logits of single reals, and with {against} {reason}: use {instead}")


def check_reals_come_in_order(options, asking):
    """Refuse methods that know the reals of a step by their position, where others are shown. asking: the flag that shows others."""
    if any(entry["name"] == "dia-gan" for entry in options["loss_kwargs"].get("methods", ())):
        raise UserError(f"--method=dia-gan and {asking} both decide which reals D sees: leave one of them out (MADR without its tilt: --madr-tilt=0)")


def unrolled_of(options):
    """(Through how many steps of D the step of G is differentiated, what share of a microbatch they see)."""
    entries = options["loss_kwargs"].get("methods", ())
    return next(((entry["k"], entry["share"]) for entry in entries if entry["name"] == "unrolled"), (0, 1.0))


def kept_of(options):
    """What methods keep beside the networks: (images of the past, whether a mean of past weights)."""
    entries = {entry["name"]: entry for entry in options["loss_kwargs"].get("methods", ())}
    return entries.get("image-pool", {}).get("size", 0), "historical-averaging" in entries


def group_of(options):
    """Over how many of the images (or packs) that D judges its minibatch standard deviation goes; 1 where it has none."""
    return options["D_kwargs"].get("epilogue_kwargs", {}).get("mbstd_group_size", 1)
