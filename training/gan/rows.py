"""What a row of the table of methods consists of, and how its parameters are read from a command line.

Must not know any particular method, nor import torch: --help and --list-methods show the rows.
"""

import dataclasses
import difflib
from collections.abc import Callable
from typing import Any

from dnnlib.errors import UserError
from training.gan.schedule import Schedule

# What a method touches, as --list-methods shows it.
TOUCHES = {
    "T": "adversarial terms",
    "P": "penalty",
    "J": "what D sees",
    "Z": "latents",
    "A": "architecture",
    "X": "networks or memory of its own",
    "O": "optimizers and their schedule",
}


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One parameter: KEY=VALUE behind the name of a method. low and high are included; choices: of a text.

    default None: what `default_text` says, decided by the row's `change`.
    """

    name: str
    kind: type
    default: Any
    meaning: str
    low: float | None = None
    high: float | None = None
    choices: tuple[str, ...] | None = None
    default_text: str = ""

    @property
    def range(self):
        """What it may be, in words."""
        if self.choices is not None:
            return "one of " + ", ".join(self.choices)
        what = {int: "a whole number", float: "a number", str: "text"}[self.kind]
        if self.low is None and self.high is None:
            return what
        return f"{what} of at least {self.low:g}" if self.high is None else f"{what} from {self.low:g} to {self.high:g}"

    def parsed(self, text, where):
        """The value that a text stands for. where: how it was typed, for the refusal."""
        try:
            value = self.kind(text)
        except ValueError:
            value = None
        fits = value is not None and (self.choices is None or value in self.choices)
        if fits and self.kind is not str:
            fits = (self.low is None or value >= self.low) and (self.high is None or value <= self.high)  # nan fits nowhere
            fits = fits and (self.low is not None or self.high is not None or value == value) and abs(value) != float("inf")
        if not fits:
            raise UserError(f"{where}: {self.name} must be {self.range} (got {text!r}); without it, it is {self.shown_default}")
        return value

    @property
    def shown_default(self):
        return self.default_text if self.default is None else f"{self.default:g}" if self.kind is not str else self.default


def weight(name, default, meaning):
    """Make the row of a factor of a term, 0 or more."""
    return Parameter(name, float, default, meaning, low=0)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of --method: what composes with any adversarial loss.

    touches: letters of TOUCHES. part: dotted class of a part.Part, made with the parameters as keywords; None where options say it all.
    change(choice, values) -> sentences: writes into choice.options (choosing.Choice) what the method needs; may fill in values.
    excludes: {name of another method or recipe: remedy}. flags_excluded: {flag: remedy}, for flags of train.py that contradict it.
    only_terms: adversarial terms that it works with; empty: all. kind: of two methods of one kind a run has at most one.
    stands_for: names of methods that it is made of, whose parameters are its own. lazy: whether it may come on every 16th step only.
    """

    name: str
    touches: str
    meaning: str
    source: str
    cost: str
    parameters: tuple[Parameter, ...] = ()
    part: str | None = None
    change: Callable | None = None
    excludes: dict[str, str] = dataclasses.field(default_factory=dict)
    flags_excluded: dict[str, str] = dataclasses.field(default_factory=dict)
    only_terms: tuple[str, ...] = ()
    kind: str = ""
    stands_for: tuple[str, ...] = ()
    lazy: bool = False

    flag = "--method"


@dataclasses.dataclass(frozen=True)
class Recipe:
    """A row of --gan: an adversarial loss, the penalties that belong to it, and its optimizers.

    terms: a key of adversarial.TERMS. methods: [(name of a method, {parameter: value})], which --method may override or join.
    single_images: whether its penalty is of single images, so that D may have no batch normalisation.
    """

    name: str
    terms: str
    meaning: str
    source: str
    cost: str
    methods: tuple[tuple[str, dict[str, Any]], ...] = ()
    schedule: Schedule = Schedule()
    single_images: bool = False
    excludes: dict[str, str] = dataclasses.field(default_factory=dict)
    touches: str = "T"
    parameters: tuple[Parameter, ...] = ()

    flag = "--gan"


@dataclasses.dataclass(frozen=True)
class Backbone:
    """A row of --backbone: the pair of networks. build(choice, values) -> sentences: writes G_kwargs and D_kwargs into choice.options;
    None for the networks that --cfg describes. has_styles: whether style mixing and path lengths mean something. D_batch_norm(values) ->
    whether D normalises over its batch. recipe: that of runs without --gan. schedule: its source's optimizers, before the recipe's own."""

    name: str
    meaning: str
    source: str
    cost: str
    build: Callable | None = None
    has_styles: bool = True
    D_batch_norm: Callable | None = None
    recipe: str | None = None
    schedule: Schedule = Schedule()
    parameters: tuple[Parameter, ...] = ()
    touches: str = "A"

    flag = "--backbone"


def nearest(name, known):
    """', perhaps X is meant' for a name that is nearly one of `known`, else ''."""
    found = difflib.get_close_matches(name.lower(), list(known), n=1)
    return f", perhaps {found[0]} is meant" if found else ""


def spelt_name(text):
    """The name of the row in 'NAME:KEY=VALUE,...', as the tables spell it."""
    return text.partition(":")[0].strip().lower().replace("_", "-")


def parse(text, rows, flag):
    """'name:key=value,...' -> (row of `rows`, {parameter: value} of those that are typed). Raises UserError."""
    name, colon, rest = text.partition(":")
    spelt = spelt_name(text)
    row = rows.get(spelt)
    if row is None:
        raise UserError(f"{flag}={text}: there is no {name!r}{nearest(spelt, rows)}; there are {', '.join(rows)} (--list-methods tells of each)")
    known = {parameter.name: parameter for parameter in row.parameters}
    values = {}
    for pair in rest.split(",") if colon else []:
        key, equals, value = pair.partition("=")
        key = key.strip().replace("-", "_")
        takes = f"it takes {', '.join(known)}" if known else "it takes none"
        if not equals:
            raise UserError(f"{flag}={text}: {pair!r} is no KEY=VALUE; {takes}")
        if key not in known:
            raise UserError(f"{flag}={text}: {row.name} has no parameter {key!r}{nearest(key, known)}; {takes}")
        if key in values:
            raise UserError(f"{flag}={text}: {key} is given twice; leave one out")
        values[key] = known[key].parsed(value.strip(), f"{flag}={text}")
    return row, values


def as_text(name, values, exact=True):
    """The text that parse() reads as exactly this, or nearly so, for a name."""
    return name + (":" if values else "") + ",".join(f"{key}={_number(value, exact)}" for key, value in values.items())


def _number(value, exact):
    """A value as text; the short text of a number where it says all of it: '1', as runs have kept it, rather than '1.0'."""
    if not isinstance(value, float):
        return str(value)
    short = f"{value:g}"
    return repr(value) if exact and float(short) != value else short
