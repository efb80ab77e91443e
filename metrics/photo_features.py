"""Joins a network of photographs and its weights into one TorchScript module: images -> features.

The networks are timm's; the weights may be in timm's layout, in torchvision's or in any that lists the same tensors in the same
order. Nothing is downloaded. Must not know metrics.
"""

import io
import json
import os
import re
import warnings
import zipfile

import torch

from dnnlib.download import file_digest
from dnnlib.errors import UserError
from madr_spaces import deep
from madr_spaces.weights import read_state_dict, regridded

_HEAD_TENSORS = 2  # weight and bias of a classifier
_STATED_DIGEST = re.compile(r"-([0-9a-f]{8,64})\.[a-z]+$")  # the way of torch.hub: name-<beginning of the SHA-256>.pth


class PhotoFeatures(torch.nn.Module):
    """Images [N, 1 or 3, H, W] in [-1, 1] -> features [N, D], with a gradient to the image: as training and metrics call a file."""

    def __init__(self, network, size: int, mean, std):
        super().__init__()
        self.network, self.size = network, size
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(std).reshape(1, 3, 1, 1))

    def forward(self, images):
        x = images.to(torch.float32)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[2] != self.size or x.shape[3] != self.size:
            # Not clamped: white ground that rounding puts a hair above 1 would lose its gradient.
            x = torch.nn.functional.interpolate(x, [self.size, self.size], mode="bicubic", align_corners=False, antialias=True)
        return self.network((x * 0.5 + 0.5 - self.mean) / self.std)


# ----------------------------------------------------------------------------------------------------------------
# Weights.


def check_stated_digest(path):
    """Refuse a file whose name states another SHA-256 than it has; True if the name states one."""
    stated = _STATED_DIGEST.search(os.path.basename(path))
    if stated is None:
        return False
    found = file_digest(path)
    if not found.startswith(stated[1]):
        raise UserError(f"--weights={path} is not the file that its name says: its SHA-256 is {found}, not {stated[1]}...; fetch it again.")
    return True


def matched(state, wanted, path):
    """(the tensors that a network wants, how they were found: 'name' or 'order'); a classifier's head may remain.

    By order only where every single shape agrees: files of one architecture differ in what they call a layer, hardly
    ever in the order of layers.
    """
    if all(key in state and state[key].shape == value.shape for key, value in wanted.items()):
        return {key: state[key] for key in wanted}, "name"
    drop = lambda tensors: {key: value for key, value in tensors.items() if not key.endswith("num_batches_tracked")}
    theirs, ours = list(drop(state).items()), drop(wanted)
    for (their_name, their_tensor), (name, tensor) in zip(theirs, ours.items()):
        if their_tensor.shape != tensor.shape:
            raise UserError(
                f"--weights={path} does not fit the model: {their_name} has shape {list(their_tensor.shape)} where {name} needs "
                f"{list(tensor.shape)}; give the weights of that very model."
            )
    if not len(ours) <= len(theirs) <= len(ours) + _HEAD_TENSORS:
        raise UserError(
            f"--weights={path} does not fit the model: it holds {len(theirs)} tensors and the model needs {len(ours)}; give the weights "
            "of that very model."
        )
    return {**wanted, **{name: tensor for name, (_, tensor) in zip(ours, theirs)}}, "order"


def build(model, weights, size=0):
    """(PhotoFeatures, facts) of a timm model with the weights of a file. size 0: the model's own input side."""
    import timm

    if not timm.is_model(model):
        near = timm.list_models(f"*{model.split('_')[0]}*")[:8]
        raise UserError(f"--model={model}: timm {timm.__version__} has no such model{'; it has ' + ', '.join(near) if near else ''}.")
    if not os.path.isfile(weights):
        raise UserError(f"--weights={weights} does not exist; give a .safetensors or .pth file.")
    settings = timm.get_pretrained_cfg(model)
    size = size or settings.input_size[-1]
    deep.check_size(model, size, settings, "--size", f"--model={model}")
    network = timm.create_model(model, pretrained=False, num_classes=0, **deep.sizing(model, size)).eval()
    checked = check_stated_digest(weights)
    state = regridded(read_state_dict(weights), network)
    tensors, how = matched(state, network.state_dict(), weights)
    network.load_state_dict(tensors)
    network.requires_grad_(False)
    facts = dict(
        model=model,
        size=size,
        weights_sha256=file_digest(weights),
        sha256_stated_by_name=checked,
        matched_by=how,
        mean=list(settings.mean),
        std=list(settings.std),
        timm=timm.__version__,
    )
    return PhotoFeatures(network, size, settings.mean, settings.std).eval().requires_grad_(False), facts


# ----------------------------------------------------------------------------------------------------------------
# The file.


def as_torchscript(features):
    """The module as TorchScript: the network traced at its own size, the resizing before it scripted, for any input size."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch recommends another format, which carries no gradient to any batch size
        traced = torch.jit.trace(features.network, torch.rand([2, 3, features.size, features.size], generator=torch.Generator().manual_seed(0)))
        mean, std = (buffer.flatten().tolist() for buffer in (features.mean, features.std))
        return torch.jit.script(PhotoFeatures(traced, features.size, mean, std)).eval()


def as_bytes(module, facts):
    """The file's content; the facts ride in it as madr.json. The same bytes, and so the same hash, wherever the packages lie that made it."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as above
        torch.jit.save(module, buffer, _extra_files={"madr.json": json.dumps(facts)})
    return _without_places(buffer.getvalue())


def _without_places(data):
    """Leave out what tells of the machine: for each instruction the path of the source that it was traced from, and a number made of all that."""
    kept = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(kept, "w") as shorter:
        for entry in archive.infolist():
            if not entry.filename.endswith((".debug_pkl", "/serialization_id")):
                plain = zipfile.ZipInfo(entry.filename)  # with a fixed date
                shorter.writestr(plain, archive.read(entry))
    return kept.getvalue()


def check_equal(module, features):
    """Refuse a file that does not compute what the network does, for other batches and sides than it was traced with."""
    generator = torch.Generator().manual_seed(1)
    for shape in ([3, 3, 40, 40], [1, 1, features.size, features.size]):
        images = torch.rand(shape, generator=generator) * 2 - 1
        if not torch.allclose(module(images), features(images), rtol=1e-3, atol=1e-4):
            raise UserError("The TorchScript file would give other features than the network itself; this model cannot be traced, choose another.")
