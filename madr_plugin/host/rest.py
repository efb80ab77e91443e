"""Says in the run's log that MADR rests, why, and when it begins: a run in which nothing acts yet must not look like one that fails.

Must not know how strength is made: it reads the shares.
"""

FIRST_STEP = 8  # by then everything has been measured once
BEGINS, RESTS = 0.02, 0.005  # shares of the full strength; two, so that a share between them is told once
PATIENCE = 8  # looks in a row at which a term that has acted must rest before that is told


class Rest:
    """Looks at an engine now and then. config: the run's MADRConfig."""

    def __init__(self, config):
        self.terms = [name for name, weight in (("term", config.weight), ("replay", config.replay_weight)) if weight > 0]
        self.acts = None  # unknown
        self.looks = 0  # in a row, since anything acted

    def sentences(self, engine):
        """What is to be said now, [] for nothing new."""
        if not self.terms or engine.step < FIRST_STEP:
            return []
        share = max(float(engine.strength.share(name)) for name in self.terms)
        if share >= BEGINS:
            self.looks = 0
            if not self.acts:
                self.acts = True
                return [
                    f"MADR begins: from step {engine.step} (kimg {engine.nimg / 1000:.1f}) its terms act, now with {share:.0%} of their full strength"
                ]
        elif share < RESTS:
            self.looks += 1
            if self.acts is None or (self.acts and self.looks >= PATIENCE):
                self.acts = False
                beside = "; the tilt does not wait for it" if engine.config.tilt else ""
                return [f"MADR rests: {reason(engine)}. It begins by itself, which is told here{beside}"]
        return []


def reason(engine):
    """Why the terms of an engine have no strength now."""
    config, strength = engine.config, engine.strength
    if config.term in ("paper", "enhanced") and float(strength.of_objective()) < RESTS:
        if engine.step < config.start_step:
            return f"its term starts with step {config.start_step} (--madr-start-step)"
        needed = max(round(config.start_fill * config.capacity), 4)
        if engine.memory.count < needed:
            return f"its memory holds {engine.memory.count} samples, and its term starts with {needed} (--madr-start-fill of --madr-capacity)"
        return "its controller finds the reals covered"
    if strength.controller is not None and strength.controller.strength < RESTS:
        return "its controller finds the reals covered"
    return (
        f"at step {engine.step} (kimg {engine.nimg / 1000:.1f}) the features of a generated batch show no more deviation from the reals "
        "than chance would, so that a gradient from them would be noise (--madr-shrink)"
    )
