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

    @torch.no_grad()
    def gradient(self, features_BD, generator, seen=NOTHING_SEEN):
        total, weight, measured = None, 0.0, {}
        for part, objective in self.objectives.items():
            gradient_BD, own = objective.gradient(features_BD, generator, seen)
            measured.update(own)
            if gradient_BD is None:
                measured[f"size_{part}"] = torch.full([], torch.nan, device=features_BD.device)
                continue
            norm = measured[f"size_{part}"] = gradient_BD.norm(dim=1).mean()
            known = self.norms[part].to(norm.device)
            share = seen.shares.get(part, 1.0)
            scaled_BD = gradient_BD * (share / torch.where(known > 0, known, norm).clamp_(min=1e-30))
            total, weight = scaled_BD if total is None else total.add_(scaled_BD), weight + share
        if total is None:
            return None, measured
        return total.div_(weight.clamp(min=1e-12) if torch.is_tensor(weight) else max(weight, 1e-12)), measured

    def after_step(self, step, memory, batch=None):
        for objective in self.objectives.values():
            objective.after_step(step, memory, batch)
        new = {part: batch.measured[f"size_{part}"] for part in self.objectives if f"size_{part}" in batch.measured}
        if new:
            norm_T = torch.stack(list(new.values()))
            known_T = torch.stack([self.norms[part].to(norm_T.device) for part in new])
            blended_T = torch.where(known_T < 0, norm_T, DECAY * known_T + (1 - DECAY) * norm_T)
            self.norms.update(zip(new, torch.where(torch.isfinite(norm_T) & (norm_T > 0), blended_T, known_T).unbind()))

    def signals(self, measured, microbatch):
        return {part: found for objective in self.objectives.values() for part, found in objective.signals(measured, microbatch).items()}

    def potentials(self):
        return next((found for found in (objective.potentials() for objective in self.objectives.values()) if found is not None), None)

    def notes(self):
        return [note for objective in self.objectives.values() for note in objective.notes()]

    def sentences(self):
        return [sentence for objective in self.objectives.values() for sentence in objective.sentences()]

    def live_state(self):
        return dict(norms=dict(self.norms), **{part: objective.live_state() for part, objective in self.objectives.items()})

    def load(self, state, device):
        for part, objective in self.objectives.items():
            objective.load(state.get(part, {}), device)
            if part in state.get("norms", {}):
                self.norms[part] = state["norms"][part].to(device, copy=True)

    def telemetry(self):
        return {name: value for objective in self.objectives.values() for name, value in objective.telemetry().items()}
