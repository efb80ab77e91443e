"""Networks without pickle: a snapshot as `<name>.safetensors` (all numbers) + `<name>.json` (how to build them), and back.

Neither file can hold code. They hold networks alone: tensors that a plugin lets ride on the pickle's augment_pipe stay
behind. Or the averaged generator as one file that draws (torch_utils/runnable.py). Must not know what the networks are used for.
"""

import json
import os
import pickle

import click

import dnnlib
import legacy
from dnnlib import cli, console, download, files
from dnnlib.errors import UserError

# Whatever imports torch is imported inside the functions, so that --help comes at once.

# Files that draw: what one calls them.
_ENDINGS = {"torchscript": ".pt", "onnx": ".onnx"}
_OTHER_ENDINGS = (".safetensors", ".json", ".pkl")  # of pairs, and of what they are turned back into

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
    path = dnnlib.util.open_url(legacy.located(source), return_filename=True)  # before what takes seconds is imported
    legacy.prepare_folder_of(os.fspath(dest))
    import torch
    from safetensors.torch import save

    from torch_utils import network_pair

    dest = network_pair.without_extension(dest)
    data = legacy.open_network(path, trust=trust)
    tensors, networks, extra = {}, {}, {}
    for key, value in data.items():
        if isinstance(value, torch.nn.Module):
            networks[key] = _describe(value, key, tensors)
            _tell_what_stays_behind(value, key, source)
        elif key != "training_set_kwargs":
            extra[str(key)] = _to_json(value, f"{source}: {key}")

    document = dict(
        format=network_pair.FORMAT,
        version=network_pair.FORMAT_VERSION,
        networks=networks,
        extra=extra,
        training_set_kwargs=_to_json(data["training_set_kwargs"], f"{source}: training_set_kwargs"),
        provenance=dict(file=os.path.basename(str(source)), sha256=download.file_digest(path)),
    )
    # The JSON comes last: where it lies, the numbers lie too.
    files.atomic_write_bytes(dest + ".safetensors", save(tensors, metadata={"format": "pt"}))
    files.atomic_write_text(dest + ".json", json.dumps(document, indent=2) + "\n")
    return dest + ".safetensors", dest + ".json"


def _describe(module, key, tensors):
    import torch

    from torch_utils import rebuild
    from torch_utils.pickle_machine import Refused

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


def _tell_what_stays_behind(module, key, source):
    """Say how many tensors ride on a network, in dictionaries that are no part of it: in a fork these may be the only copy."""
    import torch

    own = ("_parameters", "_buffers", "_modules")
    held = [value for part in module.modules() for name, value in vars(part).items() if isinstance(value, dict) and name not in own]
    number = sum(torch.is_tensor(value) for values in held for value in values.values())
    if number:
        console.warn(
            f"the two files hold networks alone: {number} tensors that ride on {key} are left out (what a plugin such as MADR remembers). "
            f"Keep {source}: to go on training with them takes the pickle."
        )


def import_snapshot(source):
    """The snapshot dictionary of a pair of files; `source` is the path of either, or without extension."""
    from torch_utils import network_pair

    return network_pair.import_snapshot(source)


# ---------------------------------------------------------------------------------------------------------------------
# Snapshot -> one file that draws.


def export_drawing(source, dest, form, truncation_psi=1.0, noise_mode="const", trust=False):
    """Write the averaged generator as a TorchScript or ONNX file, once it has drawn the network's images; returns the largest difference
    (None where onnxruntime is missing, which would tell)."""
    return _drawing_and_facts(source, dest, form, truncation_psi, noise_mode, trust)[0]


def _drawing_and_facts(source, dest, form, truncation_psi, noise_mode, trust):
    """export_drawing -> (difference, what the file states of itself)"""
    from torch_utils import runnable

    if form == "onnx":
        runnable.check_onnx_packages()
    path = dnnlib.util.open_url(legacy.located(source), return_filename=True)
    legacy.prepare_folder_of(dest)
    G = legacy.open_network(path, trust=trust)["G_ema"]
    facts = dict(
        file=os.path.basename(str(source)),
        sha256=download.file_digest(path),
        z_dim=G.z_dim,
        c_dim=G.c_dim,
        resolution=G.img_resolution,
        channels=G.img_channels,
        truncation_psi=truncation_psi,
        noise_mode=noise_mode,
        tolerance=runnable.TOLERANCE,
    )
    made = runnable.drawing(G, truncation_psi, noise_mode)
    writes, runs = dict(torchscript=(runnable.as_torchscript, runnable.run_torchscript), onnx=(runnable.as_onnx, runnable.run_onnx))[form]
    data, difference = b"", None
    for step in console.progress(["record", "compare"], 2, f"Exporting as {form}", unit="step"):
        if step == "record":
            data = writes(made, facts)
        elif form != "onnx" or runnable.can_run_onnx():
            difference = runnable.largest_difference(runs(data), made)
    files.atomic_write_bytes(dest, data)
    return difference, facts


