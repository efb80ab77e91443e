"""MADRAugmentPipe: the host's augmentation, unchanged, as carrier of MADR's state through the snapshots of hosts that keep no other state.

A pickle of it holds the base pipe plus plain tensors: a checkout without madr_plugin opens it as the base pipe. Must not
know what the tensors mean.
"""

import copy
import copyreg

import torch

from madr_plugin.host.construct import construct

CARRIED = "_madr_state"  # attribute of the base pipe under which the tensors ride
PREFIX = "madr__"  # of the buffers


class MADRAugmentPipe(torch.nn.Module):
    """forward(images) = base(images); .p is the base's. base_kwargs: class_name and arguments of the base, or None for no augmentation."""

    def __init__(self, base_kwargs=None, base=None):
        super().__init__()
        if base is None:
            base = _identity_pipe() if base_kwargs is None else construct(**base_kwargs)
        self.base = base

    @property
    def p(self):
        """Overall strength of the base's augmentation, a buffer."""
        return self.base.p

    def forward(self, images, *args, **kwargs):
        return self.base(images, *args, **kwargs)

    def carry(self, state):
        """Hold these tensors ({name: tensor}) as buffers, on the device of the pipe; those that lie there are referred to, not copied.

        Loops compare the buffers of all processes by NCCL, which knows no tensors of the CPU.
        """
        for name in [name for name in self._buffers if name.startswith(PREFIX)]:
            if name[len(PREFIX) :] not in state:
                del self._buffers[name]
        self.base.__dict__.pop(CARRIED, None)  # what a pickle brought back
        for name, value in state.items():
            self.register_buffer(PREFIX + name, value.to(self.p.device))

    def carried(self):
        """What carry() was given, or a pickle brought back."""
        own = {name[len(PREFIX) :]: value for name, value in self._buffers.items() if name.startswith(PREFIX)}
        return own or dict(getattr(self.base, CARRIED, {}))

    def _load_from_state_dict(self, state_dict, prefix, *args, **kwargs):
        # A pipe that has carried nothing yet takes over what the saved one carried.
        for name in [key[len(prefix) :] for key in state_dict if key.startswith(prefix + PREFIX)]:
            self.register_buffer(name, state_dict[prefix + name].to(self.base.p.device, copy=True))
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def __deepcopy__(self, memo):
        # Without this, copying would go through __reduce_ex__ and yield the bare base.
        duplicate = type(self).__new__(type(self))
        torch.nn.Module.__init__(duplicate)
        memo[id(self)] = duplicate
        duplicate.base = copy.deepcopy(self.base, memo)
        duplicate.training = self.training
        for name, value in self._buffers.items():
            duplicate.register_buffer(name, copy.deepcopy(value, memo))
        return duplicate

    def __reduce_ex__(self, protocol):
        """The base's own reduction, with the tensors in the base's __dict__."""
        state = {name: value.detach().cpu().clone() for name, value in self.carried().items()}
        if state:
            self.base.__dict__[CARRIED] = state
        reduction = self.base.__reduce_ex__(protocol)
        if reduction[0] is copyreg.__newobj__:
            # That form insists on the class of the object being pickled, which is ours.
            base_class = reduction[1][0]
            reduction = (copyreg._reconstructor, (base_class, object, None), *reduction[2:])
        return reduction


def restored(pipe):
    """The carrier around an unpickled base pipe (or the pipe itself if it is one already)."""
    return pipe if isinstance(pipe, MADRAugmentPipe) else MADRAugmentPipe(base=pipe)


def flatten(state, prefix=""):
    """Nested dict of tensors, numbers, words and lists of numbers -> {name: tensor}; buffer names hold no dots."""
    flat = {}
    for name, value in state.items():
        full = f"{prefix}{name}"
        if isinstance(value, dict):
            flat.update(flatten(value, full + "__"))
        elif torch.is_tensor(value):
            flat[full] = value
        elif value is None:
            continue
        elif isinstance(value, str):
            flat[full + "__text"] = torch.tensor(list(value.encode()), dtype=torch.uint8)
        else:
            flat[full] = torch.as_tensor(value, dtype=torch.int64 if isinstance(value, int) else torch.float64)
    return flat


def unflatten(flat):
    """Inverse of flatten; numbers stay 0-d or 1-d tensors, which the loaders accept."""
    nested = {}
    for full, value in flat.items():
        parts = full.split("__")
        if parts[-1] == "text":
            parts, value = parts[:-1], bytes(value.tolist()).decode()
        place = nested
        for part in parts[:-1]:
            place = place.setdefault(part, {})
        place[parts[-1]] = value
    return nested


def _identity_pipe():
    """No augmentation, in a class that every checkout can open."""
    pipe = torch.nn.Identity()
    pipe.register_buffer("p", torch.zeros([]))
    return pipe
