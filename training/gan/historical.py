"""Historical averaging: G and D are held near the mean of their own past weights (Salimans et al. 2016, 1606.03498, section 3.3)."""

import torch

from training.gan.extras import D_PHASES, G_PHASES, Extra


def squared_distance(parameters, mean_P):
    """|theta - mean|^2 over all parameters together; the mean is constant. parameters: tensors of P numbers in all; mean_P [P]. -> []."""
    means = mean_P.split([parameter.numel() for parameter in parameters])
    return sum((parameter - mean.view_as(parameter)).square().sum() for parameter, mean in zip(parameters, means))


class HistoricalAveraging(Extra):
    """weight |theta - 1/t sum_{i=1..t} theta[i]|^2 in G's and in D's adversarial steps, one value (1606.03498, section 3.3).

    theta[1] is what the run began with, theta[i] what the (i-1)th adversarial step made; the mean counts as a constant. G and D have
    means of their own, each as large as the network.
    """

    def __init__(self, weight=1.0):
        super().__init__()
        self.weight = weight

    def build(self, context):
        self.parameters = {letter: list(context[letter].parameters()) for letter in "GD"}
        for letter in "GD":
            self.add_memory(f"mean_{letter}", self.flat(letter))
            self.add_memory(f"count_{letter}", torch.ones([], dtype=torch.int64))

    def generator_term(self, step):
        return self.weight * squared_distance(self.parameters["G"], self.memory["mean_G"])

    def discriminator_term(self, step):
        return self.weight * squared_distance(self.parameters["D"], self.memory["mean_D"])

    def remember(self, phase):
        if phase not in G_PHASES + D_PHASES:
            return
        mean, count = self.memory[f"mean_{phase[0]}"], self.memory[f"count_{phase[0]}"]
        count += 1
        mean += (self.flat(phase[0]) - mean) / count

    def flat(self, letter):
        """All weights of a network, one after the other. -> [P], a copy."""
        return torch.cat([parameter.detach().flatten() for parameter in self.parameters[letter]])
