"""Scalar statistics of training: anything may report values under a name, a Collector turns them into mean and deviation.

report() only adds (count, sum, sum of squares) to a counter on the device where the values lie: no device
synchronisation, no communication. Collector.update() brings the counters of all devices and processes together with
one all-reduce. The counters are this module's state (report() is called from everywhere); reset() empties it before a
further run in the same process, state_dict() / load_state_dict() carry it over a restart.
Must not know: what the names mean, who prints or writes the numbers.
"""

import math
import re

import numpy as np
import torch

import dnnlib

_num_moments = 3  # count, sum, sum of squares
_rank = 0
_sync_device = None  # where the all-reduce happens; None: there is one process only
_sync_called = False  # has any Collector been updated since the start or reset()?
_counters = {}  # name -> {device: moments reported there since the last update of a matching Collector}
_cumulative = {}  # name -> moments of all devices and processes up to that update, float64 on the CPU; finite, see _set_aside()
_nonfinite = {}  # name -> [at how many updates the moments were not finite, their sum, their sum of squares]


def init_multiprocessing(rank, sync_device):
    """To be called once per process, after torch.distributed is set up and before the first Collector.

    sync_device must suit the communication backend; None stands for a single process.
    """
    global _rank, _sync_device
    if _sync_called:
        raise RuntimeError("init_multiprocessing() must come before the first Collector; call reset() to begin another run")
    _rank = rank
    _sync_device = None if sync_device is None else torch.device(sync_device)


def reset():
    """Forgets everything, including init_multiprocessing(). Collectors made before are of no further use."""
    global _rank, _sync_device, _sync_called
    _rank, _sync_device, _sync_called = 0, None, False
    _counters.clear()
    _cumulative.clear()
    _nonfinite.clear()


def _accumulation_dtype(device):
    """float64, except on Apple's GPUs, which have none; there a counter lives for one tick only."""
    return torch.float32 if device.type == "mps" else torch.float64


def _moments_of(value):
    """[count, sum, sum of squares] on the device where the value lies."""
    if isinstance(value, (list, tuple)) and any(torch.is_tensor(item) for item in value):
        value = torch.cat([torch.as_tensor(item).reshape(-1) for item in value])
    elements = value.detach() if torch.is_tensor(value) else torch.from_numpy(np.array(value, dtype=np.float64))
    elements = elements.reshape(-1).to(_accumulation_dtype(elements.device))
    moments = elements.new_full([_num_moments], elements.numel())
    moments[1] = elements.sum()
    moments[2] = elements.dot(elements)
    return moments


@torch.no_grad()
def report(name, value):
    """Adds the scalar(s) in `value` (number, list, array, tensor of any shape) to the statistics of `name`; returns `value`.

    With several processes each must report the same names, be it with empty values, between two updates.
    """
    counter = _counters.setdefault(name, {})
    moments = _moments_of(value)
    if moments.device in counter:
        counter[moments.device].add_(moments)
    else:
        counter[moments.device] = moments
    return value


def report0(name, value):
    """report() of the first process; the others report nothing under that name."""
    report(name, value if _rank == 0 else [])
    return value


@torch.no_grad()
def _sync(names):
    """Moves the counters of `names` into _cumulative: the one place where devices and processes wait for each other."""
    global _sync_called
    _sync_called = True
    if not names:
        return
    device = torch.device("cpu") if _sync_device is None else _sync_device
    deltas = torch.zeros([len(names), _num_moments], dtype=_accumulation_dtype(device), device=device)
    for row, name in zip(deltas, names):
        for counter in _counters[name].values():
            row.add_(counter.to(device=device, dtype=row.dtype))
            counter.zero_()
    if _sync_device is not None:
        torch.distributed.all_reduce(deltas)
    for name, delta in zip(names, deltas.to("cpu").to(torch.float64)):
        if not bool(delta.isfinite().all()):
            _set_aside(name, delta)
        _cumulative[name] = _cumulative[name] + delta if name in _cumulative else delta.clone()


def _set_aside(name, delta):
    """Leaves the count alone in moments that are not finite: one nan in the sums, and no later mean would be a number again."""
    moments = torch.cat([delta.new_ones([1]), delta[1:]])
    _nonfinite[name] = _nonfinite[name] + moments if name in _nonfinite else moments
    delta[1:] = 0


def forget(names):
    """Drops statistics that nobody reports any more, which Collectors would go on showing. To be called on every process."""
    for name in names:
        _counters.pop(name, None)
        _cumulative.pop(name, None)


