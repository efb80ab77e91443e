"""Pickles read without executing anything that they bring.

Plain data, tensors and arrays are read as such; networks are rebuilt with the project's own classes from their
constructor arguments and weights. Everything else is refused in a sentence. Must not know any particular network.
"""

import io
import pickle

import torch

from dnnlib.errors import UserError

from . import pickle_machine, rebuild, safe_globals
from .pickle_machine import Corrupt, Refused
from .rebuild import register_known_class

__all__ = ["load", "register_known_class", "RefusedPickle", "HOW_TO_TRUST"]

MAX_DEPTH = 100
HOW_TO_TRUST = (
    "Loading it in full would run code from the file. If you trust where it comes from, allow that with "
    "--trust-pickle on the command line or trust=True in Python."
)


class RefusedPickle(UserError):
    """The file wants to run code, or holds networks that are not known here. `what` names the reason."""

    def __init__(self, name, what):
        super().__init__(f"{name} was refused: it holds {what}. {HOW_TO_TRUST}")
        self.what = what


def load(f, *, trust=False, name=None):
    """Read one pickle from a binary file.

    By default nothing of the file is executed, and what would need that raises RefusedPickle. With trust=True the
    ordinary unpickler runs, with all that the file wants to do. Tensors arrive on the CPU. `name` is for messages.
    """
    name = name or getattr(f, "name", None) or "The pickle"
    if trust:
        return _load_trusted(f, name)
    try:
        tree = pickle_machine.load(f, safe_globals.TABLE)
        return _Resolver().resolve(tree)
    except Refused as refused:
        raise RefusedPickle(name, refused.what + _where(refused.unfinished)) from refused
    except Corrupt as error:
        raise _damaged(name, error) from error
    except MemoryError as error:
        raise UserError(f"{name} was refused: reading it takes more memory than there is.") from error


def _where(unfinished):
    """' in class X' if the reader stood inside an object with embedded source: that names the culprit better than a part.

    The class of such an object follows its source; other dictionaries name classes too (training_set_kwargs), read long before.
    """
    for index, value in enumerate(unfinished):
        class_name = None
        if isinstance(value, dict) and "module_src" in value:
            class_name = value.get("class_name")
        elif isinstance(value, str) and value == "class_name" and "module_src" in unfinished[max(index - 2, 0) : index]:
            class_name = unfinished[index + 1] if index + 1 < len(unfinished) else None
        if isinstance(class_name, str):
            return f" in class {class_name[: rebuild.MAX_TEXT]}"
    return ""


def _damaged(name, error):
    return UserError(f"{name} is damaged or incomplete ({str(error)[:200] or type(error).__name__}); copy or download it again.")


def _load_trusted(f, name):
    try:
        return _CpuUnpickler(f).load()
    except (pickle.UnpicklingError, EOFError) as error:
        raise _damaged(name, error) from error
    except ModuleNotFoundError as error:
        raise UserError(
            f"{name} needs the Python module {error.name!r}, which is not there; "
            "run from the code base that wrote the file, or put its folder on PYTHONPATH."
        ) from error


class _CpuUnpickler(pickle.Unpickler):
    """The ordinary unpickler, except that weights saved on an accelerator load on machines without one."""

    def find_class(self, module, name):
        if (module, name) == ("torch.storage", "_load_from_bytes"):
            return _load_storage_on_cpu
        return super().find_class(module, name)


def _load_storage_on_cpu(data):
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=False)


class _Resolver:
    """Replaces the stand-ins in a tree by what they stand for. Each is built once, however often it is referred to."""

    def __init__(self):
        self._done = {}  # id of the original -> (original, result); the original is kept so that its id stays taken

    def resolve(self, value, depth=0):
        if isinstance(value, (str, bytes, int, float, complex, type(None), torch.Tensor)):
            return value
        if depth > MAX_DEPTH:
            raise Refused(f"data nested deeper than {MAX_DEPTH} levels")
        if id(value) in self._done:
            return self._done[id(value)][1]
        if isinstance(value, (list, dict)):  # in place, so that references among them stay
            self._done[id(value)] = (value, value)
            for key, part in enumerate(value) if isinstance(value, list) else list(value.items()):
                self._replace(value, key, self.resolve(part, depth + 1))
            return value
        result = self._resolve_once(value, depth)
        self._done[id(value)] = (value, result)
        return result

    @staticmethod
    def _replace(container, key, part):
        if container[key] is not part:
            container[key] = part

    def _resolve_once(self, value, depth):
        if type(value) is tuple:
            return tuple(self.resolve(part, depth + 1) for part in value)
        if isinstance(value, safe_globals.PersistentRecord):
            return rebuild.rebuild(rebuild.describe_record(value))
        if isinstance(value, safe_globals.IdentityRecord):
            return value.module
        if isinstance(value, safe_globals.DtypeRecord):
            return value.dtype
        if isinstance(value, safe_globals.ArrayRecord) and value.array is not None:
            return value.array
        if isinstance(value, (pickle_machine.Function, pickle_machine.Buildable, safe_globals.Storage)):
            raise Refused(pickle_machine.kind(value))
        return value  # sets of plain keys, slices, torch.Size, dtypes: made by the table, nothing inside
