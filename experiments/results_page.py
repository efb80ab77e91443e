"""docs/results.md, the one page of results: of every bed a short table, from the file that its study wrote. `python -m experiments.tables` writes it.

What a study asks and what follows is on the study's own page. Must not know how the numbers came about.
"""

from dataclasses import dataclass

from experiments import default_choice, records, study as studies, study_page, tables
from experiments.studies.methods import RIVALS

PAGE, README = tables.STUDIES.parent / "results.md", tables.STUDIES.parent.parent / "README.md"
RIVALS_MARK = "results-rivals"
_MODES, _KL, _SECONDS = ("modes", "modes of 1000", 0, True), ("kl", "KL (nats)", 2, False), ("seconds", "CPU s", 0, False)
_WEAK = (_MODES, _KL, ("frechet", "Frechet distance, digit classifier", 1, False), _SECONDS)
_TOY = (("modes", "modes held", 1, True), ("hit", "modes hit", 1, True), ("kl", "KL (nats)", 3, False), _SECONDS)
_TAIL = (
    ("rare_share", "rare classes' share / true", 2, True),
    ("classes", "classes held, of 10", 1, True),
    ("clear", "clear images", 2, True),
    ("frechet", "Frechet distance, digit classifier", 1, False),
    _SECONDS,
)
_STYLEGAN2 = (("coverage", "coverage", 3, True), ("recall", "recall", 3, True), ("frechet", "Frechet distance", 1, False))
_DIGITS = (("madr_modes", "modes of 1000", 0, True), ("madr_modes_kl", "KL (nats)", 2, False))
_EMOJI = (*_STYLEGAN2, ("rare_share", "rare share / true", 2, True))


SHORTER = "moments+fine-tilt-0.2"  # the default with --madr-moments-horizon=0.2
# What the table of rivals calls a method, its name in the study of methods and in the quick beds.
RIVAL_ROWS = (
    ("no remedy", "plain", "plain"),
    *((name, name, name) for name in RIVALS),
    ("MADR without memory", "madr-witness", "witness"),
    ("MADR", "madr", default_choice.DEFAULT),
    ("MADR, shorter memory", None, SHORTER),
    ("MADR without its tilt", "madr-moments", "witness+moments"),
    ("MADR as it was, with the replay", "madr-replay", "witness+replay"),
)
QUICK_BEDS = (
    ("ring of 8", "toy/ring.json", _TOY[:1]),
    ("grid of 25", "toy/grid.json", _TOY[1:2]),
    ("Stacked MNIST, 14 px", "rivals/stacked.json", _WEAK),
)
# Rivals for as long as MADR takes 1,500 steps for: by the CPU times of rivals/stacked.json when this was written, 73 s for MADR, for theirs 31, 30, 39, 42 and 21.
# PacGAN of four took 75. `madr`: ours anew at 1,500 steps, so that all are of one machine.
EQUAL_TIME_FOLDER = "rivals/equal-time"
EQUAL_TIME_STEPS = {"plain": 3500, "image-pool": 3600, "rpgan+r1+r2": 2800, "imle": 2600, "wgan-gp": 5200}


@dataclass(frozen=True)
class Bed:
    """A table: its mark on the page, the file below experiments/results/, what is shown, the command that runs it. by: the measure that orders it."""

    mark: str
    file: str
    measures: tuple
    command: str

    @property
    def by(self):
        return self.measures[0]


def _toy(layout, steps="", folder=""):
    command = f"python toy_2d.py --layout={layout}{steps} --outdir=experiments/results/toy{folder}"
    return Bed(f"results-toy-{layout}{folder.replace('/', '-')}", f"toy{folder}/{layout}.json", _TOY, command)


def _backbone(data, kimg, measures):
    command = f"python -m experiments.backbone --data={data} --kimg={kimg}"
    return Bed(f"results-{data}-{kimg}kimg", f"backbone-{data}-{kimg}kimg.json", measures, command)


def _of_study(name):
    """Of each bed of a study, with its own measures."""
    study = studies.load(name)
    given = "".join(f" --file {file}=PATH" for file in study.files)
    for bed in study.beds:
        time = (study.time, "CPU s" if study.time == "cpu_seconds" else "s", 0, False)
        measures = (bed.measure(bed.primary).row, *(measure.row for measure in bed.measures if measure.name != bed.primary), time)
        yield Bed(f"results-{name}-{bed.name}", f"{name}/{bed.name}.json", measures, f"python -m experiments.run {name} --outdir=OUTDIR{given}")


