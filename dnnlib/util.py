"""Small helpers that forks, too, import by name: dictionaries, the log, caches, objects by name, folders, URLs. Must not import torch."""

import fnmatch
import functools
import importlib
import inspect
import os
import pathlib
import pickle
import shutil
import sys
import tempfile
import types
from typing import Any
from urllib.parse import urlparse

from . import download as _download


class EasyDict(dict):
    """A dictionary whose string keys are attributes too."""

    __setattr__ = dict.__setitem__

    def __getattr__(self, name: str) -> Any:
        if name not in self:
            raise AttributeError(name)
        return self[name]

    def __delattr__(self, name: str) -> None:
        if name not in self:
            raise AttributeError(name)
        del self[name]


# ---------------------------------------------------------------------------------------------------------------------
# Log file.


class _Tee:
    """Stands in for one standard stream: everything goes to it and to the logger's file.

    Whatever else a library asks of a stream (isatty, fileno, encoding, buffer, ...) is answered by the original.
    """

    def __init__(self, logger: "Logger", stream):
        self._logger = logger
        self._stream = stream

    def write(self, text: str | bytes) -> int:
        return self._logger._write(text, self._stream)

    def writelines(self, lines) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        self._logger.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Logger:
    """Copies what is printed on stdout and stderr to a file as well, from construction to close().

    Use as a context manager. With file_name=None nothing is copied. file_mode='a' continues the file of a resumed run.
    """

    def __init__(self, file_name: str = None, file_mode: str = "w", should_flush: bool = True):
        self.should_flush = should_flush
        self.file = None
        if file_name is not None:
            self.file = open(file_name, file_mode, encoding="utf-8", errors="backslashreplace")
        self.stdout, self.stderr = sys.stdout, sys.stderr
        self._tees = (_Tee(self, self.stdout), _Tee(self, self.stderr))
        sys.stdout, sys.stderr = self._tees

    def __enter__(self) -> "Logger":
        return self

    def __exit__(self, exc_type: Any, exc_value: Any, traceback: Any) -> None:
        self.close()

    def write(self, text: str | bytes) -> None:
        """Write to the former stdout and to the file."""
        self._write(text, self.stdout)

    def _write(self, text: str | bytes, stream) -> int:
        if isinstance(text, bytes):
            text = text.decode("utf-8", errors="replace")
        if not text:
            return 0
        if stream is not None:  # windowed Python programs have none
            stream.write(text)
        self._write_file(text)
        if self.should_flush:
            self.flush()
        return len(text)

    def _write_file(self, text: str) -> None:
        if self.file is None:
            return
        try:
            self.file.write(text)
            self.file.flush()
        except OSError as error:
            # A full disk must not end a run from inside a print; said once, where the person sees it.
            name, self.file = self.file.name, None
            if self.stderr is not None:
                self.stderr.write(f"\nLog file {name} cannot be written ({error.strerror}); logging goes on without it.\n")

    def flush(self) -> None:
        """Flush the former streams; the file is flushed at every write."""
        for stream in (self.stdout, self.stderr):
            if stream is not None and not getattr(stream, "closed", False):
                stream.flush()

    def close(self) -> None:
        """Put the former streams back and close the file. Later calls do nothing."""
        self.flush()
        for name, tee in zip(("stdout", "stderr"), self._tees):
            if getattr(sys, name) is tee:  # else somebody has replaced the stream meanwhile; theirs stays
                setattr(sys, name, getattr(self, name))
        file, self.file = self.file, None
        if file is not None:
            file.close()

    def __getattr__(self, name: str) -> Any:
        # For code that took `sys.stdout = logger` literally: isatty, fileno, encoding, ...
        if name.startswith("_") or name in ("stdout", "stderr", "file"):
            raise AttributeError(name)
        return getattr(self.stdout, name)


# ---------------------------------------------------------------------------------------------------------------------
# Caches.

_dnnlib_cache_dir = None


def set_cache_dir(path: str) -> None:
    """Use this cache folder in this process, whatever the environment says."""
    global _dnnlib_cache_dir
    _dnnlib_cache_dir = path


