"""The table of globals that a pickle may name under safe loading, with the stand-ins that answer.

Tensors, numpy arrays, plain containers and torch constants are made for real, from checked arguments; objects with
embedded source become records that hold their description and do nothing. Must not know any network.
"""

import collections
import io
import math
import pickle
import re
import warnings

import numpy as np
import torch

import dnnlib

from .pickle_machine import Buildable, Function, Refused, kind, simple_key

MAX_EXPANDED_ELEMENTS = 1 << 20  # of a tensor that repeats its storage
# How torch.save begins in the form that storages are pickled in; zip and tar archives are refused by it.
_STORAGE_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


class PersistentRecord:
    """What the pickle says about one object with embedded source: its meta dictionary, untouched."""

    def __init__(self, meta):
        if not isinstance(meta, dict):
            raise Refused("a persistent object without a description")
        self.meta = meta


class Storage:
    """The numbers of one torch storage, with their type."""

    def __init__(self, untyped, dtype):
        self.untyped = untyped
        self.dtype = dtype
        self.num_elements = untyped.nbytes() // dtype.itemsize


# ---------------------------------------------------------------------------------------------------------------------
# Torch.


def _load_storage(data):
    if not isinstance(data, bytes) or not data.startswith(_STORAGE_MAGIC):
        raise Refused("torch.storage._load_from_bytes of something that is not a storage")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates the class that its own pickles name
            loaded = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        EOFError,
        AttributeError,
        KeyError,
        IndexError,
        TypeError,
        AssertionError,
        MemoryError,
        OverflowError,
    ) as error:
        raise Refused("a torch storage that does not load as plain numbers") from error
    if isinstance(loaded, torch.UntypedStorage):
        return Storage(loaded, torch.uint8)
    if not isinstance(loaded, torch.storage.TypedStorage):
        raise Refused("torch.storage._load_from_bytes of something that is not a storage")
    return Storage(loaded._untyped_storage, loaded.dtype)


def _is_count(value):
    return type(value) is int and 0 <= value < 1 << 62


def _rebuild_tensor(storage, offset, size, stride, requires_grad=False, hooks=None, *_metadata):
    if not isinstance(storage, Storage):
        raise Refused("a tensor without a storage")
    if not isinstance(size, tuple) or not isinstance(stride, tuple):  # torch.Size is one
        raise Refused("a tensor of impossible shape")
    if len(size) != len(stride) or len(size) > 16 or not all(map(_is_count, (offset, *size, *stride))):
        raise Refused("a tensor of impossible shape")
    if hooks:
        raise Refused("a tensor with hooks")
    num_elements = math.prod(size)
    # torch would enlarge the storage silently, up to the size claimed.
    last = offset + sum((length - 1) * step for length, step in zip(size, stride)) if num_elements else 0
    if (num_elements and last >= storage.num_elements) or num_elements > max(storage.num_elements, MAX_EXPANDED_ELEMENTS):
        raise Refused("a tensor larger than its data")
    try:
        tensor = torch.empty(0, dtype=storage.dtype).set_(storage.untyped, offset, size, stride)
        return tensor.requires_grad_(_flag(requires_grad)) if requires_grad else tensor
    except RuntimeError as error:
        raise Refused("a tensor of a kind that torch does not make") from error


def _rebuild_parameter(data, requires_grad=True, hooks=None, state=None):
    if not isinstance(data, torch.Tensor) or hooks or state:
        raise Refused("a parameter that is more than a tensor")
    if requires_grad and not (data.is_floating_point() or data.is_complex()):
        raise Refused("a trainable parameter of whole numbers")
    return torch.nn.Parameter(data.detach(), requires_grad=_flag(requires_grad))


def _flag(value):
    if not isinstance(value, bool):
        raise Refused("something else where True or False belongs")
    return value


def _device(name, index=None):
    if not isinstance(name, str) or not re.fullmatch(r"[a-z]{1,16}(:\d{1,4})?", name) or not (index is None or _is_count(index)):
        raise Refused("torch.device of an unknown device")
    try:
        return torch.device(name) if index is None else torch.device(name, index)
    except RuntimeError as error:
        raise Refused("torch.device of an unknown device") from error


