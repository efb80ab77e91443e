"""How --cfg=tiny came by its numbers: one change at a time, on seeds on which nothing is judged.

    python -m experiments.run tiny --outdir=out/studies --jobs=2

Every number of the configuration that was in question is spelled in the flags, so that a later configuration leaves this study as it is.
Two minutes per run on a core.
"""

from experiments.study import Bed, Judge, Measure, Study

CHOSEN = {"--glr": "0.01", "--dlr": "0.01", "--lr-tail": "0.5", "--noise-inputs": "1", "--batch": "16", "--gamma": "1.024", "--ema-kimg": "2"}
MADR = ("--madr=1", "--madr-preset=moments", "--madr-width=64")


def _flags(**changes):
    """The chosen numbers with some of them changed, names as in Python."""
    changed = {**CHOSEN, **{"--" + name.replace("_", "-"): value for name, value in changes.items()}}
    return (*(f"{flag}={value}" for flag, value in changed.items()), *MADR)


STUDY = Study(
    name="tiny",
    version=1,
    question="What do the numbers of `--cfg=tiny` bring?",
    beds=(
        Bed(
            "stacked-digits",
            build=dict(train=("--build=stacked-digits",)),
            judges=(Judge(("--metrics=madr_modes5k",)), Judge(("--metrics=madr_prdc", "--num-gen=2000", "--metric-space=random-conv"))),
            measures=(
                Measure("madr_modes5k", "modes of 1000", 0, True),
                Measure("madr_modes5k_5hits", "hit 5 times", 0, True),
                Measure("madr_modes5k_kl", "KL (nats)", 2, False),
                Measure("madr_prdc_coverage", "coverage, random conv.", 3, True),
                Measure("madr_prdc_recall", "recall, random conv.", 3, True),
            ),
            primary="madr_modes5k_kl",
        ),
    ),
    methods={
        "chosen": _flags(),
        "constant-rate": _flags(lr_tail="0"),
        "no-noise-inputs": _flags(noise_inputs="0"),
        "rate-0.005": _flags(glr="0.005", dlr="0.005"),
        "rate-0.015": _flags(glr="0.015", dlr="0.015"),
    },
    ours="chosen",
    seeds=(100, 101),
    kimg=20,
    flags=("--cfg=tiny", "--aug=noaug", "--tick=5", "--snap=4", "--threads=1", "--half=off"),
)
