"""The little that the plugin asks of its host, imported when first needed: whichever dnnlib is on the path is the host's."""


def construct(class_name, **kwargs):
    """An object of the host's (or of anything importable) by class name, past the wrapper of forks.install()."""
    import dnnlib

    function = dnnlib.util.construct_class_by_name
    return getattr(function, "madr_original", function)(class_name=class_name, **kwargs)
