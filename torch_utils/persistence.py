"""Pickles that carry the source text of their classes, in the format of the StyleGAN2-ADA family (version 6).

Unpickling such an object with plain pickle executes the text that the file brings: that is the format. The project's
own loaders go through torch_utils/safe_unpickle.py instead. Must not know any particular class.
"""

import copy
import functools
import hashlib
import inspect
import linecache
import sys
import types

import dnnlib

_version = 6

# Both are caches keyed by content: a second run finds what it would have computed again.
_source_by_module_name = {}  # module name -> text of the module
_module_by_source = {}  # text -> the living module that was made from it
_persistent_classes = set()
_import_hooks = []


def persistent_class(orig_class):
    """Class decorator: pickles of instances carry the source of the module that defines the class.

    Instances keep copies of their constructor arguments, readable as `init_args` and `init_kwargs`. A subclass without
    the decorator pickles as its nearest decorated ancestor.
    """
    if not isinstance(orig_class, type):
        raise TypeError(f"persistent_class decorates classes (got {orig_class!r})")
    if orig_class in _persistent_classes:
        return orig_class

    # Read now: the file may be edited while the run goes on, and the snapshot must hold what really ran.
    orig_class._persistent_source = _source_of_module(sys.modules[orig_class.__module__])
    orig_class._persistent_name = orig_class.__name__
    orig_class.__init__ = _recording_init(orig_class, orig_class.__init__)
    orig_class.__reduce__ = _reduce
    if not hasattr(orig_class, "__deepcopy__"):
        orig_class.__deepcopy__ = _deepcopy
    orig_class.init_args = property(lambda self: copy.deepcopy(self._init_args), doc="Positional constructor arguments.")
    orig_class.init_kwargs = property(lambda self: dnnlib.EasyDict(copy.deepcopy(self._init_kwargs)), doc="Keyword constructor arguments.")
    _persistent_classes.add(orig_class)
    return orig_class


def is_persistent(obj):
    """Whether a class, or the class of an object, was decorated itself (a decorated ancestor does not count)."""
    return (obj if isinstance(obj, type) else type(obj)) in _persistent_classes


def import_hook(hook):
    """Register `hook(meta) -> meta`, applied to every pickled object before its source is executed.

    meta is an EasyDict with type, version, module_src, class_name and state; a hook may change any of them, for
    instance to mend the source of an old pickle. Returns the hook, so that it serves as a decorator.
    """
    if not callable(hook):
        raise TypeError(f"import_hook takes a function (got {hook!r})")
    _import_hooks.append(hook)
    return hook


def _recording_init(owner, original_init):
    @functools.wraps(original_init)
    def recording_init(self, *args, **kwargs):
        # When decorated classes inherit from each other, the arguments that rebuild the object are the outermost ones.
        if type(self) is owner or "_init_args" not in self.__dict__:
            # Past __setattr__: torch modules accept attributes only after their own constructor has run.
            self.__dict__["_init_args"] = copy.deepcopy(args)
            self.__dict__["_init_kwargs"] = copy.deepcopy(kwargs)
        original_init(self, *args, **kwargs)

    return recording_init


def _reduce(self):
    meta = dict(type="class", version=_version, module_src=self._persistent_source, class_name=self._persistent_name, state=_get_state(self))
    return _reconstruct_persistent_obj, (meta,)


def _deepcopy(self, memo):
    """Through __reduce__ a copy could become another class: that of a second module with the same text, or an ancestor."""
    obj = type(self).__new__(type(self))
    memo[id(self)] = obj
    _set_state(obj, copy.deepcopy(_get_state(self), memo))
    return obj


def _get_state(obj):
    getstate = getattr(obj, "__getstate__", None)  # every object has it from Python 3.11 on
    return obj.__dict__ if getstate is None else getstate()


def _set_state(obj, state):
    setstate = getattr(obj, "__setstate__", None)
    if callable(setstate):
        setstate(state)
    else:
        obj.__dict__.update(state)


def _reconstruct_persistent_obj(meta):
    """The function that pickles name: executes the embedded source and gives the object its state."""
    meta = dnnlib.EasyDict(meta)
    if isinstance(meta.state, dict):
        meta.state = dnnlib.EasyDict(meta.state)
    for hook in _import_hooks:
        meta = hook(meta)
        if meta is None:
            raise TypeError(f"import hook {hook!r} returned nothing; it must return meta")
    if meta.version != _version or meta.type != "class":
        raise ValueError(f"persistent object of kind {meta.type!r}, version {meta.version!r}; only kind 'class', version {_version} is known")

    module = _module_from_source(meta.module_src)
    cls = persistent_class(getattr(module, meta.class_name))
    obj = cls.__new__(cls)
    _set_state(obj, meta.state)
    return obj


def _source_of_module(module):
    source = _source_by_module_name.get(module.__name__)
    if source is None:
        try:
            source = inspect.getsource(module)
        except (OSError, TypeError) as error:
            raise TypeError(
                f"persistent_class needs the source text of module {module.__name__!r}; define the class in a file rather than at the prompt"
            ) from error
        _source_by_module_name[module.__name__] = source
        _module_by_source[source] = module  # a real module is preferred to one that a pickle brought earlier
    return source


def _module_from_source(source):
    module = _module_by_source.get(source)
    if module is not None:
        return module
    name = "_persistent_source_" + hashlib.sha256(source.encode()).hexdigest()[:24]
    file_name = f"<{name}>"
    module = types.ModuleType(name)
    module.__file__ = file_name
    # Registered before the text runs: the decorator inside it asks for its own source.
    sys.modules[name] = module
    _source_by_module_name[name] = source
    _module_by_source[source] = module
    # Lets tracebacks and inspect show the lines.
    linecache.cache[file_name] = (len(source), None, source.splitlines(keepends=True), file_name)
    try:
        exec(compile(source, file_name, "exec", dont_inherit=True), module.__dict__)  # the one place that runs a pickle's text
    except BaseException:
        del sys.modules[name], _source_by_module_name[name], _module_by_source[source], linecache.cache[file_name]
        raise
    return module
