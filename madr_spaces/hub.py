"""Where the weights of networks of photographs come from: a folder of one's own, the model hub's cache, the hub.

Without them a sentence comes within two seconds, since features of untrained weights would only look like features. Must
not know what is made of a file.
"""

import os
import socket
import threading
import urllib.parse
import urllib.request

from madr_spaces import names
from madr_spaces.errors import MADRError

FOLDER_VARIABLE = "MADR_DETECTORS_DIR"
FILE = "model.safetensors"
_CONNECT_SEC = 1.0  # what remains of the two seconds is for importing the hub's client


def find_weights(name):
    """Path of the weights of a space (dino, timm:<model>, ...), fetched if they are not on this machine."""
    path = local_weights(name)
    if path is not None:
        return path
    import huggingface_hub
    from huggingface_hub import constants

    repository = _repository(name)
    try:
        if constants.HF_HUB_OFFLINE:
            raise OSError("the hub is switched off by HF_HUB_OFFLINE")
        _reach_hub(_CONNECT_SEC)
        return huggingface_hub.hf_hub_download(repository, FILE)
    except Exception as error:  # no route, no name, proxy, refused, file gone: the remedy is the same
        raise MADRError(
            f"--madr-extractor={name} needs the weights {repository}/{FILE} of the model hub, which are neither in {constants.HF_HUB_CACHE} nor to "
            f"be had now ({type(error).__name__}: {str(error)[:120]}). Fetch that file on a machine with access and give it with --madr-weights=PATH, "
            f"or put it as {names.model_of(name)}.safetensors into {os.environ.get(FOLDER_VARIABLE) or f'the folder that ${FOLDER_VARIABLE} names'}. "
            "No SHA-256 of it is built in here: compare yours with the one on the hub's page of the file. Or choose a space that needs no file: "
            "--madr-extractor=pca or random-conv"
        ) from error


def local_weights(name):
    """Path of the weights on this machine, or None; asks no network."""
    folder = os.path.expanduser(os.environ.get(FOLDER_VARIABLE, ""))
    for path in [os.path.join(folder, names.model_of(name) + ending) for ending in (".safetensors", ".pth")] if folder else []:
        if os.path.isfile(path):
            return path
    import huggingface_hub

    cached = huggingface_hub.try_to_load_from_cache(_repository(name), FILE)
    return cached if isinstance(cached, str) else None


def _repository(name):
    """The hub's name of the place where timm keeps the weights of a space."""
    if name in names.MODELS:
        return f"timm/{names.model_of(name)}"
    import timm  # timm:<model> may leave out which of the model's weights are meant

    settings = timm.get_pretrained_cfg(names.model_of(name)) if timm.is_model(names.model_of(name)) else None
    if settings is None or not settings.hf_hub_id:
        raise MADRError(f"--madr-extractor={name}: the model hub has no weights of {names.model_of(name)}; give a file with --madr-weights=PATH")
    return settings.hf_hub_id


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
