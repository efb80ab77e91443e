"""Opening network pickles of any age, and converting them: `python legacy.py --source=old.pkl --dest=new.pkl`.

The one door through which every tool gets at networks in files or on the web. Must not know what is done with them.
"""

import copy
import inspect
import os
import pickle

import click

import dnnlib
from dnnlib import cli, files
from dnnlib.errors import UserError
from torch_utils.snapshot_names import list_network_snapshots

# Whatever imports torch is imported inside the functions, so that --help comes at once.

_NETWORK_KEYS = ("G", "D", "G_ema")
# What upstream's --force-fp16 sets: half precision at the four highest resolutions, with clamped activations.
_FP16_SETTINGS = dict(num_fp16_res=4, conv_clamp=256)

_HOW_TO_CONVERT = (
    "Networks of the TensorFlow code cannot be read here. Convert the file once with legacy.py of NVIDIA's "
    "stylegan2-ada-pytorch: `python legacy.py --source=old.pkl --dest=new.pkl` in a checkout of that repository; "
    "the new file opens here."
)


# ---------------------------------------------------------------------------------------------------------------------
# Loading.


def load_network_pkl(f, force_fp16=False, trust=False):
    """The snapshot in an open binary file: dict with G, D, G_ema, training_set_kwargs and augment_pipe.

    Nothing of the file is executed unless trust=True. Keys that old snapshots lack are None. Of a pair that export.py has
    written, the opened file is either of the two.
    """
    from torch_utils import network_pair

    name = _name_of(f)
    data = _completed(network_pair.import_snapshot(name) if network_pair.is_named(name) else _unpickled(f, name, trust), name)
    if force_fp16:
        for key in _NETWORK_KEYS:
            data[key] = _with_fp16(data[key], key)
    return data


def _unpickled(f, name, trust):
    from torch_utils import safe_unpickle

    try:
        return safe_unpickle.load(f, trust=trust, name=name)
    except safe_unpickle.RefusedPickle as error:
        if _names_tensorflow(error.what):
            raise _tensorflow_error(name) from error
        raise
    except UserError as error:
        if isinstance(error.__cause__, ModuleNotFoundError) and _names_tensorflow(error.__cause__.name or ""):
            raise _tensorflow_error(name) from error
        raise


def open_network(path_or_url, *, trust=False, verbose=True, force_fp16=False):
    """load_network_pkl for what --network may be; whatever is wrong with it is said in a sentence.

    That is a network pickle, a pair that export.py has written, or a run folder, which stands for its newest snapshot; as a
    path, a file:// or a https:// address.
    """
    path = located(path_or_url)
    if verbose and path != os.fspath(path_or_url):
        print(f"{path_or_url} is a folder: taking its newest snapshot, {os.path.basename(path)}.", flush=True)
    with dnnlib.util.open_url(path, verbose=verbose) as f:
        from torch_utils import file_kinds, network_pair  # after the file was found: a slip of the hand is answered at once

        if not network_pair.is_named(_name_of(f)):
            problem = file_kinds.problem_of(f)
            if problem is not None:
                raise UserError(f"{path_or_url} {problem}.")
        return load_network_pkl(f, force_fp16=force_fp16, trust=trust)


def located(network):
    """The file that --network means: of a run folder its newest network snapshot, else what was given."""
    if not network:
        raise UserError("The network has no name; give the path or the URL of a network pickle (.pkl).")
    network = os.fspath(network)
    if not os.path.isdir(network):
        return network
    saved = list_network_snapshots(network)
    if not saved:
        raise UserError(
            f"{network} is a folder that holds no network-snapshot-*.pkl; give a network pickle, or the folder of a run that has saved one."
        )
    return os.path.join(network, saved[-1][1])


def _name_of(f):
    name = getattr(f, "name", None)
    return name if isinstance(name, str) else "The network pickle"


def _completed(data, name):
    import torch

    if isinstance(data, tuple) and len(data) == 3 and not any(isinstance(part, torch.nn.Module) for part in data):
        raise _tensorflow_error(name)  # G, D, Gs with --trust-pickle in an environment where they did load
    if not isinstance(data, dict):
        raise UserError(f"{name} is a pickle, but not of networks (it holds a {type(data).__name__}); give a network-snapshot-*.pkl.")
    for key in _NETWORK_KEYS:
        if not isinstance(data.get(key), torch.nn.Module):
            raise UserError(
                f"{name} is not a network snapshot: it has no network {key!r} (it holds {', '.join(sorted(map(str, data))[:10]) or 'nothing'})."
            )
    data.setdefault("training_set_kwargs", None)
    data.setdefault("augment_pipe", None)
    for key, kind in (("training_set_kwargs", dict), ("augment_pipe", torch.nn.Module)):
        if data[key] is not None and not isinstance(data[key], kind):
            raise UserError(f"{name} is not a usable network snapshot: its {key} is a {type(data[key]).__name__}.")
    return data


