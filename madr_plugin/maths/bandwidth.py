"""Moves the published bandwidth from the reals' length scale to the memory's. Distances themselves: madr_spaces/distances.py."""


def warm_started(step, sigma_memory, start, smallest, largest):
    """Lead over from the reals' scale to the memory's: `start` for 1000 steps, then alpha*median(M) + (1-alpha)*start, alpha = min(1, step/10000), clipped."""
    if step < 1000:
        return start
    alpha = min(1.0, step / 10000)
    return (alpha * sigma_memory + (1 - alpha) * start).clamp(smallest, largest)
