"""A metric is a row: its name, its function, how many images it takes, through which network it looks, which way is better.

Each file of a metric ends with its rows, `METRICS`; metric_main.py puts them into the registry, and help, requirements and docs
are made from them. Must not know any metric.
"""

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from metrics import counts


class Group(enum.Enum):
    """Headings of the lists of metrics."""

    RECOMMENDED = "Recommended"
    OLDER = "Older forms: at most 50,000 reals, mirrored as in the training"
    QUICK = "Quick looks: 10,000 generated images, not comparable with 50,000"
    DIGITS = "Stacked digits"
    DIVERSITY = "Diversity in the feature space of --metric-space"
    HELD_OUT = "Against held-out reals, given with --held-out"
    OWN = "Registered by others"


class Reals(enum.Enum):
    """Which real images a metric compares with: what it changes in the options of the data set."""

    ALL = dict(max_size=None, xflip=False)  # without the mirrored copies that training may have added
    MIRRORED_AS_TRAINED = dict(max_size=None)
    AS_TRAINED = dict()


NAME_PER_CLASS = "_per_class"  # ending of a metric's name where it was computed class by class


class Takes(enum.IntEnum):
    """The least that a metric must be given of a side: each holds less than the one before it."""

    NETWORK = 0  # its latents, or the snapshots of its run
    IMAGES = 1
    FEATURES = 2
    STATISTICS = 3  # a mean and a covariance


class Fewest(NamedTuple):
    """How many items each side must have at least, and the sentence that says so, of a {side}."""

    count: int = 1
    why: str = ""


# Names that a foreign metric has in common with ours say through which network it looks, and that less is better.
_FAMILIES = {"fid": "inception", "kid": "inception", "is": "inception", "pr": "vgg16", "ppl": "vgg16"}
_LOWER_IS_BETTER = ("fid", "fd_", "kid", "ppl")


@dataclass(frozen=True, eq=False)  # hashed by identity, as functions are
class Metric:
    """One metric. It is also the registered function: row(opts) -> {result name: number}."""

    name: str
    function: Callable  # (opts, name, **counts) -> {result name: number}
    meaning: str
    group: Group
    counts: Mapping = field(default_factory=dict)  # num_gen, max_real, ...: keyword arguments of the function
    detector: str | None = None  # 'inception', 'vgg16', 'dino', 'space' (that of --metric-space), 'digits'
    higher_is_better: bool = True
    reals: Reals = Reals.ALL
    compares_with_reals: bool = True  # else the data set lends no more than its labels
    from_features: bool = False  # needs no more than the features of both sides, in whatever space
    takes: Takes = Takes.NETWORK
    fewest: Fewest = Fewest()
    per_class: bool = True  # means something of the images of one class alone
    counts_modes: bool = False  # heeds --modes
    heeds_ties: bool = False  # asks --madr-ties whether a rim belongs to its neighbourhood
    needs_held_out: bool = False  # compares with real images that nobody trained on
    prepare: Callable | None = None  # of the --detector paths: finds what the metric needs, long before it is due

    def __call__(self, opts):
        opts.dataset_kwargs.update(self.reals.value)
        counts.begin(opts, self)
        return self.function(opts, self.name, **self.counts)

    @property
    def __name__(self):
        return self.name

    def heeds(self, flag):
        """Whether an option of calc_metrics.py can change the number. Of a foreign metric nobody knows: it may."""
        if self.group is Group.OWN:
            return True
        return {
            "--mirror": self.reals is not Reals.ALL,
            "--metric-space": self.detector == "space",
            "--madr-ties": self.heeds_ties,
            "--num-real": self.compares_with_reals and self.detector != "digits",
        }[flag]

    @property
    def num_gen(self):
        """Generated images, or None where that is not a matter of counts."""
        return self.counts.get("num_gen", self.counts.get("num_samples"))


def of_function(function) -> Metric:
    """The row of a function of MetricOptions that a fork or a plugin has registered; it may state attributes of a row itself."""
    name = function.__name__
    stated = getattr(function, "higher_is_better", None)
    return Metric(
        name,
        lambda opts, _name: function(opts),
        (function.__doc__ or "").strip().partition("\n")[0],
        Group.OWN,
        detector=family_detector(name),
        higher_is_better=less_is_better(name) is False if stated is None else stated,
        reals=Reals.AS_TRAINED,
        per_class=False,
        counts_modes=getattr(function, "counts_modes", False),
        prepare=getattr(function, "prepare", None),
    )


def family_detector(name):
    """'inception' or 'vgg16' by the beginning of a metric's name, or None."""
    family = re.match(rf"({'|'.join(_FAMILIES)})(?=[0-9_])", name)
    return _FAMILIES[family.group(1)] if family else None


def less_is_better(name) -> bool:
    """What the beginning of a metric's name says."""
    return name.startswith(_LOWER_IS_BETTER)
