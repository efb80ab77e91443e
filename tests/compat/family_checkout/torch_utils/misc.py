import warnings

import torch


def constant(value, shape=None, dtype=None, device=None, memory_format=None):
    tensor = torch.as_tensor(value, dtype=dtype or torch.get_default_dtype(), device=device)
    return tensor if shape is None else tensor.expand(shape)


def assert_shape(tensor, ref_shape):
    assert tensor.ndim == len(ref_shape)
    assert all(ref is None or int(size) == int(ref) for size, ref in zip(tensor.shape, ref_shape))


def profiled_function(fn):
    return fn


class suppress_tracer_warnings(warnings.catch_warnings):
    pass
