"""The training state: everything that a run needs to go on exactly where it stopped, and nothing that executes.

A state is one file, `training-state-<kimg>.pt`, of plain tensors, numbers, strings, lists and dicts (torch.load with
weights_only=True reads it). Random numbers need no place in it: every draw is seeded by the position in the run.
Must not know how training works.
"""

import copy
import os
import pickle
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch

from dnnlib import files
from dnnlib.errors import UserError
from torch_utils import distributed, training_stats

FORMAT = 1
STATE_FILE = "training-state-{kimg:06d}.pt"
STATE_REGEX = re.compile(r"^training-state-(\d+)\.pt$")
# The newest one, and the one before it in case the disk spoils the newest.
NUM_STATES_KEPT = 2


class Progress:
    """Where a run is. cur_nimg: images seen; batch_idx: steps done; elapsed_sec: training time of earlier processes.

    named: {kind of file: [images seen, name of the position]} of the newest file of each kind. nonfinite_streak: how often in a row the worst phase had non-finite gradients. Counted for each phase apart: a lazy
    regulariser that is broken for good acts in every 4th or 16th step only, with sound steps between.
    """

    FIELDS = [
        "cur_nimg",
        "cur_tick",
        "batch_idx",
        "tick_start_nimg",
        "elapsed_sec",
        "nonfinite_steps",
        "nonfinite_streak",
        "nonfinite_of_phases",
        "named",
    ]

    def __init__(self, start_nimg: int = 0) -> None:
        self.cur_nimg = self.tick_start_nimg = start_nimg
        self.cur_tick = self.batch_idx = self.nonfinite_steps = self.nonfinite_streak = 0
        self.elapsed_sec = 0.0
        self.nonfinite_of_phases: dict[str, int] = {}
        self.named: dict[str, list] = {}

    def count_nonfinite(self, bad_of_phases: Mapping[str, bool]) -> None:
        """One step. bad_of_phases: {name of a phase that ran: had it non-finite gradients?}."""
        self.nonfinite_steps += any(bad_of_phases.values())
        for name, bad in bad_of_phases.items():
            self.nonfinite_of_phases[name] = self.nonfinite_of_phases.get(name, 0) + 1 if bad else 0
        self.nonfinite_streak = max(self.nonfinite_of_phases.values(), default=0)

    def name_position(self, kind: str, apart: bool) -> str:
        """What the file of this kind that is saved here is called: '000003', or '000003-512' if `apart` and one of the same kimg was there before."""
        nimg, name = self.named.get(kind, [None, ""])
        if nimg == self.cur_nimg:
            return name
        kimg, images = divmod(self.cur_nimg, 1000)
        return f"{kimg:06d}-{images:03d}" if apart and nimg is not None and nimg // 1000 == kimg else f"{kimg:06d}"

    def note_named(self, kind: str, name: str) -> None:
        """A file of this kind was saved here under this name."""
        self.named = {**self.named, kind: [self.cur_nimg, name]}

    def state_dict(self) -> dict[str, Any]:
        return {name: copy.copy(getattr(self, name)) for name in self.FIELDS}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name in self.FIELDS:
            if name in state:  # states of early versions lack the newest fields
                setattr(self, name, copy.copy(state[name]))


def list_states(run_dir: str) -> list[tuple[int, str]]:
    """[(kimg, path)], oldest first."""
    matches = [STATE_REGEX.match(name) for name in os.listdir(run_dir)] if os.path.isdir(run_dir) else []
    return sorted((int(match.group(1)), os.path.join(run_dir, match.group(0))) for match in matches if match)


def latest_state(run_dir: str) -> str | None:
    """Path of the newest state of a run folder, or None."""
    states = list_states(run_dir)
    return states[-1][1] if states else None