BEDS = (
    *_of_study("methods"),
    *(Bed(f"results-{bed}", f"{bed}.json", _WEAK, f"python -m experiments.digits_study --bed={bed}") for bed in ("stacked", "stacked28")),
    Bed("results-longtail", "longtail.json", _TAIL, "python -m experiments.digits_study --bed=longtail"),
    _toy("ring"),
    _toy("grid"),
    _toy("imbalanced", " --steps=5000"),
    _toy("imbalanced", " --steps=8000", "/long"),
    _backbone("stacked-digits", 20, (*_DIGITS, *_STYLEGAN2)),
    _backbone("stacked-mnist", 20, (*_DIGITS, *_STYLEGAN2)),
    _backbone("stacked-mnist", 40, (*_DIGITS, *_STYLEGAN2)),
    _backbone("emoji32", 20, _EMOJI),
    _backbone("emoji32", 40, _EMOJI),
    _backbone("emoji32-train", 40, _EMOJI),
    Bed("results-spiral", "spiral.json", (("recall", "recall", 2, True), ("distance", "median distance", 3, False)), "python -m experiments.spiral"),
    *_of_study("cifar10"),
    *_of_study("cifar10-lt"),
    *_of_study("celeba-hq-64"),
)


def bed_part(bed):
    """The table of a bed, the best mean of its first measure on top; what is not there is said so."""
    path = records.RESULTS / bed.file
    runs = records.load(path)[1] if path.exists() else {}
    runs = {method: entries for method, entries in runs.items() if method != records.TRAINING_IMAGES}
    if not runs:
        return f"Not run yet: `{bed.command}`."
    facts, _ = records.load(path)
    entries = [entry for of_method in runs.values() for entry in of_method.values()]
    shown = [measure for measure in bed.measures if all(entry.get(measure[0]) is not None for entry in entries)]
    if not shown:
        return f"`{bed.file}` holds none of {', '.join(name for name, *_ in bed.measures)}; see the page of its study."
    name, _, _, higher_is_better = shown[0]
    mean = lambda method: records.mean_and_interval([entry[name] for entry in runs[method].values()])[0]
    ordered = {method: runs[method] for method in sorted(runs, key=mean, reverse=higher_is_better)}
    length = f"{facts['kimg']} kimg" if "kimg" in facts else f"{facts['steps']} steps"
    told = study_page.provenance(ordered) if all("threads" in entry for entry in entries) else tables.provenance(ordered)
    return "\n\n".join([tables.means_table(ordered, shown), f"{length}. {told} File: `experiments/results/{bed.file}`."])


def _rival_columns():
    """[(heading, digits, {method: values})] of every bed on which rivals have run, under the names of RIVAL_ROWS."""
    study = studies.load("methods")
    beds = [(heading, file, measures, 2) for heading, file, measures in QUICK_BEDS]
    beds += [(bed.name, f"methods/{bed.name}.json", [bed.measure(name).row for name in dict.fromkeys((bed.primary, "kl"))], 1) for bed in study.beds]
    for bed, file, measures, name_at in beds:
        path = records.RESULTS / file
        runs = records.load(path)[1] if path.exists() else {}
        for measure, heading, digits, _ in measures:
            values = {row[0]: [entry[measure] for entry in runs.get(row[name_at], {}).values()] for row in RIVAL_ROWS}
            if any(values.values()):
                yield f"{bed}: {heading}", digits, values


def rivals_part(_):
    """One line for MADR in its forms, for no remedy and for each rival that a claim has to name; one column for each bed with runs and measure."""
    columns = list(_rival_columns())
    lines = [f"| method | {' | '.join(heading for heading, _, _ in columns)} |", "|---" * (len(columns) + 1) + "|"]
    for shown, *_ in RIVAL_ROWS:
        cells = [tables.cell(values[shown], digits) if values[shown] else "not run yet" for _, digits, values in columns]
        lines.append(f"| {shown} | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences_part(_):
    """The present default, and it with a shorter memory, minus every other method of the 14-px bed, paired by seed."""
    _, file, measures = QUICK_BEDS[-1]
    runs = records.load(records.RESULTS / file)[1]
    chosen = {row[2]: runs[row[2]] for row in RIVAL_ROWS if row[2] in runs}
    compared = [tables.against(chosen, ours, measures[:-1]) for ours in (SHORTER, default_choice.DEFAULT) if ours in chosen]
    return "\n\n".join([*compared, f"{tables.provenance(chosen)} File: `experiments/results/{file}`."])


def equal_time_part(_):
    """The present default, and it with a shorter memory, beside rivals that trained for as long as they take."""
    chosen, (*measures, seconds) = {}, QUICK_BEDS[-1][2]
    for name in ("madr", *EQUAL_TIME_STEPS):
        path = records.RESULTS / EQUAL_TIME_FOLDER / f"{name}.json"
        if path.exists():
            facts, runs = records.load(path)
            chosen.update({f"{method}, {facts['steps']} steps": entries for method, entries in runs.items()})
    if not chosen:
        return "Not run yet."
    ours = [name for method in (SHORTER, default_choice.DEFAULT) for name in chosen if name.startswith(f"{method}, ")]
    compared = [tables.against(chosen, name, measures) for name in ours]
    provenance = f"{tables.provenance(chosen)} Files: `experiments/results/{EQUAL_TIME_FOLDER}/`."
    return "\n\n".join([tables.means_table(chosen, [*measures, seconds]), *compared, provenance])


PARTS = {
    RIVALS_MARK: (rivals_part, None),
    "results-rivals-differences": (differences_part, None),
    "results-rivals-equal-time": (equal_time_part, None),
    **{bed.mark: (bed_part, bed) for bed in BEDS},
}
