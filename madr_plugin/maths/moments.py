"""Computes the Frechet distance between the first two moments of generated and of real features, as a loss.

Pure functions, in float64 whatever comes in: the trace of a root of a product of covariances loses half of its digits.
Shapes: B images, D feature width; mean_D = E[f], second_DD = E[f f^T], covariance C = second - mean mean^T.
Source: the distance is that of Dowson and Landau (1982), known from FID (Heusel 2017); as a loss on remembered moments FD-Loss (arXiv 2604.28190).
"""

import dataclasses

import torch

RIDGE = 1e-3  # of the reals' mean variance, added to both covariances: gradients stay finite where the reals do not vary
_BLOCK = 8192  # images drawn at a time: a simulation of many needs no memory for all of them


@dataclasses.dataclass(frozen=True)
class Target:
    """Holds the reals' side of the distance: what of it is found once."""

    mean_D: torch.Tensor
    root_DD: torch.Tensor  # (C_r + ridge I)^(1/2)
    trace: torch.Tensor  # of C_r + ridge I
    ridge: torch.Tensor
    along_axes: bool = False  # whether features lie along the principal axes of the reals, so that root_DD is diagonal

    @property
    def width(self):
        return len(self.mean_D)

    def tensors(self):
        return [self.mean_D, self.root_DD, self.trace, self.ridge]


def moments_of(features_BD, weight_B=None):
    """Compute (mean_D, second_DD) of a batch; weight_B: weights, which are brought to the sum 1."""
    features_BD = features_BD.to(torch.float64)
    if weight_B is None:
        return features_BD.mean(0), features_BD.T @ features_BD / len(features_BD)
    weight_B1 = (weight_B / weight_B.sum()).to(torch.float64)[:, None]
    return (weight_B1 * features_BD).sum(0), features_BD.T @ (weight_B1 * features_BD)


def target_of(mean_D, second_DD, along_axes=False):
    """Build the Target of the reals' moments; along_axes: their covariance is diagonal but for rounding. Raises ValueError where they do not vary."""
    covariance_DD = second_DD - mean_D[:, None] * mean_D
    ridge = RIDGE * covariance_DD.diagonal().mean()
    if not float(ridge) > 0:
        raise ValueError("the features of the reals do not vary")
    if along_axes:
        values_D = covariance_DD.diagonal().clamp(min=0) + ridge
        return Target(mean_D, values_D.sqrt().diag(), values_D.sum(), ridge, along_axes=True)
    values_D, vectors_DD = torch.linalg.eigh(covariance_DD)
    values_D = values_D.clamp(min=0) + ridge
    return Target(mean_D, (vectors_DD * values_D.sqrt()) @ vectors_DD.T, values_D.sum(), ridge)


def frechet_distance(mean_D, second_DD, target):
    """L = |m - m_r|^2 + tr C + tr C_r - 2 sum sqrt eig(C_r^1/2 C C_r^1/2) -> 0-d >= 0, with the ridge on both covariances.

    C: that of the generated features, of any rank. Twice differentiable in both moments, save where eigenvalues reach the floor (ridge^2 / 4).
    """
    covariance_DD = second_DD - mean_D[:, None] * mean_D
    trace = covariance_DD.diagonal().sum() + target.width * target.ridge
    covariance_DD = covariance_DD + target.ridge * torch.eye(target.width, dtype=covariance_DD.dtype, device=covariance_DD.device)
    values_D = torch.linalg.eigvalsh(target.root_DD @ covariance_DD @ target.root_DD)
    # Both covariances are at least the ridge, so their product's eigenvalues at least its square: less is rounding.
    roots_D = values_D.clamp(min=target.ridge.square() / 4).sqrt()
    return (mean_D - target.mean_D).square().sum() + trace + target.trace - 2 * roots_D.sum()


@torch.no_grad()
def frechet_slopes(mean_D, second_DD, target):
    """Compute (L, dL/dm_D, dL/dS_DD) without a graph, which would take longer than the eigenvalue problem.

    With C_r^1/2 C C_r^1/2 = V diag(l) V^T: dL/dC = I - C_r^1/2 V diag(l^-1/2) V^T C_r^1/2 (nothing of those l that reach the floor), and
    C = S - m m^T gives dL/dS = dL/dC,  dL/dm = 2 (m - m_r) - 2 dL/dC m.
    """
    covariance_DD = torch.addr(second_DD, mean_D, mean_D, alpha=-1)
    trace = covariance_DD.diagonal().sum() + target.width * target.ridge
    covariance_DD.diagonal().add_(target.ridge)
    if target.along_axes:  # a product with a diagonal matrix scales rows or columns
        root_D = target.root_DD.diagonal()
        product_DD = root_D[:, None] * covariance_DD * root_D
    else:
        product_DD = target.root_DD @ covariance_DD @ target.root_DD
    values_D, vectors_DD = torch.linalg.eigh(product_DD)
    floor = target.ridge.square() / 4
    roots_D = values_D.clamp(min=floor).sqrt()
    away_D = mean_D - target.mean_D
    distance = away_D.square().sum() + trace + target.trace - 2 * roots_D.sum()
    turned_DD = root_D[:, None] * vectors_DD if target.along_axes else target.root_DD @ vectors_DD
    slope_DD = ((values_D >= floor) / roots_D * turned_DD) @ turned_DD.T
    slope_DD.neg_().diagonal().add_(1)
    return distance, 2 * (away_D - slope_DD @ mean_D), slope_DD


@torch.no_grad()
def null_distance(draw, num_images, target, generator, repeats=16):
    """Compute what the distance is on average where so many images come from the reals' own distribution -> 0-d.

    draw(count, generator): features of reals [count, D], already projected as the target is.
    """
    total = torch.zeros([], dtype=torch.float64, device=target.mean_D.device)
    for _ in range(repeats):
        mean_D, second_DD = torch.zeros_like(target.mean_D), torch.zeros_like(target.root_DD)
        for begin in range(0, num_images, _BLOCK):
            count = min(_BLOCK, num_images - begin)
            block_mean_D, block_second_DD = moments_of(draw(count, generator))
            mean_D += block_mean_D * (count / num_images)
            second_DD += block_second_DD * (count / num_images)
        total += frechet_distance(mean_D, second_DD, target)
    return total / repeats
