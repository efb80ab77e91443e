"""Which remedy holds modes on StyleGAN2 in equal time: rivals of the study `remedies`, trained for as long as MADR takes for 20 kimg.

    python -m experiments.run equal-time --outdir=out/studies --jobs=2

Lengths are those that bring each to MADR's CPU time by the table of `remedies`, which one machine made. The learning rates fall over the second half of each
length. One to two minutes per run on a core.
"""

from experiments.studies import remedies
from experiments.study import Mark, Study

LENGTHS = {"plain": 27, "r1-four": 24, "pacgan2": 41, "pacgan4": 54, "image-pool": 24, "witness": 23}
_METHODS = remedies.STUDY.methods

STUDY = Study(
    name="equal-time",
    version=1,
    question="Which remedy holds modes on StyleGAN2 in equal time?",
    beds=remedies.STUDY.beds,
    methods={name: _METHODS[name] for name in (*LENGTHS, "madr")},
    ours="madr",
    seeds=(0, 1, 2, 3, 4),
    kimg=20,
    lengths=LENGTHS,
    flags=remedies.STUDY.flags,
    marks=tuple(Mark(remedies.BED, "madr", measure, "better", other=other) for other in LENGTHS for measure in ("madr_modes5k", "madr_modes5k_kl")),
)
