"""What studies write: one JSON file of facts and one entry per (method, seed), with machine and date. Grows run by run.

Must not know what is measured.
"""

import datetime
import json
import os
import platform
from pathlib import Path

import numpy as np
import torch

from dnnlib.errors import UserError
from dnnlib.files import atomic_write_text
from dnnlib.machine import processor_name
from madr_plugin import config
from metrics import comparison
from torch_utils.process_lock import ProcessLock

RESULTS = Path(__file__).resolve().parent / "results"
TRAINING_IMAGES = "training images"  # stands for the method where these took the place of generated ones: the scale of the measures


class Store:
    """facts: what all entries depend on; a file written under other facts is refused rather than mixed.

    Of facts["methods"] those count of which the file holds entries: a study may get further methods.
    """

    def __init__(self, path, facts):
        self.path, self.facts = Path(path), json.loads(json.dumps(facts))
        self.entries = self._read()

    def _read(self):
        if not self.path.exists():
            return []
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{self.path} is damaged ({error}); restore it, or move it away to begin anew.") from error
        if not isinstance(known, dict) or not {"facts", "entries"} <= set(known):
            raise UserError(f"{self.path} does not hold single runs as this version writes them; move it away or give another file.")
        stated = _with_later_knobs(known["facts"])
        entered = {entry["method"] for entry in known["entries"]}
        if isinstance(self.facts.get("methods"), dict) and isinstance(stated.get("methods"), dict):
            held = {name: options for name, options in stated["methods"].items() if name in entered}
            stated = dict(stated, methods={**self.facts["methods"], **held})
            self.facts = dict(self.facts, methods={**held, **self.facts["methods"]})
        differing = sorted(name for name in {*stated, *self.facts} if stated.get(name) != self.facts.get(name))
        if differing:
            raise UserError(f"{self.path} was written under other settings ({', '.join(differing)}); move it away or give another file.")
        return known["entries"]

    def get(self, method, seed):
        return next((entry for entry in self.entries if entry["method"] == method and entry["seed"] == seed), None)

    def put(self, method, seed, result):
        """Adds to what the file holds by now: another process may have put its own runs there, and this one too, which then stays."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with ProcessLock(self.path.with_suffix(".lock"), limit_sec=60, say=print):
            self.entries = self._read()
            if self.get(method, seed) is None:
                self.entries = [*self.entries, dict(method=method, seed=seed, **result, **machine())]
            atomic_write_text(self.path, json.dumps(dict(facts=self.facts, entries=self.entries), indent=1) + "\n")


def _with_later_knobs(facts):
    """A knob that MADR has got since the file was written stood at its default then."""
    methods = facts.get("methods")
    if not isinstance(methods, dict):
        return facts
    later = {}
    for name, options in methods.items():
        madr = options.get("madr") if isinstance(options, dict) else None
        later[name] = dict(options, madr=config.resolve(madr).as_dict()) if madr else options
    return dict(facts, methods=later)


def machine():
    """Hardware, versions and date of an entry."""
    return dict(
        machine=f"{platform.machine()}, {processor_name()}, {os.cpu_count()} cores",
        torch=torch.__version__,
        python=platform.python_version(),
        date=datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
    )


def load(path):
    """(facts, {method: {seed: entry}}) with seeds in order."""
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    by_method = {}
    for entry in sorted(document["entries"], key=lambda entry: entry["seed"]):
        by_method.setdefault(entry["method"], {})[entry["seed"]] = entry
    return document["facts"], by_method


def mean_and_interval(values):
    """(mean, half width of its 95% t interval; nan for one value)."""
    interval = comparison.t_interval(values)
    return float(np.mean(values)), float("nan") if interval is None else (interval[1] - interval[0]) / 2