class IdentityRecord(Buildable):
    """torch.nn.Identity with buffers: what stands for an augmentation pipe that does nothing. It is filled by BUILD."""

    def __init__(self):
        self.module = torch.nn.Identity()

    def set_state(self, state):
        if not isinstance(state, dict) or state.get("_parameters") or state.get("_modules"):
            raise Refused("a torch.nn.Identity that is more than one")
        buffers = state.get("_buffers") or {}
        if not isinstance(buffers, dict) or not all(isinstance(name, str) and type(value) is torch.Tensor for name, value in buffers.items()):
            raise Refused("a torch.nn.Identity with other things than tensors among its tensors")
        for name, tensor in buffers.items():
            self.module.register_buffer(name, tensor)
        self.module.training = state.get("training") is True
        for name, value in state.items():
            # Tensors that a plugin lets ride on it are inert, as long as they take nobody's place.
            is_passenger = isinstance(name, str) and isinstance(value, dict) and value and all(type(part) is torch.Tensor for part in value.values())
            if is_passenger and not hasattr(self.module, name):
                self.module.__dict__[name] = dict(value)


def _size(lengths=()):
    if not isinstance(lengths, (list, tuple)) or not all(map(_is_count, lengths)):
        raise Refused("torch.Size of something else than lengths")
    return torch.Size(lengths)


# ---------------------------------------------------------------------------------------------------------------------
# Numpy. dtypes and arrays get their content by BUILD, later than references to them, so stand-ins wait for it.


class DtypeRecord(Buildable):
    """A numpy dtype of plain numbers or fixed-length text."""

    def __init__(self, code, *_align_and_copy):
        if not isinstance(code, str) or not re.fullmatch(r"[<>|=]?([biufc]\d{1,2}|\?|[SU]\d{1,6})", code):
            raise Refused("a numpy type that is not a number")
        try:
            self.dtype = np.dtype(code)
        except TypeError as error:
            raise Refused("an unknown numpy type") from error

    def set_state(self, state):
        if not isinstance(state, tuple) or len(state) < 5 or state[1] not in ("<", ">", "|", "="):
            raise Refused("an unusual numpy type")
        if any(part is not None for part in state[2:5]):
            raise Refused("a numpy type with fields")
        if state[1] != "|":
            self.dtype = self.dtype.newbyteorder(state[1])
        if self.dtype.isnative:
            self.dtype = self.dtype.newbyteorder("=")


class ArrayRecord(Buildable):
    """A numpy array that is filled by BUILD."""

    def __init__(self):
        self.array = None

    def set_state(self, state):
        if not isinstance(state, tuple) or len(state) != 5:
            raise Refused("an unusual numpy array")
        _version, shape, dtype, is_fortran, data = state
        self.array = _array_of(data, dtype, shape, "F" if is_fortran else "C")


def _array_of(data, dtype, shape, order):
    if not isinstance(dtype, DtypeRecord) or not isinstance(data, (bytes, bytearray)):
        raise Refused("a numpy array of objects")
    if not isinstance(shape, tuple) or not all(map(_is_count, shape)) or order not in ("C", "F"):
        raise Refused("a numpy array of impossible shape")
    if math.prod(shape) * dtype.dtype.itemsize != len(data):
        raise Refused("a numpy array larger than its data")
    if dtype.dtype.itemsize == 0:
        return np.zeros(shape, dtype.dtype) if math.prod(shape) == 0 else _refuse("a numpy array of empty text")
    # In this machine's byte order, as numpy itself does it: torch takes no other.
    return np.frombuffer(bytes(data), dtype.dtype).reshape(shape, order=order).astype(dtype.dtype.newbyteorder("="), order=order)


def _refuse(what):
    raise Refused(what)


def _new_array(_subtype, _shape, _typecode):
    return ArrayRecord()


def _array_from_buffer(data, dtype, shape, order):
    record = ArrayRecord()
    record.array = _array_of(data, dtype, shape, order)
    return record


def _scalar(dtype, data):
    return _array_of(data, dtype, (), "C")[()]


# ---------------------------------------------------------------------------------------------------------------------
# Plain Python.


def _pairs_into(make):
    def call(pairs=()):
        result = make()
        for key, value in pairs.items() if isinstance(pairs, dict) else pairs:
            result[simple_key(key)] = value
        return result

    return call


