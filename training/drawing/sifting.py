"""The latents of seeds whose pictures D finds as likely real: discriminator rejection sampling (torch_utils/rejection_sampling.py) for pictures.

Must not know the command line.
"""

import numpy as np
import torch

from dnnlib import console
from torch_utils import rejection_sampling as drs
from training import pictures


class Sifted:
    """Seeds and a label -> latents of accepted pictures.

    The first proposal of a seed is its own latent, and further ones come from the seed alone; so do those of the burn-in, of each
    label apart. That M follows new maxima makes a picture depend on those before it, in rare cases.
    """

    def __init__(self, generator, D, loss, settings, truncation_psi, noise_mode, device):
        self.generator, self.settings, self.device = generator, settings, device
        how = dict(truncation_psi=truncation_psi, noise_mode=noise_mode)
        self.proposals = drs.Proposals(lambda z, c: generator(z, c, **how), D, loss)
        self._acceptance_of = {}

    def latents_of(self, seeds, label_1C):
        """[N, z_dim] on the device; label_1C: that of all."""
        pictures.check_seeds(seeds)
        acceptance = self._begin(label_1C)
        slots = [self._tries(seed) for seed in seeds]
        return drs.accepted(self.proposals, acceptance, slots, label_1C.expand(len(seeds), -1))[1]

    def as_text(self):
        """The line that tells how many were accepted."""
        return "\n".join(drs.as_text(acceptance.facts()) for acceptance in self._acceptance_of.values())

    def _begin(self, label_1C):
        key = tuple(label_1C.flatten().tolist())
        if key not in self._acceptance_of:
            random = np.random.RandomState([drs.STREAM])

            def inputs(_first, count):
                z = torch.from_numpy(random.standard_normal([count, self.generator.z_dim]).astype(np.float32)).to(self.device)
                return z, label_1C.expand(count, -1)

            total = -(-self.settings.burn_in // drs.JUDGED_AT_ONCE)
            console.note(f"--drs judges {self.settings.burn_in} images before it keeps one ({total} batches of {drs.JUDGED_AT_ONCE}).")
            self._acceptance_of[key] = drs.burnt_in(self.proposals, inputs, self.settings)
        return self._acceptance_of[key]

    def _tries(self, seed):
        first = torch.from_numpy(np.random.RandomState(seed).standard_normal([self.generator.z_dim]).astype(np.float32))
        return drs.tries(first, np.random.RandomState([seed, drs.STREAM]), self.device)
