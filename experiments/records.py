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

RESULTS = Path(__file__).resolve().parent / "results"


class Store:
    """facts: what all entries depend on; a file written under other facts is refused rather than mixed."""

    def __init__(self, path, facts):
        self.path, self.facts = Path(path), json.loads(json.dumps(facts))
        self.entries = []
        if self.path.exists():
            known = json.loads(self.path.read_text(encoding="utf-8"))
            differing = sorted(name for name in {*known["facts"], *self.facts} if known["facts"].get(name) != self.facts.get(name))
            if differing:
                raise UserError(f"{self.path} was written under other settings ({', '.join(differing)}); move it away or give another --out.")
            self.entries = known["entries"]

    def get(self, method, seed):
        return next((entry for entry in self.entries if entry["method"] == method and entry["seed"] == seed), None)

    def put(self, method, seed, result):
        self.entries.append(dict(method=method, seed=seed, **result, **machine()))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        atomic_write_text(self.path, json.dumps(dict(facts=self.facts, entries=self.entries), indent=1) + "\n")


def machine():
    """Hardware, versions and date of an entry."""
    return dict(machine=f"{platform.machine()}, {cpu_name()}, {os.cpu_count()} cores", torch=torch.__version__, python=platform.python_version(),
                date=datetime.datetime.now(datetime.timezone.utc).date().isoformat())


def cpu_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return next(line.partition(":")[2].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or "unknown processor"


def load(path):
    """(facts, {method: {seed: entry}}) with seeds in order."""
    document = json.loads(Path(path).read_text(encoding="utf-8"))
    by_method = {}
    for entry in sorted(document["entries"], key=lambda entry: entry["seed"]):
        by_method.setdefault(entry["method"], {})[entry["seed"]] = entry
    return document["facts"], by_method


def mean_and_interval(values):
    """(mean, half width of its 95% t interval; nan for one value)."""
    from scipy.stats import t

    values = np.asarray(values, np.float64)
    if len(values) < 2:
        return float(values.mean()), float("nan")
    return float(values.mean()), float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5)
