"""The coverage losses as pure functions. Nothing here draws, remembers or knows an image.

Shapes: B generated features, n or N real features, R replayed samples, D feature width. A trailing letter pair names a
tensor's shape: fake_BD, real_nD, kernel_Bn. Gradients flow to the generated side; reals and weights are constants.
"""
import torch


def squared_distances(a_ND, b_MD):
    """|a_i - b_j|^2 -> [N, M], never negative, with exact gradients (also where a_i = b_j)."""
    square_N1 = a_ND.square().sum(1, keepdim=True)
    square_1M = b_MD.square().sum(1)[None, :]
    return torch.addmm(square_N1 + square_1M, a_ND, b_MD.T, alpha=-2).clamp(min=0)


# ----------------------------------------------------------------------------
# Kernels of a squared distance. `scale` is the median distance of the reals and stays fixed.

def gaussian_kernel(squared_NM, sigma):
    """k(a, b) = exp(-|a - b|^2 / (2 sigma^2))."""
    return torch.exp(squared_NM * (-0.5 / sigma ** 2))


def mixture_kernel(squared_NM, scale):
    """k(a, b) = 1/4 sum_{j=0..3} exp(-|a - b|^2 / (2 s_j^2)),  s_j = scale * 2^-j.

    Halving s raises the exponential to its 4th power: one exp serves all four, and their derivative.
    """
    return _Mixture.apply(squared_NM, scale)


class _Mixture(torch.autograd.Function):
    """mixture_kernel with its first derivative by hand; the graph of the powers would take longer than everything else in the witness."""

    @staticmethod
    def forward(ctx, squared, scale):
        k0 = torch.exp(squared * (-0.5 / scale ** 2))
        k1 = k0.square().square()
        k2 = k1.square().square()
        k3 = k2.square().square()
        if ctx.needs_input_grad[0]:
            # d/ds of exp(-s 4^j / (2 scale^2)) is -4^j / (2 scale^2) times itself.
            slope = k0.add(k1, alpha=4).add_(k2, alpha=16).add_(k3, alpha=64).mul_(-0.125 / scale ** 2)
            ctx.save_for_backward(slope)
        return k0.add(k1).add_(k2).add_(k3).div_(4)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, gradient):
        [slope] = ctx.saved_tensors
        return gradient * slope, None


def rational_quadratic_kernel(squared_NM, scale):
    """k(a, b) = 1/5 sum_alpha (1 + |a - b|^2 / (2 alpha scale^2))^-alpha,  alpha in {.2, .5, 1, 2, 5}."""
    alphas = (0.2, 0.5, 1.0, 2.0, 5.0)
    relative = squared_NM / (2 * scale ** 2)
    return sum((1 + relative / alpha) ** -alpha for alpha in alphas) / len(alphas)


KERNELS = {"mixture": mixture_kernel, "rational-quadratic": rational_quadratic_kernel}


# ----------------------------------------------------------------------------
# Terms of the default.

def witness_loss(fake_BD, real_nD, kernel, weights_n=None):
    """L_wit = 1/(B(B-1)) sum_{i != j} k(f_i, f_j) - 2/B sum_i sum_r w_r k(f_i, x_r),  w_r = 1/n unless given.

    Unbiased MMD^2 without its constant: repulsion inside the PRESENT batch only, attraction to reals. Its expected
    gradient is zero where generated and real features have the same distribution. kernel: squared distances -> values.
    """
    B, n = len(fake_BD), len(real_nD)
    # One matrix of distances for both sums: at small batches the number of operations is what costs.
    pull_n = fake_BD.new_full([n], 1 / n) if weights_n is None else weights_n
    factors_BM = torch.cat([fake_BD.new_full([B], 1 / max(B - 1, 1)), -2 * pull_n]).repeat(B, 1).fill_diagonal_(0)
    kernel_BM = kernel(squared_distances(fake_BD, torch.cat([fake_BD, real_nD])))
    return (kernel_BM * factors_BM).sum() / B


def imle_loss(fake_RD, real_RD, scale, active_R=None):
    """L_imle = 1/R sum_r a_r |f_r - x_r|^2 / scale^2: f_r re-generated from the remembered latent nearest to x_r.

    a_r = 0 where the real is already reached (see reached_radius), else 1.
    """
    squared_R = (fake_RD - real_RD).square().sum(1) / scale ** 2
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
