"""Measures whether D forgets what it has learned: its logit on old generated images now, minus the one that it gave them once it knew them.

A generator can only come back to images that D has forgotten, which is what cycling is; one that has collapsed stays with images that D knows
(the measure of continual learning, Chaudhry et al. 2018, 1801.10112, on the logits of a GAN's D). Must not know the generator or the loss.
"""

from collections.abc import Callable
from typing import Any

import torch

from madr_plugin.base import collective

EVERY, LEAST_IMAGES = 64, 4096  # generator steps between two looks; images, of which small batches take more steps
GROUPS, GROUP_SIZE = 8, 32  # 256 images: of each of the last looks, so many
MOST_BYTES = 16 * 2**20  # of the kept images; large ones are fewer


class ForgettingMeter:
    """Keeps images of the last looks in half precision, and compares what D says of them.

    A group's logits are noted one look after it was made, when D has learned it, and compared from the next look on:

        forgetting = mean over the images i of older groups of D_now(x_i) - D_noted(x_i)        in nats

    About 0 where D still knows them, positive where it does not, negative where it has become surer of them.
    """

    def __init__(self) -> None:
        self.groups: list[dict[str, torch.Tensor]] = []  # oldest first: images [n, C, H, W], labels [n, c], noted [n] once there are
        self.value: float | None = None
        self.fault = ""  # why it cannot be measured here
        self._is_told = False

    def is_due(self, step: int, nimg: int) -> bool:
        """Tell whether step 0, 1, ..., before which nimg images were generated, takes a look. Follows from these two numbers alone."""
        if self.fault or step % EVERY:
            return False
        before = nimg - EVERY * nimg // step if step else -1
        return before // LEAST_IMAGES < nimg // LEAST_IMAGES

    @staticmethod
    def share_of(image: torch.Tensor) -> torch.Tensor:
        """Take what is kept of a microbatch [B, C, H, W]: its first images, in half precision."""
        return image[: group_size(image)].detach().to(torch.float16, copy=True)

    @torch.no_grad()
    def look(self, images: torch.Tensor, labels: torch.Tensor, logits_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]) -> None:
        """Judge the kept images and put those of this step beside them. logits_of: D without gradient, (images, labels) -> [n].

        Each group is judged as one batch, always the same: logits may depend on the images beside (minibatch deviation).
        A discriminator that cannot be called in this way ends the measuring: `fault` says why.
        """
        size, kept = group_size(images), self.groups
        asked = [(group["images"], group["labels"]) for group in kept] or [(images, labels)]  # whether it can be done is known at once
        try:
            logits = _of_first_process(asked, logits_of)
        except Exception as error:  # whatever a fork's D raises: a meter must not end a run
            reason = (str(error).strip() or "no reason given").splitlines()[0]
            self.groups, self.value, self.fault = [], None, f"{type(error).__name__}: {reason}"
            return
        changes = []
        for group, now in zip(kept, logits):
            if "noted" in group:
                changes.append(now - group["noted"])
            else:
                group["noted"] = now
        self.value = float(torch.cat(changes).mean()) if changes else None
        self.groups = [*kept, dict(images=images[:size], labels=labels[:size])][-(GROUPS + 1) :]

    def sentences(self) -> list[str]:
        """Say once that, and why, nothing can be measured."""
        if not self.fault or self._is_told:
            return []
        self._is_told = True
        return [f"MADR: forgetting is not measured, for this discriminator cannot be asked about images as they come ({self.fault})"]

    def tensors(self) -> list[torch.Tensor]:
        return [value for group in self.groups for value in group.values()]

    def live_state(self) -> dict[str, Any]:
        value = {} if self.value is None else dict(value=self.value)
        return dict(value, groups={str(number): dict(group) for number, group in enumerate(self.groups)})

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        """Take up what live_state() gave; {} begins anew."""
        groups = state.get("groups", {})
        self.groups = [{name: value.to(device, copy=True) for name, value in groups[key].items()} for key in sorted(groups, key=int)]
        self.value = float(state["value"]) if "value" in state else None


def _of_first_process(
    asked: list[tuple[torch.Tensor, torch.Tensor]], logits_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
) -> list[torch.Tensor]:
    """Ask D about each pair of images and labels, in every process, for D may wait for its others; what the first one finds counts in all.

    The others may round otherwise, and the state has to be the same everywhere.
    """
    device, own, failure = asked[0][0].device, {}, None
    try:
        own = {str(number): logits_of(images.to(torch.float32), labels) for number, (images, labels) in enumerate(asked)}
    except Exception as error:  # raised below, in all processes together
        failure = error

    def of_this_process() -> dict[str, torch.Tensor]:
        if failure is not None:
            raise failure
        return own

    found = collective.from_first_process(of_this_process, device)
    return [found[str(number)].to(device) for number in range(len(asked))]


def group_size(images: torch.Tensor) -> int:
    """Count the images kept of a look: GROUP_SIZE, or as many as the bound on memory leaves, one at least.

    A microbatch is halved as long as that goes, since D may compare images in groups of any size that divides it.
    """
    of_one = 2 * max(images[0].numel(), 1)
    most, count = max(1, min(GROUP_SIZE, MOST_BYTES // (of_one * (GROUPS + 1)))), len(images)
    while count > most and count % 2 == 0:
        count //= 2
    return min(count, most)
