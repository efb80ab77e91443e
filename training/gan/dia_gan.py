"""Dia-GAN: D's logits of each real over time decide how often it is drawn. Must not know losses or networks."""

import numpy as np
import torch

import dnnlib
from training import phases, sampler
from training.data import foreign
from training.dataset import Dataset
from training.gan.extras import Extra, of_all_processes

# Bounds of a score: from below, and as a multiple of the smallest.
LOWEST, MOST = 0.01, 50.0


class DiaGAN(Extra):
    """score_r = mean_t a_t(x_r) + k std_t a_t(x_r), a = D's logit = log density ratio; reals drawn by it (Lee et al. 2021, 2102.12033, section 4).

    A real that G leaves out keeps a high logit, one that G cannot settle on a varying one. Three times, in kimg: before `record` nothing
    happens; until `start` the logit of each real is noted whenever D's step sees it; from then on the reals of D's steps are drawn, with
    their labels, in proportion to their scores, clipped to [.01, 50 times the smallest]. The scores stay as they are: logits of reals that
    are drawn unevenly would no longer tell density ratios of the data. Reals that D has not met while noting have the mean score.

    Which reals the loop brings follows from seed and position (training/sampler.py), so that none need be handed on.
    """

    def __init__(self, k, record, start):
        super().__init__()
        self.k, self.record_nimg, self.start_nimg = k, record * 1000, start * 1000
        self._noted, self._rows, self._cumulative = [], None, None

    def build(self, context):
        self.training_set = _readable(context)
        count = len(self.training_set)
        self.order = sampler.EpochOrder(count, phases.derived_seed(self.seed, 0))
        self.batch_gpu = context["batch_gpu"]
        for name in ("count", "sum", "squares"):
            self.add_memory(name, torch.zeros([count], dtype=torch.float64))

    # --- noting -----------------------------------------------------------------------------------------------------

    def discriminator_term(self, step):
        """None; notes D's logits of the step's reals."""
        if self.record_nimg <= step.cur_nimg < self.start_nimg:
            first = step.cur_nimg + step.microbatch * self.batch_gpu
            rows = [self.order(position) for position in range(first, first + len(step.reals))]
            logits = step.real_logits.detach()[:, 0].to(torch.float64)
            self._noted.append(torch.stack([torch.tensor(rows, dtype=torch.float64, device=logits.device), logits], dim=1))
        return None

    def remember(self, phase):
        if not self._noted:
            return
        noted, self._noted = of_all_processes(self._noted).cpu(), []  # [B, 2]; sums of equal rows in one order, whatever the device
        noted = noted[noted.isfinite().all(1)]
        rows, logits = noted[:, 0].long(), noted[:, 1]
        for name, values in (("count", torch.ones_like(logits)), ("sum", logits), ("squares", logits.square())):
            self.memory[name] = self.memory[name].cpu().index_add(0, rows, values).to(self.device)

    # --- drawing ----------------------------------------------------------------------------------------------------

    def reals_for_D(self, step, images, labels):
        if step.cur_nimg < self.start_nimg:
            return images, labels
        if self._cumulative is None:
            self._cumulative = scores(*(self.memory[name].cpu() for name in ("count", "sum", "squares")), self.k).cumsum(0)
        generator = torch.Generator().manual_seed(phases.derived_seed(self.seed, step.cur_nimg, step.microbatch, _DRAWS))
        places = torch.rand([len(images)], generator=generator, dtype=torch.float64) * self._cumulative[-1]
        rows = torch.searchsorted(self._cumulative, places, right=True).clamp(max=len(self._cumulative) - 1)
        drawn, told = zip(*(self.training_set[row] for row in rows.tolist()))
        drawn = torch.from_numpy(np.stack(drawn)).to(images.device).to(images.dtype) / 127.5 - 1
        return drawn, torch.from_numpy(np.stack(told)).to(labels)

    def load_state_dict(self, state):
        super().load_state_dict(state)
        self._cumulative = None


_DRAWS = 0x44494147  # of the seed of what is drawn here


def scores(count, total, squares, k):
    """mean + k std of each real's logits, clipped to [LOWEST, MOST times the smallest]; 1 for all where nothing was noted. float64 [N] each -> [N].

    std: that of the logits themselves, 0 of a single one. A real without any has the mean score of the others.
    """
    met = count > 0
    if not bool(met.any()):
        return torch.ones_like(count)
    mean = total[met] / count[met]
    found = mean + k * (squares[met] / count[met] - mean.square()).clamp(min=0).sqrt()
    found = found.clamp(min=LOWEST)
    found = found.clamp(max=MOST * float(found.min()))
    return torch.full_like(count, float(found.mean())).masked_scatter(met, found)


def _readable(context):
    """The data set, to be read beside the loader's processes: ours opens its file in each, of others an object of our own is made."""
    given = context["training_set"]
    if isinstance(given, Dataset) or not context.get("training_set_kwargs"):
        return given
    return foreign.as_dataset(dnnlib.util.construct_class_by_name(**context["training_set_kwargs"]))
