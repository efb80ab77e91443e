"""Which items of a set are taken, and in what order: drawn at random, for the files of a set often follow its classes.

Must not know what is computed of them.
"""

import numpy as np

from madr_spaces import sampling

_GENERATED = 1  # block of the stream; the reals draw from block 0


def is_given(opts):
    """Whether the generated images lie in a set with an order of its own; a network's own draws are in no order."""
    drawn_already = hasattr(opts.G, "batches") and not getattr(opts.G, "z_dim", 0)
    return opts.given is not None or "generated" in opts.sides or drawn_already


def of_reals(opts, there):
    """Indices of opts.num_real of the reals in their order, which the facts note; None: all there are."""
    if opts.num_real is None or opts.num_real >= there:
        return None
    opts.record(real_subset="drawn at random")
    return np.sort(sampling.stream("subsets", opts.real_seed).permutation(there)[: opts.num_real])


def some(opts, rows_ND, count):
    """As many of the generated images; all of them stay as they are."""
    return rows_ND if count == len(rows_ND) else shuffled(opts, rows_ND)[:count]


def shuffled(opts, rows_ND):
    """The rows of a given set in random order; those of a network as they are, for its numbers are published."""
    if not is_given(opts):
        return rows_ND
    return rows_ND[sampling.stream("subsets", opts.seed, _GENERATED).permutation(len(rows_ND))]
