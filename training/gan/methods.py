"""The table of methods: what --gan, --method and --backbone can name, one row each.

A new method is a row here, its mathematics a pure function (adversarial.py, penalties.py), its place in the loss a Part (part.py) or,
with networks or a memory of its own, an Extra (extras.py); what it needs of the options is a function in changes.py. Defaults are the
sources'. Must not import torch: --help and --list-methods show the rows.
"""

from training.gan import backbones, changes
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

_GAN = "training.gan"
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
    Method(
        "spectral-norm",
        "A",
        "D's weights divided by their largest singular values",
        "Miyato 2018, 1802.05957",
        "two small matrix products per layer of D",
        change=backbones.spectral_norm,
    ),
    Method(
        "minibatch-discrimination",
        "A",
        "o_ib = sum_j exp(-|M_ib - M_jb|) joins D's features, M_i = f_i T",
        "Salimans 2016, 1606.03498",
        "kernels x dim x features parameters of D",
        (Parameter("kernels", int, 50, "columns of o", low=1, high=256), Parameter("dim", int, 5, "rows of M_ib", low=1, high=256)),
        change=backbones.minibatch_discrimination,
    ),
    Method(
        "no-minibatch-std",
        "A",
        "StyleGAN2's D without the standard deviation of its minibatch",
        "Karras 2018, 1710.10196, which has it",
        "none",
        change=backbones.no_minibatch_std,
        flags_excluded={"mbstd_group": "there is no group any more; leave one of the two out"},
    ),
    Method(
        "image-pool",
        "JX",
        "half of D's fakes are of the past",
        "Shrivastava 2017, 1612.07828",
        "the images' memory, here and in each training state",
        (Parameter("size", int, 1000, "images in the pool", low=1, high=100000),),
        part="training.gan.image_pool.ImagePool",
        change=changes.image_pool,
    ),
    Method(
        "imle",
        "X",
        "G: weight |G(z_j) - x|^2 for each real x and the nearest of a pool of fakes",
        "Li 2018, 1809.09087; Yu 2020, 2004.03355",
        "a second pass of G in its step, and of size / interval images without gradient",
        (
            _weight("weight", 1.0, "weight of the squared distance, a mean over pixels"),
            Parameter("size", int, 512, "latents in the pool", low=1, high=100000),
            Parameter("interval", int, 100, "steps of G for which a pool stays", low=1, high=1000000),
        ),
        part="training.gan.imle.IMLE",
    ),
    Method(
        "historical-averaging",
        "X",
        "G and D: weight |theta - mean of past theta|^2",
        "Salimans 2016, 1606.03498",
        "a copy of the weights of both networks",
        (_weight("weight", 1.0, "weight of the squared distance, summed over parameters"),),
        part="training.gan.historical.HistoricalAveraging",
    ),
    Method(
        "feature-matching",
        "T",
        "G: weight |E f(x) - E f(G(z))|^2, f what D's last layer reads",
        "Salimans 2016, 1606.03498",
        "one pass of D on reals in G's step",
        (
            _weight("weight", 1.0, "weight of the squared distance, summed over features"),
            _weight("adversarial", 0.0, "weight of G's adversarial term, whose place it takes by default"),
        ),
        part="training.gan.feature_matching.FeatureMatching",
    ),
    Method(
        "unrolled",
        "OX",
        "G learns from what D would be k steps later, differentiated through them",
        "Metz 2017, 1611.02163",
        "k differentiated steps of D per step of G, each about two plain ones, and the memory of their graphs",
        (
            Parameter("k", int, 5, "steps of D", low=1, high=100),
            Parameter("surrogate", str, "adam", "their rule", choices=("adam", "sgd")),
            Parameter("rate", float, 0.0, "their learning rate; 0: D's own", low=0, high=1e3),
        ),
        part=f"{_GAN}.unrolled.Unrolled",
        change=changes.unrolled,
        excludes=dict.fromkeys(["gradient-penalty", "clip"], "without it D's unrolled steps would have no bound; leave one of them out"),
        only_terms=("minimax", "non-saturating", "least-squares", "whole-squares", "hinge"),
    ),
    Method(
        "veegan",
        "XJ",
        "weight E |z - F(G(z))|^2 + adversarial on pairs (z, G(z)) against (F(x), x)",
        "Srivastava 2017, 1705.07761",
        "a small network F: a pass and a step of it per step of G, a pass per step of D",
        (
            _weight("weight", 1.0, "weight of the squared distance, summed over z"),
            Parameter("rate", float, 1e-3, "learning rate of F", low=1e-12, high=1e3),
            Parameter("width", int, 32, "channels of F's first layer", low=1, high=1024),
        ),
        part=f"{_GAN}.veegan.VEEGAN",
        change=changes.veegan,
        excludes={"image-pool": "D judges pairs of an image and the latents that drew it, and the pool keeps images alone; leave one of them out"},
    ),
    Method(
        "dia-gan",
        "XJ",
        "D's reals drawn by mean + k std of their past logits",
        "Lee 2021, 2102.12033",
        "three numbers per real; once reals are drawn, they are read by the training process itself",
        (
            Parameter("k", float, 0.3, "weight of the standard deviation", low=0, high=1e3),
            Parameter("record", float, None, "kimg from which logits are noted", low=0, high=1e9, default_text="half of start"),
            Parameter("start", float, None, "kimg from which reals are drawn", low=0, high=1e9, default_text="3/4 of --kimg"),
        ),
        part=f"{_GAN}.dia_gan.DiaGAN",
        change=changes.dia_gan,
        excludes=dict(pacgan="D's logits of packs tell nothing of single reals; leave one of them out"),
        only_terms=("minimax", "non-saturating"),
    ),
)
METHODS = {row.name: row for row in _METHODS}


# ------------------------------------------------------------------------------------------
# --backbone

_BACKBONES = (
    Backbone("stylegan2", "the networks of --cfg", "Karras 2020, 1912.04958", "-"),
    Backbone(
        "dcgan",
        "4x4 convolutions of stride 2 with batch normalisation, 14 to 128 pixels, no styles, no noise, one w per image",
        "Radford 2015, 1511.06434",
        "a fraction of StyleGAN2's",
        build=backbones.dcgan,
        has_styles=False,
        D_batch_norm=backbones.has_batch_norm,
        recipe="non-saturating",
        schedule=Schedule(adam(2e-4, 0.5, 0.999), adam(2e-4, 0.5, 0.999)),
        parameters=(
            Parameter(
                "norm",
                str,
                None,
                "of D",
                choices=("batch", "layer", "spectral", "none"),
                default_text="batch, or layer with penalties on single images",
            ),
            Parameter("z_dim", int, 100, "values of a latent", low=1, high=4096),
        ),
    ),
)
BACKBONES = {row.name: row for row in _BACKBONES}
