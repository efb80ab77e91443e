"""MADR inside a fork that was never edited: through the two places where forks of StyleGAN2-ADA gather a run's options,
or through the one function by which they construct everything.

Uses only what the fork itself has (its dnnlib, its train.py); no file of the fork is touched.
"""

import functools
import importlib
import inspect
import multiprocessing
import os
import sys

import torch

from madr_plugin import augment_pipe, config, idle_knobs, metrics, options, scripts
from madr_plugin.base import collective
from madr_plugin.host import launch_checks, snapshots
from madr_plugin.loss import MADRLoss
from madr_spaces.errors import MADRError

# How the families prepare a run: function of train.py -> which of its values is the dict of training options.
SEAMS = {
    "setup_training_loop_kwargs": "stylegan2-ada-pytorch: builds (description, options) before launching",
    "launch_training": "stylegan3, projected-gan, stylegan-xl, R3GAN: receives the options as its argument c",
}
NO_SEAM = (
    "has none of the functions by which MADR knows its families "
    f"({'; '.join(f'{name} ({what})' for name, what in SEAMS.items())}). Call madr_plugin.install() at the top of the script instead; "
    "one that trains nothing (calc_metrics.py) needs neither: leave out --madr=1"
)

CARRIER_P = 1e-9  # strength of an augmentation pipe that augments nothing: any but zero

_originals = {}  # (module, name) -> function that install() has wrapped; empty while it is not in force
_seen = {}  # what the wrapped functions have learned: training_set_kwargs, checked


def check_script(script):
    """Refuse a scripts.Script that MADR cannot enter, before any of it runs."""
    if not any(script.mentions(name) for name in SEAMS):
        if script.mentions("madr_plugin"):
            raise MADRError(f"{script.path} knows MADR itself; start it without `-m madr_plugin`: python {os.path.basename(script.path)} <its flags>")
        folder = os.path.dirname(script.path)
        if not os.path.isdir(os.path.join(folder, "dnnlib")):
            raise MADRError(
                f"{script.path} is no training script of a fork of StyleGAN2-ADA: it has no package dnnlib beside it; give the path of one"
            )
        raise MADRError(f"{script.path} {NO_SEAM}")
    if not script.can_load:
        raise MADRError(
            f'{script.path} has neither a block `if __name__ == "__main__":` nor a function main() to start once MADR is in place. '
            "Call madr_plugin.install() at the top of the script instead"
        )


def wrap_seam(module, flags):
    """Make the fork's train.py put MADR into the options that it prepares. Returns the name of the seam."""
    for name in SEAMS:
        original = getattr(module, name, None)
        if callable(original):
            edit = _editing_result if name == "setup_training_loop_kwargs" else _editing_argument
            setattr(module, name, edit(original, flags))
            return name
    if not flags.get("madr"):
        return None  # a script that trains nothing (calc_metrics.py) gets the metrics alone
    raise MADRError(f"{getattr(module, '__file__', module)} {NO_SEAM}")


def _editing_result(original, flags):
    @functools.wraps(original)
    def setup_with_madr(*args, **kwargs):
        description, training_options = original(*args, **kwargs)
        apply(training_options, flags)
        return description, training_options

    return setup_with_madr


def _editing_argument(original, flags):
    @functools.wraps(original)
    def launch_with_madr(*args, **kwargs):
        training_options = kwargs["c"] if "c" in kwargs else args[0]
        apply(training_options, flags)
        return original(*args, **kwargs)

    return launch_with_madr


def apply(training_options, flags):
    """Put MADR into the options that a fork's train.py has prepared, in place. flags: madr=1 and knobs, as on the command line (options.py)."""
    if not flags.get("madr") and not any(name.startswith("madr_") and value is not None for name, value in flags.items()):
        return  # the fork as it is, whatever its options look like
    if "loss_kwargs" not in training_options or "class_name" not in training_options["loss_kwargs"]:
        raise MADRError("this fork's options hold no loss_kwargs.class_name, the place where MADR enters; it needs an adapter of its own")
    had_pipe_options = "augment_kwargs" in training_options
    options.apply(training_options, flags)
    if not flags.get("madr"):
        return
    loss_kwargs = training_options["loss_kwargs"]
    if not had_pipe_options and not _loop_takes("augment_kwargs"):
        del training_options["augment_kwargs"]  # the state goes into a file beside the snapshot
    elif training_options["augment_kwargs"]["base_kwargs"] is None and not training_options.get("augment_p") and _loop_takes("augment_p"):
        # Loops construct a pipe only where it is to do something; this one augments nothing and carries the state.
        training_options["augment_p"] = CARRIER_P
    launch_checks.check_loss(loss_kwargs["base_class_name"])
    launch_checks.check_features_of(
        loss_kwargs["madr"]["training_set_kwargs"], config.resolve(_knobs(loss_kwargs["madr"])), loss_kwargs["madr"]["random_seed"]
    )
    # The fork restores networks only; MADR's own state rides in the snapshot's augment_pipe, or lies beside it.
    loss_kwargs["madr"] = WatchingOptions(loss_kwargs["madr"], resume_pkl=training_options.get("resume_pkl"))
    snapshots.watch()