def make_cache_dir_path(*paths: str) -> str:
    """A path below the cache folder: set_cache_dir, else $DNNLIB_CACHE_DIR, else ~/.cache/dnnlib. Creates nothing."""
    root = os.path.expanduser(_dnnlib_cache_dir or os.environ.get("DNNLIB_CACHE_DIR") or "")
    if not root:
        home = os.path.expanduser("~")
        root = os.path.join(home if home != "~" else tempfile.gettempdir(), ".cache", "dnnlib")
    return os.path.join(root, *paths)


# ---------------------------------------------------------------------------------------------------------------------
# Small conversions.


def format_time(seconds: int | float) -> str:
    """41s, 5m 09s, 18h 36m 40s, 7d 08h 07m."""
    total = int(round(float(seconds)))
    minutes, sec = divmod(total, 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if total < 60:
        return f"{total}s"
    if hours == 0:
        return f"{minute}m {sec:02d}s"
    if days == 0:
        return f"{hour}h {minute:02d}m {sec:02d}s"
    return f"{days}d {hour:02d}h {minute:02d}m"


def ask_yes_no(question: str) -> bool:
    """Ask at the terminal until the answer is a yes or a no."""
    answers = {
        "y": True,
        "yes": True,
        "t": True,
        "true": True,
        "on": True,
        "1": True,
        "n": False,
        "no": False,
        "f": False,
        "false": False,
        "off": False,
        "0": False,
    }
    while True:
        answer = input(f"{question} [y/n] ").strip().lower()
        if answer in answers:
            return answers[answer]


def tuple_product(t: tuple) -> Any:
    """The product of the numbers in t; 1 when empty."""
    product = 1
    for factor in t:
        product *= factor
    return product


def flat_items(nested: dict, prefix: tuple = ()) -> dict:
    """Nested dicts as {tuple of names: value}; an empty dict is a value."""
    found = {}
    for name, value in nested.items():
        place = (*prefix, str(name))
        found.update(flat_items(value, place) if isinstance(value, dict) and value else {place: value})
    return found


def get_dtype_and_ctype(type_obj: Any) -> tuple[Any, Any]:
    """The numpy dtype and the ctypes type of a type given by name, numpy type, dtype or ctypes class."""
    import numpy as np

    dtype = np.dtype(type_obj)
    if dtype == np.dtype(bool):  # not among what numpy translates on every version
        import ctypes

        return dtype, ctypes.c_bool
    return dtype, np.ctypeslib.as_ctypes_type(dtype)


def is_pickleable(obj: Any) -> bool:
    """Whether pickle accepts the object."""
    try:
        pickle.dumps(obj)
    except (pickle.PicklingError, TypeError, AttributeError, RecursionError, ValueError, NotImplementedError):
        return False
    return True


# ---------------------------------------------------------------------------------------------------------------------
# Objects by dotted name.


def get_module_from_obj_name(obj_name: str) -> tuple[types.ModuleType, str]:
    """'package.module.Class.method' -> (package.module, 'Class.method'). Imports what is needed.

    The longest importable prefix that really holds the rest wins. An import that fails inside the module is raised as
    it is, so that a missing dependency is not mistaken for a wrong name.
    """
    parts = obj_name.split(".")
    if parts[0] == "np":
        parts[0] = "numpy"
    if not all(part.isidentifier() for part in parts):
        raise ImportError(f"{obj_name!r} is not a dotted name such as package.module.Class")

    nearest = None
    for count in range(len(parts), 0, -1):
        module_name, local_name = ".".join(parts[:count]), ".".join(parts[count:])
        try:
            module = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if not (module_name + ".").startswith(f"{error.name}."):
                raise
            continue
        try:
            get_obj_from_module(module, local_name)
        except AttributeError as error:
            nearest = nearest or error
            continue
        return module, local_name
    if nearest is not None:
        raise AttributeError(f"{obj_name!r} does not exist: {nearest}") from nearest
    raise ImportError(f"{obj_name!r} does not exist: there is no module {parts[0]!r} on the Python path")


def get_obj_from_module(module: types.ModuleType, obj_name: str) -> Any:
    """Follow a dotted name from a module; '' is the module itself."""
    path = obj_name.split(".") if obj_name else []
    return functools.reduce(getattr, path, module)


def get_obj_by_name(name: str) -> Any:
    """The object of a dotted name."""
    return get_obj_from_module(*get_module_from_obj_name(name))


def call_func_by_name(*args, func_name: str = None, **kwargs) -> Any:
    """Call the function of a dotted name with the other arguments."""
    if func_name is None:
        raise TypeError("call_func_by_name needs func_name")
    func = get_obj_by_name(func_name)
    if not callable(func):
        raise TypeError(f"{func_name!r} is not a function or class")
    return func(*args, **kwargs)


def construct_class_by_name(*args, class_name: str = None, **kwargs) -> Any:
    """Construct the class of a dotted name with the other arguments."""
    if class_name is None:
        raise TypeError("construct_class_by_name needs class_name")
    return call_func_by_name(*args, func_name=class_name, **kwargs)


def get_module_dir_by_obj_name(obj_name: str) -> str:
    """The folder of the file of the module that holds the object."""
    module, _ = get_module_from_obj_name(obj_name)
    return os.path.dirname(inspect.getfile(module))


def is_top_level_function(obj: Any) -> bool:
    """Whether the object is a function that its module holds under its own name."""
    if not isinstance(obj, types.FunctionType):
        return False
    return vars(sys.modules[obj.__module__]).get(obj.__name__) is obj


def get_top_level_function_name(obj: Any) -> str:
    """The dotted name of a top-level function; for the running script, with the script's module name."""
    if not is_top_level_function(obj):
        raise TypeError(f"{obj!r} is not a top-level function")
    module_name = obj.__module__
    if module_name == "__main__":
        module_name = pathlib.Path(sys.modules[module_name].__file__).stem
    return f"{module_name}.{obj.__name__}"


# ---------------------------------------------------------------------------------------------------------------------
# Folders.


def list_dir_recursively_with_ignore(dir_path: str, ignores: list[str] = None, add_base_to_relative: bool = False) -> list[tuple[str, str]]:
    """All files below a folder as (path, path relative to the folder).

    ignores: shell patterns matched against the bare names of files and folders; ignored folders are not entered.
    add_base_to_relative: the relative paths begin with the name of the folder itself.
    """

    def kept(names):
        return sorted(name for name in names if not any(fnmatch.fnmatch(name, pattern) for pattern in ignores or ()))

    base = os.path.basename(os.path.normpath(dir_path)) if add_base_to_relative else ""
    found = []
    for folder, folder_names, file_names in os.walk(dir_path):
        folder_names[:] = kept(folder_names)
        for name in kept(file_names):
            path = os.path.join(folder, name)
            found.append((path, os.path.join(base, os.path.relpath(path, dir_path))))
    return found


def copy_files_and_create_dirs(files: list[tuple[str, str]]) -> None:
    """Copy each (source, destination), creating the folders of the destinations."""
    for source, destination in files:
        folder = os.path.dirname(destination)
        if folder:
            os.makedirs(folder, exist_ok=True)
        shutil.copyfile(source, destination)


# ---------------------------------------------------------------------------------------------------------------------
# URLs.


def is_url(obj: Any, allow_file_urls: bool = False) -> bool:
    """Whether the object is the text of a URL with a host (or a file:// URL, if allowed)."""
    if not isinstance(obj, str) or "://" not in obj:
        return False
    try:
        parsed = urlparse(obj)
        if parsed.scheme == "file":
            return bool(allow_file_urls and (parsed.netloc or parsed.path))
        return bool(parsed.scheme and parsed.hostname)
    except ValueError:
        return False


def open_url(
    url: str,
    cache_dir: str = None,
    num_attempts: int = 10,
    verbose: bool = True,
    return_filename: bool = False,
    cache: bool = True,
    digest: str = None,
) -> Any:
    """Open a URL, a file:// URL or a local path for reading in binary; with return_filename, its local path instead.

    Downloads are kept in `cache_dir` (default: the 'downloads' cache). digest: the SHA-256 that the file must have, in
    hexadecimal. Raises UserError, within seconds when there is no network, naming the file to place by hand.
    """
    if not is_url(url, allow_file_urls=True):
        return _download.open_local(url, return_filename=return_filename, digest=digest)
    if url.startswith("file:"):
        return _download.open_local(_download.path_of_file_url(url), return_filename=return_filename, digest=digest)
    return _download.open_remote(
        url,
        cache_dir=cache_dir or make_cache_dir_path("downloads"),
        num_attempts=num_attempts,
        verbose=verbose,
        return_filename=return_filename,
        cache=cache,
        digest=digest,
    )
