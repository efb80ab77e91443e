"""A number in the very space that a training followed flatters the network: noted in the facts, and warned of. Must not know any metric."""

from dnnlib import console
from madr_spaces import names

BESIDE = "Trust the held-out space beside it, or choose another with --metric-space."
ALONE = "Trust a metric in another space, as fd_dino50k_full or madr_prdc with --metric-space."


def warn(opts, space, remedy=BESIDE):
    """Note what led the training of opts.G, and warn where that is `space`."""
    if opts.trained_in is None:
        return
    own = names.led_by(space, opts.trained_in)
    opts.record(trained_in=opts.trained_in, trained_in_own_space=own)
    if own and opts.rank == 0:
        console.warn(
            f"the network was trained to cover the features of {opts.trained_in}, the space of this metric: the number flatters it. {remedy}"
        )


def warn_of_inception(opts):
    """The same for the metrics that look through the published detector of FID, whatever --metric-space says."""
    warn(opts, names.INCEPTION_FID, ALONE)
