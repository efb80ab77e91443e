"""Networks without pickle: a snapshot as `<name>.safetensors` (all numbers) + `<name>.json` (how to build them), and back.

Neither file can hold code. They hold networks alone: tensors that a plugin lets ride on the pickle's augment_pipe stay
behind. Must not know what the networks are used for.
"""

import json
import os
import pickle

import click
import torch

import dnnlib
import legacy
from dnnlib import cli, download, files
from dnnlib.errors import UserError
from torch_utils import network_pair, rebuild
from torch_utils.network_pair import FORMAT, FORMAT_VERSION, import_snapshot
from torch_utils.pickle_machine import Refused

# ---------------------------------------------------------------------------------------------------------------------
# JSON knows no tuples, and its dictionaries are not EasyDicts; both matter when the networks are built again.


def _to_json(value, where):
    if isinstance(value, tuple):
        return {"__tuple__": [_to_json(part, where) for part in value]}
    if isinstance(value, list):
        return [_to_json(part, where) for part in value]
    if isinstance(value, dict) and all(isinstance(key, str) and not key.startswith("__") for key in value):
        parts = {key: _to_json(part, where) for key, part in value.items()}
        return {"__easydict__": parts} if isinstance(value, dnnlib.EasyDict) else parts
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise UserError(f"{where} holds a {type(value).__name__}, which cannot be written as JSON; keep this snapshot as a pickle.")


# ---------------------------------------------------------------------------------------------------------------------
# Snapshot -> two files.


def export_snapshot(source, dest, trust=False):
    """Write `<dest>.safetensors` and `<dest>.json` from a network pickle; returns both paths.

    dest: path without extension (an extension .safetensors or .json is dropped). The same snapshot gives the same bytes.
    """
    from safetensors.torch import save

    dest = network_pair.without_extension(dest)
    path = dnnlib.util.open_url(legacy.located(source), return_filename=True)
    data = legacy.open_network(path, trust=trust)
    tensors, networks, extra = {}, {}, {}
    for key, value in data.items():
        if isinstance(value, torch.nn.Module):
            networks[key] = _describe(value, key, tensors)
        elif key != "training_set_kwargs":
            extra[str(key)] = _to_json(value, f"{source}: {key}")

    document = dict(
        format=FORMAT,
        version=FORMAT_VERSION,
        networks=networks,
        extra=extra,
        training_set_kwargs=_to_json(data["training_set_kwargs"], f"{source}: training_set_kwargs"),
        provenance=dict(file=os.path.basename(str(source)), sha256=download.file_digest(path)),
    )
    folder = os.path.dirname(dest)
    if folder:
        os.makedirs(folder, exist_ok=True)
    # The JSON comes last: where it lies, the numbers lie too.
    files.atomic_write_bytes(dest + ".safetensors", save(tensors, metadata={"format": "pt"}))
    files.atomic_write_text(dest + ".json", json.dumps(document, indent=2) + "\n")
    return dest + ".safetensors", dest + ".json"


def _describe(module, key, tensors):
    try:
        description = rebuild.describe_module(module)
    except Refused as refused:
        raise UserError(
            f"{key} cannot be exported: it is of {refused.what}, and the two files hold no code to build it from; keep this snapshot as a pickle."
        ) from refused
    for name, tensor in description.tensors.items():
        tensors[f"{key}.{name}"] = tensor.cpu().clone(memory_format=torch.contiguous_format)
    return dict(
        class_name=description.class_name,
        init_args=_to_json(list(description.init_args), key),
        init_kwargs=_to_json(description.init_kwargs, key),
        classes=description.classes,
        training=description.training,
        requires_grad=description.requires_grad,
    )


# ---------------------------------------------------------------------------------------------------------------------
# At the command line.


@click.command()
@click.option("--source", help="Network pickle (path or URL), or a .json/.safetensors that this tool has written.", required=True, metavar="PATH")
@click.option("--dest", help="Where to write: a name for the pair of files, or a .pkl to turn a pair back.", required=True, metavar="PATH")
@cli.trust_option
def main(source, dest, trust_pickle):
    """Turn a network pickle into files that can hold no code (safetensors + JSON), or back.

    \b
    Examples:
      python export.py --source=network-snapshot-001000.pkl --dest=cats
      python export.py --source=cats.json --dest=cats.pkl
    """
    if network_pair.is_named(source):
        if not dest.endswith(".pkl"):
            raise UserError(f"--dest must end in .pkl when --source is an exported file (got {dest}).")
        snapshot = import_snapshot(source)
        with files.atomic_open(dest) as file:
            pickle.dump(snapshot, file)
        print(f"Wrote {dest}")
        return
    if dest.endswith(".pkl"):
        raise UserError(f"--dest must not end in .pkl when --source is a pickle (got {dest}); use legacy.py to convert pickles.")
    for path in export_snapshot(source, dest, trust=trust_pickle):
        print(f"Wrote {path}")


if __name__ == "__main__":
    cli.run(main)
