"""What `--cfg=tiny` reaches within minutes: Stacked Digits at 16 px, as `make demo` has them, trained for longer.

    python -m experiments.run minutes --outdir=out/studies --jobs=2

Two runs at a time, one core each; docs/studies/minutes.md has how long they take.
"""

from experiments.study import Bed, Judge, Mark, Measure, Study

BED = "stacked-digits-16"

STUDY = Study(
    name="minutes",
    version=1,
    question="What does `--cfg=tiny` reach within minutes?",
    beds=(
        Bed(
            BED,
            build=dict(large=("--build=stacked-digits",), train=("--source={large}", "--width=16", "--height=16")),
            judges=(Judge(("--metrics=madr_modes,madr_modes5k",)),),
            measures=(
                Measure("madr_modes_5hits", "modes hit 5 times, of 1000, in 26,000 images", 0, True),
                Measure("madr_modes_kl", "KL (nats), the same", 3, False),
                Measure("madr_modes5k", "modes of 1000 in 5,000 images", 0, True),
                Measure("madr_modes5k_kl", "KL (nats), the same", 2, False),
            ),
            primary="madr_modes_5hits",
        ),
    ),
    methods={"plain": ("--madr=0",), "madr": ("--madr=1",)},
    ours="madr",
    seeds=(0, 1, 2),
    kimg=100,
    flags=("--cfg=tiny", "--aug=noaug", "--tick=5", "--snap=20", "--threads=1", "--half=off"),
    marks=(
        Mark(BED, "madr", "madr_modes_5hits", "at least", bound=950),
        Mark(BED, "madr", "madr_modes_kl", "at most", bound=0.25),
        Mark(BED, "madr", "madr_modes_5hits", "better", other="plain"),
        Mark(BED, "madr", "madr_modes_kl", "better", other="plain"),
    ),
)
