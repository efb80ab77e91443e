"""Compiles C++ and CUDA sources into Python modules, once per machine, and says in one line why it could not.

A finished build lies in $TORCH_EXTENSIONS_DIR/<name>-<hash of sources, options and versions>/ and appears there whole or not at
all: it is made in a folder of its own and then moved. Must not know which operators exist.
"""

import contextlib
import errno
import hashlib
import importlib.util
import logging
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from torch_utils.process_lock import LockTimeout, ProcessLock

# 'none': silent; 'brief': one line per plugin, one explanation per process; 'full': the compiler's output too.
verbosity = "brief"

# How long to wait for another process that is building the same plugin.
LOCK_LIMIT_SEC = 600

NO_SPACE = os.strerror(errno.ENOSPC)

_HEADER_SUFFIXES = {".h", ".hh", ".hpp", ".cuh", ".inl"}
_LIBRARY_SUFFIXES = {".so", ".pyd", ".dylib"}

_outcomes: dict[Path, object] = {}  # what became of each build in this process: the module or a PluginError
_explained = False  # whether this process has already said why a build failed


class PluginError(RuntimeError):
    """A plugin could not be had: `cause` in a few words, `cure` as something to do."""

    def __init__(self, cause, cure):
        super().__init__(f"{cause}; {cure}")
        self.cause, self.cure = cause, cure


def get_plugin(module_name, sources, **build_kwargs):
    """The module compiled from `sources`, built unless that was done before. Raises PluginError, at once the second time.

    build_kwargs are those of torch.utils.cpp_extension.load.
    """
    if verbosity not in ("none", "brief", "full"):
        raise ValueError(f"custom_ops.verbosity must be none, brief or full (got {verbosity!r})")
    sources = [Path(source).resolve() for source in sources]
    folder = _folder_of(module_name, sources, build_kwargs)
    if folder not in _outcomes:
        _outcomes[folder] = _obtain(module_name, sources, folder, build_kwargs)
    if isinstance(_outcomes[folder], PluginError):
        raise _outcomes[folder]
    return _outcomes[folder]


def get_plugin_or_none(module_name, sources, **build_kwargs):
    """As get_plugin, with None for a plugin that cannot be had."""
    try:
        return get_plugin(module_name, sources, **build_kwargs)
    except PluginError:
        return None


def get_finished_or_none(module_name, sources, **build_kwargs):
    """The module if it has been built already, else None: at once, and without a word. Arguments as for get_plugin."""
    sources = [Path(source).resolve() for source in sources]
    try:
        folder = _folder_of(module_name, sources, build_kwargs)
        return _outcomes.get(folder) if _is_module(_outcomes.get(folder)) else _load_finished(folder)
    except OSError:  # a source or the folder of the builds cannot be read
        return None


def build_root() -> Path:
    """The folder that holds all builds."""
    return Path(os.environ.get("TORCH_EXTENSIONS_DIR") or "~/.cache/torch_extensions").expanduser()


def missing_tools(needs_cuda: bool):
    """(cause, cure) of the first thing that compiling lacks on this machine, or None."""
    compiler = os.environ.get("CXX") or ("cl" if os.name == "nt" else "c++")
    if shutil.which(compiler.split()[0]) is None:
        return f"no C++ compiler ({compiler!r} is not on PATH)", "install one (Debian, Ubuntu: apt install g++) or set CXX"
    if importlib.util.find_spec("setuptools") is None:
        return "the Python package setuptools is missing", "pip install setuptools"
    if _ninja_folder() is None:
        return "no ninja ('ninja' is not on PATH)", "pip install ninja"
    if needs_cuda and torch.version.cuda is None and torch.version.hip is None:
        return "this PyTorch was built without CUDA", "install a CUDA build of PyTorch"
    if needs_cuda and cuda_home() is None:
        return "no CUDA toolkit (no nvcc)", "install the toolkit of PyTorch's CUDA version or set CUDA_HOME"
    if needs_cuda and torch.version.cuda and not (Path(cuda_home()) / "include" / "cuda_runtime.h").exists():
        return f"{cuda_home()}, where nvcc was found, is no whole CUDA toolkit (no include/cuda_runtime.h)", "set CUDA_HOME to the toolkit's folder"
    return None