def form_of(dest, form):
    """The format that --format and the ending of --dest say together. Refuses a --dest that names no file."""
    if not os.path.basename(dest):  # the pair would be the hidden .safetensors and .json
        raise UserError(f"--dest={dest} names no file; give a name in that folder, such as {os.path.join(dest, 'network')}.")
    ending = os.path.splitext(dest)[1]
    by_ending = {ending: name for name, ending in _ENDINGS.items()}.get(ending)
    if by_ending is None and form not in _ENDINGS and ending not in _OTHER_ENDINGS and ending[1:2].isalpha():  # cats-0.7 ends in none
        raise UserError(
            f"--dest={dest} ends in {ending}, which this tool does not write; take .pt (TorchScript), .onnx, .safetensors or no ending "
            "(safetensors + JSON), or .pkl to turn such a pair back."
        )
    if form is None:
        return by_ending or "safetensors"
    if form in _ENDINGS and by_ending != form:
        raise UserError(
            f"--dest={dest} does not go with --format={form}, whose files end in {_ENDINGS[form]}; call it {os.path.splitext(dest)[0]}{_ENDINGS[form]}."
        )
    if form not in _ENDINGS and by_ending is not None:
        raise UserError(f"--dest={dest} does not go with --format={form}, which writes a pair of files; leave {os.path.splitext(dest)[1]} away.")
    return form


# ---------------------------------------------------------------------------------------------------------------------
# At the command line.


def _write_drawing(source, dest, form, trunc, noise_mode, trust):
    difference, facts = _drawing_and_facts(source, dest, form, 1.0 if trunc is None else trunc, noise_mode or "const", trust)
    if difference is None:
        console.note("the file was not compared with the network, since onnxruntime is missing: pip install onnxruntime")
    else:
        print(f"Its images differ from those of the network by at most {difference:.1e} of the range.")
    labels = f" and c [batch, {facts['c_dim']}] (labels, one-hot for classes)" if facts["c_dim"] else ""
    print(f"Inputs: z [batch, {facts['z_dim']}] (standard normal){labels}, float32.")
    print(f"Output: image [batch, {facts['channels']}, {facts['resolution']}, {facts['resolution']}], float32; clamp it to -1..1.")
    print(f"Wrote {dest}")


def _check_can_be_turned_back(source):
    """Refuse files that draw, of which no pickle can be made again."""
    if not os.path.isfile(source):
        return
    from torch_utils import file_kinds

    with open(source, "rb") as file:
        problem = file_kinds.problem_of(file)
    if file_kinds.EXPORTED in (problem or ""):
        raise UserError(
            f"--source={source} {problem}. A file that draws cannot be turned back into a pickle; only a pair of .safetensors and .json can."
        )


@click.command()
@click.option(
    "--source",
    help="Network pickle (path or URL), a run folder (its newest snapshot), or a .json/.safetensors that this tool has written.",
    required=True,
    metavar="PATH",
)
@click.option("--dest", help="Where to write: a name for the pair of files, or a .pkl to turn a pair back.", required=True, metavar="PATH")
@click.option(
    "--format",
    "form",
    type=click.Choice(["safetensors", *_ENDINGS]),
    help="A pair of files that opens here again, or one file that draws without this code.  [default: by the ending of --dest]",
)
@click.option(
    "--trunc", type=cli.FloatRange(), help="Truncation psi that --format=torchscript and onnx fix in the file.  [default: 1]", metavar="FLOAT"
)
@click.option("--noise-mode", type=click.Choice(["const", "none"]), help="Noise that they fix in the file.  [default: const]")
@cli.trust_option
def main(source, dest, form, trunc, noise_mode, trust_pickle):
    """Turn a network pickle into files that can hold no code (safetensors + JSON), or back, or into one that draws by itself.

    \b
    Examples:
      python export.py --source=network-snapshot-001000.pkl --dest=cats
      python export.py --source=cats.json --dest=cats.pkl
      python export.py --source=network-snapshot-001000.pkl --dest=cats.onnx --trunc=0.7
    """
    form = form_of(dest, form)
    if form in _ENDINGS:
        _write_drawing(source, dest, form, trunc, noise_mode, trust_pickle)
        return
    for flag, value in (("--trunc", trunc), ("--noise-mode", noise_mode)):
        if value is not None:
            raise UserError(f"{flag} has no effect on --format=safetensors, which keeps the whole network; leave it out.")
    if os.path.splitext(source)[1] in (".json", ".safetensors"):
        if not dest.endswith(".pkl"):
            raise UserError(f"--dest must end in .pkl when --source is an exported file (got {dest}).")
        legacy.check_is_new(dest)
        if os.path.exists(source):  # one that is missing leaves no folder behind
            legacy.prepare_folder_of(dest)
        snapshot = import_snapshot(source)
        with files.atomic_open(dest) as file:
            pickle.dump(snapshot, file)
        print(f"Wrote {dest}")
        return
    if dest.endswith(".pkl"):
        _check_can_be_turned_back(source)
        raise UserError(f"--dest must not end in .pkl when --source is a pickle (got {dest}); use legacy.py to convert pickles.")
    for path in export_snapshot(source, dest, trust=trust_pickle):
        print(f"Wrote {path}")


if __name__ == "__main__":
    cli.run(main)
