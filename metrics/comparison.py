"""Two networks on the same real images and latents: the difference of their numbers and how sure it is.

Arrays in, numbers out. Must not know what the numbers mean.
"""

import numpy as np
import scipy.stats

from dnnlib.errors import UserError

NUM_RESAMPLES = 1000
LEVEL = 0.95


def bootstrap_interval(ours_N, theirs_N, rng, *, paired=True, num_resamples=NUM_RESAMPLES, level=LEVEL):
    """Percentile interval (low, high) of mean(ours) - mean(theirs) over items drawn again with replacement.

    paired: item i is the same real image (or latent) for both, and both keep or lose it together; what both share
    cancels. The items' values stay as measured: neighbourhoods are not built again from the drawn items, since the copies
    among these would be neighbours at distance 0.
    """
    ours_N, theirs_N = np.asarray(ours_N, np.float64), np.asarray(theirs_N, np.float64)
    if paired and len(ours_N) != len(theirs_N):
        raise UserError(f"A paired comparison needs the same items for both networks (got {len(ours_N)} and {len(theirs_N)}).")
    draw = lambda values: values[rng.integers(len(values), size=len(values))].mean()
    if paired:
        differences_N = ours_N - theirs_N
        means = [draw(differences_N) for _ in range(num_resamples)]
    else:
        means = [draw(ours_N) - draw(theirs_N) for _ in range(num_resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


class Items(dict):
    """{result: (real or generated, values)} of a comparison. holders: {result: ([N, H] of holders.of_reals, number of generated images)}.

    A metric that is given Items, and not a dictionary alone, finds holders as well.
    """

    def __init__(self):
        super().__init__()
        self.holders = {}


def recall_interval(ours, theirs, rng, *, same_latents=True, num_resamples=NUM_RESAMPLES, level=LEVEL):
    """Interval (low, high) of the difference of two recalls, reals and generated images both drawn again. ours, theirs: as Items.holders.

    A real is found where any of its holders was drawn: neighbourhoods stay as measured. Some images are missing from every resample, and so
    all its recalls are lower; the spread is taken from them and the centre from the sets themselves. That other images would have other radii
    is left out: where there are far fewer generated images than reals the interval is still too narrow.
    """
    (our_NH, num_ours), (their_NH, num_theirs) = ours, theirs
    N, paired = len(our_NH), same_latents and num_ours == num_theirs

    def present(count, drawn):
        kept = np.zeros(count + 1, bool)  # the last one stands for no holder
        kept[drawn] = True
        return kept

    found = lambda holders_NH, kept: kept[holders_NH].any(axis=1)
    difference = found(our_NH, present(num_ours, np.arange(num_ours))).mean() - found(their_NH, present(num_theirs, np.arange(num_theirs))).mean()
    drawn_again = []
    for _ in range(num_resamples):
        weights_N = np.bincount(rng.integers(N, size=N), minlength=N) / N
        draw = rng.integers(num_ours, size=num_ours)
        ours_N = found(our_NH, present(num_ours, draw))
        theirs_N = found(their_NH, present(num_theirs, draw if paired else rng.integers(num_theirs, size=num_theirs)))
        drawn_again.append(weights_N @ (ours_N.astype(np.float64) - theirs_N))
    low, high = difference + np.quantile(drawn_again, [(1 - level) / 2, (1 + level) / 2]) - np.mean(drawn_again)
    return float(low), float(high)


def t_interval(differences_N, level=LEVEL):
    """(low, high) of the mean of a few independent differences by Student's t; None for fewer than two of them."""
    differences_N = np.asarray(differences_N, np.float64)
    if len(differences_N) < 2:
        return None
    half = scipy.stats.t.ppf((1 + level) / 2, len(differences_N) - 1) * differences_N.std(ddof=1) / len(differences_N) ** 0.5
    return float(differences_N.mean() - half), float(differences_N.mean() + half)


def compare(ours, theirs, our_items, their_items, rng, same_latents=True, our_repeats=None, their_repeats=None):
    """{result: dict(ours, baseline, difference, interval, items)} of two dicts of results.

    *_items: {result: (real or generated, values)}; a result that is no mean over items has no interval (None).
    same_latents: whether generated item i has the same latent in both sets, and may therefore be paired.
    *_repeats: {result: value per seed}; then the t interval over the seeds' differences is given: each seed draws the images anew, which the
    items of one draw do not tell of.
    """
    compared = {}
    for name in ours:
        entry = dict(ours=ours[name], baseline=theirs[name], difference=ours[name] - theirs[name], interval=None, items=None)
        if our_repeats is not None and their_repeats is not None:
            interval = t_interval(np.subtract(our_repeats[name], their_repeats[name]))
            entry.update(interval=list(interval), items=f"{len(our_repeats[name])} seeds, paired, Student's t")
        elif name in getattr(our_items, "holders", {}) and name in getattr(their_items, "holders", {}):
            interval = recall_interval(our_items.holders[name], their_items.holders[name], rng, same_latents=same_latents)
            entry.update(interval=list(interval), items="reals and generated images, both drawn again; neighbourhoods held")
        elif name in our_items and name in their_items:
            which, our_values = our_items[name]
            paired = which == "real" or same_latents
            entry.update(
                interval=list(bootstrap_interval(our_values, their_items[name][1], rng, paired=paired)),
                items=f"{which}, {'paired' if paired else 'unpaired'}",
            )
        compared[name] = entry
    return compared


def as_text(compared, of_repeats="; --repeats gives one over seeds"):
    """A table for the eye: one line per result. of_repeats: what is said where an interval lacks, beside the reason."""
    lines = [f"{'result':<28}{'network':>12}{'baseline':>12}{'difference':>12}   {LEVEL:.0%} interval"]
    for name, entry in compared.items():
        held_fixed = f": the generated images held fixed, so too narrow{of_repeats}" if (entry["items"] or "").startswith("real,") else ""
        interval = (
            f"none: not a mean over items{of_repeats}"
            if entry["interval"] is None
            else "[{:+.4f}, {:+.4f}] over {}".format(*entry["interval"], entry["items"]) + held_fixed
        )
        lines.append(f"{name:<28}{entry['ours']:>12.4f}{entry['baseline']:>12.4f}{entry['difference']:>+12.4f}   {interval}")
    return "\n".join(lines)
