"""Joins the knobs of all parts into one set, names the presets, and resolves what a user gave.

Each part declares its knobs in a file knobs.py of its own folder, with default, range and meaning; KNOBS is the table of
all, from which the command line (options.py) and docs/madr_knobs.md are made. Must not know click, torch or the host.
"""

import dataclasses
from typing import ClassVar

from madr_plugin.base.knobs import Knobs, flag_of, knob, nearest_name, rows_of
from madr_plugin.maths.knobs import PublishedKnobs, TermKnobs
from madr_plugin.memory.knobs import DeficitKnobs, MemoryKnobs, ReplayKnobs
from madr_plugin.reals.knobs import ReferenceKnobs
from madr_plugin.strength.knobs import StrengthKnobs
from madr_plugin.tilt.knobs import TiltKnobs
from madr_spaces import names
from madr_spaces.errors import MADRError

PRESET_NAMES = ("default", "moments", "witness", "replay", "paper", "enhanced")
VIEW_PARTS = ("flip", "shift", "crop")
# Knobs that every version has recorded with a run, and that nobody types all at once: options with all of them are a record.
RECORDED = frozenset(
    ("preset", "term", "capacity", "memory", "extractor", "view", "reals", "kernel", "shrink", "beta", "deficit_window", "dead_zone")
)
# What stands beside the knobs in loss_kwargs.madr.
NOT_CONFIG = ("random_seed", "training_set_kwargs", "resume_pkl")


@dataclasses.dataclass(frozen=True)
class SpaceKnobs(Knobs):
    """Choose the features in which everything is compared."""

    GROUP: ClassVar[str] = "space"

    extractor: str = knob("pca", f"Set the feature space: {names.HELP}", first=True)
    weights: str = knob("", "Take the extractor's weights from this file (comma-separated for an ensemble) instead of the model hub", first=True)
    weights_sha256: str = knob("", "Refuse weights that do not have this SHA-256 (comma-separated for an ensemble)")
    input_size: int = knob(0, "Resize images to this side for networks that take photographs; 0: their own", 0, 4096)
    width: int = knob(0, "Set the width of the features of extractors that can choose; 0: their own (pca 64, random 384)", 0, 65536, first=True)
    view: str = knob("auto", "Show the extractor a random view of each image: auto, none, or any of flip, shift, crop joined by +")

    def refuse(self):
        parse_view(self.view, "none")
        names.split(self.extractor)
        if any(len(part) != 64 or set(part.lower()) - set("0123456789abcdef") for part in self.weights_sha256.split(",") if self.weights_sha256):
            raise MADRError(f"--madr-weights-sha256 must be 64 hexadecimal digits, as sha256sum prints them (got {self.weights_sha256!r})")


@dataclasses.dataclass(frozen=True)
class MADRConfig(
    ReferenceKnobs, SpaceKnobs, PublishedKnobs, TiltKnobs, DeficitKnobs, MemoryKnobs, ReplayKnobs, StrengthKnobs, TermKnobs
):  # a dataclass lists the fields of its last base first
    """Holds a resolved set of options, kept as a plain dict in training_options.json under loss_kwargs.madr.

    Every part's knobs are its own attributes. Parts refuse their own nonsense; here stands what no part can know alone.
    """

    GROUP: ClassVar[str] = "preset"

    preset: str = knob("default", "Choose a named set of options; flags given beside it override it", choices=PRESET_NAMES, first=True)

    def refuse(self):
        published = self.term in ("paper", "enhanced")
        if self.term == "none" and self.replay_weight == 0:
            raise MADRError("--madr-term=none with --madr-replay-weight=0 leaves MADR without any term; use --madr=0")
        if self.controller in ("sigmoid", "adaptive") and not published:
            raise MADRError(
                f"--madr-controller={self.controller} follows the published recall; use it with --madr-term=paper or enhanced, "
                "or choose --madr-controller=integral"
            )
        if self.estimator in ("ratio", "faiss") and not published:
            raise MADRError(
                f"--madr-estimator={self.estimator} computes the published coverage score; use it with --madr-term=paper or enhanced "
                f"(got {self.term}), or leave the estimator out"
            )
        if self.tilt and "witness" not in self.parts:
            raise MADRError(f"--madr-tilt=1 tilts the reals of D and of the witness together; use it with --madr-term=witness (got {self.term})")
        if self.tilt_sensor == "debts" and self.debt != "potentials":
            raise MADRError(
                f"--madr-tilt-sensor=debts tilts the reals by remembered debts; use it with --madr-debt=potentials (got --madr-debt={self.debt})"
            )
        if self.debt != "none" and self.anchors:
            raise MADRError(
                f"--madr-debt={self.debt} pulls to reals of a cell, and --madr-anchors puts centroids in their place; use it with --madr-anchors=0 "
                f"(got {self.anchors})"
            )
        if self.attraction == "deficit" and ("witness" not in self.parts or self.tilt):
            raise MADRError(
                "--madr-attraction=deficit weights the reals that the witness draws, and --madr-tilt=1 draws them by deficit already; use it with "
                f"the witness and without the tilt (got --madr-term={self.term}, --madr-tilt={self.tilt})"
            )
        if self.replay_from == "champions" and self.anchors:
            raise MADRError(
                "--madr-replay-from=champions keeps a latent for every real, and --madr-anchors puts centroids in their place; use it with "
                f"--madr-anchors=0 (got {self.anchors}), and where the reals are too many for it with --madr-replay-from=memory"
            )
        if published and self.capacity < 4:
            raise MADRError(f"--madr-capacity must be at least 4 with --madr-term={self.term} (got {self.capacity})")

    def as_dict(self):
        """Return plain values, for training_options.json."""
        return dataclasses.asdict(self)

    @property
    def measures_signal(self):
        """Tell whether the noise in the terms' gradients is measured (signal_share.py)."""
        return bool(self.measured_parts)

    @property
    def measured_parts(self):
        """Name the parts whose share of signal is measured, with its exponent."""
        exponents = dict(witness=self.shrink, moments=self.moments_shrink)
        return {part: exponents[part] for part in self.parts if exponents[part] > 0} if self.weight > 0 else {}


