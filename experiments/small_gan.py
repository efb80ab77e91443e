"""The smallest host that MADR can enter: a non-saturating GAN with the loss interface of the training loop, and its steps.

Also R1 and PacGAN in a few lines, so that a study compares methods under one loop. Must not know data or measures.
"""

import time

import torch
import torch.nn.functional as F

from dnnlib import util
from madr_plugin import config
from madr_plugin.loss import MADRLoss
from madr_spaces.seeds import generator_for


class NonSaturatingLoss:
    """softplus losses (Goodfellow 2014), with R1 on the reals (Mescheder 2018) where r1_gamma > 0, and PacGAN (Lin 2018)
    where pack > 1: D judges `pack` images at once, joined along the channels."""

    def __init__(self, device, G, D, augment_pipe=None, r1_gamma=0.0, pack=1):
        self.G, self.D, self.r1_gamma, self.pack = G, D, r1_gamma, pack

    def judge(self, images, c):
        return self.D(images.reshape(len(images) // self.pack, self.pack * images.shape[1], *images.shape[2:]), c)

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        if phase == "Gmain":
            loss = F.softplus(-self.judge(self.G(gen_z, gen_c), gen_c)).mean()
        else:
            with torch.no_grad():
                fake = self.G(gen_z, gen_c)
            real_img = real_img.detach().requires_grad_(self.r1_gamma > 0)
            real_logits = self.judge(real_img, real_c)
            loss = F.softplus(self.judge(fake, gen_c)).mean() + F.softplus(-real_logits).mean()
            if self.r1_gamma > 0:
                [gradient] = torch.autograd.grad(real_logits.sum(), real_img, create_graph=True)
                loss = loss + self.r1_gamma / 2 * gradient.square().sum() / len(real_logits)
        loss.mul(gain).backward()


def build_loss(G, D, dataset, seed, *, madr=None, objective=None, **base_kwargs):
    """The plain loss, or the plugin's around it. madr: options by name, None for none; objective: dotted name of a class to take the place of the plugin's."""
    if madr is None:
        return NonSaturatingLoss("cpu", G, D, **base_kwargs)
    loss = MADRLoss("cpu", G=G, D=D, base_class_name=f"{NonSaturatingLoss.__module__}.NonSaturatingLoss", madr=madr, **base_kwargs)
    loss.attach(dict(training_set=dataset, random_seed=seed))
    if objective is not None:
        loss.engine.objective = util.get_obj_by_name(objective)(loss.config, loss.engine.reference, seed)
    return loss


def resolved(options):
    """A method's options with every knob of MADR spelled out: a file never holds runs of two defaults."""
    named = {name: value.rpartition(".")[2] if name == "objective" else value for name, value in options.items()}
    return named if "madr" not in named else dict(named, madr=config.resolve(named["madr"]).as_dict())


def train(loss, G, D, reals, seed, *, steps, batch, z_dim, lr_G, lr_D, betas, pack=1, each=None):
    """`steps` steps of G and then D. reals: [N, C, H, W] as the networks take them. each(step): called after every step.

    Draws from a generator of its own: all methods of one batch size see the same latents and reals. With pack > 1 the batch
    grows by that factor, so that D still judges `batch` packs, and the draws are others. Returns CPU seconds without those of `each`.
    """
    generator = generator_for("small-gan", seed)
    phases = [
        ("Gmain", G, D, torch.optim.Adam(G.parameters(), lr_G, betas=betas)),
        ("Dmain", D, G, torch.optim.Adam(D.parameters(), lr_D, betas=betas)),
    ]
    count = batch * pack
    no_labels, seconds = torch.zeros([count, 0]), 0.0
    for step in range(1, steps + 1):
        start = time.process_time()
        for name, learning, other, opt in phases:
            learning.requires_grad_(True), other.requires_grad_(False)
            opt.zero_grad(set_to_none=True)
            z, rows = torch.randn([count, z_dim], generator=generator), torch.randint(len(reals), [count], generator=generator)
            loss.accumulate_gradients(name, reals[rows], no_labels, z, no_labels, sync=True, gain=1)
            opt.step()
        seconds += time.process_time() - start
        if each is not None:
            each(step)
    return seconds