def _encode(text, encoding="latin1"):
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
        raise Refused("_codecs.encode of anything but bytes written as text")
    return text.encode("latin1")


def _items(container):
    # Lists and tuples lie in the stream; anything lazier could yield more than it holds.
    if not isinstance(container, (list, tuple)):
        raise Refused(f"a set made of {kind(container)}")
    return map(simple_key, container)


def _slice(*bounds):
    if not all(bound is None or type(bound) is int for bound in bounds):
        raise Refused("a slice between other things than whole numbers")
    return slice(*bounds)


def _reconstructor(made, base, state=None):
    """Protocols 0 and 1 write dictionaries of subclasses so, and MADR's carrier what it carries for."""
    if isinstance(made, Function) and made.new is IdentityRecord and isinstance(base, Function) and base.name == "builtins.object" and state is None:
        return IdentityRecord()
    if not isinstance(made, Function) or made.new is None or not isinstance(base, Function) or base.name != "builtins.dict":
        raise Refused("copyreg._reconstructor of anything but a dictionary")
    return _pairs_into(made.new)(state or {})


def _plain_number(number_type):
    def call(*args):
        if not all(isinstance(arg, (int, float)) for arg in args):
            raise Refused(f"builtins.{number_type.__name__} of something else than numbers")
        return number_type(*args)

    return call


def _plain_bytes(make):
    def call(data=b"", encoding=None):
        if isinstance(data, str) and encoding in ("latin1", "latin-1"):
            data = data.encode("latin1")
        if not isinstance(data, (bytes, bytearray)):  # an integer would allocate that many bytes
            raise Refused(f"builtins.{make.__name__} of {kind(data)}")
        return make(data)

    return call


def _only_named(name):
    def call(*_args):
        raise Refused(f"a call of {name}")

    return call


def _build_table():
    table = {}

    def add(names, call, new=None):
        for name in names.split():
            module, _, attribute = name.rpartition(".")
            table[module, attribute] = Function(name, call, new)

    add("torch_utils.persistence._reconstruct_persistent_obj", PersistentRecord)
    for module in ("dnnlib.util", "dnnlib"):
        add(f"{module}.EasyDict", _pairs_into(dnnlib.EasyDict), new=dnnlib.EasyDict)
    add("collections.OrderedDict", _pairs_into(collections.OrderedDict), new=collections.OrderedDict)

    for module in ("builtins", "__builtin__"):
        add(f"{module}.set", lambda items=(): set(_items(items)))
        add(f"{module}.frozenset", lambda items=(): frozenset(_items(items)))
        add(f"{module}.slice", _slice)
        add(f"{module}.complex", _plain_number(complex))
        add(f"{module}.bytearray", _plain_bytes(bytearray))
        add(f"{module}.bytes", _plain_bytes(bytes))
        table[module, "dict"] = Function("builtins.dict", _only_named("builtins.dict"))
        table[module, "object"] = Function("builtins.object", _only_named("builtins.object"))
    for module in ("copyreg", "copy_reg"):
        add(f"{module}._reconstructor", _reconstructor)
    add("_codecs.encode", _encode)

    add("torch._utils._rebuild_tensor_v2 torch._utils._rebuild_tensor", _rebuild_tensor)
    add("torch._utils._rebuild_parameter torch._utils._rebuild_parameter_with_state torch.nn.parameter.Parameter", _rebuild_parameter)
    add("torch.storage._load_from_bytes", _load_storage)
    add("torch.Size", _size)
    add("torch.nn.modules.linear.Identity", _only_named("torch.nn.modules.linear.Identity"), new=IdentityRecord)
    add("torch.device", _device)
    for name, value in vars(torch).items():
        if isinstance(value, (torch.dtype, torch.memory_format, torch.layout)):
            table["torch", name] = value

    for core in ("numpy.core", "numpy._core"):
        add(f"{core}.multiarray._reconstruct", _new_array)
        add(f"{core}.multiarray.scalar", _scalar)
        add(f"{core}.numeric._frombuffer", _array_from_buffer)
    add("numpy.dtype", DtypeRecord)
    add("numpy.ndarray", _only_named("numpy.ndarray"))
    return table


TABLE = _build_table()
