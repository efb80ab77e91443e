"""From what was typed as --class or --label to label vectors, with everything said that the data knows about them.

Must not know what is drawn.
"""

import difflib
import re
from dataclasses import dataclass

import torch

from dnnlib.console import note, warn
from dnnlib.errors import UserError

_NAMES_SHOWN, _NUMBERS_SHOWN, _PLACES_SHOWN = 8, 6, 32


@dataclass(frozen=True)
class Choice:
    """One label. vector: [1, c_dim]. text: for people. class_index: None for a vector that was typed."""

    vector: torch.Tensor
    text: str = ""
    class_index: int | None = None


def choose(generator, facts, class_texts=(), label_vectors=(), device="cpu"):
    """The labels [Choice] of --class or --label; of a network without labels one that is empty.

    facts: LabelFacts or None, where nobody knows what the labels of this network are.
    """
    num = generator.c_dim
    if num == 0:
        for flag, given in (("--class", class_texts), ("--label", [_written(vector) for vector in label_vectors])):
            if given:
                raise UserError(f"{flag}={given[0]} was given, but this network was trained without classes; leave {flag} out")
        return [Choice(torch.zeros([1, 0], device=device))]
    if class_texts and label_vectors:
        raise UserError("--class and --label were both given; a picture has one label: choose one of them")
    if label_vectors:
        return [_choice_of_vector(vector, num, facts, device) for vector in label_vectors]
    if facts is not None and not facts.are_classes:
        _refuse_classes(class_texts, facts)
    if not class_texts:
        names = facts.class_names if facts is not None else None
        named = f" ({_offered(names)})" if _has_numbers(names) else f" (or its name: {_first(names)})" if names else ""
        raise UserError(f"this network draws one of {num} classes; say which with --class=0 ... --class={num - 1}{named}")
    indices = []
    for text in class_texts:
        found = class_indices(text, num, facts)
        if facts is not None:
            _tell_of_absent(found, facts)
        indices.extend(found)
    if facts is None:
        note("neither the network nor its training data say what its labels are; --class takes them for classes.")
    return [choice_of_class(index, num, facts, device) for index in indices]


def choose_one(generator, facts, class_text=None, label_vector=None, device="cpu"):
    """The one label of a tool that takes one."""
    chosen = choose(generator, facts, () if class_text is None else (class_text,), () if label_vector is None else (label_vector,), device)
    if len(chosen) > 1:
        raise UserError(f"--class={class_text} names {len(chosen)} classes, and here is place for one; choose one")
    return chosen[0]


def all_classes(generator, facts, device="cpu"):
    """One Choice for each class of the network."""
    if generator.c_dim == 0:
        raise UserError("--sheet shows one row for each class, but this network was trained without classes; draw with --seeds alone")
    if facts is not None and not facts.are_classes:
        raise UserError(f"--sheet shows one row for each class, but {_vectors_text(facts)}; give the rows with --label, as {_example(facts)}")
    if facts is not None:
        _tell_of_absent(range(generator.c_dim), facts)
    return [choice_of_class(index, generator.c_dim, facts, device) for index in range(generator.c_dim)]


# ------------------------------------------------------------------------------------------
# Classes.


def class_indices(text, num, facts):
    """Class numbers of one --class: '3', '0-9', '1,4-5', 'cat', 'cat,dog'. A number is a number where it can be one, though a class may be called so."""
    names = facts.class_names if facts is not None else None
    if re.fullmatch(r"-?\d+", text):
        return [_of_number(text, num, names)]
    found = _named(text, names)
    if found is not None:
        return [found]
    span = re.fullmatch(r"(\d+)\s*-\s*(\d+)", text)
    if span:
        first, last = (_checked(part, num, names) for part in span.groups())
        if last < first:
            raise UserError(f"--class={text} runs backwards; write --class={last}-{first}")
        _tell_of_span(text, first, last, names)
        return list(range(first, last + 1))
    if "," in text:
        return [index for part in text.split(",") for index in class_indices(part.strip(), num, facts)]
    if not names:
        raise UserError(f"--class={text}: the classes of this network have no names; give a number from 0 to {num - 1}")
    near = difflib.get_close_matches(text.lower(), [name.lower() for name in names], n=3, cutoff=0.5)
    near = [name for name in names if name.lower() in near][:3]
    if _has_numbers(names):
        hint = _offered(names)
    else:
        hint = f"did you mean {' or '.join(near)}?" if near else f"there are {_first(names)}"
    raise UserError(f"--class={text}: there is no such class; {hint}")


