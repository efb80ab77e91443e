"""The table of methods: what --gan, --method and --backbone can name, one row each.

A new method is a row here, its mathematics a pure function (adversarial.py, penalties.py), its place in the loss a Part (part.py) or,
with networks or a memory of its own, an Extra (extras.py); what it needs of the options is a function in changes.py. Rows that
change or keep networks stand in network_methods.py. Defaults are the
sources'. Must not import torch: --help and --list-methods show the rows.
"""

from training.gan import changes, network_methods
from training.gan.rows import Method, Parameter, Recipe, weight as _weight
from training.gan.schedule import Schedule, adam, rmsprop

# What a run with --method but without --gan has: StyleGAN2's own loss.
DEFAULT_RECIPE, DEFAULT_BACKBONE = "r1", "stylegan2"


# ------------------------------------------------------------------------------------------
# --gan


_RECIPES = (
    Recipe("minimax", "minimax", "G descends log(1 - sigmoid(a_fake)), D sp(-a_real) + sp(a_fake)", "Goodfellow 2014, 1406.2661", "none"),
    Recipe("non-saturating", "non-saturating", "G descends sp(-a_fake)", "Goodfellow 2014, 1406.2661", "none"),
    Recipe(
        "r1",
        "non-saturating",
        "non-saturating with R1: StyleGAN2's own, what --method joins without --gan",
        "Mescheder 2018, 1801.04406",
        "a double backward of D on every 16th step",
        methods=(("r1", {}),),
        touches="TP",
    ),
    Recipe(
        "r1+r2",
        "non-saturating",
        "non-saturating with R1 and R2 on every step",
        "Mescheder 2018, 1801.04406",
        "two double backwards of D per step",
        methods=(("r1", {}), ("r2", {})),
        schedule=Schedule(lazy=False),
        touches="TP",
    ),
    Recipe("lsgan", "least-squares", "D 1/2 (a_real - 1)^2 + 1/2 a_fake^2, G 1/2 (a_fake - 1)^2", "Mao 2016, 1611.04076", "none",
           schedule=Schedule(adam(4e-4, 0.5, 0.999), adam(4e-4, 0.5, 0.999)), touches="TO"),
    Recipe(
        "wgan",
        "critic",
        "D a_fake - a_real, its weights clipped to +-c",
        "Arjovsky 2017, 1701.07875",
        "five steps of D per step of G",
        methods=(("clip", {}),),
        schedule=Schedule(rmsprop(5e-5), rmsprop(5e-5), n_critic=5),
        touches="TO",
    ),
    Recipe(
        "wgan-gp",
        "critic",
        "D a_fake - a_real + 10 (|grad D(x^)| - 1)^2 between reals and fakes",
        "Gulrajani 2017, 1704.00028",
        "a double backward of D per step, five steps of D per step of G",
        methods=(("gradient-penalty", {}),),
        schedule=Schedule(adam(4e-4, 0.5, 0.9), adam(4e-4, 0.5, 0.9), n_critic=5, lazy=False),
        single_images=True,
        touches="TPO",
    ),
    Recipe("hinge", "hinge", "D max(0, 1 - a_real) + max(0, 1 + a_fake), G -a_fake", "Lim 2017, 1705.02894; Miyato 2018, 1802.05957", "none"),
    Recipe(
        "rpgan", "relativistic", "relativistic pairing: D sp(-(a_real - a_fake)), G sp(-(a_fake - a_real))", "Jolicoeur-Martineau 2018, 1807.00734",
        "one pass of D on reals in G's step",
    ),
    Recipe(
        "rpgan+r1+r2",
        "relativistic",
        "relativistic pairing with R1 and R2 on every step, as in R3GAN",
        "Huang 2024, 2501.05441",
        "two double backwards of D per step, one pass of D on reals in G's step",
        methods=(("r1", {}), ("r2", {})),
        schedule=Schedule(lazy=False),
        touches="TP",
    ),
    Recipe(
        "cn-lsgan",
        "whole-squares",
        "least squares without the half, a gradient penalty (.01) and G's distance to reals (.001)",
        "Nie 2021",
        "a double backward of D per step",
        methods=(("gradient-penalty", dict(weight=0.01)), ("pull-to-reals", {})),
        schedule=Schedule(adam(4e-4, 0.5, 0.999), adam(4e-4, 0.5, 0.999), lazy=False),
        single_images=True,
        touches="TPO",
    ),
)  # fmt: skip
RECIPES = {row.name: row for row in _RECIPES}


