"""What methods with memories need beside the toy networks of conftest.py: a whole generator, data, and finite differences of a whole loss."""

import pytest
import torch


class Pair(torch.nn.Module):
    """The toy networks as one generator of images [1, 2, 2]."""

    z_dim, c_dim, img_channels, img_resolution = 3, 0, 1, 2

    def __init__(self, mapping, synthesis):
        super().__init__()
        self.mapping, self.synthesis = mapping, synthesis


class Data:
    """As many images as there are class numbers."""

    has_onehot_labels = True

    def __init__(self, classes=(0,), num_classes=1):
        self.labels = torch.eye(num_classes)[list(classes)].numpy()

    def __len__(self):
        return len(self.labels)

    def get_label(self, index):
        return self.labels[index]


def attach(made, D, **more):
    """Begin a run with a toy loss. -> the generator."""
    G = Pair(made.G_mapping, made.G_synthesis)
    made.attach(dict(dict(G=G, D=D, device="cpu", random_seed=4, batch_size=4, batch_gpu=4, training_set=Data()), **more))
    return G


def run_phase(made, phase, given, cur_nimg=0):
    """One phase of one microbatch: the learner's gradients are added to, and its weights stay."""
    made.D.requires_grad_(phase[0] == "D"), made.G_synthesis.requires_grad_(phase[0] == "G")
    made.begin_phase(phase, cur_nimg)
    torch.manual_seed(3)
    reals, real_labels, z, labels = given
    made.accumulate_gradients(phase, reals, real_labels, z, labels, True, 1)
    made.end_phase(phase)


def assert_derivative(made, module, phase, given, monkeypatch):
    """The gradients that a phase leaves in a module are those of the loss that it sends backwards, by finite differences."""
    kept = {part.name: {name: tensor.clone() for name, tensor in getattr(part, "memory", {}).items()} for part in made.parts}

    def run():
        run_phase(made, phase, given)
        for part in made.parts:
            if kept[part.name]:
                part.memory = {name: tensor.clone() for name, tensor in kept[part.name].items()}

    def value():
        sent = []
        with monkeypatch.context() as patch:
            patch.setattr(torch.Tensor, "backward", lambda self, *_: sent.append(float(self.detach())))
            run()
        return sum(sent)

    for parameter in module.parameters():
        parameter.grad = None
    run()
    weights = [parameter for parameter in module.parameters() if parameter.grad is not None]
    generator = torch.Generator().manual_seed(9)
    directions = [torch.randn(weight.shape, generator=generator, dtype=weight.dtype) for weight in weights]
    found = sum(float((weight.grad * direction).sum()) for weight, direction in zip(weights, directions))
    values, epsilon = [], 1e-6
    for factor in (epsilon, -2 * epsilon, epsilon):
        with torch.no_grad():
            for weight, direction in zip(weights, directions):
                weight.add_(factor * direction)
        values.append(value())
    assert found != 0 and found == pytest.approx((values[0] - values[1]) / (2 * epsilon), rel=1e-5)
