"""How many images a metric needs, and of which kind: refused where it cannot be computed, a warning where its number means little.

Must not know any metric.
"""

from dnnlib.errors import UserError
from madr_spaces.errors import MADRError  # as the kernels raise it for the same fault


def begin(opts, row):
    """Note what the metric of these options asks for, and refuse too few generated images before anything is computed."""
    opts.asking = row
    num_gen = opts.num_gen if opts.num_gen is not None else row.num_gen
    if num_gen is not None:
        check(opts, "generated", num_gen)


def check(opts, side, count):
    """Refuse a side ('real' or 'generated') of too few images for the metric that asks. A foreign metric asks for nothing."""
    if opts.asking is not None:
        check_row(opts.asking, side, count, remedy=_of_two_sets(opts, side))


def check_row(row, side, count, remedy=None):
    """The same for the row of a metric. remedy: what to do, where it is not the usual."""
    needed, why = row.fewest
    if count < needed:
        remedy = remedy or ("use a larger set" if side == "real" else "use more, see --num-gen")
        raise MADRError(f"{row.name}: {why.format(side=side)} (got {count}); {remedy}.")


def _of_two_sets(opts, side):
    """What to do where two sets are compared and no network could draw more; else None."""
    real = side == "real"
    if opts.sides or (hasattr(opts.G, "batches") and not getattr(opts.G, "z_dim", 0)):
        flag = "--reals" if real else "--fakes"
        return f"make the file of {flag} from more pictures" if side in opts.sides else f"put more pictures into {flag}"
    if opts.given is not None:
        return f"put more features into {'--real-features' if real else '--fake-features'}"
    return None


def check_asked_for(rows, num_gen, num_real):
    """Refuse --num-gen and --num-real below what the metrics need, before anything is opened."""
    for row in rows:
        for flag, count, side, counts in (("--num-gen", num_gen, "generated", True), ("--num-real", num_real, "real", row.compares_with_reals)):
            if counts and count is not None and count < row.fewest.count:
                raise UserError(f"{flag}={count} is too few for {row.name}: {row.fewest.why.format(side=side)}; raise it.")


def warn_of_singular_covariance(opts, num_features, **num_items):
    """Warn where a covariance has fewer items than dimensions: the distance then depends more on the number of images than on them.

    num_items: {'real': N, 'generated': M}; None where nobody knows.
    """
    few = [f"{count} {side}" for side, count in num_items.items() if count is not None and count < num_features]
    if few:
        opts.warn(
            f"{opts.asking.name if opts.asking else 'The metric'} has {' and '.join(few)} images for covariances of {num_features} features: "
            "with fewer images than features the number says more about how many they are than how good; compare it only with numbers of "
            "as many images, or take kid50k_full or a madr_* metric."
        )


def check_channels(G, dataset):
    """Refuse to compare colour with grey: a detector would take both without a word."""
    drawn, there = getattr(G, "img_channels", None), dataset.image_shape[0]
    if drawn is not None and drawn != there:
        names = {1: "1 channel (grey)", 3: "3 channels (RGB)"}
        raise UserError(
            f"The images of {dataset.name} have {names.get(there, f'{there} channels')}, the generated ones {names.get(drawn, drawn)}; compare images "
            "of one kind: give the data set that the network was trained on."
        )
