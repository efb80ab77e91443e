"""MADR on a command line: the --madr flags, and how they enter a run's training options.

The flags are generated from config.py. apply() touches loss_kwargs and augment_kwargs, the two seams that every fork of
StyleGAN2-ADA has, and nothing else.
"""

import copy
import dataclasses
import os

import click

from madr_plugin import config
from madr_plugin.base.errors import MADRError

LOSS_CLASS = "madr_plugin.loss.MADRLoss"
PIPE_CLASS = "madr_plugin.augment_pipe.MADRAugmentPipe"


def madr_options(function):
    """Click decorator: adds --madr and one flag per knob. The command receives them as madr, madr_weight, ..."""
    for field in reversed(dataclasses.fields(config.MADRConfig)):
        function = click.option(
            config.flag_of(field.name),
            f"madr_{field.name}",
            type=_click_type(field),
            default=None,
            help=f"{field.metadata['meaning']} [default: {_shown_default(field)}]",
        )(function)
    return click.option("--madr", type=click.IntRange(0, 1), default=None, help="Memory-augmented diversity replay on (1) or off (0) [default: 0]")(
        function
    )


def from_flags(flags):
    """The resolved MADRConfig of a command's parameters, or None when MADR is off."""
    given = {name[len("madr_") :]: value for name, value in flags.items() if name.startswith("madr_") and value is not None}
    if not flags.get("madr"):
        if given:
            first = config.flag_of(sorted(given)[0])
            raise MADRError(f"{first} has no effect without --madr=1; add --madr=1 or leave {first} out")
        return None
    resolved = config.resolve(given)
    for path in resolved.weights.split(","):  # an empty one: the hub's
        if path and not os.path.isfile(path):
            raise MADRError(f"--madr-weights={path} does not exist; give the path of a .safetensors or .pth file")
    return resolved


def apply(training_options, flags):
    """Put MADR into a run's options in place: its loss around the loss, its pipe around the augmentation.

    training_options: the dict that becomes training_options.json. flags: the command's parameters. With --madr=0 nothing is touched.
    """
    resolved = from_flags(flags)
    if resolved is None:
        return
    former_loss = dict(training_options["loss_kwargs"])
    base_class_name = former_loss.pop("class_name")
    loss_kwargs = type(training_options["loss_kwargs"])(former_loss)
    loss_kwargs["class_name"] = LOSS_CLASS
    loss_kwargs["base_class_name"] = base_class_name
    loss_kwargs["madr"] = dict(
        resolved.as_dict(),
        # A fork's loop hands the loss neither the data nor the seed.
        random_seed=int(training_options.get("random_seed") or 0),
        training_set_kwargs=copy.deepcopy(dict(training_options["training_set_kwargs"])),
    )
    training_options["loss_kwargs"] = loss_kwargs

    former_pipe = training_options.get("augment_kwargs")
    pipe_kwargs = type(training_options["loss_kwargs"])(class_name=PIPE_CLASS)
    pipe_kwargs["base_kwargs"] = None if former_pipe is None else copy.deepcopy(dict(former_pipe))
    training_options["augment_kwargs"] = pipe_kwargs


def _click_type(field):
    rule, kind = field.metadata, getattr(field.type, "__name__", field.type)
    if rule["choices"] is not None:
        return click.Choice(rule["choices"])
    if kind == "int":
        return click.IntRange(rule["low"], rule["high"])
    if kind == "float":
        return click.FloatRange(rule["low"], rule["high"])
    return str


def _shown_default(field):
    differing = [f"{name}: {values[field.name]}" for name, values in config.PRESETS.items() if values.get(field.name, field.default) != field.default]
    return "; ".join([str(field.default), *differing])
