"""Whether two metric lines may be compared: the facts that they state, sorted into conditions and measured values.

Lines in, sentences out. A fact that is not listed here is a condition: unknown facts must agree. The number of processes is
none: what a metric draws and sums does not depend on it.
"""

import json
import os

from dnnlib.util import flat_items

# Measured along with the result, or a property of the network: they differ from run to run. A name stands for all below it.
MEASURED = {
    "confidence",
    "outside_share",
    "floor_kl_std",
    "floor_modes",
    "floor",
    "classifier.confidence",
    "trained_in",
    "trained_in_own_space",
    "held_out",
    "per_space",
    "mean_never_trained_in",
    "coverages",
    "class_shares",
    "vendi_real",
    "vendi_generated",
    "variety",
    "comparison",
    "drs.acceptance",
    "drs.proposed",
    "drs.accepted",
    "drs.largest",
    "repeats.std",
    "repeats.values",
    "repeats.differing",
}
# But these below a measured name are conditions.
STILL_CONDITIONS = {"held_out.space"}
# They change the number by noise alone: told, not refused. The digit classifier is known by its key, the hash of recipe and data.
NOTED = {"seed", "batch", "torch", "repeats.seeds", "data.name", "classifier.num_train", "classifier.num_held_out", "classifier.weights_sha256"}
NOT_STATED = "null"  # an older line that lacks a fact and a newer one that has no use for it are alike


def _listed(name, names):
    return any(name == entry or name.startswith(entry + ".") for entry in names)


def facts_of(line):
    """{dotted name: JSON text} of a line, without what was measured. The snapshots of a cycling metric count by name."""
    facts = line.get("facts")
    facts = dict(facts) if isinstance(facts, dict) else {}
    if isinstance(facts.get("snapshots"), dict):
        facts["snapshots"] = sorted(facts["snapshots"])
    found = {}
    for place, value in flat_items(facts).items():
        name = ".".join(place)
        if _listed(name, MEASURED) and name not in STILL_CONDITIONS:
            continue
        if isinstance(value, str) and value.startswith("file:"):  # the folder may be another; the hash decides
            value = "file:" + os.path.basename(value)
        found[name] = json.dumps(value, sort_keys=True)
    if found.get("drs.percentile", NOT_STATED) != NOT_STATED:
        found.pop("drs.gamma", None)  # made of the network's own logits by that percentile
    return found


def shared_facts(lines):
    """{dotted name: JSON text} that all lines state alike, sorted by name."""
    all_facts = [facts_of(line) for line in lines]
    return {name: value for name, value in sorted(all_facts[0].items()) if all(facts.get(name) == value for facts in all_facts)}


def differences(named_lines):
    """(unlike, noted): sentences. named_lines: [(name of the run, line)] of one metric, in an order of their own.

    Each differing fact is told once, with the first run that has another value than the first run of all.
    """
    stated = [(name, facts_of(line)) for name, line in named_lines]
    unlike, noted = [], []
    for fact in sorted({fact for _, facts in stated for fact in facts}):
        first_run, first = stated[0][0], stated[0][1].get(fact, NOT_STATED)
        other = next(((name, facts.get(fact, NOT_STATED)) for name, facts in stated[1:] if facts.get(fact, NOT_STATED) != first), None)
        if other is not None:
            where = f"in {other[0]} but {first} in {first_run}" if other[0] != first_run else f"and {first} in two lines of {first_run}"
            sentence = f"{fact} is {other[1]} {where}"
            (noted if _listed(fact, NOTED) else unlike).append(sentence)
    return unlike, noted
