"""Adds a gradient at the generator's image: the tap.

With x = img.detach() and g = d L_cov / dx, adding lambda * g to the gradient that arrives at img equals adding
lambda * L_cov to the generator's loss, by the chain rule, whatever that loss is. No second pass of G is needed.
"""

import torch


def gradient_at(image, loss_of):
    """Compute g = d loss_of(x) / dx at x = image.detach(). Returns (g, value). The image's own graph is not touched."""
    with torch.enable_grad():
        x = image.detach().to(torch.float32).requires_grad_(True)
        value = loss_of(x)
        [gradient] = torch.autograd.grad(value, x)
    return gradient, value.detach()


def gradient_through(image, features_of, gradient_of):
    """Compute d / dx of features_of(x) at x = image.detach(), times gradient_of(those features [B, D]); zeros where that is None."""
    with torch.enable_grad():
        x = image.detach().to(torch.float32).requires_grad_(True)
        features_BD = features_of(x)
        gradient_BD = gradient_of(features_BD.detach())
        return torch.zeros_like(x) if gradient_BD is None else torch.autograd.grad(features_BD, x, gradient_BD)[0]


def add_gradient(image, gradient, factor, on_host_gradient):
    """MADR: at backward, factor * gradient (None: nothing) joins what arrives at `image`; on_host_gradient sees the host's part first."""
    inside = []

    def hook(host_gradient):
        # on_host_gradient itself sends gradients back through `image`; and a pass whose result is differentiated again
        # (path lengths, penalties) is not that of the host's loss.
        if inside or torch.is_grad_enabled():
            return host_gradient
        inside.append(True)
        try:
            on_host_gradient(host_gradient)
        finally:
            inside.clear()
        if gradient is None:
            return host_gradient
        return host_gradient + (factor * gradient).to(host_gradient.dtype)

    image.register_hook(hook)
