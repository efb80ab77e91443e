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
_SUMMED = ("num_gen", "num_compared")  # facts that count images


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
    return _each(row, dict(data=dataset), classes, lambda reals: (len(reals), num_gen), calc, kwargs["progress"].verbose)


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
    calc_pair = lambda *pair, **more: calc(*pair, only_class=pair[0], kept=_kept_for_one(shared), **more)
    return _each(row, dict(data=reals, fakes=fakes), classes, counted, calc_pair, verbose=False)


def _kept_for_one(detectors):
    """What the options keep: detectors for all classes, statistics for one, since those of a thousand would fill the memory."""
    return {"loaded detectors": detectors}


def _each(row, whole, classes, counted, calc, verbose):
    """The line of all classes.

    whole: {fact: data set that it describes}. counted(*class) -> (reals, generated); calc(*class, on_warning=) -> result of one class.
    """
    names = whole["data"].class_names or [str(number) for number in classes]
    results, warned, left_out, per_class = {}, {}, {}, {}
    for number, parts in classes.items():
        num_real, num_gen = counted(*parts)
        facts = dict(name=names[number] if number < len(names) else str(number), num_real=num_real, num_gen=num_gen)
        if num_gen < row.fewest.count or (row.compares_with_reals and num_real < row.fewest.count):
            left_out[number] = facts
            continue
        if verbose and distributed.get_rank() == 0:
            print(f"Class {number} ({facts['name']}), {number + 1} of {len(classes)}: {num_real} real images", flush=True)
        result = calc(*parts, on_warning=lambda text, name=facts["name"]: warned.setdefault(name, text))
        facts.update({count: result.facts[count] for count in ("num_real", "num_gen") if result.facts.get(count) is not None})
        results[number] = result
        per_class[number] = facts
    if not results:
        raise UserError(f"{row.name}: {row.fewest.why.format(side='real')}, and no class has as many; leave --per-class out, or use a larger set.")
    if distributed.get_rank() == 0:
        _warn(row, left_out, warned)
    return _line(row, whole, results, per_class, left_out)


def _warn(row, left_out, warned):
    if left_out:
        named = [f"{facts['name']} ({facts['num_real']} real, {facts['num_gen']} generated)" for facts in left_out.values()]
        showing.warn(f"too few images for {row.name}, left out: {_few(named)}.")
    if warned:
        showing.warn(f"{_few(list(warned))}: {next(iter(warned.values()))}")


def _line(row, whole, results, per_class, left_out):
    line = dnnlib.EasyDict(next(iter(results.values())))
    line.metric = row.name + NAME_PER_CLASS
    names = list(line.results)
    line.results = dnnlib.EasyDict()
    for name in names:
        line.results[name + NAME_PER_CLASS] = float(np.mean([result.results[name] for result in results.values()]))
    for number, result in results.items():
        line.results.update({f"{name}_class{number}": value for name, value in result.results.items()})
    line.total_time = sum(result.total_time for result in results.values())
    line.total_time_str = dnnlib.util.format_time(line.total_time)
    line.facts = _of_all({number: result.facts for number, result in results.items()})
    for fact, dataset in whole.items():
        if line.facts.get(fact) is not None:
            line.facts[fact] = dict(line.facts[fact], fingerprint=dataset.content_fingerprint(), num_images=len(dataset))
    for count in _SUMMED:
        counted = [facts[count] for facts in (result.facts for result in results.values()) if facts.get(count) is not None]
        if counted:
            line.facts[count] = sum(counted)
    line.facts.update(per_class=per_class, left_out=left_out, num_real=sum(facts["num_real"] for facts in per_class.values()))
    return line


def _of_all(facts):
    """What {class number: fact} says of all classes: what they agree in, the mean of numbers, else the fact of each."""
    first, *others = facts.values()
    if all(isinstance(fact, dict) for fact in facts.values()):
        names = dict.fromkeys(name for fact in facts.values() for name in fact)
        return {name: _of_all({number: fact.get(name) for number, fact in facts.items()}) for name in names}
    if all(fact == first for fact in others):
        return first
    if all(isinstance(fact, (int, float)) and not isinstance(fact, bool) for fact in facts.values()):
        return float(np.mean(list(facts.values())))
    return facts


def _few(names):
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
