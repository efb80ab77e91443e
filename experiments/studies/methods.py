"""Which GAN holds modes: the methods of train.py on the ring and grid of PacGAN, in its setting (experiments/points.py), and on Stacked MNIST before
a weak D, in that of Unrolled GAN (experiments/stacked.py).

    python -m experiments.run methods --outdir=out/studies --jobs=2 --file mnist=FOLDER
    python -m experiments.run methods --outdir=out/studies --jobs=2 --only=bed=ring,grid

On a core minutes per run of points, about half an hour per run of images. Methods are rows of training/gan/methods.py; PacGAN sees m times as many
of them in as many steps.
"""

from experiments.study import Bed, Mark, Measure, Study

_PLAIN = ("--gan=non-saturating",)
RECIPES = ("minimax", "lsgan", "wgan", "wgan-gp", "hinge", "rpgan", "r1+r2", "rpgan+r1+r2", "cn-lsgan")
# Beside the non-saturating loss.
ADDED = {
    "r1": "r1",
    "pacgan2": "pacgan:m=2",
    "pacgan3": "pacgan:m=3",
    "pacgan4": "pacgan:m=4",
    "image-pool": "image-pool",
    "imle": "imle",
    "unrolled1": "unrolled:k=1",
    "unrolled5": "unrolled:k=5",
    "unrolled10": "unrolled:k=10",
    "mode-seeking": "mode-seeking",
    "top-k": "top-k",
    "zcr": "zcr",
    "label-smoothing": "label-smoothing",
    "historical-averaging": "historical-averaging",
    "gm-gan": "gm-gan",
    "feature-matching": "feature-matching",
    "veegan": "veegan",
    "ttur": "ttur",
}
# Beside it as well, on images alone: points have networks of their own, and are neither flipped nor shifted.
OF_IMAGES = {
    "spectral-norm": "spectral-norm",
    "minibatch-discrimination": "minibatch-discrimination",
    "bcr": "bcr",
    "icr": "icr",
    "diffaugment": "diffaugment",
}
MADR = {"madr-witness": ("--madr=1", "--madr-preset=witness"), "madr-moments": ("--madr=1", "--madr-preset=moments"), "madr": ("--madr=1",)}
RIVALS = ("pacgan4", "image-pool", "rpgan+r1+r2", "imle", "wgan-gp")
_MEASURES = (Measure("modes", "modes", 1, True), Measure("quality", "high quality", 3, True), Measure("kl", "KL (nats)", 3, False))


def _bed(layout, best):
    """The bed of a layout, and its marks. best: modes that a PacGAN holds on average by its authors' table."""
    bed = Bed(layout, {}, (), _MEASURES, "modes", flags=(f"--layout={layout}",), script="experiments.points", without=tuple(OF_IMAGES))
    against = [Mark(layout, "madr", measure, "not worse", other=rival) for rival in RIVALS for measure in ("modes", "kl")]
    plain = [Mark(layout, "madr", measure, "better", other="plain") for measure in ("modes", "kl")]
    return bed, (Mark(layout, "madr", "modes", "at least", bound=best), *plain, *against)


def _stacked(name, share):
    """The bed of a D with this share of G's channels, for 20,000 iterations of 128 images, and its marks."""
    flags = (f"--share={share}", "--mnist={mnist?}")
    measures = (Measure("modes", "modes of 1000", 0, True), Measure("modes_5hits", "hit 5 times", 0, True), Measure("kl", "KL (nats)", 2, False))
    bed = Bed(name, {}, (), measures, "modes", flags=flags, script="experiments.stacked", kimg=2_560)
    asked = (("modes", "better"), ("kl", "not worse"))
    return bed, tuple(Mark(name, "madr", measure, kind, other=rival) for rival in RIVALS for measure, kind in asked)


_RING, _RING_MARKS = _bed("ring", 7.9)
_GRID, _GRID_MARKS = _bed("grid", 24.8)
_QUARTER, _QUARTER_MARKS = _stacked("stacked-quarter", 0.25)
_HALF, _HALF_MARKS = _stacked("stacked-half", 0.5)

STUDY = Study(
    name="methods",
    version=2,
    question="Which GAN holds modes?",
    beds=(_RING, _GRID, _QUARTER, _HALF),
    methods={
        "plain": _PLAIN,
        **{name: (f"--gan={name}",) for name in RECIPES},
        **{name: (*_PLAIN, f"--method={method}") for name, method in {**ADDED, **OF_IMAGES}.items()},
        **{name: (*_PLAIN, *flags) for name, flags in MADR.items()},
    },
    ours="madr",
    seeds=(0, 1, 2),
    more_seeds=dict.fromkeys(("plain", *RIVALS, "madr"), (0, 1, 2, 3, 4)),
    kimg=5_000,
    curve=True,
    files={"mnist": "folder with MNIST's four files; without it they are downloaded"},
    marks=(*_RING_MARKS, *_GRID_MARKS, *_QUARTER_MARKS, *_HALF_MARKS),
    published="Published (PacGAN's table, its code and length, ten runs; modes, high quality, KL): ring: GAN 6.3, 98.2%, .45; PacGAN2 7.9, 95.6%, .07; PacGAN4 7.8, 95.9%, .07. "
    "Grid: GAN 17.3, 94.8%, .70; PacGAN2 23.8, 91.3%, .13; PacGAN4 24.8, 93.6%, .04. Real data: 98.9% high quality, KL .0014 and .0048; more high quality than that is "
    "collapse inside a mode. A method's flags are those of train.py, and so are its optimizers where it brings its own.",
)
