"""Applies the coverage term to every generated batch: which one, by --madr-term."""

from madr_plugin.objectives.debt import DebtObjective
from madr_plugin.objectives.mixed import MixedObjective
from madr_plugin.objectives.moments import MomentsObjective
from madr_plugin.objectives.objective import Batch, Objective, Seen
from madr_plugin.objectives.published import PublishedObjective
from madr_plugin.objectives.witness import WitnessObjective

__all__ = [
    "Batch",
    "DebtObjective",
    "MixedObjective",
    "MomentsObjective",
    "Objective",
    "PublishedObjective",
    "Seen",
    "WitnessObjective",
    "build",
    "load",
]
_PARTS = {"witness": WitnessObjective, "moments": MomentsObjective}


def build(config, reference, seed):
    """Build the objective that the knobs name."""
    if config.term == "none":
        return Objective()
    if not config.parts:
        return PublishedObjective(config, reference, seed)
    kinds = _PARTS if config.debt == "none" else dict(_PARTS, witness=DebtObjective)
    parts = {name: kinds[name](config, reference, seed) for name in config.parts}
    return parts["witness"] if config.parts == ("witness",) else MixedObjective(parts)


def saved_parts(state):
    """Sort what an objective's live_state() gave by part: {'witness': ..., 'moments': ...} of a lone or a mixed one, {'published': ...}."""
    if "norms" in state:
        return {part: own for part, own in state.items() if part != "norms"}
    return {"published" if "weights" in state else "witness": state}


def load(objective, state, device):
    """Take up the state of an objective, which may have been another one: what both have goes on. May raise MADRError.

    -> (what begins anew, what the state has and this objective does not use), in words.
    """
    saved = saved_parts(state)
    if isinstance(objective, MixedObjective):
        objective.load({"norms": state.get("norms", {}), **saved}, device)
        parts = objective.objectives
    else:
        part = "published" if isinstance(objective, PublishedObjective) else "witness"
        objective.load(saved.get(part, {}), device)
        parts = {part: objective}
    begun = [f"what the term '{part}' remembers" for part, own in parts.items() if own.live_state() and not saved.get(part)]
    left = [f"what the term '{part}' remembered" for part, own in saved.items() if own and part not in parts and part != "witness"]
    owed = any("potentials" in own for own in saved.values())
    keeps_debts = any("potentials" in own.live_state() for own in parts.values())
    if owed and not keeps_debts:
        left.append("debts")
    if keeps_debts and not owed and saved.get("witness"):
        begun.append("what every cell is owed")
    return begun, left
