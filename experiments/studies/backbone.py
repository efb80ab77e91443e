"""MADR on and off on the StyleGAN2 backbone, CPU-sized: the methods of experiments/backbone.py on its three data sets.

    python -m experiments.run backbone --outdir=out/studies --jobs=2 --file emoji64=emoji64.zip --file mobilenetv2=mobilenetv2_64.pt

The two files: docs/studies/README.md tells how they are made. Two to four hours per seed of all methods on a core.
"""

from experiments.backbone import DATA_FLAGS, METHODS, USUAL
from experiments.study import Bed, Judge, Measure, Study

_RANDOM_CONV = ("--metrics=madr_prdc", "--num-gen=2000", "--metric-space=random-conv")
_DIGITS = (Judge(("--metrics=madr_modes5k",)), Judge(_RANDOM_CONV))
_MODES = (
    Measure("madr_modes5k", "modes of 1000", 0, True),
    Measure("madr_modes5k_5hits", "hit 5 times", 0, True),
    Measure("madr_modes5k_kl", "KL (nats)", 2, False),
    Measure("madr_prdc_coverage", "coverage, random conv.", 3, True),
    Measure("madr_prdc_recall", "recall, random conv.", 3, True),
)

STUDY = Study(
    name="backbone",
    version=1,
    question="MADR on a CPU-sized StyleGAN2: emoji and stacked digits",
    beds=(
        Bed(
            "emoji32",
            build=dict(train=("--source={emoji64}", "--width=32", "--height=32")),
            judges=(Judge(("--metrics=madr_prdc", "--num-gen=2000", "--metric-space=file:{mobilenetv2}")), Judge(_RANDOM_CONV, prefix="held_out_")),
            measures=(
                Measure("madr_prdc_coverage", "coverage", 3, True),
                Measure("madr_prdc_recall", "recall", 3, True),
                Measure("madr_prdc_precision", "precision", 3, True),
                Measure("madr_prdc_density", "density", 3, True),
                Measure("held_out_madr_prdc_coverage", "coverage, random conv.", 3, True),
            ),
            primary="madr_prdc_coverage",
        ),
        Bed(
            "stacked-mnist",
            build=dict(train=("--build=stacked-mnist", "--source={mnist?}")),
            judges=_DIGITS,
            measures=_MODES,
            primary="madr_modes5k",
            flags=tuple(DATA_FLAGS["stacked-mnist"]),
        ),
        Bed(
            "stacked-digits",
            build=dict(train=("--build=stacked-digits",)),
            judges=_DIGITS,
            measures=_MODES,
            primary="madr_modes5k",
            flags=tuple(DATA_FLAGS["stacked-digits"]),
        ),
    ),
    methods={name: tuple(flags) for name, flags in METHODS.items()},
    ours="default",
    seeds=(0, 1, 2),
    kimg=20,
    flags=tuple(USUAL),
    files=dict(
        emoji64="zip of emoji, one folder per category",
        mobilenetv2="MobileNetV2 as python -m metrics.photo_export writes it",
        mnist="folder with MNIST's four files; without it they are downloaded",
    ),
)
