"""Late and slow: a plain network of --cfg=tiny is trained on for 6 kimg at a small learning rate that falls to 0, without and with MADR.

    python dataset_tool.py --build=stacked-digits --dest=digits.zip
    python dataset_tool.py --build=stacked-digits --split=eval --dest=digits-eval.zip
    python -m experiments.run finish --outdir=out/studies --jobs=2 --file digits=digits.zip --file held-out=digits-eval.zip

About two minutes per run on a core.
"""

from experiments.study import Bed, Mark, Measure, Study

_TAIL = ("--glr=0.003", "--dlr=0.003", "--lr-tail=1")  # less than a third of the rate that the plain network began with

STUDY = Study(
    name="finish",
    version=2,
    question="Is a trained generator more diverse after a short second training with MADR?",
    beds=(
        Bed(
            "stacked-digits",
            build={},
            judges=(),
            measures=(
                Measure("madr_fdr", "Frechet over held-out", 2, False),
                Measure("madr_fdr_unled", "the same, in spaces that led no method", 2, False),
                Measure("madr_swr", "sliced Wasserstein over held-out", 2, False),
                Measure("madr_swr_unled", "the same, in spaces that led no method", 2, False),
                Measure("madr_coverage_ratio", "coverage over held-out, in the leading space", 3, True),
                Measure("madr_modes5k", "modes of 1000", 0, True),
                Measure("madr_modes5k_kl", "KL (nats)", 2, False),
            ),
            primary="madr_fdr",
            flags=("--data={digits}", "--held-out={held-out}"),
            script="experiments.finish",
        ),
    ),
    methods={
        "plain": (*_TAIL, "--madr=0"),
        "witness": (*_TAIL, "--madr=1", "--madr-preset=witness"),
        "batch-moments": (*_TAIL, "--madr=1", "--madr-preset=moments", "--madr-width=64", "--madr-moments-horizon=0"),
        "moments": (*_TAIL, "--madr=1", "--madr-preset=moments", "--madr-width=64"),
    },
    ours="moments",
    seeds=(0, 1, 2, 3, 4),
    kimg=6,
    files={"digits": "Stacked Digits to train on", "held-out": "Stacked Digits of other handwritten digits"},
    marks=(
        Mark("stacked-digits", "moments", "madr_fdr", "better", other="plain"),
        Mark("stacked-digits", "moments", "madr_fdr", "better", other="batch-moments"),
        Mark("stacked-digits", "moments", "madr_fdr", "not worse", other="witness"),
        Mark("stacked-digits", "moments", "madr_fdr_unled", "better", other="plain"),
        Mark("stacked-digits", "moments", "madr_fdr_unled", "better", other="batch-moments"),
        Mark("stacked-digits", "moments", "madr_modes5k_kl", "not worse", other="witness"),
    ),
)
