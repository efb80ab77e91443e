"""Which MADR is the default: the rule, fixed before the runs (docs/studies/default.md), and what follows from them.

The marks and their verdicts are those of moments.py. Must not know pages.
"""

import dataclasses

from experiments import moments

FORMER = "witness+replay"  # what the default was when the rule was written
CANDIDATES = ("moments+fine-tilt", "witness+moments")  # the first to pass is it
DEFAULT = CANDIDATES[0]  # which passed: the name under which the studies ran what `--madr=1` is
BETTER_ON = 3  # beds, Stacked Digits among them
_KL = ("kl", "KL", 3, False)
_FIGURES = (
    (moments.DIGITS, ("madr_modes_kl", "KL", 3, False), FORMER),
    (moments.EMOJI, ("frechet", "Frechet distance, MobileNetV2", 1, False), "witness"),  # where the former default did not run
    (moments.WEAK14, _KL, FORMER),
    (moments.WEAK28, _KL, FORMER),
    (moments.RING, ("modes", "modes held", 1, True), FORMER),
    (moments.GRID, ("hit", "modes hit", 1, True), FORMER),
    (moments.IMBALANCED, ("modes", "modes held", 1, True), FORMER),
)
MARKS = tuple(moments.Mark(bed, *figure, "not worse", other=other) for bed, figure, other in _FIGURES)


def rows(load):
    """{candidate: [(bed, figure, compared to, what was found, verdict of "not worse", verdict of "better")]}. load(file) -> runs, {} for none."""
    runs = {mark.bed.file: load(mark.bed.file) for mark in MARKS}
    return {candidate: [_row(mark, runs[mark.bed.file], candidate) for mark in MARKS] for candidate in CANDIDATES}


def _row(mark, runs, candidate):
    found, not_worse = moments.verdict(mark, runs, candidate)
    better = moments.verdict(dataclasses.replace(mark, kind="better"), runs, candidate)[1]
    return (mark.bed.name, mark.heading, mark.other, found, not_worse, better)


def passes(found):
    """True, False, or None while a bed is open that could still matter."""
    if any(not_worse == moments.MISSED for *_, not_worse, _ in found):
        return False
    if any(not_worse != moments.MET for *_, not_worse, _ in found):
        return None
    better = [bed for bed, *_, verdict in found if verdict == moments.MET]
    return moments.DIGITS.name in better and len(better) >= BETTER_ON


def conclusion(found):
    """What the default is by the rule. found: of rows()."""
    for candidate in CANDIDATES:
        verdict = passes(found[candidate])
        if verdict is None:
            return f"Not decided yet: `{candidate}` has open beds."
        if verdict:
            return f"By the rule `{candidate}` is the default."
    return f"By the rule `{FORMER}` stays the default."
