"""Applies the coverage term to every generated batch: which one, by --madr-term."""

from madr_plugin.objectives.debt import DebtObjective
from madr_plugin.objectives.mixed import MixedObjective
from madr_plugin.objectives.moments import MomentsObjective
from madr_plugin.objectives.objective import Batch, Objective, Seen
from madr_plugin.objectives.published import PublishedObjective
from madr_plugin.objectives.witness import WitnessObjective

__all__ = ["Batch", "DebtObjective", "MixedObjective", "MomentsObjective", "Objective", "PublishedObjective", "Seen", "WitnessObjective", "build"]
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
