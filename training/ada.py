"""Adaptive discriminator augmentation: the controller of p (Karras et al. 2020, 2006.06676, section 3.1).

The heuristic r_t = E[sign(D(real))] says how far D overfits; p moves by a fixed step towards r_t = target.
Must not know the loop.
"""

import math


def adapted_p(p: float, sign_of_real_logits: float, target: float, batch_size: int, interval_steps: int, ada_kimg: float, max_p: float) -> float:
    """Next p.

    sign_of_real_logits: mean of sign(D(real)) since the last call, in [-1, 1]. ada_kimg: thousands of images in which p
    can travel from 0 to 1. The result is clamped to [0, max_p]: beyond 1 the augmentations' probabilities are
    meaningless, and a runaway p (D has won, or the data is constant) otherwise grows without bound.
    A mean that is not finite leaves p as it is.
    """
    if not math.isfinite(sign_of_real_logits) or sign_of_real_logits == target:
        return p
    step = batch_size * interval_steps / (ada_kimg * 1000)
    return min(max(p + math.copysign(step, sign_of_real_logits - target), 0.0), max_p)
