"""What can be wrong with a picture or a set of pictures: every kind with its title, what --fix makes of it, what else helps.

Must not know how faults are found.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class FaultKind:
    """title: for the list. mend: what --fix does about it ('' = it cannot). remedy: what the person can do otherwise.

    A fault that is only `noted` does not keep the set from being written. file_by_file: every file wants looking at, so all are named.
    """

    title: str
    mend: str = ""
    remedy: str = ""
    noted: bool = False
    file_by_file: bool = False


FAULT_KINDS: dict[str, FaultKind] = {
    "empty": FaultKind("empty file", mend="dropped", file_by_file=True),
    "truncated": FaultKind("truncated file", mend="dropped", file_by_file=True),
    "unreadable": FaultKind("unreadable image", mend="dropped", file_by_file=True),
    "not-finite": FaultKind("pixels that are no finite numbers", mend="dropped", file_by_file=True),
    "frames": FaultKind("several pictures in one file", mend="the first one taken"),
    "alpha": FaultKind("has transparency", mend="laid over white"),
    "16-bit": FaultKind("more than 8 bits per channel", mend="scaled to 8 bits, by one range for the whole set"),
    "float": FaultKind("floating-point pixels", mend="scaled to 8 bits, by one range for the whole set"),
    "cmyk": FaultKind("CMYK colours", mend="converted to RGB"),
    "palette": FaultKind("palette colours", mend="converted to RGB"),
    "mode": FaultKind("unusual colour mode", mend="converted"),
    "exif": FaultKind("rotated by its EXIF tag", mend="rotated"),
    "grey": FaultKind("grey in a colour set", mend="converted to RGB"),
    "colour": FaultKind("colour in a grey set", mend="converted to grey"),
    "non-square": FaultKind("not square", remedy="choose a --transform (center-crop, pad, stretch, ...) with --width and --height"),
    "size": FaultKind("size differs from the others", remedy="give --width and --height (and perhaps a --transform)"),
    "sizes": FaultKind("sizes are mixed", remedy="give --transform=center-crop --width={side} --height={side} (or another --transform and size)"),
    "resolution": FaultKind("not a power of two", remedy="give --width and --height"),
    "unlabelled": FaultKind("has no label, while others do", remedy="add the labels, remove these images, or say --labels=none", file_by_file=True),
    "duplicate": FaultKind("same picture as another", mend="dropped", noted=True),
    "too-small": FaultKind("too small or too flat for the crop", noted=True),
    "hidden": FaultKind("hidden file, skipped", noted=True),
    "not-an-image": FaultKind("not an image by its name, skipped", noted=True),
    "label-without-image": FaultKind("labelled, but there is no such image", noted=True),
}


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with one file."""

    name: str
    kind: str
    detail: str = ""

    def is_serious(self, fix: bool) -> bool:
        """Whether it keeps the set from being written."""
        kind = FAULT_KINDS[self.kind]
        return not kind.noted and not (fix and kind.mend)

    def text(self) -> str:
        return f"{self.name}: {described(self.kind, self.detail)}"


def described(kind: str, detail: str = "") -> str:
    """'has transparency (mode RGBA)'"""
    return FAULT_KINDS[kind].title + (f" ({detail})" if detail else "")