def cuda_home():
    """Where PyTorch finds the CUDA toolkit, or None."""
    return _cpp_extension().CUDA_HOME


@contextlib.contextmanager
def _quiet_builder():
    """PyTorch's builder logs remarks, tracebacks among them, of what is told here in one line or means nothing."""
    logger = logging.getLogger("torch.utils.cpp_extension")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _cpp_extension():
    """PyTorch's builder. Slow to import, needs setuptools, and would log a remark wherever nvcc is present without a GPU."""
    with _quiet_builder():
        from torch.utils import cpp_extension
    return cpp_extension


def _ninja_folder():
    """The folder of the ninja program: from PATH, else from the Python package, whose folder often isn't on PATH."""
    program = shutil.which("ninja")
    if program:
        return str(Path(program).parent)
    if importlib.util.find_spec("ninja") is None:
        return None
    import ninja

    return ninja.BIN_DIR if shutil.which("ninja", path=ninja.BIN_DIR) else None


def _folder_of(module_name, sources, build_kwargs):
    return build_root() / f"{module_name}-{_digest(sources, build_kwargs)}"


def _is_module(outcome):
    return outcome is not None and not isinstance(outcome, PluginError)


def _digest(sources, build_kwargs):
    """16 hex digits that change with anything that could change the build."""
    folders = {source.parent for source in sources}
    headers = {path for folder in folders if folder.is_dir() for path in folder.iterdir() if path.suffix in _HEADER_SUFFIXES}
    state = hashlib.sha256()
    for path in [*sources, *sorted(headers)]:
        content = path.read_bytes()
        state.update(f"{path.name} {len(content)}\n".encode() + content)
    versions = [sys.implementation.cache_tag, sys.platform, torch.__version__, str(torch.version.cuda), os.environ.get("CXX", "")]
    if _needs_cuda(sources, build_kwargs) and torch.cuda.is_available():
        devices = range(torch.cuda.device_count())
        versions += [os.environ.get("TORCH_CUDA_ARCH_LIST", ""), *sorted({str(torch.cuda.get_device_capability(i)) for i in devices})]
    if any("native" in flag for flag in build_kwargs.get("extra_cflags") or []):
        versions += [platform.machine(), _processor_features()]
    state.update(repr([versions, sorted(build_kwargs.items())]).encode())
    return state.hexdigest()[:16]


