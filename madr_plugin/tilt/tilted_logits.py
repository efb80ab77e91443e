"""Tilts by weights: multiplies the gradient at D's logits of the reals by w = v / mean of v; no image is exchanged.

The second form of tilted_reals.py's rule, for hosts whose reals should stay as they come.

For a term that is a sum over reals both forms have the same expectation: E_uniform[w_r g_r] = E_{r ~ v}[g_r]; this one reads no
images and has the larger variance. Under a gradient penalty the gradient on the image counts with sqrt(w), so that its
square counts with w. Must not know losses: it sees what enters D and the augmentation, and what D returns.
"""

import contextlib

import torch

from madr_spaces import kmeans
from madr_spaces.errors import MADRError
from madr_spaces.images import classes_of
from madr_spaces.seeds import generator_for


def weight_of_cells(v_C, share_C, class_C):
    """w_a = v_a / mean of v over the reals of a's class -> [C]: within a class the mean weight of the reals is 1."""
    slot_C = class_C - class_C.min()
    sums_K, masses_K = torch.zeros([2, int(slot_C.max()) + 1], dtype=v_C.dtype, device=v_C.device).index_add_(
        1, slot_C, torch.stack([share_C * v_C, share_C])
    )
    return v_C / (sums_K / masses_K)[slot_C]


class RealLogitWeights:
    """D, augment_pipe: the host's modules (the pipe may be None)."""

    def __init__(self, D, augment_pipe):
        if not isinstance(D, torch.nn.Module):
            raise MADRError(
                "--madr-tilt-form=weight needs the argument D of the host's loss, and this fork's loss has none; use --madr-tilt-form=draw"
            )
        self.D = D
        self.augment_pipe = augment_pipe if isinstance(augment_pipe, torch.nn.Module) else None

    @torch.no_grad()
    def weights(self, engine, phase, microbatch, real_img, real_c):
        """w of each real of the microbatch, by the cell that its features lie in -> [B]; None while the tilt rests."""
        v_C = engine.tilt_of_cells()
        if v_C is None:
            return None
        cells = engine.tilt_sensor.cells
        class_B = torch.full([len(real_img)], -1, device=v_C.device)
        if real_c is not None and (cells.class_C >= 0).any():
            class_B = classes_of(real_c.flatten(1)).to(v_C.device)
        features_BD = engine.features(
            real_img.to(v_C.device), generator_for(engine.seed, engine.step, microbatch, "tilt", phase, *engine.critic_turn)
        )
        cell_B = kmeans.nearest_centres(features_BD, cells.centroids_CD, class_B, cells.class_C)
        weight_B = weight_of_cells(v_C, cells.shares_C, cells.class_C)[cell_B]
        return torch.where(cells.class_C[cell_B] == class_B, weight_B, torch.ones_like(weight_B))  # a class that the reference lacks

    @contextlib.contextmanager
    def weighting(self, weight_B, phase, real_img):
        """Inside, while the host runs a phase of D: what D returns for real_img, augmented or not, gets weighted gradients.

        weight_B None: nothing is weighted, but a host in which the reals cannot be recognised is refused, long before the tilt first acts.
        """
        known, called, recognised = [real_img], [], []

        def after_pipe(_module, args, output):
            if _is_one_of(args[0], known):
                known.append(output)

        def after_D(_module, args, kwargs, output):
            called.append(True)
            x = args[0] if args else next(value for value in kwargs.values() if torch.is_tensor(value))
            if _is_one_of(x, known):
                recognised.append(True)
                _check_rows(output, len(real_img))
                if weight_B is not None:
                    _weigh_gradient(output, weight_B)

        handles = [self.D.register_forward_hook(after_D, with_kwargs=True)]
        if self.augment_pipe is not None:
            handles.append(self.augment_pipe.register_forward_hook(after_pipe))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()
        # A regulariser may speak of other images alone (interpolations); the main phase has to show D the reals.
        if called and not recognised and phase != "Dreg":
            raise MADRError(
                "--madr-tilt-form=weight found no call of the discriminator on the training images as they come or as the augmentation "
                "returned them (this fork blurs or joins them first); use --madr-tilt-form=draw"
            )


def _is_one_of(x, known):
    return torch.is_tensor(x) and any(
        x is real or x.shape == real.shape and (x.data_ptr() == real.data_ptr() or torch.equal(x.detach().to(real.dtype), real.detach()))
        for real in known
    )


def _check_rows(logits, count):
    if not torch.is_tensor(logits) or len(logits) != count:
        raise MADRError("--madr-tilt-form=weight needs a discriminator that returns one row of logits per image; use --madr-tilt-form=draw")


def _weigh_gradient(logits, weight_B):
    """MADR: from now on whatever flows back into `logits` [B, ...] is weighted by real."""
    _check_rows(logits, len(weight_B))
    if not logits.requires_grad:
        return
    weight = weight_B.to(logits).reshape(-1, *[1] * (logits.ndim - 1))

    def hook(gradient):
        # With a graph being made of the gradient, a penalty on it follows, which squares it.
        return gradient * (weight.sqrt() if torch.is_grad_enabled() else weight)

    logits.register_hook(hook)
