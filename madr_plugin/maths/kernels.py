"""Computes the kernels of the witness from squared distances. `scale` is the median distance of the reals and stays fixed.

Each gives its values, and on demand its slope with them: the graph of the powers would take longer than everything else in the witness.
"""

import torch


class MixtureKernel:
    """k(a, b) = 1/4 sum_{j=0..3} exp(-|a - b|^2 / (2 s_j^2)),  s_j = scale * 2^-j.

    Halving s raises the exponential to its 4th power: one exp serves all four, and their derivative.
    """

    def __init__(self, scale):
        self.scale = scale

    def _parts(self, squared):
        k0 = torch.exp(squared * (-0.5 / self.scale**2))
        k1 = k0.square().square()
        k2 = k1.square().square()
        return k0, k1, k2, k2.square().square()

    def __call__(self, squared):
        k0, k1, k2, k3 = self._parts(squared)
        return (k0 + k1 + k2 + k3) / 4

    @torch.no_grad()
    def with_slope(self, squared):
        """(k, dk / d|a - b|^2): d/ds of exp(-s 4^j / (2 scale^2)) is -4^j / (2 scale^2) times itself."""
        k0, k1, k2, k3 = self._parts(squared)
        slope = k0.add(k1, alpha=4).add_(k2, alpha=16).add_(k3, alpha=64).mul_(-0.125 / self.scale**2)
        return k0.add_(k1).add_(k2).add_(k3).div_(4), slope

    @torch.no_grad()
    def slope_in_place(self, squared):
        """The slope alone, written over `squared`."""
        k0 = squared.mul_(-0.5 / self.scale**2).exp_()
        k1 = k0.square().square_()
        k2 = k1.square().square_()
        k3 = k2.square().square_()
        return k0.add_(k1, alpha=4).add_(k2, alpha=16).add_(k3, alpha=64).mul_(-0.125 / self.scale**2)


class RationalQuadraticKernel:
    """k(a, b) = 1/5 sum_alpha (1 + |a - b|^2 / (2 alpha scale^2))^-alpha,  alpha in {.2, .5, 1, 2, 5}."""

    ALPHAS = (0.2, 0.5, 1.0, 2.0, 5.0)

    def __init__(self, scale):
        self.scale = scale

    def __call__(self, squared):
        relative = squared / (2 * self.scale**2)
        return sum((1 + relative / alpha) ** -alpha for alpha in self.ALPHAS) / len(self.ALPHAS)

    @torch.no_grad()
    def with_slope(self, squared):
        """(k, dk / d|a - b|^2)."""
        relative = squared / (2 * self.scale**2)
        bases = [1 + relative / alpha for alpha in self.ALPHAS]
        values = [base**-alpha for base, alpha in zip(bases, self.ALPHAS)]
        slope = sum(value / base for value, base in zip(values, bases)) * (-0.5 / (self.scale**2 * len(values)))
        return sum(values) / len(values), slope

    def slope_in_place(self, squared):
        """The slope alone; `squared` need not be kept."""
        return self.with_slope(squared)[1]


KERNELS = {"mixture": MixtureKernel, "rational-quadratic": RationalQuadraticKernel}
