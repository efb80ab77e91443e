"""CIFAR-10 at 32 px in StyleGAN2-ADA's setting, unconditional: for a GPU.

    python -m experiments.run cifar10 --outdir=out/studies --file cifar10=cifar-10-python.tar.gz

GPU_METHODS, GPU_FLAGS and IMAGE_JUDGES are those of the other studies on photographs, too.
"""

from experiments.study import Bed, Judge, Mark, Measure, Study

GPU_METHODS = {
    "plain": ("--madr=0",),
    "witness": ("--madr=1", "--madr-preset=witness"),
    "moments": ("--madr=1", "--madr-preset=moments"),  # the default without its tilt
    "default": ("--madr=1",),
}
GPU_FLAGS = ("--metrics=none", "--keep=2", "--snap=250")  # judged once, at the end
# Inception and DINO for comparison with others; DINOv2 (ViT-S/14 at 224 px), in which nothing was trained, decides.
IMAGE_JUDGES = (Judge(("--metrics=fid50k_full,pr50k3_full,is50k,fd_dino50k_full",)), Judge(("--metrics=madr_prdc", "--metric-space=dinov2")))
IMAGE_MEASURES = (
    Measure("madr_prdc_coverage", "coverage, DINOv2", 3, True),
    Measure("madr_prdc_recall", "recall, DINOv2", 3, True),
    Measure("madr_prdc_precision", "precision, DINOv2", 3, True),
    Measure("madr_prdc_density", "density, DINOv2", 3, True),
    Measure("fd_dino50k_full", "Frechet, DINO", 1, False),
    Measure("fid50k_full", "FID", 2, False),
    Measure("pr50k3_full_recall", "recall, Inception", 3, True),
)

STUDY = Study(
    name="cifar10",
    version=2,
    question="Is a generator of CIFAR-10 more diverse with MADR?",
    beds=(
        Bed(
            "cifar10",
            build=dict(train=("--source={cifar10}",)),
            judges=IMAGE_JUDGES,
            measures=IMAGE_MEASURES,
            primary="madr_prdc_coverage",
            flags=("--cfg=cifar",),
        ),
    ),
    methods=GPU_METHODS,
    ours="default",
    seeds=(0, 1, 2),
    kimg=25_000,
    flags=GPU_FLAGS,
    time="seconds",
    files=dict(cifar10="CIFAR-10's archive, cifar-10-python.tar.gz"),
    marks=(
        Mark("cifar10", "default", "madr_prdc_coverage", "better", other="plain"),
        Mark("cifar10", "default", "fid50k_full", "not worse", other="plain"),
        Mark("cifar10", "default", "madr_prdc_precision", "not worse", other="plain"),
    ),
    published="Published, read in the authors' tables, each in its own feature space and at its own length: StudioGAN, Inception: StyleGAN2-ADA FID 2.31, "
    "recall .69, coverage .93; StyleGAN2 3.78, .67, .89. dgm-eval, DINOv2 ViT-L/14 (here: ViT-S/14, so not the same numbers): StyleGAN2-ADA recall .51, coverage .52; "
    "the test set .88, .97.",
)
