"""VEEGAN: the distance by hand, pairs of latents and images, and who learns from what."""

import pytest
import torch

from tests.gan.conftest import Linear
from training.gan import veegan
from training.gan.step import Step


class Pairs(Linear):
    """D(x, c) = w . x + tanh(v . c)."""

    def __init__(self, shape, c_dim):
        super().__init__(shape)
        self.told = torch.nn.Parameter(torch.linspace(-1, 1, c_dim, dtype=torch.float64))

    def forward(self, img, c):
        self.c = c.detach().clone()
        return super().forward(img, c) + (c * self.told).sum(1, keepdim=True).tanh()


@pytest.fixture
def paired(toy):
    """paired(gan, **values) -> (loss, D, synthesis, F): D is told 3 latents of each image of a pack."""

    def make(gan="non-saturating", more=(), pack=1, **values):
        D = Pairs([pack, 2, 2], 3 * pack)
        made, D, synthesis = toy(gan, [("veegan", dict(dict(width=4), **values)), *more], D=D)
        synthesis.z_dim, synthesis.img_channels, synthesis.img_resolution = 3, 1, 2
        made.attach(dict(G=synthesis, D=D, device="cpu", random_seed=3))
        return made, D, synthesis, made.parts[0].networks["reconstructor"]

    return make


def learn(made, phase, given, gain=1.0):
    reals, none, z, c = given
    made.begin_phase(phase, 0)
    made.accumulate_gradients(phase, reals, none, z, c, True, gain)


def test_the_distance_by_hand():
    z, other = torch.tensor([[1.0, 2], [0, -1]], dtype=torch.float64), torch.tensor([[0.0, 0], [0, 1]], dtype=torch.float64)
    assert veegan.squared_distance(z, other).tolist() == [5, 4]
    assert torch.autograd.gradcheck(veegan.squared_distance, (z.requires_grad_(), other.requires_grad_()))


@pytest.mark.parametrize("channels, size", [(1, 2), (3, 16), (1, 28), (3, 64)])
def test_the_reconstructor_takes_images_of_any_size(channels, size):
    made = veegan.Reconstructor(7, channels, size, width=2)
    assert made(torch.zeros([5, channels, size, size])).shape == (5, 7)


def test_D_judges_pairs(paired, batch):
    """Fakes beside the latents that they were made of, reals beside those that F reads from them; labels stay in front."""
    made, D, synthesis, F = paired()
    reals, none, z, c = batch()
    for learner in "DG":
        step = Step(made, learner + "main", learner, 0, reals, none, z, c, True, ("reals",))
        torch.testing.assert_close(step.fake_logits, D(step.fakes, z))
        assert torch.equal(D.c, z)
        torch.testing.assert_close(step.real_logits.detach(), D(reals, F(reals)).detach())
        assert torch.equal(step.labels_for_D("reals"), F(reals)) and not step.labels_for_D("reals").requires_grad
    labels = torch.eye(4, dtype=torch.float64)
    assert torch.equal(made.parts[0].labels_for_D(step, "fakes", step.fakes, labels), torch.cat([labels, z], dim=1))


def test_pairs_in_packs(paired, batch):
    made, D, synthesis, F = paired(more=[("pacgan", dict(m=2))], pack=2)
    reals, none, z, c = batch(4)
    learn(made, "Dmain", batch(4))
    assert torch.equal(D.c, F(reals).reshape(2, 6))


def test_G_descends_both_terms_and_F_the_distance(paired, batch):
    made, D, synthesis, F = paired(weight=2.0)
    D.requires_grad_(False)
    reals, none, z, c = batch()
    learn(made, "Gmain", batch())
    images = synthesis(z[:, None])
    distance = 2 * (z - F(images)).square().sum(1).mean()
    wanted = torch.autograd.grad(torch.nn.functional.softplus(-D(images, z)).mean() + distance, synthesis.weight, retain_graph=True)
    torch.testing.assert_close(synthesis.weight.grad, *wanted)
    torch.testing.assert_close([p.grad for p in F.parameters()], list(torch.autograd.grad(distance, list(F.parameters()))))
    before = [p.detach().clone() for p in F.parameters()]
    made.end_phase("Gmain")
    assert all(not torch.equal(*pair) for pair in zip(before, F.parameters()))
    synthesis.requires_grad_(False)
    D.requires_grad_(True)
    learned = [p.detach().clone() for p in F.parameters()]
    for gradient in F.parameters():
        gradient.grad = None
    learn(made, "Dboth", batch())
    made.end_phase("Dboth")
    assert all(torch.equal(*pair) and pair[1].grad is None for pair in zip(learned, F.parameters()))


def test_every_distance_counts_once_in_its_batch(paired, batch):
    """Two halves of a batch with half the gain are the whole."""
    made, D, synthesis, F = paired("wgan")
    gradients = []
    for parts in ([slice(0, 4)], [slice(0, 2), slice(2, 4)]):
        synthesis.zero_grad(set_to_none=True)
        made.begin_phase("Gmain", 0)
        reals, none, z, c = batch()
        for part in parts:
            made.accumulate_gradients("Gmain", reals[part], none[part], z[part], c[part], True, 1 / len(parts))
        gradients.append((synthesis.weight.grad, *[p.grad.clone() for p in F.parameters()]))
    torch.testing.assert_close(*gradients)


def test_the_penalty_sees_the_image_alone(paired, batch):
    """The latents of a real are given to D: R1 is not differentiated through F."""
    made, D, synthesis, F = paired("r1", [("r1", dict(gamma=2.0))])
    reals, none, z, c = batch()
    step = Step(made, "Dboth", "D", 0, reals, none, z, c, True, ("reals",))
    penalty = made.parts[-1].discriminator_term(step)
    torch.testing.assert_close(penalty, D.weight.square().sum().expand(4))


@pytest.mark.parametrize("methods, c_dim", [
    (["veegan"], 64), (["veegan", "pacgan:m=3"], 192), (["pacgan:m=3", "veegan"], 192),
])  # fmt: skip
def test_what_D_is_told(dry_run, methods, c_dim):
    options, printed = dry_run(*[f"--method={text}" for text in methods])
    assert options["G_kwargs"]["z_dim"] == 64 and options["D_kwargs"]["c_dim"] == c_dim
    assert "D judges images beside their 64 latents: --method=veegan" in printed
    with_labels, _ = dry_run(*[f"--method={text}" for text in methods], "--cond=1")
    assert with_labels["D_kwargs"]["c_dim"] == c_dim // 64 * 66
