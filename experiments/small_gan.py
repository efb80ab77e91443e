"""Small GANs of the digit beds and the toys: a method of a study as rows of train.py, and steps from draws that all methods share.

Must not know data or measures.
"""

import torch

from dnnlib import EasyDict, util
from experiments import row_runs
from madr_plugin import config, options as madr_options
from madr_spaces.seeds import generator_for
from training.gan import methods as rows

R1_GAMMA = 1.0  # of a row that brings R1 without a weight
# Rows as result files have stated them since before there was a table of methods.
_STATED = {"r1:gamma=1": dict(r1_gamma=1.0), "pacgan:m=2": dict(pack=2)}


def resolved(options):
    """A method's options as result files state them, with every knob of MADR spelled out: a file never holds runs of two defaults."""
    named = {name: value.rpartition(".")[2] if name == "objective" else value for name, value in options.items()}
    for text in named.pop("method", ()):
        named.update(_STATED.get(text) or dict(method=[*named.get("method", []), text]))
    return named if "madr" not in named else dict(named, madr=config.resolve(named["madr"]).as_dict())


def build(options, networks, data, seed, *, batch, lr_G, lr_D, betas, mixture=None):
    """The run of a method. options: of toy_methods.table(); networks: (G_kwargs, D_kwargs); data: its image_shape and reals for MADR's reference.
    mixture: the generator's class under gm-gan, where it is a bed's own.

    PacGAN's batch grows by its factor, so that D still judges `batch` packs.
    """
    optimizers = [dict(class_name="torch.optim.Adam", lr=rate, betas=list(betas), eps=1e-8) for rate in (lr_G, lr_D)]
    classes = [kwargs["class_name"] for kwargs in networks]
    given = row_runs.options_of(batch, 1, seed, {}, optimizers, R1_GAMMA, [EasyDict(kwargs) for kwargs in networks])
    row_runs.choose(given, dict(gan=options.get("gan", "non-saturating"), method=options.get("method", ())), data.image_shape)
    row_runs.keep_networks(given, classes, options.get("method", ()), mixture)
    if "madr" in options:
        given.loss_kwargs.update(class_name=madr_options.LOSS_CLASS, base_class_name=given.loss_kwargs.class_name, madr=options["madr"])
    run = row_runs.Run(given, data, data.image_shape, first_weights=seed)
    if not any(rows.METHODS[entry.name].lazy for entry in given.loss_kwargs.methods):
        for phase in run.phases:
            phase.name = phase.name.replace("both", "main")  # MADR's tilt draws by the name, and these runs have no regulariser
    if "objective" in options:
        run.loss.engine.objective = util.get_obj_by_name(options["objective"])(run.loss.config, run.loss.engine.reference, seed)
    return run


def train(run, reals, seed, steps, each=None):
    """`steps` steps of G and then D. reals: [N, C, H, W] as the networks take them. each(step): called after every step.

    Draws from a generator of its own: all methods of one batch size and one schedule see the same latents and reals. Returns CPU seconds
    without those of `each`.
    """
    generator, count = generator_for("small-gan", seed), run.options.batch_size

    def draws(_phase):
        z, chosen = torch.randn([count, run.G.z_dim], generator=generator), torch.randint(len(reals), [count], generator=generator)
        return reals[chosen], z

    for step in range(1, steps + 1):
        run.step_of(draws)
        if each is not None:
            each(step)
    return run.seconds
