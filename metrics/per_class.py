"""A metric of each class by itself: reals of the class against images generated with its label.

One result line with the mean over the classes and every class's number. Must not know what the metric is.
"""

import numpy as np

import dnnlib
from dnnlib.errors import UserError
from metrics import metric_main, progress as showing
from metrics.metric import NAME_PER_CLASS
from metrics.one_class import by_class
from torch_utils import distributed

_NAMED = 20  # classes that a sentence names


def check(rows):
    """Refuse metrics that mean nothing of one class."""
    for row in rows:
        if not row.per_class:
            raise UserError(
                f"--per-class does not go with --metrics={row.name}, which says something of all classes together; leave one of them out."
            )


def check_labels(dataset, flag):
    """Refuse sets without class labels."""
    if not dataset.has_onehot_labels:
        what = "has labels that are no classes" if dataset.has_labels else "has no labels"
        raise UserError(
            f"--per-class needs a set with class labels, but {flag} {what}; leave it out, or make the set with dataset_tool.py --labels=folders."
        )


def of_network(metric, dataset_kwargs, **kwargs):
    """As metric_main.calc_metric, of each class of a conditional network."""
    row = metric_main.row_of(metric)
    dataset = dnnlib.util.construct_class_by_name(**{**dataset_kwargs, **row.reals.value, "use_labels": True})
    check_labels(dataset, f"the data set {dataset.name}")
    kwargs["dataset_kwargs"] = dataset_kwargs
    shared = {}
    calc = lambda reals, **more: metric_main.calc_metric(metric, only_class=reals, kept=_kept_for_one(shared), **kwargs, **more)
    num_gen = kwargs.get("num_gen") or row.num_gen
    classes = {number: (reals,) for number, reals in by_class(dataset).items()}
    return _each(row, dataset, classes, lambda reals: (len(reals), num_gen), calc, kwargs["progress"].verbose)


def of_sets(metric, sides, images, calc):
    """The same of two labelled sets of images. calc(reals, fakes, **more) -> result."""
    row = metric_main.row_of(metric)
    for side, dataset in zip(sides, images):
        if dataset is None:
            raise UserError(f"--per-class needs labelled images on both sides, but {side.flag} holds none; leave it out, or give a set of images.")
        check_labels(dataset, side.flag)
    reals, fakes = images
    names = [dataset.class_names or list(map(str, range(dataset.label_dim))) for dataset in images]
    if names[0] != names[1]:
        raise UserError(
            f"{sides[0].flag} has the classes {_few(names[0])}, {sides[1].flag} {_few(names[1])}; numbers of unlike classes cannot be compared: "
            "make both sets with the same class folders."
        )
    shared = {}
    of_fakes = by_class(fakes)
    classes = {number: (part, of_fakes[number]) for number, part in by_class(reals).items()}
    counted = lambda *pair: tuple(len(part) for part in pair)
    return _each(
        row, reals, classes, counted, lambda *pair, **more: calc(*pair, only_class=pair[0], kept=_kept_for_one(shared), **more), verbose=False
    )


def _kept_for_one(detectors):
    """What the options keep: detectors for all classes, statistics for one, since those of a thousand would fill the memory."""
    return {"loaded detectors": detectors}


def _each(row, dataset, classes, counted, calc, verbose):
    """The line of all classes. counted(*class) -> (reals, generated); calc(*class, on_warning=) -> result of one class."""
    names = dataset.class_names or [str(number) for number in classes]
    results, warned, left_out, per_class = {}, {}, {}, {}
    total_time, first = 0.0, None
    for number, parts in classes.items():
        num_real, num_gen = counted(*parts)
        facts = dict(name=names[number] if number < len(names) else str(number), num_real=num_real, num_gen=num_gen)
        if num_gen < row.fewest.count or (row.compares_with_reals and num_real < row.fewest.count):
            left_out[number] = facts
            continue
        if verbose and distributed.get_rank() == 0:
            print(f"Class {number} ({facts['name']}), {number + 1} of {len(classes)}: {num_real} real images", flush=True)
        result = calc(*parts, on_warning=lambda text, name=facts["name"]: warned.setdefault(name, text))
        first = first or result
        total_time += result.total_time
        results[number] = result.results
        per_class[number] = facts
    if first is None:
        raise UserError(f"{row.name}: {row.fewest.why.format(side='real')}, and no class has as many; leave --per-class out, or use a larger set.")
    if distributed.get_rank() == 0:
        _warn(row, left_out, warned)
    return _line(row, first, results, per_class, left_out, total_time)


def _warn(row, left_out, warned):
    if left_out:
        named = [f"{facts['name']} ({facts['num_real']} real, {facts['num_gen']} generated)" for facts in left_out.values()]
        showing.warn(f"too few images for {row.name}, left out: {_few(named)}.")
    if warned:
        showing.warn(f"{_few(list(warned))}: {next(iter(warned.values()))}")


def _line(row, first, results, per_class, left_out, total_time):
    line = dnnlib.EasyDict(first)
    line.metric = row.name + NAME_PER_CLASS
    line.results = dnnlib.EasyDict()
    for name in first.results:
        line.results[name + NAME_PER_CLASS] = float(np.mean([numbers[name] for numbers in results.values()]))
    for number, numbers in results.items():
        line.results.update({f"{name}_class{number}": value for name, value in numbers.items()})
    line.total_time, line.total_time_str = total_time, dnnlib.util.format_time(total_time)
    line.facts = dict(first.facts, per_class=per_class, left_out=left_out, num_real=sum(facts["num_real"] for facts in per_class.values()))
    return line


def _few(names):
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
