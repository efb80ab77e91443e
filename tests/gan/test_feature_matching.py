"""Feature matching: which features, of which images, and what becomes of the adversarial term."""

import pytest
import torch

from dnnlib.errors import UserError
from tests.gan.toys import assert_derivative, attach, run_phase
from training.gan.feature_matching import matching


class Featured(torch.nn.Module):
    """D with three features of an image (or pack) of four values."""

    def __init__(self, pack=1):
        super().__init__()
        torch.manual_seed(0)
        self.hidden, self.out = torch.nn.Linear(4 * pack, 3).double(), torch.nn.Linear(3, 1).double()

    def features(self, img):
        return self.hidden(img.flatten(1)).tanh()

    def forward(self, img, c):
        return self.out(self.features(img)) + 0.1  # what comes after the layer, as a label does, is no feature


def loss_of(toy, gan="non-saturating", pack=1, more=(), **values):
    chosen = [("feature-matching", values), *more, *([("pacgan", dict(m=pack))] if pack > 1 else [])]
    made, D, synthesis = toy(gan, chosen, D=Featured(pack))
    attach(made, D)
    return made, D, synthesis


def test_by_hand():
    reals, fakes = torch.tensor([[1.0, 0.0], [3.0, 2.0]]), torch.tensor([[1.0, 1.0], [0.0, 4.0], [2.0, 1.0]])
    assert float(matching(reals, fakes)) == (2 - 1) ** 2 + (1 - 2) ** 2


@pytest.mark.parametrize("gan", ["non-saturating", "rpgan"])
@pytest.mark.parametrize("pack", [1, 2])
def test_it_takes_the_place_of_the_adversarial_term(toy, batch, gan, pack):
    made, D, synthesis = loss_of(toy, gan=gan, pack=pack, weight=3.0)
    reals, _, z, _ = given = batch(4)
    run_phase(made, "Gmain", given)
    fakes = synthesis(z[:, None])
    f_real, f_fake = D.features(reals.reshape(-1, 4 * pack)), D.features(fakes.reshape(-1, 4 * pack))
    [wanted] = torch.autograd.grad(3 * (f_real.mean(0) - f_fake.mean(0)).square().sum(), [synthesis.weight])
    torch.testing.assert_close(synthesis.weight.grad, wanted)


def test_it_joins_the_adversarial_term_with_a_weight(toy, batch):
    plain, _, plain_G = toy("hinge", D=Featured())
    run_phase(plain, "Gmain", batch())
    alone, _, alone_G = loss_of(toy, gan="hinge")
    run_phase(alone, "Gmain", batch())
    made, D, synthesis = loss_of(toy, gan="hinge", adversarial=0.5)
    run_phase(made, "Gmain", batch())
    torch.testing.assert_close(synthesis.weight.grad, 0.5 * plain_G.weight.grad + alone_G.weight.grad)
    run_phase(plain, "Dmain", batch())  # D learns as it does without
    D.zero_grad(), run_phase(made, "Dmain", batch())
    plain.D.zero_grad(), run_phase(plain, "Dmain", batch())
    torch.testing.assert_close(D.hidden.weight.grad, plain.D.hidden.weight.grad)


def test_passes_of_others_are_not_taken_for_its_own(toy, batch):
    """Other parts ask the same D for other images, before and after."""

    class Asking:
        def __getattr__(self, name):
            return getattr(self.part, name)

        def generator_rows(self, step, rows):
            return rows + 0 * step.judged_again("fakes", step.fakes * 0.5).mean()

    made, D, synthesis = loss_of(toy)
    run_phase(made, "Gmain", batch())
    wanted = synthesis.weight.grad.clone()
    asking = Asking()
    from training.gan.part import Part

    asking.part = Part()
    asking.part.name = "asking"
    made.parts.insert(0, asking)
    synthesis.weight.grad = None
    run_phase(made, "Gmain", batch())
    torch.testing.assert_close(synthesis.weight.grad, wanted)


def test_another_D_in_its_place_is_read_as_well(toy, batch):
    """Judged by the same modules with other weights, as unrolling does it, whichever of the two methods comes first."""
    from training.gan.part import Part

    class Elsewhere(Part):
        name = "elsewhere"

        def judge_for_G(self, step, judge):
            D = step.loss.D
            weights = {name: parameter.detach() * 2 for name, parameter in D.named_parameters()}
            return judge.with_D(lambda images, labels: torch.func.functional_call(D, weights, (images, labels)))

    gradients = []
    for place in (0, 1):
        made, D, synthesis = loss_of(toy)
        made.parts.insert(place, Elsewhere())
        run_phase(made, "Gmain", batch())
        gradients.append(synthesis.weight.grad)
    made, D, synthesis = loss_of(toy)
    with torch.no_grad():
        for parameter in D.parameters():
            parameter.mul_(2)
    run_phase(made, "Gmain", batch())
    torch.testing.assert_close(gradients, [synthesis.weight.grad] * 2)


def test_nothing_is_left_on_D(toy, batch):
    made, D, _ = loss_of(toy)
    for phase in ("Gmain", "Greg", "Dmain"):
        run_phase(made, phase, batch())
        assert not D._forward_hooks and not D.out._forward_pre_hooks and not made.parts[0]._read


def test_the_whole_loss_has_the_gradient_of_its_value(toy, batch, monkeypatch):
    made, D, synthesis = loss_of(toy, adversarial=0.7)
    assert_derivative(made, synthesis, "Gmain", batch(), monkeypatch)


def test_a_D_without_features_is_refused(toy):
    made, D, _ = toy("hinge", [("feature-matching", {})])
    with pytest.raises(UserError, match="the discriminator Curved has no last layer called `out` or `b4.out`"):
        attach(made, D)
