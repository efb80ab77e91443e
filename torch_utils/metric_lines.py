"""Which lines of a run's metric-<name>.jsonl tell of one course: numbers made alike, so that snapshots may be compared by them.

calc_metrics.py adds its lines to those of the training, also of quick looks in another way. Lines in, lines out.
"""

import collections
import json

BY_HAND = "calc_metrics.py"  # stands under 'by' in lines that the training did not write
_OTHER_MEANING = ("counts_overridden", "drs", "repeats", "usual_num_gen")  # none of the training's own lines states them
_CONDITIONS = ("seed", "space", "tie_rule", "truncation_psi", "truncation_cutoff", "noise_mode", "mode_rule")
_OF_DATA = ("fingerprint", "xflip", "max_size")


def alike(lines):
    """Those of one metric's lines that were made as the training's own; of lines without a training as most of them."""
    usual = [line for line in lines if not any(_facts(line).get(name) for name in _OTHER_MEANING)]
    own = [_conditions(line) for line in usual if line.get("by") != BY_HAND]
    if own:
        reference = own[-1]  # a run may be resumed with other detectors
    elif usual:
        texts = [json.dumps(_conditions(line), sort_keys=True) for line in usual]
        reference = json.loads(collections.Counter(texts).most_common(1)[0][0])
    return [line for line in usual if _agree(_conditions(line), reference)]


def _facts(line):
    facts = line.get("facts")
    return facts if isinstance(facts, dict) else {}


def _conditions(line):
    facts = _facts(line)
    part = lambda name: facts[name] if isinstance(facts.get(name), dict) else {}
    found = {name: facts.get(name) for name in _CONDITIONS}
    found.update({f"data.{name}": part("data").get(name) for name in _OF_DATA})
    found.update(detector=part("detector").get("sha256"), fitted=part("detector").get("fitted"), held_out=part("held_out_images").get("fingerprint"))
    return json.loads(json.dumps(found))


def _agree(conditions, reference):
    """What one of them does not state is no difference: an older line states less."""
    return all(value == reference[name] for name, value in conditions.items() if None not in (value, reference[name]))
