"""Computes the coverage losses, as pure functions. Nothing here draws, remembers or knows an image.

Shapes: B generated features, n or N real features, R replayed samples, D feature width. A trailing letter pair names a
tensor's shape: fake_BD, real_nD, kernel_Bn. Gradients flow to the generated side; reals and weights are constants.
"""

import torch

from madr_spaces.distances import squared_distances

# ----------------------------------------------------------------------------
# The published terms' kernel; those of the witness are in kernels.py.


def gaussian_kernel(squared_NM, sigma):
    """k(a, b) = exp(-|a - b|^2 / (2 sigma^2))."""
    return torch.exp(squared_NM * (-0.5 / sigma**2))


# ----------------------------------------------------------------------------
# Terms of the default.


def witness_loss(fake_BD, real_nD, kernel, weights_n=None):
    """L_wit = 1/(B(B-1)) sum_{i != j} k(f_i, f_j) - 2/B sum_i sum_r w_r k(f_i, x_r),  w_r = 1/n unless given.

    Unbiased MMD^2 without its constant: repulsion inside the PRESENT batch only, attraction to reals. Its expected
    gradient is zero where generated and real features have the same distribution. kernel: one of kernels.py. Differentiable once.
    """
    return _Witness.apply(fake_BD, real_nD, kernel, weights_n)


@torch.no_grad()
def witness_gradient(fake_BD, real_nD, kernel, weights_n=None):
    """Compute dL_wit / df -> [B, D], by hand: with C_ij = dL/d|f_i - y_j|^2 over all y it is 2 sum_j C_ij (f_i - y_j).

    At small batches the number of operations is what costs, and a graph doubles it.
    """
    B = len(fake_BD)
    centred_BD, both_MD, squared_BM = _witness_distances(fake_BD, real_nD)
    return _gradient_of_slopes(kernel.slope_in_place(squared_BM), centred_BD, both_MD, *_witness_shares(B, real_nD, weights_n))


class _Witness(torch.autograd.Function):
    """The value with its gradient, found on the way."""

    @staticmethod
    def forward(ctx, fake_BD, real_nD, kernel, weights_n):
        B = len(fake_BD)
        among, pull = _witness_shares(B, real_nD, weights_n)
        centred_BD, both_MD, squared_BM = _witness_distances(fake_BD, real_nD)
        values_BM, slope_BM = kernel.with_slope(squared_BM)
        loss = (values_BM[:, :B].sum() - values_BM.diagonal().sum()) * among + (values_BM[:, B:].sum(0) * pull).sum()
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(_gradient_of_slopes(slope_BM, centred_BD, both_MD, among, pull))
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        [gradient_BD] = ctx.saved_tensors
        return gradient * gradient_BD, None, None, None


def _witness_shares(B, real_nD, weights_n):
    """Each pair's weight in L_wit: (of two of the batch, of one and a real)."""
    return 1 / (B * max(B - 1, 1)), -2 / B * (1 / len(real_nD) if weights_n is None else weights_n)


def _witness_distances(fake_BD, real_nD):
    """(f [B, D], all y = f and x [M, D], |f_i - y_j|^2 [B, M]), from the reals' mean: far from the origin differences would be lost in rounding."""
    both_MD = torch.cat([fake_BD, real_nD]).sub_(real_nD.mean(0))
    fake_BD = both_MD[: len(fake_BD)]
    square_M = both_MD.square().sum(1)
    squared_BM = torch.addmm(square_M[: len(fake_BD), None] + square_M, fake_BD, both_MD.T, alpha=-2).clamp_(min=0)
    return fake_BD, both_MD, squared_BM


def _gradient_of_slopes(slope_BM, fake_BD, both_MD, among, pull):
    """2 sum_j C_ij (f_i - y_j) of the kernel's slopes, which are changed on the way."""
    B = len(fake_BD)
    slope_BM[:, :B].mul_(2 * among)  # a pair of the batch stands in the sum twice
    slope_BM[:, B:].mul_(pull)
    slope_BM.fill_diagonal_(0)
    return torch.addmm(slope_BM.sum(1, keepdim=True) * fake_BD, slope_BM, both_MD, alpha=-1).mul_(2)


def imle_loss(fake_RD, real_RD, scale, active_R=None):
    """L_imle = 1/R sum_r a_r |f_r - x_r|^2 / scale^2: f_r re-generated from the remembered latent nearest to x_r.

    a_r = 0 where f_r lies in the real's dead zone (Reference.dead_zone_radius), else 1.
    """
    squared_R = (fake_RD - real_RD).square().sum(1) / scale**2
    if active_R is not None:
        squared_R = squared_R * active_R
    return squared_R.mean()


# ----------------------------------------------------------------------------
# The published terms (method as printed; kept for comparison).


def paper_weights(coverage_N, beta, mass_N=None):
    """w_r = softmax_r(-beta * c_r); of rows that stand for several reals each (mass_N) the sum of theirs."""
    return torch.softmax(-beta * coverage_N if mass_N is None else mass_N.log() - beta * coverage_N, dim=0)


def paper_loss(fake_BD, real_ND, weights_N, sigma):
    """E1: L_cov = -E_z sum_r w_r k_sigma(phi(G(z)), x_r). Attraction alone."""
    return -(gaussian_kernel(squared_distances(fake_BD, real_ND), sigma) @ weights_N).mean()


def effective_number(weights_N, mass_N=None):
    """(sum w)^2 / sum w^2: how many reals the weights really speak of. mass_N: reals among whom each weight is shared."""
    square_N = weights_N.square() if mass_N is None else weights_N.square() / mass_N
    return weights_N.sum().square() / square_N.sum().clamp(min=1e-30)
