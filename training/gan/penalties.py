"""Penalties on D and G: pure functions of images, logits and gradients, one value per row. Regularisers.py says when they are used.

Letters in shapes: N images, G groups of images that D judges together (G = N unless D judges packs). Images are [N, C, H, W], consecutive
images make a group. Must not know networks, phases or optimizers.
"""

import torch

from torch_utils.ops import conv2d_gradfix


def image_gradient(logits, images):
    """d sum(logits) / d images, with a graph, so that it can be penalised. logits [G, 1] made from the leaf `images` -> [N, C, H, W]."""
    with conv2d_gradfix.no_weight_gradients():
        [gradient] = torch.autograd.grad(outputs=[logits.sum()], inputs=[images], create_graph=True)
    return gradient


def squared_norm(gradient, groups):
    """|g|^2 of each group's inputs together. [N, C, H, W] -> [G]."""
    return gradient.reshape(groups, -1).square().sum(1)


def zero_centred(logits, images, gamma):
    """gamma/2 |grad D|^2: R1 at reals, R2 at fakes (Mescheder et al. 2018, 1801.04406, eq. 9 and 10). -> [G]."""
    return squared_norm(image_gradient(logits, images), len(logits)) * (gamma / 2)


def interpolated(reals, fakes, share_G):
    """x^ = u x + (1 - u) G(z), one u per group (Gulrajani et al. 2017, 1704.00028, algorithm 1). share_G: u in [0, 1]. -> leaf [N, C, H, W]."""
    share = share_G.repeat_interleave(len(reals) // len(share_G)).reshape(-1, 1, 1, 1)
    return (share * reals.detach() + (1 - share) * fakes.detach()).requires_grad_(True)


def one_centred(logits, images, weight, target=1.0):
    """weight (|grad D| - target)^2 (1704.00028, eq. 3). -> [G].

    The square root has no derivative at a zero gradient, where a D of constant logits would leave nan; 1e-12 below it keeps the norm
    to within 1e-6.
    """
    norm = (squared_norm(image_gradient(logits, images), len(logits)) + 1e-12).sqrt()
    return weight * (norm - target).square()


def consistency(logits, changed_logits, weight):
    """weight |D(x) - D(T(x))|^2 (Zhao et al. 2020, 2002.04724, eq. 2). Two of [G, 1] -> [G]."""
    return weight * (logits - changed_logits).square().flatten(1).sum(1)


def image_distance(images, others):
    """Mean over the pixels of |x - y|^2. Two of [N, C, H, W] -> [N]."""
    return (images - others).square().flatten(1).mean(1)
