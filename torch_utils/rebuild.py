"""Networks rebuilt from a description of them: class name, constructor arguments, tensors. Nothing foreign is executed.

The classes are the project's own, named in a registry of import paths (so this file imports none of them). Whatever
the description claims is compared with what the own class really builds, before its memory is allocated.
Must not know pickles, except for the records that safe_globals makes of them.
"""

import dataclasses
import inspect
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode

import dnnlib

from .pickle_machine import Refused, kind
from .safe_globals import PersistentRecord

# Far above anything in use; they keep a hostile file from making us build for hours.
MAX_ARGUMENT = 1 << 20
MAX_COUNT_ARGUMENT = 256  # arguments named num_*: layers, latents, ...
MAX_ARGUMENT_PARTS = 2000
MAX_TEXT = 200
MAX_DEPTH = 16
MAX_MODULES = 20_000
# Tensors may repeat or share their storage to some degree, not so that a small file fills the memory.
MAX_REPEATED_ELEMENTS = 1 << 24

_known_classes = {
    **dict.fromkeys(
        [
            "Generator",
            "MappingNetwork",
            "SynthesisNetwork",
            "SynthesisBlock",
            "SynthesisLayer",
            "ToRGBLayer",
            "FullyConnectedLayer",
            "Conv2dLayer",
            "Discriminator",
            "DiscriminatorBlock",
            "MinibatchStdLayer",
            "DiscriminatorEpilogue",
        ],
        "training.networks",
    ),
    "AugmentPipe": "training.augment",
    **dict.fromkeys(["DCGANGenerator", "DCGANDiscriminator", "StyleGAN2Discriminator"], "training.gan.networks"),
    **dict.fromkeys(["MixtureGenerator", "MixtureMapping"], "training.gan.latents"),
}


def register_known_class(class_name, import_path):
    """Let safe loading rebuild objects of this class name with the class of this dotted path.

    import_path: of the class or of its module. The class must be an nn.Module decorated with persistent_class.
    """
    module_name = import_path[: -len(class_name) - 1] if import_path.endswith("." + class_name) else import_path
    if _known_classes.get(class_name, module_name) != module_name:
        raise ValueError(f"class name {class_name!r} is taken by {_known_classes[class_name]} already")
    _known_classes[class_name] = module_name


def is_known_class(class_name):
    """Whether the registry holds the name."""
    return isinstance(class_name, str) and class_name in _known_classes


def _class_of(class_name):
    return dnnlib.util.get_obj_by_name(f"{_known_classes[class_name]}.{class_name}")


@dataclasses.dataclass
class Description:
    """One network, inert. Dotted paths as torch names submodules; '' is the network itself."""

    class_name: str
    init_args: tuple
    init_kwargs: dict
    tensors: dict[str, torch.Tensor] = dataclasses.field(default_factory=dict)  # parameters and buffers
    requires_grad: dict[str, bool] = dataclasses.field(default_factory=dict)  # parameters only
    training: dict[str, bool] = dataclasses.field(default_factory=dict)
    classes: dict[str, str] = dataclasses.field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)  # plain ones, where known
    passengers: dict[str, dict[str, dict]] = dataclasses.field(default_factory=dict)  # attributes that are {name: tensor}


# ---------------------------------------------------------------------------------------------------------------------
# Description of a living module, and of a record in a pickle.


def describe_module(module):
    """The description of a module of a known class."""
    class_name = type(module).__name__
    if not is_known_class(class_name) or type(module) is not _class_of(class_name):
        raise Refused(f"class {class_name}, which is not known here")
    description = Description(class_name, tuple(plain(list(module.init_args))), plain(module.init_kwargs))
    for name, parameter in module.named_parameters(remove_duplicate=False):
        description.tensors[name] = parameter.detach()
        description.requires_grad[name] = parameter.requires_grad
    for name, buffer in module.named_buffers(remove_duplicate=False):
        description.tensors[name] = buffer.detach()
    for path, submodule in module.named_modules(remove_duplicate=False):
        description.training[path] = submodule.training
        description.classes[path] = type(submodule).__name__
    return description


def describe_record(record):
    """The description of an object in a pickle; checks everything that can be checked without the class."""
    meta = record.meta
    class_name = meta.get("class_name")
    if not is_known_class(class_name):
        name = class_name[:MAX_TEXT] if isinstance(class_name, str) else "without a name"
        raise Refused(f"embedded code: class {name}, which is not known here")
    state = _state_of(record)
    init_args, init_kwargs = state.get("_init_args"), state.get("_init_kwargs")
    if type(init_args) is not tuple or not isinstance(init_kwargs, dict):
        raise Refused(f"a {class_name} without its constructor arguments")
    description = Description(class_name, tuple(plain(list(init_args))), plain(init_kwargs))
    _describe_into(description, record, path="", depth=0)
    return description