def _knobs(madr):
    return {name: value for name, value in madr.items() if name in options.ROWS}


class WatchingOptions(dict):
    """loss_kwargs.madr on its way into the processes that a fork spawns: on arrival it has their snapshots watched, before the loop loads one."""

    def __reduce__(self):
        return _arrived, (dict(self),)


def _arrived(values):
    snapshots.watch()
    return WatchingOptions(values)


def _loop_takes(name):
    """Whether the fork's training loop has an argument of this name; options that it does not know would stop it."""
    try:
        parameters = inspect.signature(importlib.import_module("training.training_loop").training_loop).parameters
    except (ImportError, AttributeError):
        return False
    return name in parameters


# ----------------------------------------------------------------------------
# The one call.


def install(**given):
    """Wrap the fork's loss and augmentation pipe wherever the fork constructs them.

    To be called at the top of the fork's train.py (so that spawned processes do it too). Options by name, as in config.py;
    none are needed. Calling it again does nothing; uninstall() restores.
    """
    if any(name == "construct_class_by_name" for _, name in _originals):
        return
    if (sys, "excepthook") not in _originals:
        _wrap(sys, "excepthook", _telling_sentences(sys.excepthook))
    resolved = config.resolve(options.with_home(given))
    idle_knobs.refuse(given, resolved)
    util = _host_util()
    original = util.construct_class_by_name

    @functools.wraps(original)
    def construct_with_madr(*args, class_name=None, **kwargs):
        return _construct(original, util, resolved, args, class_name, kwargs)

    construct_with_madr.madr_original = original
    _wrap(util, "construct_class_by_name", construct_with_madr)
    snapshots.watch()
    load_metrics()
    metrics.register(resolved)


def uninstall():
    """Undo install(). Objects constructed meanwhile stay as they are, metrics stay registered."""
    for (module, name), original in _originals.items():
        setattr(module, name, original)
    _originals.clear()
    _seen.clear()
    snapshots.unwatch()


def load_metrics():
    """Import the fork's registry of metrics now: train.py checks the names of --metrics before it constructs anything."""
    try:
        importlib.import_module("metrics.metric_main")
    except ImportError:
        pass  # a fork without metrics; metrics.register() finds none


def _wrap(module, name, wrapped):
    _originals[module, name] = getattr(module, name)
    setattr(module, name, wrapped)


def _telling_sentences(original):
    """What sys.excepthook does once install() has been called: of MADR's own errors the sentence alone."""

    def hook(kind, error, traceback):
        sentence = scripts.sentence_of(error)
        if sentence is None:
            original(kind, error, traceback)
            return
        as_arguments = " (Here MADR's flags are arguments of madr_plugin.install(): --madr-tilt=0 is install(tilt=0), --madr=0 is no call.)"
        print(f"Error: {sentence}{as_arguments if '--madr' in sentence else ''}", file=sys.stderr)

    return hook


def _construct(original, util, resolved, args, class_name, kwargs):
    kind = util.get_obj_by_name(class_name)
    if hasattr(kind, "accumulate_gradients") and class_name != options.LOSS_CLASS and "madr_plugin" not in kind.__module__:
        # The data set constructed last: train.py looks into the data before the loop opens them as they are to be trained on.
        madr = dict(resolved.as_dict(), random_seed=_seed_of_loop(kwargs.get("device")), training_set_kwargs=_seen.get("training_set_kwargs"))
        return MADRLoss(*args, base_class_name=class_name, madr=madr, **kwargs)
    if class_name.rsplit(".", 1)[-1] == "AugmentPipe":
        return augment_pipe.MADRAugmentPipe(base=original(*args, class_name=class_name, **kwargs))
    made = original(*args, class_name=class_name, **kwargs)
    if hasattr(kind, "image_shape") and hasattr(kind, "__getitem__"):
        _seen["training_set_kwargs"] = dict(kwargs, class_name=class_name)
        if not _seen.get("checked") and multiprocessing.parent_process() is None:
            _seen["checked"] = True  # first of all by train.py itself, which looks into the data before it launches anything
            launch_checks.check_features(made, resolved)
    return made


def _seed_of_loop(device):
    """The run's seed, the same on all processes: loops of this family begin with torch.manual_seed(seed * number of processes + rank)."""
    _, num_processes = collective.world()
    of_first = collective.from_first_process(lambda: dict(seed=torch.tensor(torch.initial_seed() % 2**62)), torch.device(device or "cpu"))
    return int(of_first["seed"]) // num_processes


def _host_util():
    try:
        import dnnlib

        return dnnlib.util
    except ImportError as error:
        raise MADRError(
            "madr_plugin.install() found no package dnnlib: call it inside a fork of StyleGAN2-ADA, with the fork's folder on the Python path"
        ) from error
