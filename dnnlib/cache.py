"""The cache folder as a place that may refuse: what cannot be kept there costs one line, and the work goes on without it.

Must not know what is kept.
"""

import os
from collections.abc import Callable

from dnnlib import console, files
from dnnlib.errors import UserError
from dnnlib.util import make_cache_dir_path

REMEDY = "set DNNLIB_CACHE_DIR to a folder that you may write, or use --cache=off where there is that option"
_told: set[str] = set()  # cache folders of which it was said that they cannot be written


def is_writable(folder: str | None = None) -> bool:
    """Try to write into the folder (default: the cache); if that fails, say so once. Makes the folder."""
    folder = folder or make_cache_dir_path()
    try:
        files.make_writable(folder)
        return True
    except OSError as error:
        _tell(error.strerror or str(error))
        return False


def keep(path: str, write: Callable[[str], object]) -> bool:
    """Let write(path) keep a file in the cache. Whether that succeeded; if not, it is said once."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write(path)
        return True
    except OSError as error:
        _tell(f"{error.strerror or error}")
    except UserError as error:  # of the atomic writer, which has its own remedy
        _tell(str(error))
    return False


def _tell(reason: str) -> None:
    root = make_cache_dir_path()
    if root not in _told:
        _told.add(root)
        console.warn(f"the cache {root} cannot be written ({reason.rstrip('.')}): what it would keep is computed again next time; {REMEDY}.")
