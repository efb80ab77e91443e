"""Networks as a pair of files without code, `<name>.safetensors` (all numbers) and `<name>.json` (how to build them): reading them.

export.py writes them; legacy.py opens them wherever a network pickle is asked for. Must not know what the networks are used for.
"""

import json
import os

import dnnlib
from dnnlib.errors import UserError

from . import rebuild
from .pickle_machine import Refused

FORMAT = "stylegan2-ada-networks"
FORMAT_VERSION = 1
EXTENSIONS = (".safetensors", ".json")


def is_named(path):
    """Whether the path is that of one of the two files, by its extension."""
    return os.path.splitext(os.fspath(path))[1] in EXTENSIONS


def without_extension(path):
    """The path that both files have in common."""
    root, extension = os.path.splitext(os.fspath(path))
    return root if extension in EXTENSIONS else os.fspath(path)


def import_snapshot(source):
    """The snapshot dictionary of a pair of files; `source` is the path of either, or without extension."""
    root = without_extension(source)
    document = _read_document(root + ".json")
    tensors = _read_tensors(root + ".safetensors")
    snapshot = {}
    try:
        for key, network in document["networks"].items():
            snapshot[key] = _rebuild(network, key, tensors)
        snapshot["training_set_kwargs"] = _from_json(document["training_set_kwargs"])
        snapshot.update(_from_json(document["extra"]))
    except Refused as refused:
        raise UserError(f"{root}.json was refused: it describes {refused.what}.") from refused
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{root}.json is not a whole description of networks ({type(error).__name__}: {error}); export the snapshot again."
        ) from error
    for key in ("augment_pipe", "training_set_kwargs"):
        snapshot.setdefault(key, None)
    return snapshot


def _rebuild(network, key, tensors):
    if not rebuild.is_known_class(network["class_name"]):
        raise Refused(f"class {str(network['class_name'])[:100]}, which is not known here")
    prefix = key + "."
    return rebuild.rebuild(
        rebuild.Description(
            class_name=network["class_name"],
            init_args=tuple(rebuild.plain(_from_json(network["init_args"]))),
            init_kwargs=rebuild.plain(_from_json(network["init_kwargs"])),
            tensors={name[len(prefix) :]: tensor for name, tensor in tensors.items() if name.startswith(prefix)},
            requires_grad=dict(network["requires_grad"]),
            training=dict(network["training"]),
            classes=dict(network["classes"]),
        )
    )


def _read_document(path):
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError as error:
        raise UserError(
            f"Cannot open {path}: there is no such file. An exported network is a pair, and the .json says how to build networks from the numbers "
            "in the .safetensors; give the path of a pair that export.py has written."
        ) from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON ({error}); export the snapshot again.") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT or document.get("version") != FORMAT_VERSION:
        raise UserError(f"{path} does not describe networks (format {FORMAT!r}, version {FORMAT_VERSION}); give a file that export.py has written.")
    return document


def _read_tensors(path):
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except FileNotFoundError as error:
        raise UserError(f"Cannot open {path}: it must lie beside the .json of the same name.") from error
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); export the snapshot again.") from error


def _from_json(value):
    if isinstance(value, list):
        return [_from_json(part) for part in value]
    if isinstance(value, dict):
        if value.keys() == {"__tuple__"}:
            return tuple(_from_json(value["__tuple__"]))
        if value.keys() == {"__easydict__"}:
            return dnnlib.EasyDict(_from_json(value["__easydict__"]))
        return {key: _from_json(part) for key, part in value.items()}
    return value
