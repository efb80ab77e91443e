"""Networks trained on photographs, through timm: dino, dinov2, clip, resnet50, inception, and any other as timm:<name>.

Weights come from a local file (--madr-weights) or the model hub. Without either the run stops within seconds and says
which file goes where: features of untrained weights would only look like features.
"""

import contextlib
import hashlib
import os
import socket
import threading
import urllib.parse
import urllib.request

import torch

from madr_plugin.base.errors import MADRError
from madr_plugin.extractors.base import Extractor

# name -> (timm model, default input side; 0: the model's own)
MODELS = {
    "dino": ("vit_small_patch8_224.dino", 0),
    "dino-s16": ("vit_small_patch16_224.dino", 0),
    "dino-b8": ("vit_base_patch8_224.dino", 0),
    "dino-b16": ("vit_base_patch16_224.dino", 0),
    "dinov2": ("vit_small_patch14_dinov2.lvd142m", 224),
    "clip": ("vit_base_patch32_clip_224.openai", 0),
    "resnet50": ("resnet50.tv_in1k", 0),
    "inception": ("inception_v3.tv_in1k", 0),
}
# Families whose position embeddings are interpolated, so that any multiple of the patch side will do.
SIZABLE = ("vit", "deit", "deit3")


class DeepExtractor(Extractor):
    """Images are resized to the network's input and normalised as in its training; the features are what its head would take."""

    default_view = "shift"

    def __init__(self, name, image_shape, input_size, weights, sha256=""):
        super().__init__(image_shape)
        timm = _import_timm(name)
        model_name, own_size = MODELS.get(name, (name.removeprefix("timm:"), 0))
        if not timm.is_model(model_name):
            raise MADRError(f"--madr-extractor={name}: timm {timm.__version__} has no model {model_name!r}; see timm.list_models()")
        self.name, self.model_name = name, model_name
        # CLIP's space is the projected one, which timm keeps as its head; all others are read before the head.
        self.head = {} if name == "clip" else dict(num_classes=0)
        settings = timm.get_pretrained_cfg(model_name)
        self.input_size = input_size or own_size or settings.input_size[-1]
        sized = dict(img_size=self.input_size) if model_name.removeprefix("test_").split("_")[0] in SIZABLE else {}
        self._check_size(model_name, settings if not sized else None)
        # Before the network is made, which takes seconds for a large one: what is missing is said at once.
        path = weights or _from_hub(name, model_name, settings)
        self.weights_sha256 = check_sha256(path, sha256)
        channels = self.image_shape[0]
        if channels not in (1, 3):
            raise MADRError(f"--madr-extractor={name} takes images of 1 or 3 channels (the data has {channels}); use --madr-extractor=pca")
        self.register_buffer("mean", torch.tensor(settings.mean).reshape(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(settings.std).reshape(1, 3, 1, 1))
        self._make_network(timm, path, sized)

    def _make_network(self, timm, path, sized):
        with self._size_blamed():
            network = timm.create_model(self.model_name, pretrained=False, **self.head, **sized)
        load_weights(network, self.name, self.model_name, path)
        # Not as a submodule with parameters: these must reach no optimizer, no snapshot and no consistency check.
        self._network = [network.eval().requires_grad_(False)]
        with self._size_blamed(), torch.no_grad():
            self(torch.zeros([1, *self.image_shape]))

    @contextlib.contextmanager
    def _size_blamed(self):
        """Networks object to a size in ways of their own."""
        try:
            yield
        except (RuntimeError, AssertionError, ValueError, ZeroDivisionError) as error:
            raise MADRError(
                f"--madr-extractor={self.name} ({self.model_name}) fails on images of {self.input_size} pixels: {str(error)[:200]}; give another "
                "--madr-input-size, a multiple of the network's patch and not too small, or leave the option out"
            ) from error

    def _check_size(self, model_name, settings):
        """settings: timm's of a network that is made in its own size, else None."""
        own_size = settings.input_size[-1] if settings is not None and settings.fixed_input_size else self.input_size
        if self.input_size != own_size:
            raise MADRError(
                f"--madr-input-size={self.input_size} does not fit --madr-extractor={self.name}: {model_name} takes images of {own_size} "
                "pixels alone; leave the option out"
            )
        patch = next((int(part[5:]) for part in model_name.split(".")[0].split("_") if part.startswith("patch")), 1)
        if self.input_size % patch or self.input_size < 2 * patch:
            raise MADRError(
                f"--madr-input-size must be a multiple of the patch side {patch}, at least {2 * patch}, for --madr-extractor={self.name} "
                f"(got {self.input_size})"
            )

    def identity(self):
        return dict(name=self.name, model=self.model_name, size=self.input_size, weights=self.weights_sha256, version=1)

    def tensors(self):
        return [*self.buffers(), *self._network[0].parameters(), *self._network[0].buffers()]

    def _apply(self, function, recurse=True):
        self._network[0]._apply(function)
        return super()._apply(function, recurse)

    def forward(self, images):
        x = images.to(self.mean.dtype)
        if x.shape[1] == 1:
            x = x.expand(-1, 3, -1, -1)
        if x.shape[-2:] != (self.input_size, self.input_size):
            smaller = x.shape[-1] > self.input_size
            x = torch.nn.functional.interpolate(x, [self.input_size] * 2, mode="bicubic", align_corners=False, antialias=smaller)
        return self._network[0]((x * 0.5 + 0.5 - self.mean) / self.std)


def load_weights(network, name, model_name, path):
    """Put trained weights into the network."""
    state = read_state_dict(path)
    from timm.models import vision_transformer

    if isinstance(network, vision_transformer.VisionTransformer):
        try:
            state = vision_transformer.checkpoint_filter_fn(state, network)  # other grids of position embeddings are interpolated
        except (RuntimeError, AssertionError, ValueError, KeyError, IndexError) as error:
            raise MADRError(
                f"--madr-weights={path} does not fit --madr-extractor={name} ({model_name}) at {network.patch_embed.img_size} pixels: "
                f"{str(error)[:200]}; give the weights of that very model, or another --madr-input-size"
            ) from error
    wanted = network.state_dict()
    # A classifier's head is left out on purpose; anything else that lacks or differs is a wrong file.
    missing = [key for key in wanted if key not in state]
    differing = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
    if missing or differing:
        first = (missing + differing)[0]
        raise MADRError(
            f"--madr-weights={path} does not fit --madr-extractor={name} ({model_name}): {len(missing)} tensors missing, "
            f"{len(differing)} of other shape, e.g. {first}; give the weights of that very model"
        )
    network.load_state_dict({key: state[key] for key in wanted})


def read_state_dict(path):
    """{name: tensor} of a .safetensors or torch file; nothing in it is executed."""
    try:
        if str(path).endswith(".safetensors"):
            from safetensors.torch import load_file

            return _without_wrappers(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # each format has its own errors, and all mean the same to the user
        raise MADRError(f"--madr-weights={path} cannot be read as weights: {str(error)[:200]}") from error
    for wrapper in ("state_dict", "model", "teacher"):
        if isinstance(state, dict) and isinstance(state.get(wrapper), dict):
            state = state[wrapper]
    if not isinstance(state, dict) or not all(torch.is_tensor(value) for value in state.values()):
        raise MADRError(f"--madr-weights={path} holds no named tensors; give a state dict")
    return _without_wrappers(state)


def _without_wrappers(state):
    """Names as the network itself has them: training code wraps it for several GPUs, or under a head."""
    return {key.removeprefix("module.").removeprefix("backbone."): value for key, value in state.items()}


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


def _from_hub(name, model_name, settings):
    """Path of the weights in the hub's local cache, fetched if the hub can be reached within two seconds."""
    import huggingface_hub

    repository = settings.hf_hub_id
    file_name = "model.safetensors"
    if not repository:
        raise MADRError(f"--madr-extractor={name}: the model hub has no weights of {model_name}; give a file with --madr-weights=<path>")
    cached = huggingface_hub.try_to_load_from_cache(repository, file_name)
    if isinstance(cached, str):
        return cached
    try:
        _reach_hub(1.5)
        return huggingface_hub.hf_hub_download(repository, file_name)
    except Exception as error:  # no route, no name, proxy, refused, file gone: the remedy is the same
        from huggingface_hub import constants

        raise MADRError(
            f"--madr-extractor={name} needs the weights {repository}/{file_name}, which are neither in {constants.HF_HUB_CACHE} nor to be "
            f"had from the model hub ({type(error).__name__}). Fetch {file_name} of {repository} on a machine with access and pass "
            f"--madr-weights=<path>, or use --madr-extractor=pca, which needs no file"
        ) from error


def _reach_hub(timeout_sec):
    """An error within that time unless the hub, its mirror or the proxy on the way answers. In a thread: looking up a name knows no timeout."""
    outcome, address = [], _hub_address()

    def connect():
        try:
            socket.create_connection(address, timeout=timeout_sec).close()
            outcome.append(None)
        except OSError as error:
            outcome.append(error)

    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(timeout_sec)
    error = outcome[0] if outcome else TimeoutError(f"no answer within {timeout_sec} s")
    if error is not None:
        raise error


def _hub_address():
    """(host, port) to which the hub's client will connect: HF_ENDPOINT and the proxies of the environment count."""
    from huggingface_hub import constants

    endpoint = urllib.parse.urlsplit(constants.ENDPOINT)
    if not urllib.request.proxy_bypass(endpoint.hostname):
        proxies = urllib.request.getproxies()
        proxy = proxies.get(endpoint.scheme) or proxies.get("all")
        if proxy:
            endpoint = urllib.parse.urlsplit(proxy if "//" in proxy else f"http://{proxy}")
    return endpoint.hostname, endpoint.port or (443 if endpoint.scheme == "https" else 80)


def _import_timm(name):
    try:
        import timm
    except ImportError as error:
        raise MADRError(f"--madr-extractor={name} needs the package timm; install it, or use --madr-extractor=pca") from error
    return timm
