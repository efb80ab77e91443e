"""A trained network and where it comes from: its run folder, the data that it was trained on, the features that led it.

What a script asks before it judges or shows a network. Must not know metrics, pages or click.
"""

import json
import os

import dnnlib
import legacy
import training.dataset
from dnnlib.errors import UserError
from torch_utils.snapshot_names import list_network_snapshots
from training import config

OPTIONS_FILE = "training_options.json"

# ------------------------------------------------------------------------------------------
# Its run folder.


def run_dir_of(network):
    """The run folder that a pickle lies in, or None: only there result lines are kept."""
    if dnnlib.util.is_url(network):
        return None
    folder = os.path.dirname(os.path.abspath(network))
    return folder if os.path.isfile(os.path.join(folder, OPTIONS_FILE)) else None


def snapshot_paths(network):
    """Paths of the snapshots of the run that a pickle lies in, in the order of training; without kimg 0, which is untrained."""
    folder = run_dir_of(network)
    return [] if folder is None else [os.path.join(folder, name) for kimg, name in list_network_snapshots(folder) if kimg > 0]


def newest_snapshot(run):
    """Path of the newest network snapshot in a run folder."""
    if not os.path.isfile(os.path.join(run, OPTIONS_FILE)):
        raise UserError(f"--run={run} is not a run folder: there is no {OPTIONS_FILE}; give a folder that train.py made.")
    names = list_network_snapshots(run)
    if not names:
        raise UserError(f"--run={run} holds no network-snapshot-*.pkl yet; give a run that has saved one.")
    return os.path.join(run, names[-1][1])


def training_options(network):
    """The options of the run that a pickle lies in; None outside of a run folder, or where they cannot be read."""
    folder = run_dir_of(network)
    if folder is None:
        return None
    try:
        with open(os.path.join(folder, OPTIONS_FILE), encoding="utf-8") as file:
            options = json.load(file)
    except (OSError, ValueError):
        return None  # the run is not what is judged here
    return options if isinstance(options, dict) else None


def trained_in(network):
    """The extractor whose features led the training of a pickle in a run folder; None when none did, or nobody knows."""
    return space_that_led(training_options(network) or {})


def space_that_led(options):
    """The same, from a run's training options."""
    plugin = (options.get("loss_kwargs") or {}).get("madr")
    return plugin.get("extractor") if isinstance(plugin, dict) else None


# ------------------------------------------------------------------------------------------
# Its data.


def dataset_options(snapshot, data, mirror, trust, data_has_moved=False):
    """Arguments of the data set to compare with: --data, else what the pickle says of its training.

    data_has_moved: whether --data is the training's own set at another place, of which a run of --subset has seen a part alone.
    """
    if data is not None:
        if not os.path.exists(data):
            raise UserError(f"--data={data} does not exist; give a zip or a folder of images.")
        kwargs = dnnlib.EasyDict(class_name=config.IMAGE_FOLDER, path=data)
        if data_has_moved:
            kwargs.update(_subset_of_training(snapshot.get("training_set_kwargs") or {}))
    else:
        kwargs = _training_set_options(snapshot.get("training_set_kwargs"), trust)
    G = snapshot["G_ema"]
    kwargs.update(resolution=G.img_resolution, use_labels=G.c_dim != 0)
    if mirror is not None:
        kwargs.xflip = mirror
    return kwargs


def _subset_of_training(stated):
    """max_size and random_seed of a run of --subset, else nothing: only there the options of a run state a seed of the data set."""
    subset = {name: stated.get(name) for name in ("max_size", "random_seed")}
    return subset if all(isinstance(value, int) for value in subset.values()) else {}


def _training_set_options(stated, trust):
    if not stated:
        raise UserError("The network pickle does not say which data it was trained on; give the data set with --data=PATH.")
    kwargs = dnnlib.EasyDict(stated)
    if not _names_own_dataset(kwargs.get("class_name")) and not trust:
        raise UserError(
            f"The network pickle names {kwargs.get('class_name')!r} as its data set class, which is refused because it could "
            "run any code; give the data set with --data=PATH, or trust the file with --trust-pickle."
        )
    path = kwargs.get("path")
    if path is not None and not os.path.exists(path):
        raise UserError(f"The training data of the network, {path}, is not there any more; give it with --data=PATH.")
    return kwargs


def _names_own_dataset(class_name):
    """Whether the name is that of a data set class of ours. The pickle's words become a call: anything else could run any
    code, also by a way through our modules ('training.dataset.os.system')."""
    module, _, name = str(class_name).rpartition(".")
    found = getattr(training.dataset, name, None) if module == "training.dataset" else None
    return isinstance(found, type) and issubclass(found, training.dataset.Dataset)


def check_same_images(snapshot, baseline, trust):
    """Refuse a baseline that draws other images than the network: no number of the two could be compared."""
    G, B = snapshot["G_ema"], legacy.open_network(baseline, trust=trust, verbose=False)["G_ema"]
    for what, mine, other in [
        ("resolution", G.img_resolution, B.img_resolution),
        ("channels", G.img_channels, B.img_channels),
        ("label size", G.c_dim, B.c_dim),
    ]:
        if mine != other:
            raise UserError(f"--baseline={baseline} has {what} {other}, the network {mine}; compare networks of the same images and labels.")
