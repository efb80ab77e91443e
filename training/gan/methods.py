"""The table of methods: what --gan, --method and --backbone can name, one row each.

A new method is a row here, its mathematics a pure function (adversarial.py, penalties.py), its place in the loss a Part (part.py) or,
with networks or a memory of its own, an Extra (extras.py); what it needs of the options is a function in changes.py. Defaults are the
sources'. Must not import torch: --help and --list-methods show the rows.
"""

from training.gan import changes
from training.gan.rows import Backbone, Method, Parameter, Recipe
from training.gan.schedule import Schedule, adam, rmsprop

# What a run with --method but without --gan has: StyleGAN2's own loss.
DEFAULT_RECIPE, DEFAULT_BACKBONE = "r1", "stylegan2"


def _weight(name, default, meaning):
    return Parameter(name, float, default, meaning, low=0)


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
    Recipe("hinge", "hinge", "D max(0, 1 - a_real) + max(0, 1 + a_fake), G -a_fake", "Lim 2017, 1705.02894; Miyato 2018", "none"),
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
)
METHODS = {row.name: row for row in _METHODS}


# ------------------------------------------------------------------------------------------
# --backbone

_BACKBONES = (Backbone("stylegan2", "the networks of --cfg", "Karras 2020, 1912.04958", "-"),)
BACKBONES = {row.name: row for row in _BACKBONES}
