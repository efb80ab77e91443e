"""Reads and marks persistent objects the straightforward way: every class becomes a subclass that remembers."""

import sys
import types

sources = {}


def persistent_class(orig_class):
    class Remembering(orig_class):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._init_args, self._init_kwargs = args, kwargs

        @property
        def init_kwargs(self):
            return self._init_kwargs

    Remembering.__name__ = orig_class.__name__
    return Remembering


def _reconstruct_persistent_obj(meta):
    assert set(meta) == {"type", "version", "module_src", "class_name", "state"}
    assert meta["type"] == "class" and meta["version"] == 6
    if meta["module_src"] not in sources:
        module = types.ModuleType(f"embedded_{len(sources)}")
        sys.modules[module.__name__] = sources[meta["module_src"]] = module
        exec(meta["module_src"], module.__dict__)
    cls = getattr(sources[meta["module_src"]], meta["class_name"])
    obj = cls.__new__(cls)
    if hasattr(obj, "__setstate__"):
        obj.__setstate__(meta["state"])
    else:
        obj.__dict__.update(meta["state"])
    return obj