# ------------------------------------------------------------------------------------------
# --method

_REGULARISERS, _GENERATOR, _VIEWS = "training.gan.regularisers", "training.gan.generator_parts", "training.gan.views"

_BCR = (_weight("real", 10.0, "weight at reals"), _weight("fake", 10.0, "weight at fakes"))
_ZCR = (
    _weight("dis", 5.0, "weight in D"),
    _weight("gen", 0.5, "weight in G"),
    Parameter("sigma", float, 0.03, "standard deviation of dz", low=0, high=1e3),
)

_METHODS = (
    Method(
        "r1",
        "P",
        "gamma/2 |grad D|^2 at reals",
        "Mescheder 2018, 1801.04406",
        "a double backward of D",
        (Parameter("gamma", float, None, "weight", low=0, default_text="that of --cfg"),),
        part=f"{_REGULARISERS}.R1",
        change=changes.r1,
        lazy=True,
    ),
    Method(
        "r2",
        "P",
        "gamma/2 |grad D|^2 at fakes",
        "Mescheder 2018, 1801.04406",
        "a double backward of D",
        (Parameter("gamma", float, None, "weight", low=0, default_text="that of R1"),),
        part=f"{_REGULARISERS}.R2",
        change=changes.r2,
        lazy=True,
    ),
    Method(
        "gradient-penalty",
        "P",
        "weight (|grad D(x^)| - 1)^2, x^ between a real and a fake",
        "Gulrajani 2017, 1704.00028",
        "a pass and a double backward of D",
        (_weight("weight", 10.0, "lambda"), _weight("target", 1.0, "length of the gradient")),
        part=f"{_REGULARISERS}.GradientPenalty",
    ),
    Method(
        "clip",
        "O",
        "D's weights clipped to +-c after each of its steps",
        "Arjovsky 2017, 1701.07875",
        "none",
        (Parameter("c", float, 0.01, "bound of a weight", low=1e-6, high=1e6),),
        part=f"{_REGULARISERS}.WeightClipping",
    ),
    Method(
        "pull-to-reals",
        "T",
        "G: weight |G(z) - x|^2 for a random real x",
        "Nie 2021",
        "none",
        (_weight("weight", 0.001, "weight of the squared distance, summed over pixels"),),
        part=f"{_GENERATOR}.PullToReals",
    ),
    Method(
        "top-k",
        "T",
        "G learns from the k highest logits of its batch, k falling from all to a share `floor`",
        "Sinha 2020, 2002.06224",
        "none",
        (
            Parameter("floor", float, 0.5, "smallest share of the batch", low=0.01, high=1),
            Parameter("decay", float, 0.99, "factor per pass over the data", low=0, high=1),
        ),
        part=f"{_GENERATOR}.TopK",
        change=changes.top_k,
    ),
    Method(
        "mode-seeking",
        "T",
        "G: weight / (|G(z1) - G(z2)| / |z1 - z2|)",
        "Mao 2019, 1903.05628",
        "a second pass of G in its step",
        (_weight("weight", 1.0, "weight"),),
        part=f"{_GENERATOR}.ModeSeeking",
    ),
    Method(
        "label-smoothing",
        "T",
        "D's target for reals, one-sided",
        "Salimans 2016, 1606.03498",
        "none",
        (Parameter("target", float, 0.9, "what D is to say of reals", low=0.5, high=1),),
        part=f"{_VIEWS}.LabelSmoothing",
        only_terms=("minimax", "non-saturating", "least-squares", "whole-squares"),
    ),
    Method(
        "pacgan",
        "JA",
        "D judges m images, joined along the channels, as one",
        "Lin 2018, 1712.04086",
        "m times the batch",
        (Parameter("m", int, 2, "images in a pack", low=2, high=64),),
        part=f"{_VIEWS}.PacGAN",
        change=changes.pacgan,
    ),
    Method(
        "diffaugment",
        "J",
        "differentiable augmentation in the place of --aug",
        "Zhao 2020, 2006.10738",
        "a few percent",
        (
            Parameter("color", int, 1, "whether colours change", low=0, high=1),
            Parameter("translation", float, 0.125, "most, as a share of the side", low=0, high=0.5),
            Parameter("cutout", float, 0.5, "side of the hole, as a share", low=0, high=1),
        ),
        part=f"{_VIEWS}.DiffAugment",
        change=changes.diffaugment,
    ),
    Method(
        "bcr",
        "P",
        "D: real |D(x) - D(T(x))|^2 + fake |D(G(z)) - D(T(G(z)))|^2, T flips and shifts",
        "Zhao 2020, 2002.04724",
        "two passes of D per step",
        (*_BCR, Parameter("shift", int, 4, "pixels; 0: flips alone", low=0, high=1024)),
        part=f"{_VIEWS}.BalancedConsistency",
        change=changes.bcr,
    ),
    Method(
        "zcr",
        "PT",
        "D: dis |D(G(z)) - D(G(z + dz))|^2, G: -gen |G(z) - G(z + dz)|^2, dz ~ N(0, sigma^2)",
        "Zhao 2020, 2002.04724",
        "a pass of G and one of D per step, a pass of G in G's step",
        _ZCR,
        part=f"{_VIEWS}.LatentConsistency",
    ),
    Method(
        "icr",
        "PT",
        "bcr and zcr together",
        "Zhao 2020, 2002.04724",
        "that of both",
        (*_BCR, Parameter("shift", int, 4, "pixels; 0: flips alone", low=0, high=1024), *_ZCR),
        stands_for=("bcr", "zcr"),
    ),
    Method(
        "gm-gan",
        "Z",
        "latents of a fixed mixture of normal distributions",
        "Ben-Yosef 2018, 1808.10356",
        "none",
        (
            Parameter("kind", str, "circle", "where the means lie", choices=("circle", "uniform")),
            Parameter("means", int, None, "their number", low=1, high=256, default_text="8, uniform: 10"),
            Parameter("radius", float, None, "of the circle, or bound of each coordinate", low=0, high=1e6, default_text="2, uniform: .1"),
            Parameter("std", float, None, "standard deviation of each component", low=1e-6, high=1e6, default_text="1, uniform: .15"),
        ),
        change=changes.gm_gan,
        kind="latents",
    ),
    Method(
        "ttur",
        "O",
        "learning rates of G and D apart",
        "Heusel 2017, 1706.08500; rates: Zhang 2018, 1805.08318",
        "none",
        (Parameter("g", float, 1e-4, "rate of G", low=1e-12, high=1e3), Parameter("d", float, 4e-4, "rate of D", low=1e-12, high=1e3)),
        change=changes.ttur,
        flags_excluded=dict(glr="both are G's learning rate; leave one of them out", dlr="both are D's learning rate; leave one of them out"),
    ),
    Method(
        "n-critic",
        "O",
        "G learns on every n-th step, D on all",
        "Arjovsky 2017, 1701.07875",
        "n steps of D per step of G",
        (Parameter("n", int, 5, "steps of D per step of G", low=1, high=1000),),
        change=changes.n_critic,
    ),
)
METHODS = {row.name: row for row in (*_METHODS, *network_methods.METHODS)}
BACKBONES = {row.name: row for row in network_methods.BACKBONES}
