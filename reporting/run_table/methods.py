"""Which runs are of one method: the training options apart from the seed and from what does not change the training.

Options in, names out. Must not know folders, metrics or numbers.
"""

import hashlib
import json

from dnnlib.errors import UserError
from dnnlib.util import flat_items
from training import flag_table

# Options of a run that leave its method as it is; resume_state says which part of a run goes on, and no flag of its own sets it.
HOUSEKEEPING = flag_table.housekeeping() | {"resume_state"}
SEED = flag_table.SEED
_DATA_PATH = ("training_set_kwargs", "path")  # the same data may lie elsewhere; the metric lines state its fingerprint
MAX_STATED_OPTIONS = 3


def signature(options):
    """What makes the method: {tuple of names: value as JSON text}."""
    return {
        place: json.dumps(value, sort_keys=True)
        for place, value in flat_items(options).items()
        if place[0] not in HOUSEKEEPING and place[-1] != SEED and place[-2:] != _DATA_PATH
    }


def plugin_options(options):
    """The MADR options of a run; None without MADR."""
    loss = options.get("loss_kwargs")
    plugin = loss.get("madr") if isinstance(loss, dict) else None
    return plugin if isinstance(plugin, dict) else None


def family(options):
    """'plain' without MADR, else 'madr' with its preset unless that is the default."""
    plugin = plugin_options(options)
    if plugin is None:
        return "plain"
    preset = plugin.get("preset", "default")
    return "madr" if preset == "default" else f"madr-{preset}"


def names_of(options_of_runs):
    """A name per run, equal for equal methods: its family, and where several methods share that, the options they differ in."""
    signatures = [signature(options) for options in options_of_runs]
    families = [family(options) for options in options_of_runs]
    return [
        _name(own, shared, {_key(other): other for other, its_family in zip(signatures, families) if its_family == shared})
        for own, shared in zip(signatures, families)
    ]


def _key(own):
    return json.dumps(sorted((list(place), value) for place, value in own.items()))


def _name(own, shared, relatives):
    if len(relatives) == 1:
        return shared
    places = sorted({place for relative in relatives.values() for place in relative})
    differing = [place for place in places if len({relative.get(place) for relative in relatives.values()}) > 1]
    if len(differing) > MAX_STATED_OPTIONS:
        return f"{shared} #{hashlib.sha256(_key(own).encode()).hexdigest()[:6]}"
    shorts = [place[-1] for place in differing]
    stated = [
        (short if shorts.count(short) == 1 else ".".join(place)) + "=" + own.get(place, "none").strip('"') for short, place in zip(shorts, differing)
    ]
    return f"{shared} {', '.join(stated)}"


def parse_groups(groups):
    """[(name, pattern)] from NAME=GLOB pairs; a name may have several patterns."""
    checked = []
    for name, pattern in groups:
        if not name.isprintable() or name != name.strip():
            raise UserError(f"--group {name!r}={pattern}: a name is a word or two, without control characters or blanks around it.")
        checked.append((name, pattern))
    return checked