def state_dict():
    """All counters as plain dicts of CPU tensors. Of this process alone: with several, each keeps its own."""
    return dict(
        counters={name: {str(device): counter.cpu().clone() for device, counter in counters.items()} for name, counters in _counters.items()},
        cumulative={name: moments.clone() for name, moments in _cumulative.items()},
        nonfinite={name: moments.clone() for name, moments in _nonfinite.items()},
    )


def load_state_dict(state):
    """Puts the counters back, replacing whatever was reported since; init_multiprocessing() is not part of the state."""
    counters = {}
    for name, saved in state["counters"].items():
        counters[name] = {}
        for device_name, moments in saved.items():
            device = _present_device(device_name)
            moments = moments.to(device=device, dtype=_accumulation_dtype(device), copy=True)
            counters[name][device] = counters[name][device] + moments if device in counters[name] else moments
    _counters.clear()
    _counters.update(counters)
    _cumulative.clear()
    _cumulative.update((name, moments.clone()) for name, moments in state["cumulative"].items())
    _nonfinite.clear()
    _nonfinite.update((name, moments.clone()) for name, moments in state.get("nonfinite", {}).items())  # states of early versions lack it


def _present_device(name):
    """The device of that kind which this process works on, or the CPU. The order of additions, hence the last bit,
    is the same only if the kind is."""
    kind = torch.device(name).type
    if kind == "cuda" and torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if kind == "mps" and torch.backends.mps.is_available():
        return torch.device("mps:0")
    return torch.device("cpu")


class Collector:
    """Statistics of what was reported between the last two calls of update(), for the names that match `regex` wholly.

    With keep_previous a name that nobody reported in between shows its older values, else it has num 0 and mean nan.
    What was reported before the Collector was made is not counted.
    """

    def __init__(self, regex=".*", keep_previous=True):
        self._regex = re.compile(regex)
        self._keep_previous = keep_previous
        self._seen = {}  # name -> cumulative moments at the last update
        self._seen_nonfinite = {}  # name -> of how many updates that were not finite it knows
        self._moments = {}  # name -> moments that num(), mean() and std() speak of
        self.update()
        self._moments.clear()

    def names(self):
        """Everything reported so far that matches, in alphabetical order: the same in all processes."""
        return sorted(name for name in _counters if self._regex.fullmatch(name))

    def update(self):
        """Takes in what was reported since the last call. All processes must call it together."""
        names = self.names()
        _sync(names)
        if not self._keep_previous:
            self._moments.clear()
        for name in names:
            delta = _cumulative[name] - self._seen[name] if name in self._seen else _cumulative[name].clone()
            self._seen[name] = _cumulative[name].clone()
            times = int(_nonfinite[name][0]) if name in _nonfinite else 0
            if times != self._seen_nonfinite.get(name, 0):
                delta[1:] = _nonfinite[name][1:]
                self._seen_nonfinite[name] = times
            if float(delta[0]) != 0:
                self._moments[name] = delta

    def num(self, name):
        """Number of values; 0 for an unknown name."""
        return int(self._moments[name][0]) if name in self._moments else 0

    def mean(self, name):
        """Mean of the values; nan if there are none."""
        if self.num(name) == 0:
            return float("nan")
        return float(self._moments[name][1] / self._moments[name][0])

    def std(self, name):
        """Standard deviation of the values (divisor: their number); nan if there are none or one of them is not finite."""
        num = self.num(name)
        if num == 0 or not math.isfinite(float(self._moments[name][1])):
            return float("nan")
        if num == 1:
            return 0.0
        mean = self.mean(name)
        mean_square = float(self._moments[name][2] / self._moments[name][0])
        return math.sqrt(max(mean_square - mean * mean, 0))  # rounding can leave a constant with a tiny negative variance

    def as_dict(self):
        """{name: {num, mean, std}}, readable as attributes too."""
        return dnnlib.EasyDict({name: dnnlib.EasyDict(num=self.num(name), mean=self.mean(name), std=self.std(name)) for name in self.names()})

    def __getitem__(self, name):
        """collector[name] = collector.mean(name)."""
        return self.mean(name)

    def state_dict(self):
        """What the next update() and the present numbers depend on, as plain dicts of CPU tensors."""
        return dict(
            seen={name: moments.clone() for name, moments in self._seen.items()},
            moments={name: moments.clone() for name, moments in self._moments.items()},
            nonfinite=dict(self._seen_nonfinite),
        )

    def load_state_dict(self, state):
        """Belongs together with the module's load_state_dict()."""
        self._seen = {name: moments.clone() for name, moments in state["seen"].items()}
        self._moments = {name: moments.clone() for name, moments in state["moments"].items()}
        self._seen_nonfinite = dict(state.get("nonfinite", {}))
