"""2-D convolutions whose weight gradients can be switched off while a backward pass runs.

A penalty on the gradient with respect to an image (R1, path length) needs no gradient with respect to the weights in its first
pass; computing it costs as much as a whole backward pass. Must not know about filters or networks.
"""
import contextlib

import torch
import torch.nn.functional as F

# Scripts written for this interface set `enabled`; results are the same whichever value it has.
enabled = False

# Read when a backward pass reaches a convolution, not when the convolution runs forwards.
weight_gradients_disabled = False


@contextlib.contextmanager
def no_weight_gradients():
    """Backward passes inside this context leave convolution weights without a gradient."""
    global weight_gradients_disabled
    before = weight_gradients_disabled
    weight_gradients_disabled = True
    try:
        yield
    finally:
        weight_gradients_disabled = before


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Arguments and result as torch.nn.functional.conv2d."""
    return F.conv2d(input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """Arguments and result as torch.nn.functional.conv_transpose2d."""
    return F.conv_transpose2d(input, weight, bias, stride, padding, output_padding, groups, dilation)
