"""IMLE: which fake each real pulls, when the pool is drawn, and with which labels."""

import pytest
import torch

from dnnlib.errors import UserError
from tests.gan.toys import Data, assert_derivative, attach, run_phase
from training.gan.imle import compared, nearest


def loss_of(toy, gan="lsgan", size=6, interval=2, weight=1.0, **context):
    made, D, synthesis = toy(gan, [("imle", dict(size=size, interval=interval, weight=weight))])
    attach(made, D, **context)
    return made, D, synthesis, made.parts[0]


def test_nearest_by_hand():
    reals = torch.tensor([[0.0, 0.0], [4.0, 0.0], [9.0, 9.0]])
    fakes = torch.tensor([[1.0, 1.0], [3.0, 2.0], [5.0, 0.0], [0.0, 1.5]])
    index, found = nearest(reals, fakes, torch.ones(3, 4, dtype=torch.bool))
    assert index.tolist() == [0, 2, 1] and found.all()
    same = torch.tensor([[False, True, False, True], [True, True, False, False], [False] * 4])
    index, found = nearest(reals, fakes, same)
    assert index[:2].tolist() == [3, 1] and found.tolist() == [True, True, False]


def test_large_images_are_averaged_down_before_they_are_compared():
    assert compared(torch.zeros(2, 3, 64, 64)).shape == (2, 3 * 64 * 64)
    images = torch.randn(2, 1, 128, 128)
    found = compared(images)
    assert found.shape == (2, 64 * 64)
    torch.testing.assert_close(found[1, 65], images[1, 0, 2:4, 2:4].mean())


def test_each_real_pulls_its_nearest(toy, batch):
    """weight |G(z_j) - x|^2 as a mean over the four pixels and over the reals, remade with today's G, chosen among yesterday's images."""
    made, D, synthesis, part = loss_of(toy, weight=2.0)
    plain, _, plain_G = toy("lsgan")
    run_phase(made, "Gmain", batch()), run_phase(plain, "Gmain", batch())
    torch.testing.assert_close(synthesis.weight.grad, plain_G.weight.grad)  # there was no pool yet
    assert part.memory["z"].shape == (6, 3) and part.memory["compared"].shape == (6, 4)
    torch.testing.assert_close(part.memory["compared"], synthesis(part.memory["z"][:, None]).flatten(1).detach())
    with torch.no_grad():
        for network in (synthesis, plain_G):
            network.weight.mul_(-0.5)
    for network in (synthesis, plain_G):
        network.weight.grad = None
    reals, _, z, _ = given = batch(5, seed=8)
    chosen = [min(range(6), key=lambda j: float((part.memory["compared"][j] - real.flatten()).square().sum())) for real in reals]
    run_phase(made, "Gmain", given), run_phase(plain, "Gmain", given)
    pulled = synthesis(part.memory["z"][chosen][:, None])
    [wanted] = torch.autograd.grad(2 * (pulled - reals).square().mean(), [synthesis.weight])
    torch.testing.assert_close(synthesis.weight.grad - plain_G.weight.grad, wanted)


def test_latents_are_drawn_anew_at_intervals_of_G(toy, batch):
    made, _, _, part = loss_of(toy, interval=3)
    pools = []
    for index, phase in enumerate(["Gmain", "Dmain", "Greg", "Gmain", "Gmain", "Dmain", "Gboth", "Gmain"]):
        run_phase(made, phase, batch(), cur_nimg=4 * index)
        pools.append(part.memory["z"].clone())
    changes = [not torch.equal(a, b) for a, b in zip(pools, pools[1:])]
    assert changes == [False, False, False, False, False, True, False]
    assert abs(float(pools[-1].mean())) < 1 and len({float(value) for value in pools[-1].flatten()}) == 18


def test_a_real_pulls_only_fakes_of_its_class(toy, batch):
    made, _, synthesis, part = loss_of(toy, training_set=Data([0, 1, 1, 2], 3))
    part.G.c_dim = 3
    part.memory["labels"] = torch.zeros([0, 3])
    part.draw_pool()
    assert bool((part.memory["labels"].sum(1) == 1).all())
    part.memory["labels"] = torch.eye(3)[[0, 0, 1, 1, 1, 0]]
    reals, _, z, none = batch(4)
    step = type("Step", (), dict(reals=reals, real_labels=torch.eye(3)[[0, 2, 1, 2]]))
    term = part.generator_term(step)
    assert term.shape == (2,)  # nothing of class 2: averaged over those that pull
    for row, (real, allowed) in zip(term, ((reals[0], [0, 1, 5]), (reals[2], [2, 3, 4]))):
        distances = (part.memory["compared"] - real.flatten()).square().mean(1)
        torch.testing.assert_close(row, distances[allowed].min())
    step.real_labels = torch.eye(3)[[2, 2, 2, 2]]
    assert part.generator_term(step) is None


def test_classes_of_the_pool_are_as_frequent_as_in_the_data(toy):
    _, _, _, part = loss_of(toy, training_set=Data([0, 1, 1, 1], 2))
    part.G.c_dim = 2
    labels = part._labels(torch.tensor([0, 1, 3, 2]))
    assert labels.tolist() == [[1, 0], [0, 1], [0, 1], [0, 1]]


def test_the_pool_does_not_depend_on_its_shares(toy):
    """Nor does drawing it move anything else: the global generators, or G's mode."""
    pools = []
    for size in (5, 8):
        _, _, _, part = loss_of(toy, size=size)
        torch.manual_seed(size)
        before = torch.get_rng_state()
        part.begin_phase("Gmain", 40), part.draw_pool()
        assert torch.equal(torch.get_rng_state(), before) and part.G.training
        pools.append(part.memory["z"])
    assert torch.equal(pools[1][:5], pools[0])


def test_the_whole_loss_has_the_gradient_of_its_value(toy, batch, monkeypatch):
    made, D, synthesis, part = loss_of(toy)
    part.draw_pool()
    assert_derivative(made, synthesis, "Gmain", batch(), monkeypatch)


def test_labels_that_are_no_classes_are_refused(toy):
    made, D, synthesis = toy("lsgan", [("imle", {})])
    G = torch.nn.Linear(1, 1)
    G.c_dim = 2
    data = Data()
    data.has_onehot_labels = False
    with pytest.raises(UserError, match="--method=imle pulls fakes towards reals of their own class.*leave out --cond or --method=imle"):
        attach(made, D, G=G, training_set=data)
