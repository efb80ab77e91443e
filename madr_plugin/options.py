"""Puts MADR on a command line: its flags, and how they enter a run's training options.

The flags are made from the table config.KNOBS. apply() touches loss_kwargs and augment_kwargs, the two seams that every
fork of StyleGAN2-ADA has, and nothing else.
"""

import copy
import os

import click

from madr_plugin import config, idle_knobs
from madr_plugin.base.knobs import flag_of, nearest_name
from madr_spaces import names
from madr_spaces.errors import MADRError

LOSS_CLASS = "madr_plugin.loss.MADRLoss"
PIPE_CLASS = "madr_plugin.augment_pipe.MADRAugmentPipe"
SETTINGS = "madr_set"  # where the parser keeps what --madr-set was given
ROWS = {row.name: row for row in config.KNOBS}


class PluginOption(click.Option):
    """Adds to a flag its place in the help. help_group: its heading in --help; advanced: shown by --help-all alone."""

    help_group = "MADR"

    def __init__(self, *args, advanced=False, **kwargs):
        super().__init__(*args, **kwargs)
        self.advanced = advanced


class KnobOption(PluginOption):
    """Takes the value of one knob, from its flag or from --madr-set key=value."""

    def consume_value(self, ctx, opts):
        """Take the flag's own value or the setting's. Refuses two that differ."""
        row = ROWS[self.name.removeprefix("madr_")]
        found = _settings(ctx, opts.get(SETTINGS) or ()).get(row.name)
        if found is None:
            return super().consume_value(ctx, opts)
        own = opts.get(self.name)
        if own is not None and self.type_cast_value(ctx, own) != found:
            raise _bad_setting(ctx, f"{row.name}={found} contradicts {row.flag}={own}; leave one of them out")
        return found, click.core.ParameterSource.COMMANDLINE


class SettingsOption(PluginOption):
    """Checks --madr-set. The knobs' own options take what it was given; the command sees those alone."""

    def handle_parse_result(self, ctx, opts, args):
        """Check every setting, also where no knob would ask for it."""
        _settings(ctx, opts.get(SETTINGS) or ())
        return super().handle_parse_result(ctx, opts, args)


def madr_options(function):
    """Decorate a click command: add --madr, --madr-set and one flag per knob. The command receives them as madr, madr_weight, ..."""
    rows = sorted(ROWS.values(), key=lambda row: not row.first)
    for row in reversed(rows):
        function = click.option(
            row.flag,
            f"madr_{row.name}",
            cls=KnobOption,
            advanced=not row.first,
            type=_click_type(row),
            default=None,
            help=f"{row.meaning} [default: {_shown_default(row)}]",
        )(function)
    function = click.option(
        "--madr-set",
        SETTINGS,
        cls=SettingsOption,
        multiple=True,
        expose_value=False,
        metavar="KEY=VALUE",
        help="Set any knob by name, such as dead_zone=2; may be repeated (--[madr-]help-all lists all)",
    )(function)
    return click.option(
        "--madr",
        cls=PluginOption,
        type=click.IntRange(0, 1),
        default=None,
        help="Turn memory-augmented diversity replay on (1) or off (0) [default: 0]",
    )(function)


def _settings(ctx, texts):
    """Read settings: ['dead_zone=2', ...] -> {'dead_zone': 2.0, ...}."""
    found = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_").removeprefix("__madr_")
        if not equals:
            raise _bad_setting(ctx, f"{text!r} has no value; write KEY=VALUE, such as dead_zone=2")
        if name not in ROWS:
            meant = nearest_name(name, ROWS)
            hint = f", perhaps {meant} is meant" if meant else ""
            raise _bad_setting(ctx, f"{text}: there is no knob {key.strip()!r}{hint}; the knobs are {', '.join(sorted(ROWS))}")
        try:
            parsed = ROWS[name].parsed(value.strip())
        except MADRError as error:
            raise _bad_setting(ctx, f"{text}: {error}") from error
        if name in found and found[name] != parsed:
            raise _bad_setting(ctx, f"{name} is given as {found[name]} and as {parsed}; leave one of them out")
        found[name] = parsed
    return found


def _bad_setting(ctx, sentence):
    return click.BadParameter(sentence, ctx=ctx, param_hint="'--madr-set'")


def with_home(given):
    """The options with the home folder in paths that begin with ~, as shells leave them behind an equals sign."""
    given = dict(given)
    if given.get("weights"):
        given["weights"] = ",".join(os.path.expanduser(path) for path in given["weights"].split(","))
    if (given.get("extractor") or "").startswith("file:~"):
        given["extractor"] = "file:" + os.path.expanduser(given["extractor"].removeprefix("file:"))
    return given


def from_flags(flags):
    """Resolve a command's parameters to a MADRConfig; None when MADR is off."""
    given = with_home({name[len("madr_") :]: value for name, value in flags.items() if name.startswith("madr_") and value is not None})
    if not flags.get("madr"):
        if given:
            first = flag_of(sorted(given)[0])
            raise MADRError(f"{first} has no effect without --madr=1; add --madr=1 or leave {first} out")
        return None
    resolved = config.resolve(given)
    idle_knobs.refuse(given, resolved)
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
    batch_size, total_kimg = training_options.get("batch_size"), training_options.get("total_kimg")
    if training_options.get("resume_pkl"):
        total_kimg = None  # in a fork the snapshot brings what MADR remembers: this may be the second part of a longer run
    resolved.refuse_horizon(batch_size, total_kimg, typed=flags.get("madr_moments_horizon") is not None)
    resolved.refuse_window(total_kimg)
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


def check_device(training_options, kind):
    """Refuse a device ('cuda', 'cpu', 'mps') on which a run with these options would fail."""
    if training_options["loss_kwargs"].get("madr"):
        config.refuse_device(kind)


def check_features(training_options, may_fetch=True):
    """Make the feature space once, before a run has a folder: missing files and packages, unfit files and too few images show here.

    may_fetch: also where its weights would have to be fetched first. Raises MADRError with the remedy.
    """
    chosen = training_options["loss_kwargs"].get("madr")
    if chosen is None:
        return
    resolved = config.resolve({name: value for name, value in chosen.items() if name not in config.NOT_CONFIG})
    if may_fetch or resolved.weights or not names.has_published_weights(resolved.extractor):
        from madr_plugin.host import launch_checks  # imports torch, which a command line's help must not

        launch_checks.check_features_of(chosen["training_set_kwargs"], resolved, chosen["random_seed"])


def weighs_logits(training_options):
    """Whether a run with these options weighs the logits of single reals (madr_plugin/tilt/tilted_logits.py)."""
    chosen = training_options["loss_kwargs"].get("madr", {})
    return bool(chosen.get("tilt")) and chosen.get("tilt_form") == "weight"


def _click_type(row):
    if row.choices is not None:
        return click.Choice(row.choices)
    if row.kind is int:
        return click.IntRange(row.low, row.high)
    if row.kind is float:
        return click.FloatRange(row.low, row.high)
    return str


def _shown_default(row):
    values = {name: config.value_of(name, row) for name in config.PRESETS}
    differing = [f"{name}: {value}" for name, value in values.items() if value != values["default"]]
    return "; ".join([str(values["default"]) or "none", *differing])
