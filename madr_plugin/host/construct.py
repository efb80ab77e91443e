"""Constructs the host's objects. Imports dnnlib when first needed: the one on the path is the host's."""

import inspect


def construct(class_name, **kwargs):
    """Make an object of the host's (or of anything importable) by class name, past the wrapper of forks.install()."""
    import dnnlib

    function = dnnlib.util.construct_class_by_name
    return getattr(function, "madr_original", function)(class_name=class_name, **kwargs)


def named(class_name, args):
    """{name: value} of arguments that a class of the host's would get by position."""
    if not args:
        return {}
    import dnnlib

    return dict(zip(inspect.signature(dnnlib.util.get_obj_by_name(class_name)).parameters, args))
