"""The rows that change networks, or keep networks, pools and histories of their own, and those of --backbone; methods.py joins them to its table. No torch here."""

from training.gan import backbones, changes
from training.gan.rows import Backbone, Method, Parameter, weight as _weight
from training.gan.schedule import Schedule, adam

_GAN = "training.gan"

METHODS = (
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
        change=changes.feature_matching,
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
            Parameter("share", float, 1.0, "of the batch that they see; the cost is that of so many images", low=0.01, high=1),
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

# ------------------------------------------------------------------------------------------
# --backbone

_NORM = Parameter(
    "norm", str, None, "of D", choices=("batch", "layer", "spectral", "none"), default_text="batch, or layer with penalties on single images"
)

BACKBONES = (
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
        parameters=(_NORM, Parameter("z_dim", int, 100, "values of a latent", low=1, high=4096)),
    ),
    Backbone(
        "weak-dcgan",
        "Stacked MNIST before a weak D, 28 pixels: 3x3 convolutions of stride 2, batch normalisation in all of D, fewer channels in D than in G",
        "Metz 2017, 1611.02163, as PacGAN runs it (1712.04086)",
        "a fraction of StyleGAN2's",
        build=backbones.weak_dcgan,
        has_styles=False,
        D_batch_norm=backbones.has_batch_norm,
        recipe="non-saturating",
        schedule=Schedule(adam(1e-4, 0.5, 0.99), adam(2e-4, 0.5, 0.99)),
        parameters=(
            Parameter("share", float, 0.25, "channels of D over those of G", low=0.03125, high=16),
            _NORM,
            Parameter("z_dim", int, 256, "values of a latent", low=1, high=4096),
        ),
    ),
)
