"""CelebA-HQ at 64 px: for a GPU.

python -m experiments.run celeba-hq-64 --outdir=out/studies --file celeba-hq=FOLDER
"""

from experiments.studies.cifar10 import GPU_FLAGS, GPU_METHODS, IMAGE_JUDGES, IMAGE_MEASURES
from experiments.study import Bed, Mark, Study

STUDY = Study(
    name="celeba-hq-64",
    version=2,
    question="Is a generator of CelebA-HQ faces at 64 px more diverse with MADR?",
    beds=(
        Bed(
            "celeba-hq-64",
            build=dict(train=("--source={celeba-hq}", "--transform=center-crop", "--width=64", "--height=64")),
            judges=IMAGE_JUDGES,
            measures=IMAGE_MEASURES,
            primary="madr_prdc_coverage",
            flags=("--cfg=auto", "--mirror=1"),
        ),
    ),
    methods=GPU_METHODS,
    ours="default",
    seeds=(0, 1, 2),
    kimg=10_000,
    flags=GPU_FLAGS,
    time="seconds",
    files={"celeba-hq": "folder or zip of CelebA-HQ's images, of any size from 64 px on"},
    marks=(
        Mark("celeba-hq-64", "default", "madr_prdc_coverage", "better", other="plain"),
        Mark("celeba-hq-64", "default", "fid50k_full", "not worse", other="plain"),
        Mark("celeba-hq-64", "default", "madr_prdc_precision", "not worse", other="plain"),
    ),
)
