"""Training in a study's own script, with every method of train.py as a row: options, networks, steps, and the state to go on from.

For data that train.py does not read, such as points, or triples that are drawn as they come. Must not know what is trained on, nor how it is
measured. Draws are seeded by the position in the run, as in the training loop: a run that goes on from a state is the run in one.
"""

import json
import time

import torch

import dnnlib
from dnnlib import files
from dnnlib.errors import UserError
from madr_plugin import options as madr
from training import config, phases, setup, state
from training.gan import choosing

STATE = "state.pt"
_REFUSED = {
    "dia-gan": "it remembers each real of a set by its position, and here reals are drawn at random",
    "no-minibatch-std": "it takes away what these networks do not have",
}


def options_of(batch, kimg, seed, training_set_kwargs, optimizers, r1_gamma, networks=None):
    """Training options of a run without methods. optimizers: those of G and of D; networks: (G_kwargs, D_kwargs) where no backbone brings them.

    r1_gamma: the weight of a method that brings R1 without one.
    """
    G_kwargs, D_kwargs = networks or (dnnlib.EasyDict(), dnnlib.EasyDict())
    return dnnlib.EasyDict(
        num_gpus=1,
        batch_size=batch,
        batch_gpu=batch,
        random_seed=seed,
        total_kimg=kimg,
        training_set_kwargs=dnnlib.EasyDict(training_set_kwargs, use_labels=False),
        G_kwargs=G_kwargs,
        D_kwargs=D_kwargs,
        G_opt_kwargs=dnnlib.EasyDict(optimizers[0]),
        D_opt_kwargs=dnnlib.EasyDict(optimizers[1]),
        loss_kwargs=dnnlib.EasyDict(class_name="training.loss.StyleGAN2Loss", r1_gamma=r1_gamma, pl_weight=0, style_mixing_prob=0),
        augment_kwargs=None,
        ema_kimg=0,
        ema_rampup=None,
        G_reg_interval=None,
        D_reg_interval=None,
    )


def choose(options, flags, image_shape):
    """Write --gan, --method, --backbone and the flags of MADR into the options. flags: by name. Images are judged as they are."""
    for text in flags.get("method") or ():
        name = text.partition(":")[0].strip().lower()
        if name in _REFUSED:
            raise UserError(f"--method={text} cannot be used here: {_REFUSED[name]}; leave it out.")
    resolved = config.Resolved(options=options, name_parts=[], reasons=[], image_shape=tuple(image_shape))
    chosen = {name: flags.get(name) for name in ("gan", "method", "backbone")}
    choosing.apply(resolved, dnnlib.EasyDict({name: value for name, value in chosen.items() if value}))
    options.batch_gpu = options.batch_size
    madr.apply(options, flags)
    if "madr" in options.loss_kwargs:
        options.loss_kwargs.madr["training_set_kwargs"] = None  # it reads the object that the run has
    options.augment_kwargs = None
    return options


def keep_networks(options, networks, methods, mixture=None):
    """Refuse methods that have changed the classes of the networks. networks: (G's, D's) dotted names; mixture: that of G under gm-gan."""
    made = options.G_kwargs.get("base_class_name", options.G_kwargs.class_name), options.D_kwargs.class_name
    if made != tuple(networks):
        raise UserError(f"--method={' --method='.join(methods)} changes the networks, and this bed has its own; leave it out here.")
    if mixture and "base_class_name" in options.G_kwargs:
        options.G_kwargs.class_name = mixture


def identity(options, data, length=None):
    """What two parts of one run agree in, as text: the options without places and length, the data, and the length where it must stay."""
    told = json.loads(json.dumps(options))
    for place in ("total_kimg", "training_set_kwargs"):
        told.pop(place)
    return json.dumps(dict(options=told, data=data.content_fingerprint(), **({} if length is None else {"length": length})), sort_keys=True)


