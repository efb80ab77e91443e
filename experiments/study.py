"""What a study is: rows of beds, methods and seeds, the commands that they stand for, and what is asked of the results.

Data alone; a study is a file with a STUDY in experiments/studies/ or anywhere else. What runs them is in one_run.py and engines.py,
what tells of them in study_page.py. Must not import torch: a mistyped name is answered at once.
"""

import importlib
import re
import types
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dnnlib.errors import UserError

STUDIES = Path(__file__).resolve().parent / "studies"
_NAME = re.compile(r"[A-Za-z0-9][\w.+-]*")  # of beds and methods: parts of paths, and of --only
TRAIN = "train"  # the part of a bed's data that the runs learn from
TIMES = {"cpu_seconds": "CPU time", "seconds": "time"}
MARKS = ("at least", "at most", "better", "not worse")


@dataclass(frozen=True)
class Judge:
    """One calc_metrics.py command per network. prefix: put before the names of its results, where two judges share names."""

    flags: tuple[str, ...]
    prefix: str = ""


@dataclass(frozen=True)
class Measure:
    """A result that the tables show, by its name there."""

    name: str
    heading: str
    digits: int
    higher_is_better: bool

    @property
    def row(self):
        """As experiments/tables.py takes it."""
        return self.name, self.heading, self.digits, self.higher_is_better


@dataclass(frozen=True)
class Bed:
    """One data set with its judges. build: {part: flags of dataset_tool.py}, of which `train` is what runs learn from; in flags of
    judges and of the build, {NAME} stands for a file that the person gives, or for a part. kimg: None for the study's.

    script: a module of this repository that trains and judges a run by itself, such as experiments.points, for what train.py cannot train. It takes
    the flags, --outdir, --kimg and --seed, and writes OUTDIR/result.json: the measures, kimg, seconds, cpu_seconds and, with a curve, its
    points. Such a bed needs no data and no judges; a run that was stopped begins anew, or where the script's own state in OUTDIR says. without: methods that it cannot have.
    """

    name: str
    build: Mapping[str, tuple[str, ...]]
    judges: tuple[Judge, ...]
    measures: tuple[Measure, ...]
    primary: str  # the measure that decides
    flags: tuple[str, ...] = ()  # of train.py, or of the script
    kimg: int | None = None
    script: str = ""
    without: tuple[str, ...] = ()

    def measure(self, name):
        return next(measure for measure in self.measures if measure.name == name)


@dataclass(frozen=True)
class Mark:
    """What a method has to reach, fixed before the runs. kind: 'at least' or 'at most' a bound, for the mean over seeds; 'better' or
    'not worse' than another method, by the 95% interval of the differences paired by seed."""

    bed: str
    method: str
    measure: str
    kind: str
    bound: float | None = None
    other: str | None = None


@dataclass(frozen=True)
class Study:
    """version: raise it when rows change so that older runs must not be mixed with new ones.

    methods: {name: flags of train.py}. ours: the one whose differences to the others are shown. more_seeds: {method: its seeds, where
    they are others}. lengths: {method: kimg of its runs, where they are others}, so that methods can be given equal time. curve: judge
    every snapshot instead of the last, so that methods can be compared at equal time, too. time: what "equal time" means, cpu_seconds or
    seconds (by the loop's clock, for GPUs). files: {name: what it is} that the person gives by --file. published: lines of Markdown with
    figures of others, and where they are from.
    """

    name: str
    version: int
    question: str
    beds: tuple[Bed, ...]
    methods: Mapping[str, tuple[str, ...]]
    ours: str
    seeds: tuple[int, ...]
    kimg: int
    flags: tuple[str, ...] = ()
    more_seeds: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lengths: Mapping[str, int] = field(default_factory=dict)
    curve: bool = False
    time: str = "cpu_seconds"
    files: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[Mark, ...] = ()
    published: str = ""
    train_program: str = "train.py"
    judge_program: str = "calc_metrics.py"
    build_program: str = "dataset_tool.py"

    def __post_init__(self):
        _check(self)

    def bed(self, name):
        return next(bed for bed in self.beds if bed.name == name)

    def kimg_of(self, bed, method=None):
        """Length of the runs of a method; None: of those that have no length of their own."""
        return self.lengths.get(method) or bed.kimg or self.kimg

    def seeds_of(self, method):
        return tuple(self.more_seeds.get(method, self.seeds))

    def methods_of(self, bed):
        return [method for method in self.methods if method not in bed.without]

    def rows(self):
        """Every (bed, method, seed), seed by seed, so that an interrupted study has whole pairs."""
        seeds = {method: self.seeds_of(method) for method in self.methods}
        every = sorted({seed for of_method in seeds.values() for seed in of_method})
        return [Row(bed.name, method, seed) for bed in self.beds for seed in every for method in self.methods_of(bed) if seed in seeds[method]]


@dataclass(frozen=True, order=True)
class Row:
    """One run of a study."""

    bed: str
    method: str
    seed: int

    def __str__(self):
        return f"{self.bed}, {self.method}, seed {self.seed}"


