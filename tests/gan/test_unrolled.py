"""Unrolled steps of D: by hand, against PyTorch's optimizer, and their double gradient against finite differences in float64."""

import pytest
import torch

from tests.gan.conftest import Curved, Mapping, Synthesis
from training import estimate
from training.gan import judge, loss, unrolled
from training.gan.step import Step


def attached(made, D, optimizer=None):
    """The loss with an optimizer of D, which has taken a few steps of its own unless it is given."""
    if optimizer is None:
        optimizer = torch.optim.Adam(D.parameters(), lr=0.05, betas=(0.5, 0.9), eps=1e-8)
        generator = torch.Generator().manual_seed(7)
        for _ in range(3):
            for parameter in D.parameters():
                parameter.grad = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
    made.attach(dict(D=D, G=None, optimizers=dict(D=optimizer)))
    return optimizer


def generator_value(made, given, backward=True):
    """G's term of one microbatch, with the same draws each time."""
    reals, none, z, c = given
    torch.manual_seed(3)
    step = Step(made, "Gmain", "G", 0, reals, none, z, c, True)
    value = made.terms.generator(step.fake_logits, None).mean()
    if backward:
        value.backward()
    return float(value.detach())


def check_gradient(made, synthesis, given):
    """Along a random direction in G's weights. The difference quotient sees all that depends on them, also through D's steps."""
    synthesis.zero_grad(set_to_none=True)
    generator_value(made, given)
    weight, epsilon = synthesis.weight, 1e-6
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    values = []
    for sign in (1, -1):
        weight.data.add_(sign * epsilon * direction)
        values.append(generator_value(made, given, backward=False))
        weight.data.sub_(sign * epsilon * direction)
    assert float((weight.grad * direction).sum()) == pytest.approx((values[0] - values[1]) / (2 * epsilon), rel=2e-5, abs=1e-9)
    return weight.grad.clone()


# ----------------------------------------------------------------------------------------------------------------
# By hand.


def test_plain_steps_by_hand():
    """f = a/2 (w - x)^2 with rate r: w_k = x + (1 - r a)^k (w_0 - x), and d w_k / d x = 1 - (1 - r a)^k."""
    x, start = torch.tensor(0.5, dtype=torch.float64, requires_grad=True), torch.tensor(2.0, dtype=torch.float64)
    for k, share in ((1, 0.4), (3, 0.4**3)):
        [made] = unrolled.after_steps(lambda w: 3 * (w[0] - x).square() / 2, [start.clone()], k, lambda w, g: [w[0] - 0.2 * g[0]])
        assert float(made.detach()) == pytest.approx(0.5 + share * 1.5)
        assert float(torch.autograd.grad(made, x)[0]) == pytest.approx(1 - share)


@pytest.mark.parametrize("share, seen", [(1.0, 4), (0.5, 2), (0.3, 1)])
def test_a_step_of_D_by_hand(toy, batch, share, seen):
    """Least squares and D = w . x + b: G's term is that under w - r grad f, f of the first images alone where so few are asked for."""
    from tests.gan.conftest import Linear

    D = Linear([1, 2, 2])
    made, _, synthesis = toy("lsgan", [("unrolled", dict(k=1, surrogate="sgd", rate=0.1, share=share))], D=D)
    attached(made, D)
    reals, none, z, c = batch()
    fakes = synthesis(z[:, None]).detach()
    a_real, a_fake = (reals * D.weight).flatten(1).sum(1) + D.bias, (fakes * D.weight).flatten(1).sum(1) + D.bias
    gradient = ((a_real - 1)[:, None, None, None] * reals + a_fake[:, None, None, None] * fakes)[:seen].mean(0)
    weight, bias = D.weight - 0.1 * gradient, D.bias - 0.1 * (a_real - 1 + a_fake)[:seen].mean()
    wanted = ((fakes * weight).flatten(1).sum(1) + bias - 1).square().mean() / 2
    assert generator_value(made, batch()) == pytest.approx(float(wanted.detach()))


