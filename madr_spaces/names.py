"""The names of feature spaces: which there are, what each stands for, and which of them look at the same features.

Imports no torch, so that a command line can list and check names at once. Must not know how a space is made.
"""

import difflib
import os

from madr_spaces.errors import MADRError

NO_FILE = ("pca", "random", "random-conv", "pixels")
# Networks of photographs: name -> (timm's model, side of its input where it is not the model's own).
MODELS = {
    "dino": ("vit_small_patch8_224.dino", 0),
    "dino-s16": ("vit_small_patch16_224.dino", 0),
    "dino-b8": ("vit_base_patch8_224.dino", 0),
    "dino-b16": ("vit_base_patch16_224.dino", 0),
    "dinov2": ("vit_small_patch14_dinov2.lvd142m", 224),
    "clip": ("vit_base_patch32_clip_224.openai", 0),
    "resnet50": ("resnet50.tv_in1k", 0),
    "inception": ("inception_v3.tv_in1k", 0),
}
INCEPTION_FID = "inception-fid"  # the published detector of FID, a TorchScript file
PLAIN = (*NO_FILE, *MODELS, INCEPTION_FID, "own")
HELP = f"{', '.join(PLAIN)}, timm:<model>, file:<path>, or ensemble:<a>+<b>+..."
# What older versions of calc_metrics.py and report.py called a space, and what every tool calls that network today. In
# training these words had today's meaning all along.
OLD_NAMES = {"inception": INCEPTION_FID, "inception-2015-12-05": INCEPTION_FID}
HELD_OUT = ("random-conv", "pixels", "random")  # need no file; the first that does not resemble another wins


def split(name):
    """'pca' -> ('pca', ''); 'file:x.pt' -> ('file', 'x.pt'); refuses names that nothing answers to."""
    kind, colon, argument = name.partition(":")
    known = kind in PLAIN and not colon or kind in ("timm", "file", "ensemble") and argument
    if not known:
        renamed = f"; what older versions called {name} is {OLD_NAMES[name]} today" if name in OLD_NAMES else ""
        raise MADRError(f"--madr-extractor must be one of {HELP} (got {name!r}){renamed or meant(name, PLAIN)}")
    if kind == "ensemble":
        for part in argument.split("+"):
            if split(part)[0] in ("ensemble", "file"):
                raise MADRError(f"--madr-extractor={name}: an ensemble joins named extractors, not {part}")
    return kind, argument


def has_published_weights(name):
    """Whether a space, or a part of an ensemble, takes its weights from a hub where no file is given."""
    parts = name.removeprefix("ensemble:").split("+")
    return any(part in MODELS or part.startswith("timm:") or part == INCEPTION_FID for part in parts)


def meant(name, known):
    """The end of a sentence on an unknown name: which known one was probably meant, if one looks alike."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; perhaps {found[0]} is meant" if found else ""


def of_old_metrics(name):
    """A name as the metrics' tools took it under their former options; one that meant another network there is refused with today's."""
    if name in OLD_NAMES:
        todays = f"; --metric-space={name} is the network that training calls so, timm's {MODELS[name][0]}" if name in MODELS else ""
        raise MADRError(
            f"--madr-extractor={name} meant the published detector of FID in older versions of this tool, which is called {OLD_NAMES[name]} "
            f"now: use --metric-space={OLD_NAMES[name]}{todays}"
        )
    return name


def parts(name):
    """The names that an ensemble joins; of any other space its own."""
    kind, argument = split(name)
    return argument.split("+") if kind == "ensemble" else [name]


def takes_weights(name):
    """Whether a file of weights belongs to the space, or to a part of it."""
    return any(split(part)[0] not in (*NO_FILE, "file") for part in parts(name))


def model_of(name):
    """timm's name of the network, with its own or timm:<model>'s; '' where the space is none of timm's."""
    return MODELS[name][0] if name in MODELS else name.removeprefix("timm:") if name.startswith("timm:") else ""


def led_by(space, trained_in):
    """Whether a network whose training followed the features of `trained_in` (None: of none) is flattered by numbers in `space`."""
    if trained_in is None:
        return False
    return bool(_alike(space) & _alike(trained_in))


def _alike(name):
    """What two spaces must share to count as one: by the file's or the model's name; pca is a linear map of the pixels, and a part of own."""
    if name.startswith("file:"):  # the folder may be another
        return {"file:" + os.path.basename(name)}
    found = name.removeprefix("ensemble:").split("+")
    own = {"pixels"} if "own" in found else set()
    return {"pixels" if part == "pca" else model_of(part) or part for part in found} | own


def held_out(space, trained_in=None):
    """The space beside a metric's own: none that led the training, and another than that one. None: nothing is left."""
    return next((name for name in HELD_OUT if not led_by(name, trained_in) and not _alike(name) & _alike(space)), None)
