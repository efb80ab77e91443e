"""A generator whose images D has sifted (torch_utils/rejection_sampling.py), in the place of a generator. Must not know any metric."""

import copy

import numpy as np
import torch

from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import metric_utils
from metrics.metric import Takes
from torch_utils import rejection_sampling as drs


def check(rows):
    """Refuse what cannot be computed of sifted images. rows: of the metrics."""
    unfit = [row.name for row in rows if row.takes is Takes.NETWORK]
    if unfit:
        raise UserError(f"--drs sifts images, and --metrics={','.join(unfit)} looks at the network itself; leave one of the two out")


def as_text(facts):
    """A line for the eye: how many proposals were accepted, and by what rule."""
    told = facts.get("drs")
    if not isinstance(told, dict) or told.get("acceptance") is None:
        return "Discriminator rejection sampling: nothing was drawn."
    return drs.as_text(told)


class Rejected:
    """G with D behind it: the attributes that metrics ask of a generator, and batches of accepted images.

    Every metric begins with the same burn-in and is the same whichever were computed before. Item i tries first the latent that it
    has without rejection; its label stays.
    """

    def __init__(self, G, D, loss, settings):
        self.G, self.D, self.loss, self.settings = G, D, loss, settings
        self.z_dim, self.c_dim = G.z_dim, G.c_dim
        self.img_resolution, self.img_channels = G.img_resolution, G.img_channels
        self._burnt_in = {}

    def batches(self, opts, num_items, batch_gen):
        """uint8 [batch_gen, C, H, W] on the device of the options, as metric_utils.generate_images gives them."""
        G, D = (metric_utils.frozen_copy(network, opts.device) for network in (self.G, self.D))
        labels = metric_utils.LabelSource(opts)
        proposals = drs.Proposals(lambda z, c: G(z=z, c=c, **opts.G_kwargs), D, self.loss)
        with sampling.noise(opts.device, opts.seed, 2**32 - 1):
            acceptance = self._begin(opts, proposals, labels)
        random = np.random.Generator(np.random.Philox(key=[opts.seed, drs.STREAM]))
        for first in range(0, num_items, batch_gen):
            z = torch.from_numpy(sampling.latents(opts.seed, first, batch_gen, G.z_dim))
            slots = [drs.tries(row, random, opts.device) for row in z]
            with sampling.noise(opts.device, opts.seed, first // batch_gen):
                images, _ = drs.accepted(proposals, acceptance, slots, labels.take(first, batch_gen))
            self._record(opts, num_items, batch_gen, acceptance)
            yield sampling.to_bytes(images)

    def _begin(self, opts, proposals, labels):
        def inputs(first, count):  # far behind those that the metric looks at
            first += drs.BURN_IN_ITEMS
            z = torch.from_numpy(sampling.latents(opts.seed, first, count, self.z_dim)).to(opts.device)
            return z, labels.take(first, count)

        key = opts.seed, str(sorted(opts.G_kwargs.items()))
        if labels.dataset is None and key in self._burnt_in:  # labels may be those of one class, next time of another
            return copy.deepcopy(self._burnt_in[key])
        opts.say(f"Discriminator rejection sampling: {self.settings.burn_in} images to begin with...")
        self._burnt_in[key] = drs.burnt_in(proposals, inputs, self.settings)
        return copy.deepcopy(self._burnt_in[key])

    def _record(self, opts, num_items, batch_gen, acceptance):
        opts.record(
            num_gen=num_items,
            seed=opts.seed,
            batch=batch_gen,
            truncation_psi=opts.G_kwargs.get("truncation_psi", 1),
            truncation_cutoff=opts.G_kwargs.get("truncation_cutoff"),
            noise_mode=opts.G_kwargs.get("noise_mode", "random"),
            drs=dict(acceptance.facts(), **self.loss.facts()),
        )