def _check(study):
    """Refuse rows that could not be run or read: the author's mistakes, before hours of training."""
    for kind, names in (("study", [study.name]), ("bed", [bed.name for bed in study.beds]), ("method", list(study.methods))):
        for name in names:
            if not _NAME.fullmatch(name):
                raise UserError(f"The study names a {kind} {name!r}; use letters, digits and . _ + -")
        if len(set(names)) < len(names) or not names:
            raise UserError(f"The study {study.name} needs {kind}s with names of their own (got {', '.join(names) or 'none'}).")
    if study.time not in TIMES:
        raise UserError(f"The study {study.name} states time={study.time!r}; it is one of {', '.join(TIMES)}.")
    strangers = sorted({*study.more_seeds, *study.lengths, study.ours} - set(study.methods))
    if strangers:
        raise UserError(f"The study {study.name} names {', '.join(strangers)} in `ours`, `more_seeds` or `lengths`, which is none of its methods.")
    for bed in study.beds:
        if TRAIN not in bed.build and not bed.script:
            raise UserError(f"The bed {bed.name} of the study {study.name} builds no part {TRAIN!r}; its runs would have nothing to learn from.")
        if bool(bed.judges) == bool(bed.script):
            raise UserError(f"The bed {bed.name} of the study {study.name} needs judges, or a script that judges by itself, and not both.")
        strangers = sorted(set(bed.without) - set(study.methods))
        if strangers:
            raise UserError(f"The bed {bed.name} of the study {study.name} is without {', '.join(strangers)}, which is none of its methods.")
        if bed.primary not in [measure.name for measure in bed.measures]:
            raise UserError(f"The bed {bed.name} of the study {study.name} has no measure {bed.primary!r}, its primary one.")
    for mark in study.marks:
        _check_mark(study, mark)


def _check_mark(study, mark):
    methods = [name for name in (mark.method, mark.other) if name is not None]
    known = mark.bed in [bed.name for bed in study.beds] and all(name in study.methods for name in methods)
    known = known and not set(methods) & set(study.bed(mark.bed).without)
    if not known or mark.measure not in [measure.name for measure in study.bed(mark.bed).measures]:
        raise UserError(f"A mark of the study {study.name} names a bed, method or measure that it does not have: {mark}.")
    absolute = mark.kind in MARKS[:2]
    if mark.kind not in MARKS or absolute != (mark.bound is not None) or absolute == (mark.other is not None):
        raise UserError(
            f"A mark of the study {study.name} is neither a bound ('at least', 'at most') nor a comparison ('better', 'not worse'): {mark}."
        )


# ----------------------------------------------------------------------------------------------------------------
# Finding studies, and the rows that are asked for.


def names():
    """Names of the studies of this repository."""
    return sorted(path.stem.replace("_", "-") for path in STUDIES.glob("*.py") if path.stem != "__init__")


def load(given):
    """The Study of a name, or of the path of a .py file."""
    if given in names():
        return importlib.import_module(f"experiments.studies.{given.replace('-', '_')}").STUDY
    path = Path(given)
    if path.suffix != ".py":
        raise UserError(f"There is no study {given!r}; there are {', '.join(names())}, or give the path of a .py file that defines STUDY.")
    if not path.is_file():
        raise UserError(f"There is no file {given}; check the path, or name one of {', '.join(names())}.")
    module = types.ModuleType(f"study_{path.stem}")
    module.__file__ = str(path)
    try:
        # Its text, and no bytecode beside it, which is that of the former text after an edit within a second that keeps the length.
        exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    except (SyntaxError, ImportError, NameError, TypeError) as error:
        raise UserError(f"{given} cannot be read as a study ({type(error).__name__}: {error}).") from error
    if not isinstance(getattr(module, "STUDY", None), Study):
        raise UserError(f"{given} defines no STUDY; see experiments/studies/ for the form.")
    return module.STUDY


def parse_only(text):
    """'method=plain,default,seed=0-2' -> {'method': {'plain', 'default'}, 'seed': {'0', '1', '2'}}; None for all."""
    wanted, key = {}, None
    for part in (text or "").split(",") if text else []:
        before, sign, after = part.strip().partition("=")
        if sign and before in ("bed", "method", "seed"):
            key, part = before, after
        if key is None:
            raise UserError(f"--only={text}: {part!r} belongs to nothing; write it like method=plain,default,seed=0-2 (keys: bed, method, seed).")
        if key == "seed":
            match = re.fullmatch(r"(\d+)(?:-(\d+))?", part.strip())
            if not match:
                raise UserError(f"--only={text}: {part.strip()!r} is no seed; write seed=0, seed=0,3 or seed=0-2.")
            wanted.setdefault(key, set()).update(range(int(match[1]), int(match[2] or match[1]) + 1))
        else:
            wanted.setdefault(key, set()).add(part.strip())
    return wanted


def chosen_rows(study, only=None):
    """The rows that --only asks for, in the order of the study; refuses names that it does not have."""
    wanted, rows = parse_only(only), study.rows()
    for key, values in wanted.items():
        known = {getattr(row, key) for row in rows}
        unknown = sorted(map(str, values - known))
        if unknown:
            raise UserError(f"--only: the study {study.name} has no {key} {', '.join(unknown)}; it has {', '.join(map(str, sorted(known)))}.")
    rows = [row for row in rows if all(getattr(row, key) in values for key, values in wanted.items())]
    if not rows:
        raise UserError(f"--only={only}: no run of the study {study.name} is all of that.")
    return rows
