"""Which remedy holds modes on StyleGAN2: R1 at three strengths, rivals of the literature and MADR on the images of `make demo`.

    python -m experiments.run remedies --outdir=out/studies --jobs=2

One to three minutes per run on a core. Rivals have the numbers of their rows (train.py --list-methods), all of them the learning-rate tail of --cfg=tiny.
"""

from experiments.study import Bed, Judge, Mark, Measure, Study

BED = "stacked-digits-16"
GAMMA = 0.256  # what --cfg=tiny has at 16 pixels, and `plain` therefore
PLAIN = "plain"
RIVALS = {
    "r1-quarter": ("--madr=0", f"--gamma={GAMMA / 4:g}"),
    "r1-four": ("--madr=0", f"--gamma={GAMMA * 4:g}"),
    "pacgan2": ("--madr=0", "--method=pacgan:m=2"),
    "pacgan4": ("--madr=0", "--method=pacgan:m=4"),
    "rpgan+r1+r2": ("--madr=0", "--gan=rpgan+r1+r2"),
    "image-pool": ("--madr=0", "--method=image-pool"),
    "imle": ("--madr=0", "--method=imle"),
    "dia-gan": ("--madr=0", "--method=dia-gan"),
}
WITHOUT_MEMORY = {
    "witness": ("--madr=1", "--madr-preset=witness"),
    # The memory-free twin of the moments: the same term and strength, moments of the batch alone.
    "batch-moments": ("--madr=1", "--madr-preset=moments", "--madr-moments-horizon=0"),
}

STUDY = Study(
    name="remedies",
    version=1,
    question="Which remedy holds modes on StyleGAN2?",
    beds=(
        Bed(
            BED,
            build=dict(large=("--build=stacked-digits",), train=("--source={large}", "--width=16", "--height=16")),
            judges=(Judge(("--metrics=madr_modes5k",)),),
            measures=(
                Measure("madr_modes5k", "modes of 1000", 0, True),
                Measure("madr_modes5k_5hits", "hit 5 times", 0, True),
                Measure("madr_modes5k_kl", "KL (nats)", 2, False),
            ),
            primary="madr_modes5k",
        ),
    ),
    methods={PLAIN: ("--madr=0",), **RIVALS, **WITHOUT_MEMORY, "madr": ("--madr=1",)},
    ours="madr",
    seeds=(0, 1, 2, 3, 4),
    kimg=20,
    flags=("--cfg=tiny", "--aug=noaug", "--tick=5", "--snap=4", "--threads=1", "--half=off"),
    marks=tuple(
        Mark(BED, "madr", measure, "better", other=other)
        for other in (PLAIN, *RIVALS, *WITHOUT_MEMORY)
        for measure in ("madr_modes5k", "madr_modes5k_kl")
    ),
)
