"""Historical averaging: the mean of past weights, and what pulls towards it."""

import pytest
import torch

from tests.gan.toys import assert_derivative, attach, run_phase
from training.gan.historical import squared_distance


def loss_of(toy, weight=1.0, gan="lsgan"):
    made, D, synthesis = toy(gan, [("historical-averaging", dict(weight=weight))])
    attach(made, D)
    return made, D, synthesis, made.parts[0]


def test_distance_by_hand():
    parameters = [torch.tensor([[1.0, 2.0]]), torch.tensor(3.0), torch.tensor([4.0])]
    assert float(squared_distance(parameters, torch.tensor([1.0, 0.0, 5.0, 1.0]))) == 0 + 4 + 4 + 9


def test_the_mean_is_that_of_all_weights_so_far(toy):
    """Of G after G's adversarial steps, of D after D's; penalty steps are no steps of their own."""
    made, D, synthesis, part = loss_of(toy)
    values = dict(G=[synthesis.weight.detach().clone()], D=[D.weight.detach().clone()])
    for phase in ("Gmain", "Dmain", "Dreg", "Dboth", "Greg", "Gboth", "Gmain"):
        module = synthesis if phase[0] == "G" else D
        with torch.no_grad():
            module.weight.mul_(1.5).add_(0.1)
        if not phase.endswith("reg"):
            values[phase[0]].append(module.weight.detach().clone())
        part.after_step(phase, module)
    for letter, weights in values.items():
        mean = part.memory[f"mean_{letter}"][: weights[0].numel()]
        torch.testing.assert_close(mean, torch.stack(weights).mean(0).flatten())
        assert int(part.memory[f"count_{letter}"]) == len(weights)


@pytest.mark.parametrize("letter", ["G", "D"])
def test_its_gradient_is_twice_the_way_to_the_mean(toy, batch, letter):
    """Once per step, whatever the number of images; none at the first step, and none of the other network's."""
    plain, plain_D, plain_G = toy("lsgan")
    made, D, synthesis, part = loss_of(toy, weight=0.25)
    own, others, plain_own = (synthesis, D, plain_G) if letter == "G" else (D, synthesis, plain_D)
    for way, given in ((0.0, batch(4)), (0.5, batch(4)), (0.5, batch(2))):
        part.memory[f"mean_{letter}"] = part.flat(letter) + way
        own.zero_grad(), plain_own.zero_grad()
        run_phase(plain, f"{letter}main", given), run_phase(made, f"{letter}main", given)
        torch.testing.assert_close(own.weight.grad - plain_own.weight.grad, torch.full_like(own.weight, -0.25 * 2 * way))
    assert others.weight.grad is None


@pytest.mark.parametrize("phase", ["Gmain", "Dmain"])
def test_the_whole_loss_has_the_gradient_of_its_value(toy, batch, monkeypatch, phase):
    made, D, synthesis, part = loss_of(toy, gan="hinge")
    for letter in "GD":
        part.memory[f"mean_{letter}"] += 0.3
    assert_derivative(made, synthesis if phase[0] == "G" else D, phase, batch(), monkeypatch)
