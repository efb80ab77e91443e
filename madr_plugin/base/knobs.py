"""Gives a knob its range, its help text and its group, and checks a set of them.

The parts of the plugin declare their knobs as dataclasses in a file knobs.py of their own folder; config.py joins them.
Must not know click, torch or any particular knob.
"""

import dataclasses
import difflib
from typing import Any, ClassVar

from madr_spaces.errors import MADRError

KINDS: dict[str, type] = {"int": int, "float": float, "str": str}


def knob(default, meaning, low=None, high=None, choices=None, first=False):
    """Make a dataclass field with its range and help text. first: has a place in the short --help."""
    return dataclasses.field(default=default, metadata=dict(meaning=meaning, low=low, high=high, choices=choices, first=first))


def flag_of(name):
    """Spell the flag: 'half_life_kimg' -> '--madr-half-life-kimg'."""
    return "--madr-" + name.replace("_", "-")


@dataclasses.dataclass(frozen=True)
class Row:
    """Describes one knob to the command line, the checks and the documents."""

    name: str
    kind: type
    default: Any
    meaning: str
    group: str
    low: float | None
    high: float | None
    choices: tuple[str, ...] | None
    first: bool

    @property
    def flag(self):
        return flag_of(self.name)

    @property
    def range(self):
        """Say what it may be."""
        if self.choices is not None:
            return ", ".join(self.choices)
        return "text" if self.low is None else f"{self.low} to {self.high}"

    def complaint(self, value):
        """Say what is wrong with a value, as the rest of a sentence; None if nothing is."""
        expected = (int, float) if self.kind is float else self.kind
        if isinstance(value, bool) or not isinstance(value, expected):
            return f"must be a {self.kind.__name__} (got {value!r})"
        if self.choices is not None and value not in self.choices:
            return f"must be one of {', '.join(self.choices)} (got {value!r})"
        if self.low is not None and not self.low <= value <= self.high:
            return f"must lie between {self.low} and {self.high} (got {value})"
        return None

    def parsed(self, text):
        """Read the value that a text stands for. Raises MADRError."""
        try:
            value = self.kind(text)
        except ValueError:
            value = text
        complaint = self.complaint(value)
        if complaint is not None:
            raise MADRError(f"{self.name} {complaint}; give such a value, or leave it at {self.default!r}")
        return value


@dataclasses.dataclass(frozen=True)
class Knobs:
    """Checks a group of knobs when it is made: each value by its row, then whatever its classes refuse."""

    GROUP: ClassVar[str] = ""

    def __post_init__(self):
        for row in rows_of(type(self)):
            complaint = row.complaint(getattr(self, row.name))
            if complaint is not None:
                raise MADRError(f"{row.flag} {complaint}")
        for part in reversed(type(self).__mro__):
            if "refuse" in vars(part):
                part.refuse(self)


def rows_of(part):
    """List the rows of all knobs of a class, those that it inherits under the group of the class that declares them."""
    declared = {name: owner.GROUP for owner in reversed(part.__mro__) if issubclass(owner, Knobs) for name in owner.__annotations__}
    return tuple(
        Row(
            field.name,
            KINDS[getattr(field.type, "__name__", field.type)],
            field.default,
            field.metadata["meaning"],
            declared[field.name],
            *(field.metadata[what] for what in ("low", "high", "choices", "first")),
        )
        for field in dataclasses.fields(part)
    )


def nearest_name(name, known):
    """Find the known name that this one was probably meant to be, or None."""
    found = difflib.get_close_matches(name.replace("-", "_"), list(known), n=1)
    return found[0] if found else None