def _arguments_by_name(network):
    """Constructor arguments as keywords, also those that were given by position."""
    bound = inspect.signature(type(network).__init__).bind(network, *network.init_args, **network.init_kwargs)
    kwargs = dnnlib.EasyDict()
    for name, value in list(bound.arguments.items())[1:]:
        if bound.signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            kwargs.update(value)
        else:
            kwargs[name] = value
    return kwargs


def _with_fp16(network, key):
    """The network with half precision, rebuilt with the same weights; itself if nothing changes."""
    import torch

    from torch_utils import misc

    before = _arguments_by_name(network)
    kwargs = copy.deepcopy(before)
    if key.startswith("G"):
        kwargs.synthesis_kwargs = dnnlib.EasyDict({**kwargs.get("synthesis_kwargs", {}), **_FP16_SETTINGS})
    else:
        kwargs.update(_FP16_SETTINGS)
    if kwargs == before:
        return network
    try:
        with torch.random.fork_rng(devices=[]):  # the initial weights are replaced at once
            converted = type(network)(**kwargs)
    except TypeError as error:
        raise UserError(
            f"force_fp16 does not fit {key}: its class {type(network).__name__} has no half-precision "
            "settings of the StyleGAN2-ADA kind; leave it out."
        ) from error
    misc.copy_params_and_buffers(network, converted, require_all=True)
    for (_, old), (_, new) in zip(network.named_parameters(), converted.named_parameters()):
        new.requires_grad_(old.requires_grad)
    return converted.train(network.training)


# ---------------------------------------------------------------------------------------------------------------------
# TensorFlow.


def _names_tensorflow(what):
    return what.startswith(("dnnlib.tflib", "tfutil", "tensorflow"))


def _tensorflow_error(name):
    return UserError(f"{name} is a pickle of the TensorFlow code. {_HOW_TO_CONVERT}")


def convert_tf_generator(tf_G):
    """Exists because forks import it: always raises the UserError that says how to convert."""
    raise _tensorflow_error(getattr(tf_G, "name", None) or "This generator")


def convert_tf_discriminator(tf_D):
    """Exists because forks import it: always raises the UserError that says how to convert."""
    raise _tensorflow_error(getattr(tf_D, "name", None) or "This discriminator")


# ---------------------------------------------------------------------------------------------------------------------
# Conversion.


def check_is_new(dest):
    """Refuse a pickle that lies there already: a snapshot may be the only copy of what it holds."""
    if os.path.isdir(dest):
        raise UserError(f"--dest={dest} is a folder; give the name of a file in it.")
    if os.path.exists(dest):
        raise UserError(f"--dest={dest} exists already, and may hold what the new file does not; give another name, or delete that file first.")


def prepare_folder_of(dest):
    """Make the folder of a file to write before the network is loaded. Raises UserError."""
    folder = os.path.dirname(dest) or "."
    try:
        files.make_writable(folder)
    except OSError as error:
        raise UserError(f"--dest={dest} cannot be written to ({error.strerror or error}: {folder}); choose another folder.") from error


def convert_network_pickle(source, dest, force_fp16=False, trust=False):
    """Load a pickle from a path or URL and save it with this project's own source text of the same networks."""
    dnnlib.util.open_url(located(source), return_filename=True)  # a source that is missing leaves no folder behind
    prepare_folder_of(dest)
    print(f'Loading "{source}"...')
    data = open_network(source, force_fp16=force_fp16, trust=trust)
    print(f'Saving "{dest}"...')
    with files.atomic_open(dest) as f:
        pickle.dump(data, f)


@click.command()
@click.option("--source", help="Network pickle to read: a path or a URL.", required=True, metavar="PKL")
@click.option("--dest", help="Network pickle to write.", required=True, metavar="PKL")
@click.option(
    "--force-fp16",
    help="Half precision at the four highest resolutions, conv_clamp 256.",
    type=bool,
    default=False,
    show_default=True,
    metavar="BOOL",
)
@cli.trust_option
def main(source, dest, force_fp16, trust_pickle):
    """Convert an old network pickle to one that this project and NVIDIA's stylegan2-ada-pytorch open.

    Example: python legacy.py --source=old.pkl --dest=new.pkl --force-fp16=1
    """
    if os.path.exists(source) and os.path.exists(dest) and os.path.samefile(source, dest):
        raise UserError(f"--dest={dest} is the --source itself; name another file, so that the original stays")
    check_is_new(dest)
    convert_network_pickle(source=source, dest=dest, force_fp16=force_fp16, trust=trust_pickle)


if __name__ == "__main__":
    cli.run(main)
