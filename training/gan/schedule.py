"""When and how fast G and D learn, as data: optimizers, steps of D per step of G, whether penalties come lazily.

A Schedule is what a method's source says about it; apply() writes it into the training options. What is None is left as it is.
Must not import torch.
"""

import dataclasses
from typing import Any

from training import reasons


def adam(lr, beta1, beta2, eps=1e-8):
    """Options of Adam (Kingma and Ba 2014, 1412.6980)."""
    return dict(class_name="torch.optim.Adam", lr=lr, betas=[beta1, beta2], eps=eps)


def rmsprop(lr):
    """Options of RMSProp with PyTorch's defaults for the rest."""
    return dict(class_name="torch.optim.RMSprop", lr=lr)


@dataclasses.dataclass(frozen=True)
class Schedule:
    """G_opt, D_opt: optimizer options. n_critic: G learns on every n-th step, D on all. lazy: whether D's penalties are applied on every
    16th step with 16 times their weight (StyleGAN2, 1912.04958, appendix B); False: on every step, together with the adversarial terms."""

    G_opt: dict[str, Any] | None = None
    D_opt: dict[str, Any] | None = None
    n_critic: int | None = None
    lazy: bool | None = None

    def apply(self, options, why):
        """Write into the training options. Returns sentences on what is otherwise now; why: the flag that asks for it."""
        told = []
        for letter, opt, matter in (("G", self.G_opt, reasons.RATE_G), ("D", self.D_opt, reasons.RATE_D)):
            if opt is not None:
                options[f"{letter}_opt_kwargs"] = type(options)(opt)
                told.append(reasons.About(matter, f"{letter} learns by {reasons.describe(opt)}: {why}"))
        if self.n_critic is not None:
            told += set_n_critic(options, self.n_critic, why)
        if self.lazy is False:
            options["D_reg_interval"] = None
            told.append(f"penalties of D on every step, with the adversarial terms: {why}")
        return told


def set_n_critic(options, n_critic, why):
    """G learns on every n-th step. Returns sentences."""
    options.pop("n_critic", None)
    if n_critic != 1:
        options["n_critic"] = n_critic
    often = "G learns on every step" if n_critic == 1 else f"G learns on every {n_critic}th step, D on all; kimg counts what D sees"
    return [reasons.About(reasons.N_CRITIC, f"{often}: {why}")]
