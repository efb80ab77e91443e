"""CIFAR-10 with a long tail of imbalance 100, unconditional, judged against all of CIFAR-10's training images: for a GPU.

python -m experiments.run cifar10-lt --outdir=out/studies --file cifar10=cifar-10-python.tar.gz
"""

import dataclasses

from experiments.studies.cifar10 import GPU_FLAGS, GPU_METHODS, IMAGE_JUDGES, IMAGE_MEASURES
from experiments.study import Bed, Mark, Study

STUDY = Study(
    name="cifar10-lt",
    version=2,
    question="Does MADR keep the rare classes of a long-tailed CIFAR-10?",
    beds=(
        Bed(
            "cifar10-lt",
            build=dict(train=("--source={cifar10}", "--long-tail=100"), balanced=("--source={cifar10}",)),
            judges=tuple(dataclasses.replace(judge, flags=(*judge.flags, "--data={balanced}")) for judge in IMAGE_JUDGES),
            measures=IMAGE_MEASURES,
            primary="madr_prdc_coverage",
            flags=("--cfg=cifar",),
        ),
    ),
    methods=GPU_METHODS,
    ours="default",
    seeds=(0, 1, 2),
    kimg=10_000,
    flags=GPU_FLAGS,
    time="seconds",
    files=dict(cifar10="CIFAR-10's archive, cifar-10-python.tar.gz"),
    marks=(
        Mark("cifar10-lt", "default", "madr_prdc_coverage", "better", other="plain"),
        Mark("cifar10-lt", "moments", "madr_prdc_coverage", "better", other="plain"),
        Mark("cifar10-lt", "default", "madr_prdc_precision", "not worse", other="plain"),
    ),
)