def _of_number(text, num, names):
    """The class of a number: that place where there is one, else the class that is called so."""
    index, called = int(text), _named(text, names)
    if 0 <= index < num:
        if called is not None and called != index:
            place = f"--class={text} is the one called {names[index]}" if index < len(names) else f"--class={text} is one without a name"
            warn(f"classes are counted from 0: {place}, and the one called {text} is --class={called}.")
        return index
    return called if called is not None else _checked(text, num, names)


def _checked(text, num, names):
    if not 0 <= int(text) < num:
        called = _named(text, names)
        hint = f"; the one called {text} is --class={called}" if called is not None else f"; {_offered(names)}" if _has_numbers(names) else ""
        raise UserError(f"--class must lie between 0 and {num - 1} for this network (got {text}){hint}")
    return int(text)


def _tell_of_span(text, first, last, names):
    places = {name: place for place, name in enumerate(names or ())}
    others = [index for index in range(first, last + 1) if places.get(str(index), index) != index]
    if others:
        examples = _first([f"{index} is --class={places[str(index)]}" for index in others], 3)
        called = _first(list(names[first : last + 1]))
        warn(f"classes are counted from 0: --class={text} are those called {called}; of those that the numbers name, {examples}.")


def _has_numbers(names):
    """Whether some class is called by a number, which would be taken for its place."""
    return any(re.fullmatch(r"-?\d+", name) for name in names or ())


def _offered(names):
    """The classes for people whose names of classes are numbers: by what to type, with what each is called."""
    return f"the classes are {_first([f'--class={index} (called {name})' for index, name in enumerate(names)])}"


def _named(text, names):
    for same in (lambda name: name == text, lambda name: name.lower() == text.lower()):
        found = [index for index, name in enumerate(names or ()) if same(name)]
        if len(found) == 1:
            return found[0]
    return None


def _tell_of_absent(indices, facts):
    absent = [index for index in indices if facts.is_absent(index)]
    if absent:
        numbers = _first([str(index) for index in absent])
        warn(f"class {numbers} had no image in the training data; what is drawn for it was never trained.")


def choice_of_class(index, num, facts, device="cpu"):
    """The one-hot label of a class."""
    name = facts.name_of(index) if facts is not None else None
    vector = torch.zeros([1, num], device=device)
    vector[:, index] = 1
    return Choice(vector, f"class {index}" + (f" ({name})" if name is not None else ""), index)


# ------------------------------------------------------------------------------------------
# Vectors.


def _choice_of_vector(vector, num, facts, device):
    if len(vector) != num:
        example = _example(facts) if facts is not None and not facts.are_classes else _one_hot_example(num)
        raise UserError(
            f"--label={_written(vector)} has the width {len(vector)}, but the labels of this network have {num}; write "
            f"{num} number{'s' if num > 1 else ''}, as in {example}"
        )
    if facts is not None and facts.are_classes:
        if sorted(vector) != [0] * (num - 1) + [1]:
            warn(f"--label={_written(vector)} lies outside the data, which are {num} classes: each label has one 1 and else 0.")
    elif facts is None:
        note(f"neither the network nor its training data say which labels there were; --label={_written(vector)} may lie outside.")
    else:
        for place, (number, low, high) in enumerate(zip(vector, facts.low, facts.high), start=1):
            if not low <= number <= high:
                warn(f"--label={_written(vector)} lies outside the data: number {place} is {number:g}, the data have {low:g} to {high:g}.")
    return Choice(torch.tensor([vector], dtype=torch.float32, device=device), f"label {_written(vector)}")


def _refuse_classes(class_texts, facts):
    typed = f"--class={class_texts[0]} was given, but " if class_texts else ""
    raise UserError(f"{typed}{_vectors_text(facts)}; say which to draw with --label, as {_example(facts)}")


def _vectors_text(facts):
    ranges = [f"{low:g} to {high:g}" for low, high in zip(facts.low, facts.high)]
    return f"the labels of this network are no classes but {facts.num} numbers each ({_first(ranges, _NUMBERS_SHOWN)} in the data)"


def _example(facts):
    return "--label=" + ",".join(f"{(low + high) / 2:.4g}" for low, high in zip(facts.low, facts.high))


def _one_hot_example(num):
    if num > _PLACES_SHOWN:
        return f"--label=1,0,...,0 (a 1 and {num - 1} times 0)"
    return "--label=" + ",".join(["1"] + ["0"] * (num - 1))


def _written(vector):
    return ",".join(f"{number:g}" for number in vector)


def _first(texts, count=_NAMES_SHOWN):
    return ", ".join(texts[:count]) + (", ..." if len(texts) > count else "")
