"""2-D convolutions whose weight gradients can be switched off while a backward pass runs.

A penalty on the gradient with respect to an image (R1, path length) needs no weight gradients in its first pass, where they
would cost as much as a whole backward pass. Derivatives of both orders are PyTorch's own. Must not know about filters or
networks.
"""

import contextlib

import torch
import torch.nn.functional as F

# Read when a backward pass reaches a weight, not when the convolution runs forwards.
weight_gradients_disabled = False

# For scripts that set it. Nothing reads it: there is one implementation, and it is right for every value.
enabled = False


@contextlib.contextmanager
def no_weight_gradients():
    """Backward passes that run inside this context give the weights of conv2d and conv_transpose2d no gradient.

    `torch.autograd.grad(outputs, inputs=[image])` then does not even compute them. A later backward pass, outside the context,
    through the gradients so obtained gives every weight its full gradient.
    """
    global weight_gradients_disabled
    outer, weight_gradients_disabled = weight_gradients_disabled, True
    try:
        yield
    finally:
        weight_gradients_disabled = outer


class _Gate(torch.autograd.Function):
    """The identity; whether a gradient passes is decided when it arrives."""

    @staticmethod
    def forward(ctx, weight):
        return weight.view_as(weight)

    @staticmethod
    def backward(ctx, gradient):
        return None if weight_gradients_disabled else gradient


def _gated(weight):
    needs_gradient = weight.requires_grad and torch.is_grad_enabled()
    return _Gate.apply(weight) if needs_gradient else weight


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Arguments and result as torch.nn.functional.conv2d."""
    return F.conv2d(input, _gated(weight), bias, stride, padding, dilation, groups)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Arguments and result as torch.nn.functional.conv_transpose2d."""
    return F.conv_transpose2d(input, _gated(weight), bias, stride, padding, output_padding, groups, dilation)
