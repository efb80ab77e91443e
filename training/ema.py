"""The moving average of the generator's weights. Must not know the loop."""

import torch


def ema_beta(batch_size: int, ema_kimg: float, ema_rampup: float | None, cur_nimg: int) -> float:
    """Decay per step for a half-life of `ema_kimg` thousand images.

    ema_rampup (or None) shortens the half-life to that fraction of the images seen so far, so that the average does not
    carry the untrained start for long.
    """
    half_life_nimg = ema_kimg * 1000
    if ema_rampup is not None:
        half_life_nimg = min(half_life_nimg, cur_nimg * ema_rampup)
    return 0.5 ** (batch_size / max(half_life_nimg, 1e-8))


@torch.no_grad()
def update_ema(average: torch.nn.Module, current: torch.nn.Module, beta: float) -> None:
    """average <- beta * average + (1 - beta) * current for parameters; buffers are copied."""
    for target, source in zip(average.parameters(), current.parameters(), strict=True):
        torch.lerp(source, target, beta, out=target)
    for target, source in zip(average.buffers(), current.buffers(), strict=True):
        target.copy_(source)
