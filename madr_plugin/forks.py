"""MADR inside a fork that was never edited: through the two places where forks of StyleGAN2-ADA gather a run's options,
or through the one function by which they construct everything.

Uses only what the fork itself has (its dnnlib, its train.py); no file of the fork is touched.
"""

import functools
import importlib
import importlib.util
import inspect
import os
import sys

import torch

from madr_plugin import augment_pipe, config, metrics, options
from madr_plugin.base import collective
from madr_plugin.loss import MADRLoss
from madr_spaces.errors import MADRError

# How the families prepare a run: function of train.py -> which of its values is the dict of training options.
SEAMS = {
    "setup_training_loop_kwargs": "stylegan2-ada-pytorch: builds (description, options) before launching",
    "launch_training": "stylegan3, projected-gan, R3GAN: receives the options as its argument c",
}

CARRIER_P = 1e-9  # strength of an augmentation pipe that augments nothing: any but zero

_originals = {}  # (module, name) -> function that install() has wrapped; empty while it is not in force
_seen = {}  # what the wrapped functions have learned: training_set_kwargs, resume_state


def load_train_script(path):
    """The fork's train.py as module `train`, its folder first on the path, as if it had been started there."""
    path = os.path.abspath(path)
    if not os.path.isfile(path):
        raise MADRError(f"{path} does not exist; give the path of the fork's train.py")
    sys.path.insert(0, os.path.dirname(path))
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # processes that the fork spawns import its functions by this name
    spec.loader.exec_module(module)
    return module


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
    raise MADRError(
        f"{getattr(module, '__file__', module)} has none of the functions by which MADR knows its families "
        f"({'; '.join(f'{name} ({what})' for name, what in SEAMS.items())}). Call madr_plugin.install() at the top of the script instead"
    )


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
    options.apply(training_options, flags)
    if flags.get("madr"):
        # The fork restores networks only; MADR's own state rides in the snapshot's augment_pipe.
        training_options["loss_kwargs"]["madr"]["resume_pkl"] = training_options.get("resume_pkl")
        if training_options["augment_kwargs"]["base_kwargs"] is None and not training_options.get("augment_p") and _loop_takes("augment_p"):
            # Loops construct a pipe only where it is to do something; this one augments nothing and carries the state.
            training_options["augment_p"] = CARRIER_P


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
    if _originals:
        return
    resolved = config.resolve(given)
    util = _host_util()
    original = util.construct_class_by_name

    @functools.wraps(original)
    def construct_with_madr(*args, class_name=None, **kwargs):
        return _construct(original, util, resolved, args, class_name, kwargs)

    construct_with_madr.madr_original = original
    _wrap(util, "construct_class_by_name", construct_with_madr)
    _watch_snapshots()
    _register_metrics(resolved)


def uninstall():
    """Undo install(). Objects constructed meanwhile stay as they are, metrics stay registered."""
    for (module, name), original in _originals.items():
        setattr(module, name, original)
    _originals.clear()
    _seen.clear()


def _register_metrics(resolved):
    """Now: train.py checks the names of --metrics before it constructs anything."""
    try:
        importlib.import_module("metrics.metric_main")
    except ImportError:
        pass  # a fork without metrics; metrics.register() finds none
    metrics.register(resolved)


def _wrap(module, name, wrapped):
    _originals[module, name] = getattr(module, name)
    setattr(module, name, wrapped)


def _watch_snapshots():
    """MADR's state in the last snapshot that the fork has loaded: the loop keeps the networks of --resume and drops the rest."""
    try:
        import legacy  # the fork's
    except ImportError:
        return
    original = getattr(legacy, "load_network_pkl", None)
    if original is None:
        return

    @functools.wraps(original)
    def load_network_pkl(*args, **kwargs):
        snapshot = original(*args, **kwargs)
        if isinstance(snapshot, dict) and "D" in snapshot:  # else a network that the loop needs for something else
            state = getattr(snapshot.get("augment_pipe"), augment_pipe.CARRIED, None)
            if state is None:
                _seen.setdefault("resume_state", {})  # one without state does not make another one's forgotten
            else:
                _seen["resume_state"] = state
        return snapshot

    _wrap(legacy, "load_network_pkl", load_network_pkl)


def _construct(original, util, resolved, args, class_name, kwargs):
    kind = util.get_obj_by_name(class_name)
    if hasattr(kind, "accumulate_gradients") and class_name != options.LOSS_CLASS and "madr_plugin" not in kind.__module__:
        # The data set constructed last: train.py looks into the data before the loop opens them as they are to be trained on.
        madr = dict(
            resolved.as_dict(),
            random_seed=_seed_of_loop(kwargs.get("device")),
            training_set_kwargs=_seen.get("training_set_kwargs"),
            resume_state=_seen.pop("resume_state", None),
        )
        return MADRLoss(*args, base_class_name=class_name, madr=madr, **kwargs)
    if class_name.rsplit(".", 1)[-1] == "AugmentPipe":
        return augment_pipe.MADRAugmentPipe(base=original(*args, class_name=class_name, **kwargs))
    made = original(*args, class_name=class_name, **kwargs)
    if hasattr(kind, "image_shape") and hasattr(kind, "__getitem__"):
        _seen["training_set_kwargs"] = dict(kwargs, class_name=class_name)
        _seen.pop("resume_state", None)  # loops open their data before they load --resume: what was read earlier was looked at, no more
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