class Run:
    """The networks of a run, its loss with all methods, and its phases. data: in the shape of a data set; image_shape: [C, H, W].

    first_weights: seed of the networks, None for one that follows from the run's.
    """

    def __init__(self, options, data, image_shape, first_weights=None):
        self.options, self.steps, self.seconds = options, 0, 0.0
        common = dict(c_dim=0, img_channels=image_shape[0], img_resolution=image_shape[1])
        torch.manual_seed(phases.derived_seed(options.random_seed, 0) if first_weights is None else first_weights)
        self.G = dnnlib.util.construct_class_by_name(**{**common, **options.G_kwargs})
        self.D = dnnlib.util.construct_class_by_name(**{**common, **options.D_kwargs})
        device = torch.device("cpu")
        self.loss = setup.build_loss(options.loss_kwargs, self.G, self.D, None, device)
        intervals = options.G_reg_interval, options.D_reg_interval, options.get("n_critic", 1)
        self.phases, self.optimizers = phases.setup_phases(self.G, self.D, options.G_opt_kwargs, options.D_opt_kwargs, *intervals)
        told = {name: options[name] for name in ("num_gpus", "random_seed", "batch_size", "batch_gpu")}
        networks = dict(G=self.G, D=self.D, G_ema=self.G, optimizers=self.optimizers)
        self.loss.attach(dnnlib.EasyDict(**told, **networks, rank=0, device=device, run_dir=None, training_set=data, keeps_state=True))

    def step(self, draw):
        """One step of all phases that are due. draw(count, generator) -> reals [count, C, H, W] in [-1, 1]."""
        batch, seed = self.options.batch_size, self.options.random_seed
        cur_nimg, no_labels = self.steps * batch, torch.zeros([batch, 0])
        begun = time.process_time()
        reals = draw(batch, torch.Generator().manual_seed(phases.derived_seed(seed, cur_nimg, 3)))
        self.seconds += time.process_time() - begun
        self.step_of(lambda number: (reals, phases.draw_latents(number, 0, batch, self.G.z_dim, no_labels, seed, cur_nimg)[0]))

    def step_of(self, draws):
        """The same with given draws. draws(number of a phase) -> (reals, latents [N, z_dim]) of it."""
        begun, seed = time.process_time(), self.options.random_seed
        cur_nimg = self.steps * self.options.batch_size
        for number, phase in enumerate(self.phases):
            if self.steps % phase.interval == 0:
                reals, z = draws(number)
                no_labels = torch.zeros([len(z), 0])
                self.loss.begin_phase(phase.name, cur_nimg)
                phases.run_phase(phase, number, self.loss, [(0, reals, no_labels, z, no_labels)], seed, cur_nimg)
                self.loss.end_phase(phase.name)
        self.steps += 1
        self.seconds += time.process_time() - begun

    def state_dict(self):
        """Plain values from which load_state_dict() goes on."""
        parts = dict(G=self.G, D=self.D, G_opt=self.optimizers["G"], D_opt=self.optimizers["D"], loss=self.loss)
        return dict(format=state.FORMAT, steps=self.steps, seconds=self.seconds, parts={name: part.state_dict() for name, part in parts.items()})

    def load_state_dict(self, kept):
        """Take up what state_dict() of a run with the same options gave."""
        self.steps, self.seconds = kept["steps"], kept["seconds"]
        parts = dict(G=self.G, D=self.D, G_opt=self.optimizers["G"], D_opt=self.optimizers["D"], loss=self.loss)
        for name, part in parts.items():
            part.load_state_dict(kept["parts"][name])

    def keep(self, path, own, curve):
        """Save the state from which the same command goes on, with the curve so far. own: identity() of the run."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.atomic_open(path) as file:
            torch.save(dict(self.state_dict(), identity=own, curve=curve), file)

    def resumed(self, path, own):
        """Go on from a state -> the curve so far, [] without one; refuses that of another run."""
        if not path.exists():
            return []
        kept = state.load_state(str(path))
        if kept.get("identity") != own:
            raise UserError(f"{path} is the state of a run with other methods, other data or another length; give another --outdir, or move it away.")
        self.load_state_dict(kept)
        return kept["curve"]

    @torch.no_grad()
    def sample(self, z):
        """Images of G in its present state, its batch normalisation by its running averages. [N, z_dim] -> [N, C, H, W]."""
        was_training = self.G.training
        self.G.eval()
        images = self.G(z, torch.zeros([len(z), 0]))
        self.G.train(was_training)
        return images

    def close(self):
        self.loss.close()
