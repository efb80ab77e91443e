"""`file:<path>`: a network of the user's own, TorchScript or .safetensors; `inception-fid`: the published detector of FID.

A TorchScript module that takes return_features is called as the published detectors are, with values in [0, 255]; any other
with images in [-1, 1]. Must not know who looks through it.
"""

import json
import os
import warnings

import torch

from madr_spaces.deep import DeepSpace
from madr_spaces.errors import MADRError, words_of
from madr_spaces.own import FORMAT, OwnSpace
from madr_spaces.space import Space
from madr_spaces.weights import check_sha256, import_safetensors


class FileSpace(Space):
    """Images [N, C, H, W] -> [N, D] (or more axes, which are flattened). differentiable: whether it must carry a gradient to the image."""

    resize_filter = "that of the detector's file"  # which its hash pins down

    def __init__(self, path, image_shape, sha256="", differentiable=True, name=""):
        super().__init__(image_shape)
        self.path, self.name = path, name or f"file:{path}"
        if not os.path.isfile(path):
            raise MADRError(f"--madr-extractor={self.name} cannot be read: there is no such file as {path}; write one with torch.jit.save")
        self.sha256 = check_sha256(path, sha256)  # before loading, which runs what the file says
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is the one format that needs none of the author's code
                module = torch.jit.load(path, map_location="cpu").eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise MADRError(
                f"--madr-extractor={self.name} cannot be read: {path} is not a TorchScript file that this PyTorch can read "
                f"({words_of(error)}); write one with torch.jit.save"
            ) from error
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self._module_in_list = [module]  # no submodule: its tensors belong to no optimizer and no snapshot
        self.is_published_kind = "return_features" in {argument.name for argument in module.forward.schema.arguments}
        self._try(differentiable)

    def _try(self, differentiable):
        x = torch.zeros([2, *self.image_shape]).requires_grad_()
        try:
            features = self(x)
        except (RuntimeError, IndexError) as error:
            raise MADRError(f"--madr-extractor={self.name} fails on images of shape {list(self.image_shape)}: {str(error)[-200:]}") from error
        if features.ndim != 2 or len(features) != 2 or differentiable and not features.requires_grad:
            raise MADRError(
                f"--madr-extractor={self.name} must map [N, C, H, W] to [N, D] with a gradient to the image; "
                "the module gives none (no_grad, detach or a wrong shape)"
            )

    def identity(self):
        if self.name == "inception-fid":
            return dict(name=self.name, sha256=self.sha256, version=1)
        # Version 1 called all files alike: other features of those that are called as published detectors are.
        return dict(name="file", sha256=self.sha256, version=2 if self.is_published_kind else 1)

    def tensors(self):
        return [*self._module_in_list[0].parameters(), *self._module_in_list[0].buffers()]

    def _apply(self, function, recurse=True):
        self._module_in_list[0]._apply(function)
        return super()._apply(function, recurse)

    def forward(self, images):
        if self.is_published_kind:
            return self._published(images.to(torch.float32) * 127.5 + 127.5)
        return self._module_in_list[0](images.to(torch.float32)).flatten(1).to(torch.float32)

    def of_bytes(self, images):
        return self._published(images) if self.is_published_kind else super().of_bytes(images)

    def _published(self, images):
        features = self._module_in_list[0](images.repeat(1, 3, 1, 1) if images.shape[1] == 1 else images, return_features=True)
        return features.flatten(1).to(torch.float32)


def inception_fid(image_shape, path, sha256="", differentiable=True):
    """The published detector of FID, whose file has to be given."""
    if not path:
        raise MADRError(
            "--madr-extractor=inception-fid needs the file inception-2015-12-05.pt, the published detector of FID; fetch it and give it "
            "with --madr-weights=PATH"
        )
    space = FileSpace(path, image_shape, sha256, differentiable, name="inception-fid")
    if not space.is_published_kind:
        raise MADRError(f"--madr-weights={path} is not the published detector of FID: it takes no return_features; use --madr-extractor=file:{path}")
    return space


def from_safetensors(path, image_shape, input_size, sha256=""):
    """The network of a .safetensors file. Tensors alone are no network: the file's metadata has to say which."""
    if not os.path.isfile(path):
        raise MADRError(f"--madr-extractor=file:{path} cannot be read: there is no such file")
    try:
        with import_safetensors().safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        is_own = json.loads(metadata.get("madr", "{}")).get("format") == FORMAT
    except Exception as error:  # damaged or of another kind: the remedy is the same
        raise MADRError(f"--madr-extractor=file:{path} cannot be read as .safetensors: {str(error)[:200]}; fetch or write it again") from error
    if is_own:
        return OwnSpace(image_shape, path, sha256)
    if "architecture" in metadata:
        return DeepSpace(f"timm:{metadata['architecture']}", image_shape, input_size, path, sha256)
    raise MADRError(
        f"--madr-extractor=file:{path} holds weights but does not say of which network: use --madr-extractor=timm:<model> "
        f"--madr-weights={path}, or save it with the metadata 'architecture' = timm's name of the model"
    )
