"""Parts that penalise D: the functions of penalties.py, and in which images, how heavily and when."""

import torch

from torch_utils import training_stats
from training.gan import penalties
from training.gan.part import Part


class R1(Part):
    """gamma/2 |grad D|^2 at reals (Mescheder et al. 2018, 1801.04406, eq. 9). One value per group.

    Its statistics have the family's names: Loss/r1_penalty before its weight, Loss/D/reg with it.
    """

    lazy, leaves = True, ("reals",)

    def __init__(self, gamma):
        self.gamma = gamma

    def discriminator_term(self, step):
        if not self.gamma:
            return None
        penalty = penalties.zero_centred(step.real_logits, step.reals, gamma=2)  # |grad D|^2 itself
        training_stats.report("Loss/r1_penalty", penalty)
        weighted = penalty * (self.gamma / 2)
        training_stats.report("Loss/D/reg", weighted)
        return weighted


class R2(Part):
    """gamma/2 |grad D|^2 at fakes (1801.04406, eq. 10). One value per group."""

    lazy, leaves = True, ("fakes",)

    def __init__(self, gamma):
        self.gamma = gamma

    def discriminator_term(self, step):
        return penalties.zero_centred(step.fake_logits, step.fakes, self.gamma) if self.gamma else None


class GradientPenalty(Part):
    """weight (|grad D(x^)| - target)^2 at points between a real and a fake (Gulrajani et al. 2017, 1704.00028, eq. 3). One value per group.

    The point between two images is augmented as an image is; D takes it for one of the real's label.
    """

    def __init__(self, weight=10.0, target=1.0):
        self.weight, self.target = weight, target

    def discriminator_term(self, step):
        share = torch.rand([len(step.reals) // step.judge.pack], device=step.reals.device)
        between = penalties.interpolated(step.reals, step.fakes, share)
        return penalties.one_centred(step.judged_again("reals", between), between, self.weight, self.target)


class WeightClipping(Part):
    """Every weight of D to [-c, c] after each of its steps (Arjovsky et al. 2017, 1701.07875, algorithm 1).

    c is meant for weights that begin as N(0, .02), as DCGAN's do. Those of StyleGAN2's layers begin as N(0, 1) and are multiplied by a
    constant when used (equalised learning rate); they are clipped at the same share of what they begin as, c / .02. Layers that learn
    at a share of the rate (the mapping of labels) begin as N(0, 1) / share, and weight and bias are multiplied by the share when used:
    their bounds are so much wider. At c itself D's gradient would vanish. What else begins otherwise states its initial_std: DCGAN's
    channel of the label, which would be a hundredth of the image, and the kernels of minibatch discrimination.
    """

    INITIAL_STD = 0.02

    def __init__(self, c=0.01):
        self.c = c

    @torch.no_grad()
    def after_step(self, phase, module):
        if not phase.startswith("D"):
            return
        for layer in module.modules():
            for name, parameter in layer.named_parameters(recurse=False):
                bound = self.bound(layer, name)
                parameter.clamp_(-bound, bound)

    def bound(self, layer, name):
        """c in the scale of a layer's own parameter of this name."""
        if not hasattr(layer, "weight_gain"):
            initial_std = getattr(layer, "initial_std", None) if name in ("weight", "T") else None
            return self.c if initial_std is None else self.c * (initial_std / self.INITIAL_STD)
        share = getattr(layer, "bias_gain", 1)  # of the learning rate; 1 for all layers but the mapping's
        return {"weight": self.c / self.INITIAL_STD / share, "bias": self.c / share}.get(name, self.c)
