"""The features of a discriminator: what its last layer reads. Must not know losses."""

from dnnlib.errors import UserError


def last_layer(D):
    """The module that turns features into logits: `b4.out` of StyleGAN2's discriminators, `out` of others."""
    epilogue = getattr(D, "b4", None)
    layer = getattr(D if epilogue is None else epilogue, "out", None)
    if layer is None:
        raise UserError(
            f"the discriminator {type(D).__name__} has no last layer called `out` or `b4.out`, so its features are not known; "
            "use --backbone=stylegan2 or dcgan, or leave out what needs features"
        )
    return layer


def logits_and_features(D, img, c, **kwargs):
    """One forward pass of D: (logits [N, 1], features [N, F]), the features in the graph. The logits are those of D(img, c), bit for bit.

    With minibatch discrimination the features are those before it: what a feature says of an image does not depend on its batch.
    """
    read = []
    handle = last_layer(D).register_forward_pre_hook(lambda _layer, inputs: read.append(inputs[0]))
    try:
        logits = D(img, c, **kwargs)
    finally:
        handle.remove()
    return logits, read[0]