KNOBS = tuple(sorted(rows_of(MADRConfig), key=lambda row: row.name != "preset"))  # the preset, then by part

_PAPER = dict(
    term="paper",
    weight=1.0,
    balance="fixed",
    controller="sigmoid",
    replay_weight=0.0,
    memory="reservoir",
    update_interval=100,
    start_fill=0.25,
    extractor="dino",
)
# What the term `enhanced` is beside E1; each also to be had alone. Its controller, memory and extractor belong to the preset.
_ENHANCED_TERM = dict(top_k=20, bandwidth="warm", start_step=500)
# Two parts with a rest each, and moments that say much more than a batch: stronger, and with less caution, than the witness alone. Remembered
# moments know more components than a batch has images.
_MOMENTS = dict(term="witness+moments", weight=2.0, shrink=1.0, replay_weight=0.0, width=192)
PRESETS = {
    "default": dict(_MOMENTS, tilt=1, tilt_sensor="fine"),
    "moments": _MOMENTS,
    "witness": dict(replay_weight=0.0),
    "replay": {},
    "paper": _PAPER,
    "enhanced": dict(_PAPER, term="enhanced", controller="adaptive", memory="progressive", extractor="ensemble:dino+clip+resnet50"),
}


def refuse_device(kind):
    """Refuse a device, by the name of its kind, that cannot count in float64."""
    if kind == "mps":
        raise MADRError("MADR counts in float64, which Apple GPUs do not have; use --device=cpu with --madr=1, or --madr=0")


def value_of(preset, row):
    """The value of a knob (a row of KNOBS) under a preset."""
    return PRESETS[preset].get(row.name, row.default)


def parse_view(text, default):
    """'flip+shift' -> ('flip', 'shift'); 'none' -> (); 'auto' -> the extractor's default."""
    text = default if text == "auto" else text
    parts = () if text == "none" else tuple(text.split("+"))
    unknown = [part for part in parts if part not in VIEW_PARTS]
    if unknown:
        raise MADRError(f"--madr-view knows auto, none, {', '.join(VIEW_PARTS)} (joined by +), not {unknown[0]!r}")
    return parts


def _tilt_has_no_place(values):
    """Tell whether what was asked for rules the tilt out, so that it does not come with the default either."""
    return "witness" not in values["term"].split("+") or values.get("attraction", "uniform") != "uniform"


def resolve(given):
    """Put the options that the user gave (name -> value; None: not given) on top of their preset. Returns MADRConfig.

    A record of a run is taken as it is: a knob that its version did not know was off, whatever the preset of that name sets today.
    """
    known = {row.name for row in KNOBS}
    unknown = sorted(set(given) - known)
    if unknown:
        meant = nearest_name(unknown[0], known)
        raise MADRError(
            f"unknown MADR option {', '.join(flag_of(name) for name in unknown)}{f', perhaps {flag_of(meant)} is meant' if meant else ''}; "
            f"known: {', '.join(flag_of(name) for name in sorted(known))}"
        )
    given = {name: value for name, value in given.items() if value is not None}
    preset = given.get("preset", "default")
    if preset not in PRESETS:
        raise MADRError(f"--madr-preset must be one of {', '.join(PRESET_NAMES)} (got {preset!r})")
    if given.keys() >= RECORDED:
        return MADRConfig(**given)
    values = {**PRESETS[preset], **given}
    if values.get("extractor", "pca") != "pca" and "width" not in given:
        values.pop("width", None)  # a preset's width is one of pca
    if preset == "default" and "tilt" not in given and _tilt_has_no_place(values):
        values.pop("tilt")
    if preset == "default" and "tilt_sensor" not in given and values.get("anchors"):
        values.pop("tilt_sensor")  # fine cells need every real
    if values.get("term") == "enhanced":
        values = {**_ENHANCED_TERM, **values}
    config = MADRConfig(**values)
    if "balance" not in values and not config.measures_signal:
        # Against its present norm a term keeps its strength at equilibrium, unless the measured share of noise takes it away.
        config = dataclasses.replace(config, balance="peak")
    return config
