"""Networks trained on photographs as feature spaces, through timm: DINO and DINOv2.

Weights come from a file, the folder of the detectors or the model hub's cache; without them a sentence comes within two
seconds, since features of untrained weights would only look like features. Must not know which metric asks.
"""

import os
import socket
import threading
from urllib.parse import urlparse

import torch

from dnnlib.errors import UserError

# name -> (timm model, side of its input in pixels)
MODELS = {"dino": ("vit_small_patch8_224.dino", 224), "dinov2": ("vit_small_patch14_dinov2.lvd142m", 224)}
_HUB_FILE = "model.safetensors"
_CONNECT_SEC = 1.0  # what remains of the two seconds is for importing the hub's client


def local_weights(name, folder=None):
    """Path of a network's weights on this machine, or None; asks no network. folder: where the detectors lie, if there is such a place."""
    model = MODELS[name][0]
    for path in [os.path.join(folder, model + ending) for ending in (".safetensors", ".pth")] if folder else []:
        if os.path.isfile(path):
            return path
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(f"timm/{model}", _HUB_FILE)
    return cached if isinstance(cached, str) else None


def find_weights(name, folder=None):
    """Path of a network's weights, fetched if they are not here. folder: as above."""
    local = local_weights(name, folder)
    if local is not None:
        return local
    import huggingface_hub
    from huggingface_hub import constants

    model = MODELS[name][0]
    repository = f"timm/{model}"
    reason = "the hub is switched off by HF_HUB_OFFLINE"
    if not constants.HF_HUB_OFFLINE:
        reason = "the hub cannot be reached"
        if _can_connect(constants.ENDPOINT):
            try:
                return huggingface_hub.hf_hub_download(repository, _HUB_FILE)
            except (OSError, RuntimeError, ValueError) as error:
                reason = f"{type(error).__name__} while fetching it"
    place = folder or "the folder that $MADR_DETECTORS_DIR names"
    raise UserError(
        f"The feature space {name} needs the weights {repository}/{_HUB_FILE} of the model hub, which are not here ({reason}). Fetch that file on a "
        f"machine with access and give it with --madr-weights=PATH (in training: --detector {name}=PATH), or put it as {model}.safetensors into "
        f"{place}. No SHA-256 of it is built in here, so none is checked: compare yours with the one on the hub's page of the file; the result "
        f"line records that of the file used. Or choose a space that needs no file: --madr-extractor=random-conv (in training: --detector madr=random-conv)."
    )


def _can_connect(url):
    """Whether a connection opens soon. In a thread: looking up a name can take longer than any timeout of a socket."""
    parts, answers = urlparse(url), []

    def connect():
        try:
            socket.create_connection((parts.hostname, parts.port or 443), timeout=_CONNECT_SEC).close()
            answers.append(True)
        except OSError:
            pass

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SEC)
    return bool(answers)


class PhotoNetwork(torch.nn.Module):
    """uint8 images -> what the network's head would take: resized (bicubic, antialiased), normalised as in its training."""

    def __init__(self, name, path):
        super().__init__()
        try:
            import timm
            from timm.models import vision_transformer
        except ImportError as error:
            raise UserError(
                f"The feature space {name} needs the package timm; install it (pip install timm) or choose --madr-extractor=random-conv."
            ) from error
        model, self.input_size = MODELS[name]
        settings = timm.get_pretrained_cfg(model)
        self.network = timm.create_model(model, pretrained=False, num_classes=0, img_size=self.input_size)
        state = vision_transformer.checkpoint_filter_fn(read_weights(path), self.network)  # other grids of positions are interpolated
        wanted = self.network.state_dict()
        wrong = [key for key, value in wanted.items() if key not in state or state[key].shape != value.shape]
        if wrong:
            raise UserError(
                f"The weights {path} do not fit {name} ({model}): {len(wrong)} of {len(wanted)} tensors are missing or of another "
                f"shape, like {wrong[0]}; give the weights of that very model."
            )
        self.network.load_state_dict({key: state[key] for key in wanted})  # a classifier's head is left out on purpose
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std).reshape(1, 3, 1, 1))

    def forward(self, img, return_features: bool = False):
        x = img.to(torch.float32) / 255
        if x.shape[-2:] != (self.input_size, self.input_size):
            x = torch.nn.functional.interpolate(x, [self.input_size] * 2, mode="bicubic", align_corners=False, antialias=True).clamp(0, 1)
        return self.network((x - self.mean) / self.std)


def read_weights(path):
    """{name: tensor} of a .safetensors or torch file; nothing in it is executed."""
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own errors, and all mean the same to the user
        raise UserError(f"The weights {path} cannot be read ({str(error).strip()[:200]}); give a .safetensors or .pth file.") from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise UserError(f"The weights {path} hold no named tensors; give a state dict.")
    return {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}
