"""A metric several times over, each time with other latents, labels and subsets: how much of a number is chance.

The reals stay: what was computed of them is kept between the repeats. Must not know what the metric is.
"""

import numpy as np

import dnnlib
from metrics import metric_main


def seeds_of(first, repeats):
    """The stated seeds: first, first + 1, ..."""
    return list(range(first, first + repeats))


def calc_repeated(metric, *, seed, repeats=1, per_item=None, **kwargs):
    """As metric_main.calc_metric, the mean over `repeats` seeds under each result's name; one repeat is that very call.

    `facts.repeats` holds num, seeds, std (n - 1 under the root) and values per result, and the names of facts that differ
    between the repeats: the line states those of the first seed. per_item: see merged_items.
    """
    if repeats == 1:
        return metric_main.calc_metric(metric, seed=seed, per_item=per_item, **kwargs)
    seeds, items, kept = seeds_of(seed, repeats), [{} for _ in range(repeats)], {}
    singles = [
        metric_main.calc_metric(metric, seed=own_seed, per_item=own_items, kept=kept, real_seed=seed, **kwargs)
        for own_seed, own_items in zip(seeds, items)
    ]
    if per_item is not None:
        per_item.update(merged_items(items))
    values = {name: [single.results[name] for single in singles] for name in singles[0].results}
    differing = sorted(
        name for name, value in singles[0].facts.items() if name != "seed" and any(single.facts.get(name) != value for single in singles)
    )
    merged = dnnlib.EasyDict(singles[0])
    merged.results = dnnlib.EasyDict({name: float(np.mean(numbers)) for name, numbers in values.items()})
    merged.total_time = sum(single.total_time for single in singles)
    merged.total_time_str = dnnlib.util.format_time(merged.total_time)
    merged.facts["repeats"] = dict(
        num=repeats, seeds=seeds, std={name: float(np.std(numbers, ddof=1)) for name, numbers in values.items()}, values=values, differing=differing
    )
    return merged


def merged_items(items_of_repeats):
    """{result: (real or generated, values)} whose mean is the mean over the repeats: reals by their mean, generated one after the other."""
    merged = {}
    for name, (which, _) in items_of_repeats[0].items():
        values = [items[name][1] for items in items_of_repeats]
        merged[name] = which, np.mean(values, axis=0) if which == "real" else np.concatenate(values)
    return merged


def as_text(result):
    """One line per result for the eye: mean, standard deviation, each value."""
    repeats = result.facts["repeats"]
    lines = [f"Over {repeats['num']} seeds of latents, labels and subsets ({repeats['seeds'][0]} to {repeats['seeds'][-1]}), on the same reals:"]
    for name, mean in result.results.items():
        lines.append(f"{name:<28}{mean:>12.4f} +- {repeats['std'][name]:.4f}   " + " ".join(f"{value:.4f}" for value in repeats["values"][name]))
    return "\n".join(lines)
