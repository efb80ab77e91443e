"""Finds what would stop a run in a fork, before the fork makes a folder, networks or processes: said once, in seconds."""

import inspect

from madr_plugin.reals import anchors, real_images, reference
from madr_spaces import registry
from madr_spaces.errors import MADRError

NEEDED = ("phase", "gen_z")  # arguments of accumulate_gradients() that MADR reads


def check_loss(class_name):
    """Refuse a loss that does not train as this family's do."""
    import dnnlib  # the fork's

    try:
        kind = dnnlib.util.get_obj_by_name(class_name)
    except (ImportError, AttributeError):
        return  # the fork itself will say so
    method = getattr(kind, "accumulate_gradients", None)
    lacking = NEEDED if method is None else [name for name in NEEDED if name not in inspect.signature(method).parameters]
    if lacking:
        raise MADRError(
            f"MADR cannot enter this fork: its loss {class_name} has "
            + (f"no argument {' or '.join(lacking)} in accumulate_gradients()" if method else "no method accumulate_gradients()")
            + ", by which the losses of StyleGAN2-ADA's family are called; use --madr=0"
        )


def check_features_of(training_set_kwargs, config, seed):
    """check_features() of the data set that these arguments make."""
    dataset = real_images.open_dataset(training_set_kwargs)
    try:
        check_features(dataset, config, seed)
    finally:
        getattr(dataset, "close", lambda: None)()


def check_features(dataset, config, seed=0):
    """Make the feature space once: missing weights, missing packages and unfit images show here."""
    reference.refuse_few(len(dataset))
    if config.anchors:
        anchors.import_faiss()
    registry.build(config.extractor, dataset.image_shape, config.width, seed, config.input_size, config.weights, config.weights_sha256)
