"""Files of weights: checked by their SHA-256, read without executing anything in them, put into a network.

Must not know where a file comes from.
"""

import hashlib
import os

import torch

from madr_spaces.errors import MADRError, words_of


def read_state_dict(path):
    """{name: tensor} of a .safetensors or torch file; nothing in it is executed."""
    try:
        if str(path).endswith(".safetensors"):
            state = import_safetensors().torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own errors, and all mean the same to the user
        raise MADRError(f"the file {path} cannot be read as weights: {words_of(error)}; give a .safetensors or .pth file") from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise MADRError(f"the file {path} holds no named tensors; give a state dict")
    # Names as the network itself has them: training code wraps it for several GPUs, or under a head.
    return {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}


def fill(network, path, name, model_name):
    """Put the trained weights of a file into a network of timm. name, model_name: for the sentence where they do not fit."""
    state = read_state_dict(path)
    blame = f"--madr-weights={path} does not fit --madr-extractor={name} ({model_name})"
    try:
        state = regridded(state, network)
    except (RuntimeError, AssertionError, ValueError, KeyError, IndexError) as error:
        raise MADRError(
            f"{blame} at {network.patch_embed.img_size} pixels: {str(error)[:200]}; give the weights of that very model, or another --madr-input-size"
        ) from error
    wanted = network.state_dict()
    # A classifier's head is left out on purpose; anything else that lacks or differs is a wrong file.
    missing = [key for key in wanted if key not in state]
    differing = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or differing:
        raise MADRError(
            f"{blame}: {len(missing)} tensors missing, {len(differing)} of other shape, e.g. {(missing + differing)[0]}; "
            "give the weights of that very model"
        )
    network.load_state_dict({key: state[key] for key in wanted})


def regridded(state, network):
    """The state with position embeddings interpolated to the network's grid, where it is a vision transformer."""
    from timm.models import vision_transformer

    return vision_transformer.checkpoint_filter_fn(state, network) if isinstance(network, vision_transformer.VisionTransformer) else state


def file_sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def check_sha256(path, expected):
    """The file's SHA-256; refused if another is expected ('': none). To be called before anything reads the file."""
    if not os.path.isfile(path):
        raise MADRError(f"--madr-weights={path} does not exist; give the path of a .safetensors or .pth file")
    found = file_sha256(path)
    if expected and found != expected.lower():
        raise MADRError(
            f"{path} has SHA-256 {found}, not the {expected.lower()} of --madr-weights-sha256: another or a damaged file; "
            "fetch it again, or correct the hash if this is the file you mean"
        )
    return found


def import_safetensors():
    try:
        import safetensors
        import safetensors.torch
    except ImportError as error:
        raise MADRError("this file of weights is a .safetensors file; install the package safetensors") from error
    return safetensors
