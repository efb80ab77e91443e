"""Resampling by a compiled kernel, with derivatives of every order, for any device that has one.

Resampling is linear, and its transpose is another resampling: the factors change places, the taps are mirrored. Must not know which
device it is, or when a kernel is used.
"""

import torch


def resample(kernel, x, plan_y, plan_x):
    """x [N,C,H,W] -> [N,C,h,w] by one AxisPlan per axis, in x's memory layout. What is neither contiguous nor channels-last is copied."""
    if not (x.is_contiguous() or x.is_contiguous(memory_format=torch.channels_last)):
        x = x.contiguous()
    if x.requires_grad and torch.is_grad_enabled():
        return _Resample.apply(kernel, x, plan_y, plan_x)
    return kernel.resample(x, plan_y, plan_x)


class _Resample(torch.autograd.Function):
    """The forward pass; keeps no tensor."""

    @staticmethod
    def forward(ctx, kernel, x, plan_y, plan_x):
        ctx.kernel = kernel
        ctx.transposed = plan_y.transposed(x.shape[2]), plan_x.transposed(x.shape[3])
        return kernel.resample(x, plan_y, plan_x)

    @staticmethod
    def backward(ctx, gradient):
        return None, resample(ctx.kernel, gradient, *ctx.transposed), None, None