def test_steps_are_those_of_the_optimizer():
    """From the moments that it has, and from none."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn([5], generator=generator, dtype=torch.float64)
    for steps_before in (0, 3):
        weight = torch.nn.Parameter(torch.randn([5], generator=generator, dtype=torch.float64))
        silent = torch.nn.Parameter(torch.ones([2], dtype=torch.float64))  # has no gradient
        optimizer = torch.optim.Adam([weight, silent], lr=0.1, betas=(0.5, 0.9))

        def objective(weights):
            return (weights[0] - target).pow(4).sum() + 0 * weights[1].sum()

        def learn(count):
            for _ in range(count):
                optimizer.zero_grad()
                objective([weight, silent]).backward()
                optimizer.step()

        learn(steps_before)
        states = [optimizer.state.get(parameter, {}) for parameter in (weight, silent)]
        rule = unrolled.Adam([weight, silent], states, 0.1, (0.5, 0.9), 1e-8)
        made = unrolled.after_steps(objective, [weight.detach().clone(), silent.detach().clone()], 4, rule)
        learn(4)
        torch.testing.assert_close(made, [weight.detach(), silent.detach()], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "pack, group, share, seen", [(1, 1, 0.5, 6), (2, 1, 0.3, 2), (1, 4, 0.5, 4), (2, 4, 0.5, 8), (1, 16, 0.5, 12), (1, 8, 1.0, 12)]
)
def test_a_share_is_of_whole_packs_and_groups(pack, group, share, seen):
    D = torch.nn.Linear(1, 1)
    D.group_size = group
    assert unrolled.Unrolled(share=share).num_seen(12, judge.Judge(D, pack=pack)) == seen


def test_weights_with_different_pasts_have_their_own_corrections():
    """As two optimizers, of which one has not stepped yet."""
    weights = [torch.nn.Parameter(torch.linspace(-1, 1, count, dtype=torch.float64)) for count in (3, 4)]
    optimizers = [torch.optim.Adam([weight], lr=0.1, betas=(0.5, 0.9)) for weight in weights]
    gradients = [torch.linspace(0.5, 2, count, dtype=torch.float64) for count in (3, 4)]
    weights[0].grad = -gradients[0]
    optimizers[0].step()
    rule = unrolled.Adam(weights, [optimizers[0].state[weights[0]], {}], 0.1, (0.5, 0.9), 1e-8)
    made = rule([weight.detach().clone() for weight in weights], gradients)
    for weight, optimizer, gradient in zip(weights, optimizers, gradients):
        weight.grad = gradient
        optimizer.step()
    torch.testing.assert_close(made, [weight.detach() for weight in weights], rtol=1e-12, atol=1e-12)


# ----------------------------------------------------------------------------------------------------------------
# The double gradient.


@pytest.mark.parametrize("gan", ["minimax", "non-saturating", "lsgan", "hinge"])
@pytest.mark.parametrize(
    "values", [dict(k=1), dict(k=5), dict(k=3, surrogate="sgd", rate=0.3), dict(k=2, share=0.5)], ids=["one", "five", "plain", "half"]
)
def test_the_gradient_goes_through_the_steps(toy, batch, gan, values):
    made, D, synthesis = toy(gan, [("unrolled", values)])
    attached(made, D)
    through = check_gradient(made, synthesis, batch())
    plain, _, other = toy(gan, D=D)
    generator_value(plain, batch())
    assert not torch.allclose(through, other.weight.grad, rtol=0.01)


def test_the_gradient_in_packs(toy, batch):
    made, D, synthesis = toy("non-saturating", [("unrolled", dict(k=2)), ("pacgan", dict(m=2))])
    attached(made, D)
    check_gradient(made, synthesis, batch())


def test_the_gradient_of_stylegan2s_discriminator():
    """Its layers, with their own derivatives, are differentiated twice by images and weights."""
    from training.networks import Discriminator

    torch.manual_seed(0)
    D = Discriminator(0, 8, 3, channel_base=32, channel_max=4, epilogue_kwargs=dict(mbstd_group_size=2)).double().requires_grad_(False)
    synthesis = Synthesis(3, (3, 8, 8))
    made = loss.GANLoss("cpu", Mapping(), synthesis, D, gan="r1", methods=[dict(name="unrolled", k=2)], pl_weight=0)
    attached(made, D)
    generator = torch.Generator().manual_seed(1)
    reals, z = torch.randn([4, 3, 8, 8], generator=generator, dtype=torch.float64), torch.randn([4, 3], generator=generator, dtype=torch.float64)
    none = torch.zeros([4, 0], dtype=torch.float64)
    check_gradient(made, synthesis, (reals, none, z, none))


def test_the_first_step_of_a_run_leaves_no_nan(toy, batch):
    """No moments yet, and images in which D sees nothing of some weights."""
    made, D, synthesis = toy("non-saturating", [("unrolled", dict(k=2))])
    attached(made, D, torch.optim.Adam(D.parameters(), lr=0.1))
    with torch.no_grad():
        synthesis.weight[:, :, 0, 0] = 0
    reals, none, z, c = batch()
    reals[:, :, 0, 0] = 0
    generator_value(made, (reals, none, z, c))
    assert bool(torch.isfinite(synthesis.weight.grad).all())


# ----------------------------------------------------------------------------------------------------------------
# What stays as it is.


def test_every_image_counts_once_among_its_kind(toy, batch):
    """Twice the same images are the same images."""
    made, D, synthesis = toy("hinge", [("unrolled", dict(k=2))])
    attached(made, D)
    given, gradients = batch(3), []
    for times in (1, 2):
        synthesis.zero_grad(set_to_none=True)
        generator_value(made, [rows.repeat(times, *[1] * (rows.ndim - 1)) for rows in given])
        gradients.append(synthesis.weight.grad)
    torch.testing.assert_close(*gradients)


class Normalising(Curved):
    """D with buffers that move whenever it looks."""

    def __init__(self, shape):
        super().__init__(shape)
        self.norm = torch.nn.BatchNorm2d(shape[0], dtype=torch.float64)
        self.looks = 0

    def forward(self, img, c):
        self.looks += 1
        return super().forward(self.norm(img), c)


def test_D_stays_as_it_is(toy, batch):
    D = Normalising([1, 2, 2])
    made, _, synthesis = toy("non-saturating", [("unrolled", dict(k=3))], D=D)
    D.requires_grad_(False)
    optimizer = attached(made, D)
    before = {name: value.clone() for name, value in D.state_dict().items()}
    moments = [value.clone() for state in optimizer.state.values() for value in state.values()]
    check_gradient(made, synthesis, batch())
    assert D.looks == 3 * (2 * 3 + 1)  # three values: k looks at reals and at fakes, one for G
    assert all(torch.equal(value, before[name]) for name, value in D.state_dict().items())
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in D.parameters())
    assert all(torch.equal(*pair) for pair in zip(moments, [value for state in optimizer.state.values() for value in state.values()]))


# ----------------------------------------------------------------------------------------------------------------
# Refusals.


@pytest.mark.parametrize("gan, words", [
    ("wgan", "--method=unrolled and --gan=wgan contradict each other"),
    ("wgan-gp", "--method=unrolled and --gan=wgan-gp contradict each other"),
    ("rpgan", "--method=unrolled does not go with --gan=rpgan"),
])  # fmt: skip
def test_losses_that_cannot_be_unrolled(refusal, gan, words):
    assert words in " ".join(refusal(f"--gan={gan}", "--method=unrolled").split())


def test_images_too_large_for_the_memory_are_refused(refusal, dry_run, monkeypatch):
    """With the sizes that fit told in the sentence; smaller images are warned of alone."""
    monkeypatch.setattr(estimate.psutil, "virtual_memory", Memory)
    assert "of memory needed" in dry_run("--method=unrolled", "--device=cpu")[1]
    monkeypatch.setattr(estimate, "UNROLLED_IN_DOUBT", 16)
    said = " ".join(refusal("--method=unrolled:k=10", "--device=cpu").split())
    assert "--method=unrolled:k=10 keeps 10 steps of D at 16 pixels" in said and "use a smaller k, share=0.25" in said
    said = " ".join(refusal("--method=unrolled:k=10,share=0.5", "--device=cpu").split())
    assert "--method=unrolled:k=10,share=0.5 keeps" in said and "use a smaller k, share=0.125" in said


class Memory:
    available = 10**6


def test_more_steps_need_more_memory(dry_run):
    def megabytes(*flags):
        [line] = [line for line in dry_run("--device=cpu", *flags)[1].splitlines() if line.startswith("  - memory")]
        return float(line.split()[2]) * (1000 if line.split()[3] == "GB" else 1)

    one, ten = megabytes("--method=unrolled:k=1"), megabytes("--method=unrolled:k=10")
    assert megabytes() < one < ten and ten > 2 * one
    assert one < megabytes("--method=unrolled:k=10,share=0.25") < ten / 2
