"""`ensemble:a+b+c`: several extractors as one; `file:<path>`: a network of the user's own, TorchScript or .safetensors."""

import json
import math
import os
import warnings

import torch

from madr_plugin.base.errors import MADRError
from madr_plugin.base.seeds import generator_for
from madr_plugin.extractors.base import Extractor
from madr_plugin.extractors.deep import DeepExtractor, check_sha256
from madr_plugin.extractors.own import FORMAT, OwnExtractor, import_safetensors


class EnsembleExtractor(Extractor):
    """Each part's features are L2-normalised; together they are projected to `width` by a seeded, fixed matrix.

    The projection is random on purpose and never trained: nothing here would give it a gradient worth having.
    """

    def __init__(self, parts, image_shape, width, seed):
        super().__init__(image_shape)
        self.parts, self.width, self.seed = torch.nn.ModuleList(parts), width, seed
        self.images_to_fit = max(part.images_to_fit for part in parts)
        self.default_view = "shift" if any(part.default_view == "shift" for part in parts) else "none"
        with torch.no_grad():
            total = self.joined(torch.zeros([2, *self.image_shape])).shape[1]
        self.register_buffer("projection", torch.randn([total, width], generator=generator_for("ensemble", seed)) / math.sqrt(width))

    def identity(self):
        return dict(name="ensemble", parts=[part.identity() for part in self.parts], width=self.width, seed=self.seed, version=1)

    def tensors(self):
        return [self.projection, *(tensor for part in self.parts for tensor in part.tensors())]

    def joined(self, images):
        return torch.cat([torch.nn.functional.normalize(part(images), dim=1, eps=1e-6) for part in self.parts], dim=1)

    def forward(self, images):
        return self.joined(images) @ self.projection

    def fit(self, images):
        for part in self.parts:
            if part.images_to_fit:
                part.fit(images[: part.images_to_fit])


class FileExtractor(Extractor):
    """A TorchScript module: images [N, C, H, W] in [-1, 1] -> [N, D] (or more axes, which are flattened)."""

    def __init__(self, path, image_shape, sha256=""):
        super().__init__(image_shape)
        self.path = path
        if not os.path.isfile(path):
            raise MADRError(f"--madr-extractor=file:{path} cannot be read: there is no such file; write one with torch.jit.save")
        self.sha256 = check_sha256(path, sha256)  # before loading, which runs what the file says
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # TorchScript is the one format that needs none of the author's code
                module = torch.jit.load(path, map_location="cpu").eval()
        except (OSError, ValueError, RuntimeError) as error:
            raise MADRError(
                f"--madr-extractor=file:{path} cannot be read as a TorchScript module: {str(error)[:200]}; write one with torch.jit.save"
            ) from error
        for parameter in module.parameters():
            parameter.requires_grad_(False)
        self._module_in_list = [module]  # no submodule: its tensors belong to no optimizer and no snapshot
        self._try()

    def _try(self):
        x = torch.zeros([2, *self.image_shape]).requires_grad_()
        try:
            features = self(x)
        except RuntimeError as error:
            raise MADRError(f"--madr-extractor=file:{self.path} fails on images of shape {list(self.image_shape)}: {str(error)[-200:]}") from error
        if features.ndim != 2 or len(features) != 2 or not features.requires_grad:
            raise MADRError(
                f"--madr-extractor=file:{self.path} must map [N, C, H, W] to [N, D] with a gradient to the image; "
                "the module gives none (no_grad, detach or a wrong shape)"
            )

    def identity(self):
        return dict(name="file", sha256=self.sha256, version=1)

    def tensors(self):
        return [*self._module_in_list[0].parameters(), *self._module_in_list[0].buffers()]

    def _apply(self, function, recurse=True):
        self._module_in_list[0]._apply(function)
        return super()._apply(function, recurse)

    def forward(self, images):
        features = self._module_in_list[0](images.to(torch.float32))
        return features.flatten(1).to(torch.float32)


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
        return OwnExtractor(image_shape, path, sha256)
    if "architecture" in metadata:
        return DeepExtractor(f"timm:{metadata['architecture']}", image_shape, input_size, path, sha256)
    raise MADRError(
        f"--madr-extractor=file:{path} holds weights but does not say of which network: use --madr-extractor=timm:<model> "
        f"--madr-weights={path}, or save it with the metadata 'architecture' = timm's name of the model"
    )
