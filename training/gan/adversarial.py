"""The adversarial losses: one function per term, from logits to one value per row.

Pure functions of D's logits, [groups, 1] each (one row per image, or per pack of images). `real` and `fake` in a name say whose
logits a term is of; a relativistic term takes both. D and G both descend. Must not know networks, phases or images.
sp(x) = log(1 + exp(x)), so that sp(-a) = -log sigmoid(a).
"""

import dataclasses
from collections.abc import Callable

import torch
import torch.nn.functional as F


@dataclasses.dataclass(frozen=True)
class Terms:
    """One adversarial loss.

    generator(fake_logits, real_logits), fake(fake_logits), real(real_logits, fake_logits) -> one value per row. What a loss that is not
    `relativistic` does not look at may be None. smoothed(target) -> the real term for that target of D, None where D has no target.
    boundary: the logit at which D takes an image for as likely real as generated; None where logits have an offset that means nothing.
    """

    name: str
    generator: Callable
    fake: Callable
    real: Callable
    boundary: float | None = None
    relativistic: bool = False
    smoothed: Callable | None = None


# ------------------------------------------------------------------------------------------
# Cross entropy (Goodfellow et al. 2014, 1406.2661).


def saturating_generator(fake_logits, real_logits=None):
    """log(1 - sigmoid(a)) = -sp(a), the value of the minimax game (1406.2661, eq. 1), which G descends. [groups, 1] -> [groups, 1]."""
    return -F.softplus(fake_logits)


def non_saturating_generator(fake_logits, real_logits=None):
    """-log sigmoid(a) = sp(-a) (1406.2661, section 3). [groups, 1] -> [groups, 1]."""
    return F.softplus(-fake_logits)


def cross_entropy_fake(fake_logits):
    """-log(1 - sigmoid(a)) = sp(a) (1406.2661, eq. 1). [groups, 1] -> [groups, 1]."""
    return F.softplus(fake_logits)


def cross_entropy_real(real_logits, fake_logits=None, target=1.0):
    """Cross entropy of sigmoid(a) against `target`: target sp(-a) + (1 - target) sp(a). [groups, 1] -> [groups, 1].

    target 1: eq. 1 of 1406.2661; below 1: one-sided label smoothing (Salimans et al. 2016, 1606.03498, section 3.4).
    """
    if target == 1:
        return F.softplus(-real_logits)
    return target * F.softplus(-real_logits) + (1 - target) * F.softplus(real_logits)


# ------------------------------------------------------------------------------------------
# Least squares (Mao et al. 2016, 1611.04076).


def least_squares_generator(fake_logits, real_logits=None):
    """1/2 (a - 1)^2 (1611.04076, eq. 9). [groups, 1] -> [groups, 1]."""
    return (fake_logits - 1).square() / 2


def least_squares_fake(fake_logits):
    """1/2 a^2 (1611.04076, eq. 9). [groups, 1] -> [groups, 1]."""
    return fake_logits.square() / 2


def least_squares_real(real_logits, fake_logits=None, target=1.0):
    """1/2 (a - target)^2 (1611.04076, eq. 9). [groups, 1] -> [groups, 1]."""
    return (real_logits - target).square() / 2


def whole_squares_generator(fake_logits, real_logits=None):
    """(a - 1)^2: least squares without the half. [groups, 1] -> [groups, 1]."""
    return (fake_logits - 1).square()


def whole_squares_fake(fake_logits):
    """a^2. [groups, 1] -> [groups, 1]."""
    return fake_logits.square()


def whole_squares_real(real_logits, fake_logits=None, target=1.0):
    """(a - target)^2. [groups, 1] -> [groups, 1]."""
    return (real_logits - target).square()


# ------------------------------------------------------------------------------------------
# Wasserstein critic, hinge, relativistic pairing.


def critic_generator(fake_logits, real_logits=None):
    """-a (Arjovsky et al. 2017, 1701.07875, eq. 3). [groups, 1] -> [groups, 1]."""
    return -fake_logits


def critic_fake(fake_logits):
    """a (1701.07875, eq. 3). [groups, 1] -> [groups, 1]."""
    return fake_logits.clone()


def critic_real(real_logits, fake_logits=None):
    """-a (1701.07875, eq. 3). [groups, 1] -> [groups, 1]."""
    return -real_logits


def hinge_fake(fake_logits):
    """max(0, 1 + a) (Lim and Ye 2017, 1705.02894; Miyato et al. 2018, 1802.05957, eq. 16). [groups, 1] -> [groups, 1]."""
    return F.relu(1 + fake_logits)


def hinge_real(real_logits, fake_logits=None):
    """max(0, 1 - a) (1802.05957, eq. 16). [groups, 1] -> [groups, 1]."""
    return F.relu(1 - real_logits)


def paired_generator(fake_logits, real_logits):
    """sp(-(a_fake - a_real)), row by row (Jolicoeur-Martineau 2018, 1807.00734; Huang et al. 2024, 2501.05441, eq. 2)."""
    return F.softplus(real_logits - fake_logits)


def paired_fake(fake_logits):
    """Zero: a pair of a real and a fake image counts once, in the real term."""
    return torch.zeros_like(fake_logits)


def paired_real(real_logits, fake_logits):
    """sp(-(a_real - a_fake)), row by row (2501.05441, eq. 2). Two of [groups, 1] -> [groups, 1]."""
    return F.softplus(fake_logits - real_logits)


# ------------------------------------------------------------------------------------------
# The table.


def _smoothed(real):
    def with_target(target):
        return lambda real_logits, fake_logits=None: real(real_logits, fake_logits, target=target)

    return with_target


TERMS = {
    terms.name: terms
    for terms in (
        Terms("minimax", saturating_generator, cross_entropy_fake, cross_entropy_real, 0.0, smoothed=_smoothed(cross_entropy_real)),
        Terms("non-saturating", non_saturating_generator, cross_entropy_fake, cross_entropy_real, 0.0, smoothed=_smoothed(cross_entropy_real)),
        Terms("least-squares", least_squares_generator, least_squares_fake, least_squares_real, 0.5, smoothed=_smoothed(least_squares_real)),
        Terms("whole-squares", whole_squares_generator, whole_squares_fake, whole_squares_real, 0.5, smoothed=_smoothed(whole_squares_real)),
        Terms("critic", critic_generator, critic_fake, critic_real),
        Terms("hinge", critic_generator, hinge_fake, hinge_real, 0.0),
        Terms("relativistic", paired_generator, paired_fake, paired_real, relativistic=True),
    )
}
