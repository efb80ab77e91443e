"""What bfloat16 has to reach, fixed before the runs (docs/studies/half_precision.md), and whether it did.

Marks are data; the verdicts are those of experiments/moments.py. Must not know pages.
"""

from experiments import moments

BED = moments.Bed("Stacked Digits, 32 px, 20 kimg", "half-precision-stacked-digits-20kimg.json", 5)
PAIRS = {"plain-bf16": "plain", "default-bf16": "default"}  # method in half precision -> the same in float32
MEASURES = (
    ("madr_modes", "modes of 1000", 0, True),
    ("madr_modes_kl", "KL", 3, False),
    ("digits_frechet", "Frechet distance, digit classifier", 1, False),
)
MARKS = {ours: [moments.Mark(BED, *measure, "not worse", other=theirs) for measure in MEASURES] for ours, theirs in PAIRS.items()}


def rows(runs):
    """[(method, measure, what was asked, what was found, verdict)] of every mark."""
    return [(ours, mark.heading, mark.asked, *moments.verdict(mark, runs, ours)) for ours, marks in MARKS.items() for mark in marks]


def conclusion(found):
    """Whether `tiny` may train in bfloat16 by itself where the CPU multiplies it: by the rule that stood before the runs every mark counts."""
    missed = [f"`{method}`, {heading} {asked}" for method, heading, asked, _, verdict in found if verdict == moments.MISSED]
    if missed:
        return "Missed: " + "; ".join(missed) + ". By the rule above bfloat16 stays a matter of --half=bf16."
    open_marks = sum(verdict != moments.MET for *_, verdict in found)
    if open_marks:
        return f"Not decided yet: {open_marks} of {len(found)} marks are open."
    return "Every mark is met: by the rule above `tiny` may use bfloat16 by itself on CPUs that multiply it."
