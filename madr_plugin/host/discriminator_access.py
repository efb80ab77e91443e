"""Asks the host's discriminator for logits and leaves it as it was. Must not know losses, memory or features."""

import torch

from madr_spaces.errors import MADRError
from madr_spaces.seeds import global_rng_replaced


class DiscriminatorAccess:
    """D: the host's module, called as D(images, labels)."""

    def __init__(self, D):
        self.D = D.module if isinstance(D, torch.nn.parallel.DistributedDataParallel) else D
        self.device = next((parameter.device for parameter in self.D.parameters()), torch.device("cpu"))

    @torch.no_grad()
    def logits(self, images, labels):
        """Judge images [n, C, H, W] in [-1, 1] with labels [n, c] (c may be 0) -> float32 [n]; D's mode, buffers and everybody's random numbers stay."""
        kept = [(buffer, buffer.detach().clone()) for buffer in self.D.buffers()]
        try:
            with global_rng_replaced(self.device, "logits"):
                found = self.D(images.to(self.device), labels.to(self.device))
        finally:
            for buffer, value in kept:
                buffer.data.copy_(value)
        if not torch.is_tensor(found) or len(found) != len(images) or found.numel() != len(images):
            raise MADRError(f"this discriminator does not return one logit per image (for {len(images)} images: {_shape(found)})")
        return found.detach().reshape(len(images)).to(torch.float32)


def _shape(found):
    return list(found.shape) if torch.is_tensor(found) else type(found).__name__


def of(D):
    """DiscriminatorAccess of the host's argument D, None where it is no module."""
    return DiscriminatorAccess(D) if isinstance(D, torch.nn.Module) else None
