"""Every knob of MADR: name, default, range, one line of meaning; the presets; the check of a resolved set.

The command line (options.py) is generated from this table, so a default or range is stated once. Must not know click,
torch or the host.
"""

import dataclasses

from madr_plugin.base.errors import MADRError
from madr_spaces import names


def knob(default, meaning, low=None, high=None, choices=None):
    """A dataclass field that carries its range and its help text."""
    return dataclasses.field(default=default, metadata=dict(meaning=meaning, low=low, high=high, choices=choices))


PRESET_NAMES = ("default", "witness", "paper", "enhanced")
VIEW_PARTS = ("flip", "shift", "crop")


@dataclasses.dataclass(frozen=True)
class MADRConfig:
    """A resolved set of options. Lives as a plain dict in training_options.json under loss_kwargs.madr."""

    preset: str = knob("default", "Named set of options; flags given beside it override it", choices=PRESET_NAMES)
    weight: float = knob(
        1.0,
        "Strength of the coverage term: its gradient relative to the adversarial one (see --madr-shrink), "
        "with --madr-balance=fixed the factor lambda_max",
        0,
        1000,
    )
    balance: str = knob(
        "present",
        "Scale of the terms: against the present norm of their gradient, its peak (the default where --madr-shrink "
        "has nothing to measure), or a fixed factor",
        choices=("peak", "present", "fixed"),
    )
    balance_at: str = knob(
        "parameters",
        "Where the sizes of gradients are compared: at the generator's parameters (followed there now and then), or on the image",
        choices=("parameters", "image"),
    )
    term: str = knob("witness", "Coverage term on each generated batch", choices=("witness", "paper", "enhanced", "none"))
    kernel: str = knob("mixture", "Kernel of the witness", choices=("mixture", "rational-quadratic"))
    shrink: float = knob(
        4.0,
        "Scale the witness and the replay by this power of the share of the witness's gradient that is more than sampling noise of the batch; 0: not",
        0,
        16,
    )
    attraction: str = knob(
        "uniform",
        "Reals that the witness pulls to: all alike, or those in deficient cells more (weights up to --madr-deficit-max)",
        choices=("uniform", "deficit"),
    )
    interval: int = knob(1, "Apply the coverage term every so many generator steps, with weight times interval", 1, 10000)
    batch: int = knob(0, "Images of each microbatch that take part in the coverage term; 0: all", 0, 65536)
    reals: int = knob(512, "Real images drawn afresh for each evaluation of the witness", 2, 1_000_000)

    replay_weight: float = knob(1.0, "Strength of the replayed nearest-neighbour pull (IMLE), as --madr-weight; 0: none", 0, 1000)
    replay_interval: int = knob(8, "Replay every so many generator steps", 1, 10000)
    replay_share: float = knob(0.5, "Replayed latents per generated image of the step", 0.01, 4)
    dead_zone: float = knob(
        3.0,
        "Reals that the replay already reaches are left alone: width of that zone as expected "
        "number of memory entries inside it at equilibrium; 0: none",
        0,
        100,
    )
    deficit_max: float = knob(5.0, "Upper bound of the weight of reals in deficient cells when reals are drawn for replay; 1: uniform", 1, 1000)
    deficit_window: int = knob(1024, "Generated images over which cell deficits are counted", 16, 10_000_000)
    tilt: int = knob(
        0, "Draw the reals of D and of the witness more often from cells that recent generated images leave out (1) or as they come (0)", 0, 1
    )
    tilt_form: str = knob(
        "draw",
        "How D's reals are tilted: some are exchanged (draw), or the gradient at their logits is weighted (weight)",
        choices=("draw", "weight"),
    )
    tilt_max: float = knob(5.0, "Upper bound of the tilt's weight of a real in a deficient cell", 1, 1000)
    tilt_guard: float = knob(0.4, "The tilt pauses while less than this share of recent generated images lies inside the gates of the cells", 0, 1)
    cells: int = knob(0, "Cells of the real features in which deficits are counted; 0: deficit window / 10", 0, 100_000)
    cell_quantile: float = knob(0.98, "Share of a cell's reals inside its gate radius", 0.5, 1)

    capacity: int = knob(2048, "Entries of the memory of generated samples", 2, 10_000_000)
    memory: str = knob("forgetting", "Which samples the memory keeps", choices=("reservoir", "fifo", "forgetting", "progressive", "importance"))
    half_life_kimg: float = knob(13.3, "Half-life of entries under --madr-memory=forgetting, in thousands of generated images", 0.001, 1e6)
    update_interval: int = knob(1, "Offer generated samples to the memory every so many generator steps", 1, 100_000)
    refresh: int = knob(0, "Memory entries whose features are renewed with the present generator, per microbatch and step", 0, 1_000_000)
    start_fill: float = knob(0.0, "The published terms stay off until this share of the memory is filled", 0, 1)
    start_step: int = knob(0, "The published terms stay off until so many generator steps are done", 0, 10_000_000)

    beta: float = knob(1.0, "Sharpness of the published weights softmax(-beta * coverage)", 0, 1e6)
    controller: str = knob("none", "What moves the strength during training", choices=("none", "sigmoid", "adaptive", "integral"))
    recall_target: float = knob(0.8, "Target recall tau of the published controller", 0, 1)
    recall_slope: float = knob(10.0, "Slope kappa of the published controller", 0, 1000)
    control_interval: int = knob(4, "Generator steps between two moves of the controller", 1, 100_000)
    control_kimg: float = knob(100.0, "Thousands of images in which --madr-controller=integral moves from full strength to none", 0.001, 1e6)
    estimator: str = knob("exact", "How the published coverage score is computed", choices=("exact", "incremental", "faiss", "ratio"))
    top_k: int = knob(0, "Nearest memory entries that count in the published coverage score of a real; 0: all", 0, 1_000_000)
    bandwidth: str = knob(
        "memory",
        "Published bandwidth: median distance in the memory, or led over from the reals' in the first 5000 steps (warm)",
        choices=("memory", "warm"),
    )
    bandwidth_interval: int = knob(1000, "Generator steps between two renewals of the published bandwidth", 1, 1_000_000)

    extractor: str = knob("pca", f"Feature space: {names.HELP}")
    weights: str = knob("", "File with the extractor's weights (comma-separated for an ensemble) instead of the model hub's")
    weights_sha256: str = knob("", "SHA-256 that this file, or the hub's, must have (comma-separated for an ensemble)")
    input_size: int = knob(0, "Side to which images are resized for networks that take photographs; 0: their own", 0, 4096)
    width: int = knob(0, "Width of the features of extractors that can choose; 0: their own (pca 64, random 384)", 0, 65536)
    view: str = knob("auto", "Random view of images before the extractor: auto, none, or any of flip, shift, crop joined by +")
    reference_cap: int = knob(50000, "Real images used as reference at most", 16, 100_000_000)
    anchors: int = knob(
        0, "Compress the reference to so many weighted k-means anchors (needs faiss), for sets too large to keep; 0: off", 0, 100_000_000
    )

    def __post_init__(self):
        for field in dataclasses.fields(self):
            _check_value(field, getattr(self, field.name))
        parse_view(self.view, "none")
        names.split(self.extractor)
        if self.term == "none" and self.replay_weight == 0:
            raise MADRError("--madr-term=none with --madr-replay-weight=0 leaves MADR without any term; use --madr=0")
        if self.controller in ("sigmoid", "adaptive") and self.term not in ("paper", "enhanced"):
            raise MADRError(
                f"--madr-controller={self.controller} follows the published recall; use it with --madr-term=paper or enhanced, "
                "or choose --madr-controller=integral"
            )
        if self.estimator == "ratio" and (self.term not in ("paper", "enhanced") or self.top_k):
            raise MADRError(
                f"--madr-estimator=ratio weighs all entries against the reals; use it with --madr-term=paper and without --madr-top-k "
                f"(got {self.term}, {self.top_k})"
            )
        if self.estimator == "faiss" and (self.term not in ("paper", "enhanced") or not self.top_k):
            raise MADRError(
                "--madr-estimator=faiss searches nearest entries; use it with --madr-term=enhanced, or with --madr-term=paper --madr-top-k=20, "
                "or choose exact or incremental"
            )
        if self.tilt and self.term != "witness":
            raise MADRError(f"--madr-tilt=1 tilts the reals of D and of the witness together; use it with --madr-term=witness (got {self.term})")
        if any(len(part) != 64 or set(part.lower()) - set("0123456789abcdef") for part in self.weights_sha256.split(",") if self.weights_sha256):
            raise MADRError(f"--madr-weights-sha256 must be 64 hexadecimal digits, as sha256sum prints them (got {self.weights_sha256!r})")
        if self.attraction == "deficit" and (self.term != "witness" or self.tilt):
            raise MADRError(
                "--madr-attraction=deficit weights the reals of --madr-term=witness, whom --madr-tilt=1 draws by deficit already; use it with "
                f"the witness and without the tilt (got --madr-term={self.term}, --madr-tilt={self.tilt})"
            )
        if self.tilt_form != "draw" and not self.tilt:
            raise MADRError(f"--madr-tilt-form={self.tilt_form} has no effect without --madr-tilt=1; add it, or leave the form out")
        if 0 < self.anchors < 16:
            raise MADRError(f"--madr-anchors must be at least 16 (got {self.anchors}); use --madr-anchors=0 to keep every real")
        if self.term in ("paper", "enhanced") and self.capacity < 4:
            raise MADRError(f"--madr-capacity must be at least 4 with --madr-term={self.term} (got {self.capacity})")

    def as_dict(self):
        """Plain values, for training_options.json."""
        return dataclasses.asdict(self)

    @property
    def measures_signal(self):
        """Whether the noise in the witness's gradient is measured (signal.py)."""
        return self.shrink > 0 and self.term == "witness" and self.weight > 0

    @property
    def num_cells(self):
        # About ten entries of the window per cell at equilibrium: fewer would drown the deficit in counting noise.
        return self.cells if self.cells > 0 else max(self.deficit_window // 10, 2)


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
PRESETS = {
    "default": {},
    "witness": dict(replay_weight=0.0),
    "paper": _PAPER,
    "enhanced": dict(_PAPER, term="enhanced", controller="adaptive", memory="progressive", extractor="ensemble:dino+clip+resnet50"),
}


def parse_view(text, default):
    """'flip+shift' -> ('flip', 'shift'); 'none' -> (); 'auto' -> the extractor's default."""
    text = default if text == "auto" else text
    parts = () if text == "none" else tuple(text.split("+"))
    unknown = [part for part in parts if part not in VIEW_PARTS]
    if unknown:
        raise MADRError(f"--madr-view knows auto, none, {', '.join(VIEW_PARTS)} (joined by +), not {unknown[0]!r}")
    return parts


def flag_of(name):
    """'half_life_kimg' -> '--madr-half-life-kimg'."""
    return "--madr-" + name.replace("_", "-")


def resolve(given):
    """Options that the user gave (name -> value; None: not given) on top of their preset. Returns MADRConfig."""
    known = {field.name for field in dataclasses.fields(MADRConfig)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise MADRError(
            f"unknown MADR option {', '.join(flag_of(name) for name in unknown)}; known: {', '.join(flag_of(name) for name in sorted(known))}"
        )
    given = {name: value for name, value in given.items() if value is not None}
    preset = given.get("preset", "default")
    if preset not in PRESETS:
        raise MADRError(f"--madr-preset must be one of {', '.join(PRESET_NAMES)} (got {preset!r})")
    values = {**PRESETS[preset], **given}
    if values.get("term") == "enhanced":
        values = {**_ENHANCED_TERM, **values}
    config = MADRConfig(**values)
    if "balance" not in values and not config.measures_signal:
        # Against its present norm a term keeps its strength at equilibrium, unless the measured share of noise takes it away.
        config = dataclasses.replace(config, balance="peak")
    return config


def _check_value(field, value):
    flag, rule = flag_of(field.name), field.metadata
    expected = {"int": int, "float": (int, float), "str": str}[getattr(field.type, "__name__", field.type)]
    if isinstance(value, bool) or not isinstance(value, expected):
        raise MADRError(f"{flag} must be a {getattr(field.type, '__name__', field.type)} (got {value!r})")
    if rule["choices"] is not None and value not in rule["choices"]:
        raise MADRError(f"{flag} must be one of {', '.join(rule['choices'])} (got {value!r})")
    if rule["low"] is not None and not rule["low"] <= value <= rule["high"]:
        raise MADRError(f"{flag} must lie between {rule['low']} and {rule['high']} (got {value})")