def _to_cpu(value: Any) -> Any:
    """Plain containers with every tensor detached and on the CPU (a copy: training goes on while it is written)."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {key: _to_cpu(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_to_cpu(item) for item in value)
    return value


class StateBag:
    """The named parts of a run that have state_dict/load_state_dict, saved and restored together.

    A part whose state is empty is not stored. optional: names of parts that a state may lack or have left over: what
    watches a run may come and go with a resume.
    """

    def __init__(self, optional: Iterable[str] = (), **parts: Any) -> None:
        self.optional = set(optional)
        self.parts = {name: part for name, part in parts.items() if part is not None}

    def collect(self, collectors: Iterable, facts: Mapping[str, Any]) -> dict[str, Any]:
        """Gather the state of all ranks (call on every rank). facts: plain values stored beside, e.g. fingerprints."""
        states = {name: _to_cpu(part.state_dict()) for name, part in self.parts.items()}
        local_stats = {"module": training_stats.state_dict(), "collectors": [c.state_dict() for c in collectors]}
        return {
            "format": FORMAT,
            "facts": facts,
            "parts": {name: part_state for name, part_state in states.items() if part_state},
            # Statistics reported since the last tick live on each rank apart.
            "stats_of_ranks": distributed.gather_objects(_to_cpu(local_stats)),
        }

    def restore(self, state: Mapping[str, Any], collectors: Sequence) -> None:
        ours = {name for name, part in self.parts.items() if name not in self.optional and part.state_dict()}
        theirs = {name for name, part_state in state["parts"].items() if name not in self.optional and part_state}
        missing, extra = sorted(ours - theirs), sorted(theirs - ours)
        if missing or extra:
            raise UserError(
                f"the training state does not fit this run: it lacks {missing or 'nothing'} and has {extra or 'nothing'} left over; "
                "resume with the options of the run that wrote it"
            )
        for name, part in self.parts.items():
            if state["parts"].get(name):
                part.load_state_dict(state["parts"][name])
        stats, rank = state["stats_of_ranks"], distributed.get_rank()
        if len(stats) == distributed.get_world_size():
            training_stats.load_state_dict(stats[rank]["module"])
            for collector, saved in zip(collectors, stats[rank]["collectors"], strict=True):
                collector.load_state_dict(saved)
        elif rank == 0:
            print(
                f"The state was saved by {len(stats)} processes, now there are {distributed.get_world_size()}: "
                "statistics of the tick that was running start afresh.",
                flush=True,
            )


def save_state(run_dir: str, kimg: int, state: Mapping[str, Any]) -> str:
    """Write a state atomically, then delete all but the newest NUM_STATES_KEPT. Returns the path.

    States of later positions go, too: the run was continued from an older one by name, and theirs is another history,
    which --resume=latest must not mistake for this one's end.
    """
    path = os.path.join(run_dir, STATE_FILE.format(kimg=kimg))
    with files.atomic_open(path) as f:
        torch.save(state, f)
    states = list_states(run_dir)
    abandoned = [other for other in states if other[0] > kimg]
    for _kimg, old in states[: len(states) - len(abandoned)][:-NUM_STATES_KEPT] + abandoned:
        os.remove(old)
    return path


def load_state(path: str) -> dict[str, Any]:
    """Read a state; raises UserError for a file that is missing, damaged or something else."""
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such training state; name the run folder that holds training-state-*.pt, or start without --resume") from None
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, pickle.UnpicklingError) as err:
        # PyTorch's own text would advise to load it without protection.
        raise UserError(
            f"{path}: cannot be read as a training state: it is damaged, cut off or something else ({type(err).__name__}); "
            "delete it to go on from the one before, or restore it from a copy"
        ) from err
    if not isinstance(state, dict) or "format" not in state:
        raise UserError(f"{path}: not a training state of this program; network pickles are resumed with --resume=<file.pkl>")
    if state["format"] != FORMAT:
        raise UserError(f"{path}: training state of format {state['format']}, this version reads {FORMAT}; use the version that wrote it")
    return state