def _state_of(record):
    meta = record.meta
    class_name, state = meta.get("class_name"), meta.get("state")
    version = (meta.get("type"), meta.get("version"))
    if not isinstance(class_name, str) or [type(part) for part in version] != [str, int] or version != ("class", 6):
        raise Refused("a persistent object of an unknown version")
    if not isinstance(state, dict) or not all(isinstance(state.get(key), dict) for key in ("_parameters", "_buffers", "_modules")):
        raise Refused(f"a {class_name[:MAX_TEXT]} that is not a torch module")
    return state


def _describe_into(description, record, path, depth):
    state = _state_of(record)
    if depth > MAX_DEPTH or len(description.classes) >= MAX_MODULES:
        raise Refused(f"a {description.class_name} with too many modules")
    description.classes[path] = record.meta["class_name"]
    description.training[path] = state.get("training") is True
    description.attributes[path] = {
        name: value.item() if isinstance(value, np.generic) else value
        for name, value in state.items()
        if isinstance(name, str) and (value is None or isinstance(value, (bool, int, float, str, np.number)))
    }
    description.passengers[path] = {
        name: dict(value)
        for name, value in state.items()
        if isinstance(name, str)
        and isinstance(value, dict)
        and value
        and all(isinstance(key, str) and type(part) is torch.Tensor for key, part in value.items())
    }
    prefix = f"{path}." if path else ""
    for group in ("_parameters", "_buffers"):
        for name, tensor in state[group].items():
            if tensor is None:
                continue
            if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
                raise Refused(f"a {description.class_name} with {kind(tensor)} among its tensors")
            description.tensors[prefix + name] = tensor.detach()
            if group == "_parameters":
                description.requires_grad[prefix + name] = tensor.requires_grad
    for name, child in state["_modules"].items():
        if child is None:
            continue
        if not isinstance(name, str) or not isinstance(child, PersistentRecord):
            raise Refused(f"a {description.class_name} with {kind(child)} among its modules")
        _describe_into(description, child, prefix + name, depth + 1)


def plain(value):
    """A copy of constructor arguments that holds numbers, short texts, lists, tuples and dictionaries only."""
    budget = [MAX_ARGUMENT_PARTS]
    return _plain(value, "", budget, depth=0)


