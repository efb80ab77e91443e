"""Meets the snapshots of a fork's loop: sees which it loads and which it writes, and keeps MADR's state in a file beside those that cannot carry it.

A state belongs to networks known by the digest of their parameters: so a snapshot that was only looked at, or a file that an
overwritten snapshot has left behind, is never taken for the one that the loop goes on from. Must not know what the state means.
"""

import functools
import hashlib
import importlib
import os
import pickle
import weakref
from typing import Any, NamedTuple

import torch

from madr_plugin.augment_pipe import CARRIED
from madr_spaces import files

FORMAT = 1
SUFFIX = ".madr.pt"


class Loaded(NamedTuple):
    """A snapshot that was read: digests of its D and G, its path, MADR's state (flat; {} without), where that was, why there is none, and a hint."""

    digests: tuple[str, ...]
    path: str
    state: dict[str, torch.Tensor]
    place: str = ""
    fault: str = ""
    hint: str = ""


_wrapped: dict[tuple[Any, str], Any] = {}  # (module, name) -> its function before
_seen: list[Loaded] = []
_keeper: list[weakref.ref] = []  # to the loss of this process's run


def watch():
    """See what the fork's loader of snapshots loads from now on. Does nothing the second time, or in a fork without that loader."""
    try:
        legacy = importlib.import_module("legacy")  # the fork's
    except ImportError:
        return
    if callable(getattr(legacy, "load_network_pkl", None)):
        _wrap(legacy, "load_network_pkl", _watched_loader)


def keep_state_of(loss):
    """Write what loss.state_for_snapshot() gives beside each snapshot of the run that does not carry it."""
    _keeper[:] = [weakref.ref(loss)]
    _wrap(pickle, "dump", _watched_dump)  # the one way in which this family writes snapshots


def unwatch():
    """Undo both."""
    for (module, name), original in _wrapped.items():
        setattr(module, name, original)
    _wrapped.clear(), _seen.clear(), _keeper.clear()


def _wrap(module, name, wrapper):
    if (module, name) not in _wrapped:
        original = _wrapped[module, name] = getattr(module, name)
        setattr(module, name, functools.wraps(original)(wrapper(original)))


# ----------------------------------------------------------------------------
# Reading.


def _watched_loader(original):
    def load_network_pkl(f, *args, **kwargs):
        snapshot = original(f, *args, **kwargs)
        if is_snapshot(snapshot):  # else a network that the loop needs for something else
            _seen.append(read(snapshot, path_of(f)))
        return snapshot

    return load_network_pkl


def read(snapshot, path, name=None):
    """Loaded of a snapshot in memory that came from `path` (None: from no file): out of its augmentation pipe, else out of the file beside it.

    name: what it is called where it has no path.
    """
    digests = digests_of(snapshot["D"], *parts_of(snapshot.get("G")))
    name = path or name or "the snapshot"
    carried = getattr(snapshot.get("augment_pipe"), CARRIED, None)
    if carried:
        return Loaded(digests, name, dict(carried), name)
    beside = path and path_beside(path)
    if not beside or not os.path.exists(beside):
        return Loaded(digests, name, {}, fault=f"{name} holds no MADR state", hint=_hint(snapshot, beside))
    found = files.load_tensors(beside)
    if not isinstance(found, dict) or found.get("format") != FORMAT or not isinstance(found.get("state"), dict):
        return Loaded(digests, name, {}, fault=f"{beside} is damaged or of another version")
    if found.get("discriminator") != digests[0]:
        return Loaded(digests, name, {}, fault=f"{beside} was written beside another snapshot than {os.path.basename(name)}")
    return Loaded(digests, name, found["state"], beside)


def _hint(snapshot, beside):
    """What a user can do who has moved a snapshot of a family whose snapshots carry no state."""
    return (
        f" (in this fork a run with MADR writes it to {os.path.basename(beside)} beside its snapshot; copy both)"
        if beside and snapshot.get("augment_pipe") is None
        else ""
    )


def resumed_by(D, mapping, synthesis):
    """Loaded of the snapshot from which D or G was restored; with a fault where the loop has loaded others alone; None where it has loaded none."""
    if not _seen:
        return None
    digests = digests_of(D, mapping, synthesis)
    for loaded in reversed(_seen):
        if any(theirs and theirs == ours for theirs, ours in zip(loaded.digests, digests)):
            break
    else:
        loaded = Loaded(digests, _seen[-1].path, {}, fault=f"the run goes on with other networks than those of {_seen[-1].path}")
    _seen.clear()
    return loaded


def open_by_host(path):
    """Loaded of the snapshot at a path or URL, by the fork's own functions; None where they find no whole snapshot there."""
    import dnnlib  # the fork's
    import legacy  # the fork's

    with dnnlib.util.open_url(path) as file:
        snapshot = legacy.load_network_pkl(file)
    return read(snapshot, path if os.path.exists(path) else None, path) if is_snapshot(snapshot) else None


# ----------------------------------------------------------------------------
# Writing.


def _watched_dump(original):
    def dump(obj, file, *args, **kwargs):
        original(obj, file, *args, **kwargs)
        loss = _keeper[0]() if _keeper else None
        if loss is not None and is_snapshot(obj):
            _keep(loss, obj, path_of(file))

    return dump


def _keep(loss, snapshot, path):
    pipe = snapshot.get("augment_pipe")
    if hasattr(pipe, "carried") and pipe.carried():
        return  # it rides in the snapshot
    state = loss.state_for_snapshot()
    if state is None:
        return
    if path is None:
        print(
            "MADR: note: this fork writes its snapshot into no file of its own, beside which MADR's state could be kept; a resumed run starts without"
        )
        return
    whole = dict(format=FORMAT, discriminator=digest_of(snapshot["D"]), state={name: value.detach().cpu() for name, value in state.items()})
    try:
        files.save_tensors(path_beside(path), whole)
    except OSError as error:
        print(f"MADR: note: its state could not be kept beside {path}: {error}; a run resumed from there starts with an empty memory", flush=True)


# ----------------------------------------------------------------------------


def is_snapshot(value):
    """Whether it is what a loop of this family writes to go on from."""
    return isinstance(value, dict) and isinstance(value.get("D"), torch.nn.Module) and any(name in value for name in ("G", "G_ema"))


def path_of(file):
    name = getattr(file, "name", None)
    return name if isinstance(name, str) and not name.startswith("<") else None


def path_beside(path):
    """Where the state of the snapshot at this path lies; also asked while that is written under a temporary name (x.pkl.tmp)."""
    folder, name = os.path.split(path)
    return os.path.join(folder, name.partition(".pkl")[0] + SUFFIX)


def parts_of(G):
    """(mapping, synthesis) of a generator; (None, G) where it is one module."""
    G = getattr(G, "module", G)  # inside DistributedDataParallel
    return (G.mapping, G.synthesis) if hasattr(G, "mapping") and hasattr(G, "synthesis") else (None, G)


def digests_of(D, mapping, synthesis):
    """(of D, of G); '' where there is none."""
    return digest_of(D), digest_of(mapping, synthesis)


def digest_of(*networks):
    """Hex digest of the parameters of networks, bit for bit, wherever they lie and whatever wraps them; '' if there are none."""
    digest, count = hashlib.sha256(), 0
    for network in networks:
        network = network.module if isinstance(network, torch.nn.parallel.DistributedDataParallel) else network
        for name, value in sorted(network.named_parameters()) if isinstance(network, torch.nn.Module) else ():
            flat = value.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().tobytes())
            count += 1
    return digest.hexdigest() if count else ""