def _processor_features():
    """What instructions the processor has. A home folder may serve several machines, and a build for one would crash the other."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    return next((" ".join(sorted(line.split(":", 1)[1].split())) for line in lines if line.lower().startswith(("flags", "features"))), "")


def _needs_cuda(sources, build_kwargs):
    return build_kwargs.get("with_cuda") or any(source.suffix == ".cu" for source in sources)


def _obtain(module_name, sources, folder, build_kwargs):
    """The module or the PluginError, with the line that people know from this family of programs."""
    line = _StatusLine(f'Setting up PyTorch plugin "{module_name}"...')
    try:
        module = _load_finished(folder) or _build_once(module_name, sources, folder, build_kwargs, line.say)
        line.end("Done.")
        return module
    except LockTimeout as timeout:
        error = PluginError(
            f"process {timeout.owner} has been building it for more than {LOCK_LIMIT_SEC:g} s", "wait for it or end it, then start again"
        )
    except OSError as os_error:
        error = PluginError(f"{os_error.strerror} ({os_error.filename})", "point TORCH_EXTENSIONS_DIR to a folder with space that you may write to")
    except PluginError as plugin_error:
        error = plugin_error
    line.fail(error)
    return error


@contextlib.contextmanager
def told(is_told: bool):
    """Within: nothing is printed unless is_told."""
    global verbosity
    before = verbosity
    verbosity = before if is_told else "none"
    try:
        yield
    finally:
        verbosity = before


class _StatusLine:
    """One line on the screen that is begun, perhaps interrupted by remarks, and ended; nothing at verbosity 'none'.

    It is begun only when its end is known or a remark comes, since an explained failure may be all that is to be said.
    """

    def __init__(self, text):
        self.text = text

    def say(self, remark):
        if verbosity != "none":
            print(f"{self.text} {remark}", flush=True)

    def end(self, result):
        self.say(result)

    def fail(self, error):
        global _explained
        if not _explained:
            _explained = verbosity != "none"
            self.say(f"Failed! {error.cause[:1].upper()}{error.cause[1:]}. Plain PyTorch does the work, more slowly; to change that: {error.cure}.")


def _load_finished(folder):
    """The module of a finished build, or None where there is none."""
    libraries = [path for path in folder.glob("*") if path.suffix in _LIBRARY_SUFFIXES] if folder.is_dir() else []
    if not libraries:
        return None
    spec = importlib.util.spec_from_file_location(libraries[0].stem, libraries[0])
    try:
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    except ImportError:  # cut short by a full disk, or its libraries are gone: built anew, it replaces this one
        return None
    return module


def _build_once(module_name, sources, folder, build_kwargs, say):
    """Build under the lock, unless another process finished while this one waited for it."""
    lack = missing_tools(_needs_cuda(sources, build_kwargs))
    if lack:
        raise PluginError(*lack)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with ProcessLock(folder.with_name(folder.name + ".lock"), limit_sec=LOCK_LIMIT_SEC, say=say):
        module = _load_finished(folder)
        if module is not None:
            return module
        for remains in folder.parent.glob(f"{folder.name}.building-*"):
            shutil.rmtree(remains, ignore_errors=True)
        workshop = folder.with_name(f"{folder.name}.building-{os.getpid()}")
        workshop.mkdir()
        try:
            module = _compile(module_name, sources, workshop, build_kwargs)
            _publish(Path(module.__file__), folder)
        finally:
            shutil.rmtree(workshop, ignore_errors=True)
        return module


def _publish(library, folder):
    """Make the library appear in `folder`, whole or not at all."""
    folder.mkdir(exist_ok=True)
    unfinished = folder / f"unfinished-{os.getpid()}"
    shutil.copyfile(library, unfinished)
    os.replace(unfinished, folder / library.name)


def _compile(module_name, sources, workshop, build_kwargs):
    try:
        with _folder_on_path(_ninja_folder()), _quiet_builder():
            return _cpp_extension().load(
                name=module_name,
                sources=[str(source) for source in sources],
                build_directory=str(workshop),
                **{"verbose": verbosity == "full", **build_kwargs},
            )
    except (RuntimeError, ImportError, OSError, subprocess.SubprocessError) as error:  # the last: a compiler that cannot tell its version
        if NO_SPACE in str(error):  # in the folder of the build, or in the compiler's own for what it has half done
            raise PluginError(
                f"compiling failed: no space left in {workshop.parent} or {tempfile.gettempdir()}",
                "free some, or name other folders in TORCH_EXTENSIONS_DIR and TMPDIR",
            ) from error
        log = workshop.parent / f"{module_name}.log"
        log.write_text(str(error), encoding="utf-8")
        raise PluginError(f"compiling failed: {last_error_line(str(error))}", f"see {log}") from error


@contextlib.contextmanager
def _folder_on_path(folder):
    """PyTorch looks for ninja on PATH alone."""
    before = os.environ["PATH"]
    if folder not in before.split(os.pathsep):
        os.environ["PATH"] = before + os.pathsep + folder
    try:
        yield
    finally:
        os.environ["PATH"] = before


def last_error_line(output: str) -> str:
    """The last line in which a compiler or linker names an error, else the last line that says anything."""
    lines = [line.strip() for line in output.splitlines() if line.strip() and not line.startswith("ninja: build stopped")]
    named = [line for line in lines if re.search(r"\berror\b\s*[:#]|undefined reference|cannot find -l", line, re.IGNORECASE)]
    return ((named or lines or ["no output"])[-1])[:300]