def _plain(value, name, budget, depth):
    budget[0] -= 1
    if budget[0] < 0 or depth > MAX_DEPTH:
        raise Refused("constructor arguments of absurd size")
    if isinstance(value, np.generic):
        value = value.item()
    if value is None or isinstance(value, (bool, float)):
        return value
    if isinstance(value, int):
        limit = MAX_COUNT_ARGUMENT if name.startswith("num_") else MAX_ARGUMENT
        if abs(value) > limit:
            raise Refused(f"the constructor argument {name or 'without a name'} beyond {limit}, which is absurdly large")
        return value
    if isinstance(value, str) and len(value) <= MAX_TEXT:
        return value
    if isinstance(value, (list, tuple)):
        parts = [_plain(part, name, budget, depth + 1) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    if isinstance(value, dict) and all(isinstance(key, str) and len(key) <= MAX_TEXT for key in value):
        make = dnnlib.EasyDict if isinstance(value, dnnlib.EasyDict) else dict
        return make((key, _plain(part, key, budget, depth + 1)) for key, part in value.items())
    raise Refused(f"{kind(value)} among the constructor arguments")


# ---------------------------------------------------------------------------------------------------------------------
# Rebuilding.


def rebuild(description):
    """The module of a description. Raises Refused where the description is not of the class that is known here."""
    cls = _class_of(description.class_name)
    blueprint = _blueprint(cls, description)
    _compare_classes(blueprint, description)
    _compare_tensors(blueprint, description)
    _compare_attributes(blueprint, description)
    _limit_repetition(description)

    # The blueprint becomes the module: no second allocation, and no initial weights drawn from the global generator.
    taken = set()
    for path, module in blueprint.named_modules(remove_duplicate=False):
        prefix = f"{path}." if path else ""
        for name, parameter in module._parameters.items():
            if parameter is not None:
                tensor = _own_memory(description.tensors[prefix + name], taken)
                module._parameters[name] = torch.nn.Parameter(tensor, requires_grad=description.requires_grad[prefix + name])
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = _own_memory(description.tensors[prefix + name], taken)
        for name, value in vars(module).items():
            if isinstance(value, torch.Tensor):
                raise TypeError(f"{type(module).__name__}.{name} is a tensor but neither parameter nor buffer; register it")
        module.training = description.training[path]
        # Plugins let tensors ride on a network's attributes. They are inert, as long as they take nobody's place.
        for name, passenger in description.passengers.get(path, {}).items():
            if not hasattr(module, name):
                module.__dict__[name] = passenger
    return blueprint


def _own_memory(tensor, taken):
    """The tensor itself if it has a storage for itself, else a copy: training must not write into a neighbour."""
    storage = tensor.untyped_storage()
    if storage.nbytes() != tensor.numel() * tensor.element_size() or storage.data_ptr() in taken:
        tensor = tensor.clone(memory_format=torch.contiguous_format)
    taken.add(tensor.untyped_storage().data_ptr())
    return tensor


class _ShapesOnly(TorchFunctionMode):
    """Keeps tensors of `torch.device('meta')` there when a constructor moves them to a real device."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.to and args[0].is_meta:
            kwargs.pop("device", None)
            args = tuple(arg for arg in args if not isinstance(arg, (str, torch.device)))
            if len(args) == 1 and not kwargs:
                return args[0]
        return func(*args, **kwargs)


def _blueprint(cls, description):
    """The module without memory: shapes, names and attributes as the arguments would make them."""
    try:
        inspect.signature(cls.__init__).bind(None, *description.init_args, **description.init_kwargs)
        with torch.device("meta"), _ShapesOnly():
            return cls(*description.init_args, **description.init_kwargs)
    except Exception as error:  # our own constructor, with foreign arguments: it may trip over them in any way
        raise _differs(description, f"its constructor arguments do not fit: {error}") from error


def _differs(description, how):
    return Refused(f"a {description.class_name} that is not the {description.class_name} known here ({str(how)[:MAX_TEXT]})")


def _named_tensors(module):
    return {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers(remove_duplicate=False))}


def _compare_classes(blueprint, description):
    for path, module in blueprint.named_modules(remove_duplicate=False):
        found = description.classes.get(path)
        if found != type(module).__name__:
            found = found[:MAX_TEXT] if found else "nothing"
            raise _differs(description, f"{path or 'the top'} should be a {type(module).__name__}, but is {found}")
    if len(description.classes) > sum(1 for _ in blueprint.named_modules(remove_duplicate=False)):
        raise _differs(description, "it has additional modules")


def _compare_tensors(blueprint, description):
    expected = _named_tensors(blueprint)
    for group, names in (("lacks", expected.keys() - description.tensors.keys()), ("additionally has", description.tensors.keys() - expected.keys())):
        if names:
            shown = ", ".join(name[:MAX_TEXT] for name in sorted(names)[:3])
            raise _differs(description, f"it {group} {len(names)} tensors: {shown}" + (", ..." if len(names) > 3 else ""))
    for name, tensor in expected.items():
        found = description.tensors[name]
        if found.shape != tensor.shape or found.dtype != tensor.dtype:
            raise _differs(description, f"{name} should be {list(tensor.shape)} {tensor.dtype}, but is {list(found.shape)} {found.dtype}")
    if {name for name, _ in blueprint.named_parameters(remove_duplicate=False)} != description.requires_grad.keys():
        raise _differs(description, "parameters and buffers are interchanged")


def _compare_attributes(blueprint, description):
    """Attributes named like constructor arguments must have the same values: this finds foreign defaults."""
    for path, module in blueprint.named_modules(remove_duplicate=False):
        found = description.attributes.get(path, {})
        for name in inspect.signature(type(module).__init__).parameters:
            own = vars(module).get(name, found)
            if name not in found or not (own is None or isinstance(own, (bool, int, float, str, np.number))):
                continue
            if own != found[name]:
                where = f"{path}.{name}" if path else name
                raise _differs(description, f"{where} should be {own!r}, but is {str(found[name])[:40]}")


def _limit_repetition(description):
    tensors = description.tensors.values()
    wanted = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    stored = {tensor.untyped_storage().data_ptr(): tensor.untyped_storage().nbytes() for tensor in tensors}
    if wanted > 4 * sum(stored.values()) + MAX_REPEATED_ELEMENTS:
        raise Refused(f"a {description.class_name} that claims far more memory than the file holds")
