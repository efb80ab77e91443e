"""Naming files that are no network pickle for what they are, by their first bytes and the words inside. Executes nothing of them.

Must not know who asks.
"""

import io
import pickletools
import zipfile
from typing import IO

_TORCH_BEFORE_ZIP = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the number that torch.save wrote first until version 1.6
_PICKLES_BEFORE_ZIP = 4  # that number, a version, facts of the machine, the content
_MAX_BYTES = 1 << 26  # of a description that is read for its words; weights lie elsewhere in these files

TRAINING_STATE = "the training state of a run"
EXPORTED = "an exported network"

# {words that the content holds: what it is, and what to do}; the first that fits counts.
_CHECKPOINTS = (
    (
        {"facts", "parts", "stats_of_ranks"},
        f"{TRAINING_STATE}; to draw or measure give the network-snapshot-*.pkl beside it, to continue the run --resume=RUN_FOLDER",
    ),
    (
        {"g_ema", "latent_avg"},
        "weights of rosinality's stylegan2-pytorch, whose networks are not those of this family; use them with that code, "
        "or give a network pickle (.pkl) of stylegan2-ada-pytorch or one of its relatives",
    ),
    (
        {"g_ema", "g_optim"},
        "a checkpoint of rosinality's stylegan2-pytorch, whose networks are not those of this family; use it with that code, "
        "or give a network pickle (.pkl) of stylegan2-ada-pytorch or one of its relatives",
    ),
    (
        {"GAN", "version"},
        "a checkpoint of lucidrains' stylegan2-pytorch, whose networks are not those of this family; use it with that code, "
        "or give a network pickle (.pkl) of stylegan2-ada-pytorch or one of its relatives",
    ),
)


def problem_of(file: IO[bytes]) -> str | None:
    """What is wrong with an opened file as a network pickle, as the rest of a sentence that begins with its name; None if it may be one.

    The file is left at its beginning.
    """
    start = file.read(512)
    file.seek(0)
    text = start.lstrip().lower()
    if not start:
        return "is empty; it may be the rest of an interrupted download or save. Get it again"
    if start.startswith(b"PK\x03\x04"):
        return _zip_problem(file)
    if start.startswith(_TORCH_BEFORE_ZIP):
        return f"is not a network pickle but {_checkpoint(file, _PICKLES_BEFORE_ZIP)}"
    if text.startswith((b"<!doctype", b"<html")):
        return "is a web page and not a network pickle; download the file itself"
    if text.startswith(b"version https://git-lfs"):
        return "is a Git LFS pointer and not the file itself; run `git lfs pull`"
    if start[8:9] == b"{" and start[:8].endswith(b"\0\0"):
        return "holds safetensors and not a network pickle; networks that export.py has written keep the ending .safetensors, with their .json beside them"
    if start[:1] == b"\x08" and b"pytorch" in start[:64]:  # the version of the form, then who wrote it
        return f"holds ONNX ({EXPORTED}) and not a network pickle; give the network pickle that it was made from"
    if start[:1] not in b"\x80(}]c":  # protocols 2 to 5; what protocols 0 and 1 begin dictionaries and tuples with
        return "is not a pickle; give a network pickle (.pkl)"
    return None


def _zip_problem(file: IO[bytes]) -> str:
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            described = [name for name in names if name.endswith("/data.pkl")]
            if any(name.endswith("/constants.pkl") for name in names):
                what = f"TorchScript (a detector, or {EXPORTED}); give the network pickle that it was made from"
            elif described and archive.getinfo(described[0]).file_size <= _MAX_BYTES:
                what = _checkpoint(io.BytesIO(archive.read(described[0])), 1)
            elif names and all(name.endswith(".npy") for name in names):
                what = "arrays of NumPy; latents of projector.py are drawn with generate.py --projected-w"
            else:
                what = f"a data set of {len(names)} files, perhaps; give the network-snapshot-*.pkl of a run, and a data set with --data"
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
        what = "damaged or cut off besides; give the network-snapshot-*.pkl of a run"
    finally:
        file.seek(0)
    return f"is a zip archive and not a network pickle: {what}"


def _checkpoint(file: IO[bytes], num_pickles: int) -> str:
    """What a file of torch.save holds."""
    words = _words(file, num_pickles)
    file.seek(0)
    for known, what in _CHECKPOINTS:
        if known <= words:
            return what
    return "tensors that torch.save wrote, of a kind that is not known here; give the network-snapshot-*.pkl of a run"


def _words(file: IO[bytes], num_pickles: int) -> set[str]:
    """All texts in the pickles that the file begins with, found without running them."""
    words: set[str] = set()
    try:
        for _ in range(num_pickles):
            words.update(argument for _opcode, argument, _position in pickletools.genops(file) if isinstance(argument, str))
    except ValueError:  # damaged: what was found until there has to do
        pass
    return words
