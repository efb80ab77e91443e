"""Mixes several terms into one gradient: each brought to one size first, then weighed by how much of it is signal."""

import torch

from madr_plugin.objectives.objective import NOTHING_SEEN, Objective

DECAY = 0.98  # as for all running sizes of gradients


class MixedObjective(Objective):
    """g = sum_t s_t g_t / n_t / sum_t s_t over the terms t: n_t the running mean over the batch of |dL_t/df_i|, s_t the term's share of signal.

    Its size is set elsewhere (strength/); at the features, so that one pass back through phi serves all terms.
    """

    def __init__(self, objectives):
        self.objectives = objectives  # {part: objective}
        self.parts = tuple(objectives)
        # -1: not measured yet.
        self.norms = dict.fromkeys(objectives, torch.full([], -1.0))

    @property
    def drift_age(self):
        return next((objective.drift_age for objective in self.objectives.values() if objective.drift_age is not None), None)

    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        total, weight, measured = None, 0.0, {}
        for part, objective in self.objectives.items():
            gradient_BD, own = objective.gradient(features_BD, generator, seen)
            measured.update(own)
            if gradient_BD is None:
                continue
            norm = gradient_BD.norm(dim=1).mean()
            measured[f"size_{part}"] = norm
            known = self.norms[part].to(norm.device)
            share = seen.shares.get(part, 1.0)
            scaled_BD = gradient_BD * (share / torch.where(known > 0, known, norm).clamp(min=1e-30))
            total, weight = scaled_BD if total is None else total + scaled_BD, weight + share
        if total is None:
            return None, measured
        return total / torch.as_tensor(weight).clamp(min=1e-12), measured

    def after_step(self, step, memory, batch=None):
        for part, objective in self.objectives.items():
            objective.after_step(step, memory, batch)
            norm, known = batch.measured.get(f"size_{part}"), self.norms[part]
            if norm is not None:
                known = known.to(norm.device)
                blended = torch.where(known < 0, norm, DECAY * known + (1 - DECAY) * norm)
                self.norms[part] = torch.where(torch.isfinite(norm) & (norm > 0), blended, known)

    def signals(self, measured, microbatch):
        return {part: found for objective in self.objectives.values() for part, found in objective.signals(measured, microbatch).items()}

    def notes(self):
        return [note for objective in self.objectives.values() for note in objective.notes()]

    def live_state(self):
        return dict(norms=dict(self.norms), **{part: objective.live_state() for part, objective in self.objectives.items()})

    def load(self, state, device):
        for part, objective in self.objectives.items():
            objective.load(state.get(part, {}), device)
            if part in state.get("norms", {}):
                self.norms[part] = state["norms"][part].to(device, copy=True)

    def telemetry(self):
        return {name: value for objective in self.objectives.values() for name, value in objective.telemetry().items()}
