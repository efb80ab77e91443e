"""Each row against numbers worked out by hand, and its derivatives against finite differences in float64."""

import math

import pytest
import torch

from tests.gan.conftest import Linear
from torch_utils import training_stats
from training.gan import adversarial, choosing, penalties, views
from training.gan.judge import Judge, packed
from training.gan.latents import MixtureMapping
from training.gan.step import Step

SOFTPLUS = {-2: 0.12692801104297263, -1: 0.31326168751822286, 0: math.log(2), 1: 1.3132616875182228, 2: 2.1269280110429727, 3: 3.048587351573742}


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None].requires_grad_(True)


# name: (generator, fake, real) at a_fake = (-1, 2), a_real = (1, 0).
BY_HAND = {
    "minimax": ([-SOFTPLUS[-1], -SOFTPLUS[2]], [SOFTPLUS[-1], SOFTPLUS[2]], [SOFTPLUS[-1], SOFTPLUS[0]]),
    "non-saturating": ([SOFTPLUS[1], SOFTPLUS[-2]], [SOFTPLUS[-1], SOFTPLUS[2]], [SOFTPLUS[-1], SOFTPLUS[0]]),
    "least-squares": ([2, 0.5], [0.5, 2], [0, 0.5]),
    "whole-squares": ([4, 1], [1, 4], [0, 1]),
    "critic": ([1, -2], [-1, 2], [-1, 0]),
    "hinge": ([1, -2], [0, 3], [0, 1]),
    "relativistic": ([SOFTPLUS[2], SOFTPLUS[-2]], [0, 0], [SOFTPLUS[-2], SOFTPLUS[2]]),
}


@pytest.mark.parametrize("name", adversarial.TERMS)
def test_adversarial_terms_by_hand(name):
    terms, fake, real = adversarial.TERMS[name], column(-1, 2), column(1, 0)
    for found, wanted in zip((terms.generator(fake, real), terms.fake(fake), terms.real(real, fake)), BY_HAND[name]):
        assert found.shape == (2, 1) and found.flatten().tolist() == pytest.approx(wanted)


@pytest.mark.parametrize("name", adversarial.TERMS)
def test_adversarial_terms_have_the_gradients_of_their_values(name):
    terms, fake, real = adversarial.TERMS[name], column(-1.3, 2.1, 0.4), column(1.7, 0.3, -0.6)
    for function in (terms.generator, lambda fake, real: terms.fake(fake), lambda fake, real: terms.real(real, fake)):
        assert torch.autograd.gradcheck(lambda fake, real: function(fake, real) + 0 * (fake + real), (fake, real))


def test_smoothed_targets_by_hand():
    """.9 sp(-a) + .1 sp(a); 1/2 (a - .9)^2. Fakes keep their target, and so does G."""
    real = column(1, 0)
    smoothed = views.LabelSmoothing(0.9).change_terms(adversarial.TERMS["non-saturating"])
    assert smoothed.real(real, None).flatten().tolist() == pytest.approx([0.9 * SOFTPLUS[-1] + 0.1 * SOFTPLUS[1], SOFTPLUS[0]])
    assert smoothed.fake is adversarial.cross_entropy_fake and smoothed.generator is adversarial.non_saturating_generator
    squares = views.LabelSmoothing(0.9).change_terms(adversarial.TERMS["least-squares"])
    assert squares.real(real, None).flatten().tolist() == pytest.approx([0.005, 0.405])
    assert torch.autograd.gradcheck(lambda a: smoothed.real(a, None), real)


# ----------------------------------------------------------------------------------------------------------------
# Penalties. D(x) = a . x^2 has the gradient 2 a x.


def squares(a):
    return lambda images: (a * images.square()).flatten(1).sum(1, keepdim=True)


def images_of(*rows):
    return torch.tensor(rows, dtype=torch.float64).reshape(len(rows), 1, 1, -1).requires_grad_(True)


def test_penalties_by_hand():
    a, images = torch.tensor([1.0, 0.5], dtype=torch.float64), images_of([1, 2], [0, 3])  # gradients (2, 2) and (0, 3)
    logits = squares(a)(images)
    assert penalties.zero_centred(logits, images, gamma=3).tolist() == pytest.approx([12, 13.5])
    one_centred = penalties.one_centred(squares(a)(images), images, weight=10)
    assert one_centred.tolist() == pytest.approx([10 * (8**0.5 - 1) ** 2, 40])
    # In one pack: the gradient of both together, (2, 2, 0, 3).
    pack = squares(a.repeat(2))(packed(images, 2).reshape(1, 1, 1, 4))
    assert penalties.zero_centred(pack, images, gamma=3).tolist() == pytest.approx([25.5])
    assert penalties.consistency(column(1, 2), column(3, 2.5), weight=2).tolist() == pytest.approx([8, 0.5])
    assert penalties.image_distance(images, torch.zeros_like(images)).tolist() == pytest.approx([2.5, 4.5])


def test_points_between_by_hand():
    reals, fakes = images_of([4, 0], [8, 8], [1, 1], [2, 2]), images_of([0, 4], [0, 0], [1, 3], [0, 0])
    each = penalties.interpolated(reals, fakes, torch.tensor([0.25, 0.5, 1, 0], dtype=torch.float64))
    assert each.flatten(1).tolist() == [[1, 3], [4, 4], [1, 1], [0, 0]] and each.is_leaf and each.requires_grad
    in_packs = penalties.interpolated(reals, fakes, torch.tensor([0.25, 0.5], dtype=torch.float64))  # one share for both images of a pack
    assert in_packs.flatten(1).tolist() == [[1, 3], [2, 2], [1, 2], [1, 1]]


def test_a_gradient_of_zero_leaves_no_nan():
    images = images_of([0, 0])
    a = torch.ones([2], dtype=torch.float64, requires_grad=True)
    penalties.one_centred(squares(a)(images), images, weight=10).sum().backward()
    assert bool(torch.isfinite(a.grad).all())


@pytest.mark.parametrize("gan, chosen", [
    ("hinge", [("r1", dict(gamma=2.0))]),
    ("hinge", [("r2", dict(gamma=2.0))]),
    ("wgan-gp", [("gradient-penalty", {})]),
    ("rpgan+r1+r2", [("r1", dict(gamma=1.0)), ("r2", dict(gamma=1.0))]),
    ("lsgan", [("bcr", dict(shift=1))]),
    ("lsgan", [("zcr", {})]),
    ("wgan-gp", [("gradient-penalty", {}), ("pacgan", dict(m=2))]),
    ("non-saturating", [("diffaugment", {})]),
    ("non-saturating", [("mode-seeking", {})]),
    ("cn-lsgan", [("gradient-penalty", dict(weight=0.01)), ("pull-to-reals", {})]),
    ("rpgan", [("top-k", {})]),
], ids=lambda value: value if isinstance(value, str) else "+".join(name for name, _ in value))  # fmt: skip
@pytest.mark.parametrize("learner", ["G", "D"])
def test_gradients_of_the_whole_loss(toy, batch, gan, chosen, learner):
    """What accumulate_gradients leaves in the weights is the derivative of what it reports, by finite differences; that of a penalty is a double one."""
    made, D, synthesis = toy(gan, chosen)
    for part in made.parts:
        if part.name == "top-k":
            part.num_images, part.cur_nimg = 10, 10000
    module, phase = (synthesis, "Gboth") if learner == "G" else (D, "Dboth")
    other = D if learner == "G" else synthesis
    reals, none, z, c = batch()
    found = []
    made._report_scores = lambda *_: None

    def value():
        """The loss, by reading what is sent backwards."""
        real_backward, sent = torch.Tensor.backward, []
        torch.Tensor.backward = lambda self, *args, **kwargs: sent.append(self)
        try:
            torch.manual_seed(3)
            made.accumulate_gradients(phase, reals, none, z, c, True, 1)
        finally:
            torch.Tensor.backward = real_backward
        return sum(sent)

    for parameter in other.parameters():
        parameter.requires_grad_(False)
    torch.manual_seed(3)
    made.accumulate_gradients(phase, reals, none, z, c, True, 1)
    weight = module.weight
    found, direction = weight.grad.clone(), torch.randn(weight.shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    epsilon = 1e-6
    with torch.no_grad():
        weight.add_(epsilon * direction)
    above = float(value().detach())
    with torch.no_grad():
        weight.sub_(2 * epsilon * direction)
    below = float(value().detach())
    assert float((found * direction).sum()) == pytest.approx((above - below) / (2 * epsilon), rel=1e-5, abs=1e-8)
    assert all(parameter.grad is None for parameter in other.parameters())


def test_every_term_is_averaged_over_its_own_rows(toy, batch):
    """Two batches of one image each, or in packs of two: the mean of the gradients is that of the batch of both."""
    for gan, chosen in (("wgan", []), ("rpgan", []), ("lsgan", [("pull-to-reals", {}), ("r2", dict(gamma=1.0)), ("r1", dict(gamma=1.0))])):
        for pack in (1, 2):
            packing = [("pacgan", dict(m=2))] if pack == 2 else []
            made, D, synthesis = toy(gan, [*chosen, *packing])
            reals, none, z, c = batch(2 * pack)
            for phase, module in (("Gmain", synthesis), ("Dboth", D)):
                module.zero_grad(set_to_none=True)
                made.accumulate_gradients(phase, reals, none, z, c, True, 1)
                together = module.weight.grad.clone()
                module.zero_grad(set_to_none=True)
                for part in (slice(0, pack), slice(pack, 2 * pack)):
                    made.accumulate_gradients(phase, reals[part], none[part], z[part], c[part], True, 0.5)
                torch.testing.assert_close(module.weight.grad, together)


# ----------------------------------------------------------------------------------------------------------------
# Parts of D and G.


def step_of(made, learner, given, cur_nimg=0, leaves=()):
    reals, none, z, c = given
    made.cur_nimg = cur_nimg
    return Step(made, learner + "main", learner, 0, reals, none, z, c, True, leaves)


def test_pacgan_judges_consecutive_images_with_their_labels():
    seen = []
    judge = Judge(lambda images, labels: seen.append((images, labels)) or images.flatten(1).sum(1, keepdim=True), pack=2)
    images, labels = torch.arange(4.0).reshape(4, 1, 1, 1) * torch.ones([1, 3, 1, 1]), torch.eye(4)[:, :2]
    assert judge(images, labels).flatten().tolist() == [3, 15]
    assert seen[0][0][:, :, 0, 0].tolist() == [[0, 0, 0, 1, 1, 1], [2, 2, 2, 3, 3, 3]] and seen[0][1].tolist() == [[1, 0, 0, 1], [0, 0, 0, 0]]


def test_top_k_by_hand(toy, batch):
    made, _, _ = toy("hinge", [("top-k", dict(floor=0.5, decay=0.9))])
    [part] = made.parts
    part.num_images = 100
    step = step_of(made, "G", batch(8))
    for cur_nimg, k in ((0, 8), (99, 8), (100, 8), (300, 6), (650, 5), (700, 4), (10**6, 4)):  # 8 * .9^epoch, rounded up
        part.begin_phase("Gmain", cur_nimg)
        rows = part.generator_rows(step, made.terms.generator(step.fake_logits, None))
        assert sorted((-rows).flatten().tolist()) == sorted(step.fake_logits.flatten().tolist())[-k:], cur_nimg


def test_minibatch_discrimination_of_one_image_is_refused(refusal):
    said = " ".join(refusal("--method=minibatch-discrimination", "--batch-gpu=1").split())
    assert "--method=minibatch-discrimination compares the images of a microbatch" in said and "--batch-gpu=1 that is a single image" in said


def test_feature_matching_that_leaves_nothing_is_refused(refusal, dry_run):
    said = " ".join(refusal("--method=feature-matching", "--method=top-k").split())
    assert "in which --method=top-k chooses: use --method=feature-matching:adversarial=1" in said
    assert "leaves G nothing to learn from" in " ".join(refusal("--method=feature-matching:weight=0").split())
    dry_run("--method=feature-matching:adversarial=1", "--method=top-k")


def test_top_k_of_one_image_is_refused(refusal, dry_run):
    said = " ".join(refusal("--method=top-k", "--batch-gpu=1").split())
    assert "--method=top-k leaves out the lowest logits" in said and "--batch-gpu=1 that is a single image: use --batch-gpu=2 or more" in said
    said = " ".join(refusal("--method=top-k", "--method=pacgan:m=4", "--batch=4").split())
    assert "--batch=4 that is a single pack: use --batch-gpu=8 or more" in said
    dry_run("--method=top-k", "--batch-gpu=2")
    dry_run("--method=top-k", "--method=pacgan:m=4")


def test_mode_seeking_by_hand(toy, batch):
    """A generator that is linear in z: the distance of two images is that of their latents times its slope."""
    made, _, synthesis = toy("hinge", [("mode-seeking", dict(weight=2.0))])
    with torch.no_grad():
        synthesis.weight.zero_()
        synthesis.weight[0] = synthesis.weight[1] = synthesis.weight[2] = 1e-3
    step = step_of(made, "G", batch(4))
    torch.manual_seed(0)
    term = made.parts[0].generator_term(step)
    torch.manual_seed(0)
    other = torch.randn_like(step.z)
    ratio = 1e-3 * (step.z - other).sum(1).abs() / (step.z - other).abs().mean(1)
    torch.testing.assert_close(term, 2 / (ratio + 1e-5), rtol=1e-4, atol=0)


def test_zcr_by_hand(toy, batch):
    made, D, synthesis = toy("hinge", [("zcr", dict(dis=4.0, gen=0.25, sigma=0.1))])
    [part] = made.parts
    for learner in "GD":
        step = step_of(made, learner, batch(3))
        torch.manual_seed(1)
        term = part.generator_term(step) if learner == "G" else part.discriminator_term(step)
        torch.manual_seed(1)
        near = synthesis((step.z + 0.1 * torch.randn_like(step.z))[:, None])
        images = synthesis(step.z[:, None])
        wanted = -0.25 * (images - near).square().mean([1, 2, 3]) if learner == "G" else 4 * (D(images, None) - D(near, None)).square()[:, 0]
        torch.testing.assert_close(term, wanted)


def test_bcr_compares_an_image_with_its_mirrored_and_moved_self(toy, batch, monkeypatch):
    made, D, synthesis = toy("hinge", [("bcr", dict(real=3.0, fake=2.0, shift=0))])
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))  # every image is mirrored
    step = step_of(made, "D", batch(3))
    wanted = 3 * (D(step.reals, None) - D(step.reals.flip(3), None)).square() + 2 * (D(step.fakes, None) - D(step.fakes.flip(3), None)).square()
    torch.testing.assert_close(made.parts[0].discriminator_term(step), wanted[:, 0])


def test_images_are_moved_whole_pixels():
    torch.manual_seed(0)
    images = torch.arange(1.0, 26).reshape(1, 1, 5, 5).repeat(300, 1, 1, 1)
    by_zeros, by_mirror = views.moved(images, 1, "zeros"), views.moved(images, 1, "mirror")
    padded = torch.nn.functional.pad(images[0, 0], [1] * 4)
    mirrored = torch.nn.functional.pad(images[:1], [1] * 4, mode="reflect")[0, 0]
    for found, source in ((by_zeros, padded), (by_mirror, mirrored)):
        places = [[bool(torch.equal(image[0], source[y : y + 5, x : x + 5])) for y in range(3) for x in range(3)] for image in found]
        counts = torch.tensor(places).sum(0)
        assert torch.tensor(places).sum(1).eq(1).all() and int(counts.min()) > 12  # each of nine places, uniformly


def test_diffaugment_by_its_parts():
    torch.manual_seed(0)
    images = torch.rand([200, 3, 8, 8], dtype=torch.float64) * 2 - 1
    assert views.DiffAugment(0, 0, 0).view(images) is images
    holes = (views.cut(torch.ones([500, 1, 8, 8]), 4) == 0).flatten(1).sum(1)
    assert int(holes.max()) == 16 and int(holes.min()) >= 4  # a hole may lie beyond the border by half its side
    coloured = views.coloured(images)
    # Brightness shifts the image's mean by U(-.5, .5); contrast and saturation leave it.
    shift = (coloured - images).mean([1, 2, 3])
    assert float(shift.abs().max()) <= 0.5 and abs(float(shift.var()) - 1 / 12) < 0.02
    grey = images.mean(1, keepdim=True).expand_as(images)
    scale = (coloured - coloured.mean(1, keepdim=True)).flatten(1).norm(dim=1) / (images - grey).flatten(1).norm(dim=1)
    assert 0 <= float(scale.min()) and float(scale.max()) <= 3 and abs(float(scale.mean()) - 1) < 0.15
    assert torch.autograd.gradcheck(_seeded(views.DiffAugment().view), images[:2, :, :4, :4].clone().requires_grad_(True))


def _seeded(function):
    def call(images):
        torch.manual_seed(0)
        return function(images)

    return call


@pytest.mark.parametrize("gamma", [3.0, 0.0])
def test_r1_is_told_under_the_names_of_the_family(toy, batch, gamma):
    """Loss/r1_penalty |grad D|^2, Loss/D/reg gamma/2 times as much; neither where it is off, as in StyleGAN2Loss."""
    made, D, _ = toy("r1", [("r1", dict(gamma=gamma))], D=Linear([1, 2, 2]))
    collector = training_stats.Collector(regex="Loss/(r1_penalty|D/reg|D/r1)", keep_previous=False)
    collector.update()
    made.accumulate_gradients("Dboth", *batch(), True, 1)
    collector.update()
    squared = float(D.weight.detach().square().sum())
    expected = {"Loss/r1_penalty": squared, "Loss/D/reg": squared * gamma / 2, "Loss/D/r1": squared * gamma / 2}
    assert {name: collector.mean(name) for name in expected if collector.num(name)} == (pytest.approx(expected) if gamma else {})


@pytest.mark.parametrize("gan, smoothed, boundary", [
    ("non-saturating", None, 0), ("minimax", 0.9, 0), ("hinge", None, 0), ("lsgan", None, 0.5), ("cn-lsgan", None, 0.5), ("lsgan", 0.9, 0.45),
])  # fmt: skip
def test_signs_that_augmentation_follows_are_of_the_boundary(toy, gan, smoothed, boundary):
    made, *_ = toy(gan, [("label-smoothing", dict(target=smoothed))] if smoothed else [])
    collector = training_stats.Collector(regex="Loss/signs/real")
    collector.update()
    made._report_scores("real", column(boundary - 0.04, boundary + 0.04, boundary + 0.04, boundary + 0.04))
    collector.update()
    assert collector["Loss/signs/real"] == 0.5


def test_terms_without_a_boundary_are_known_to_the_options():
    assert {name for name, terms in adversarial.TERMS.items() if terms.boundary is None} == set(choosing.WITHOUT_BOUNDARY)


def test_clipped_weights(toy):
    made, D, synthesis = toy("wgan", [("clip", dict(c=0.25))])
    made.parts[0].after_step("Gmain", synthesis)
    assert float(synthesis.weight.abs().max()) > 0.25
    before = D.weight.clone()
    made.parts[0].after_step("Dmain", D)
    assert torch.equal(D.weight, before.clamp(-0.25, 0.25))
    from training.networks import FullyConnectedLayer

    layer = FullyConnectedLayer(64, 64)
    before = layer.weight.clone()
    made.parts[0].after_step("Dmain", layer)
    assert torch.equal(layer.weight, before.clamp(-12.5, 12.5)) and float(layer.bias.abs().max()) <= 0.25


def test_a_clipped_D_still_hears_its_labels():
    """The mapping of labels learns at a share of the rate: its weights begin as N(0, 1) / share, and the bounds are so much wider."""
    from training.gan.regularisers import WeightClipping
    from training.networks import Discriminator

    torch.manual_seed(0)
    D = Discriminator(3, 8, 1, channel_base=64, channel_max=16, num_fp16_res=0)
    images, labels = torch.randn(4, 1, 8, 8).requires_grad_(True), torch.eye(3)[[0, 1, 2, 0]].requires_grad_(True)
    told = float(D.mapping(None, labels).detach().std())
    WeightClipping().after_step("Dmain", D)
    # Each of the 8 layers keeps .43 of its size, as every clipped layer does, not 1/200 of it.
    assert float(D.mapping(None, labels).detach().std()) > 0.3**8 * told
    assert all(float(gradient.norm()) > 1e-7 for gradient in torch.autograd.grad(D(images, labels).sum(), [images, labels]))
    layer = D.mapping.fc0
    assert float(layer.weight.abs().max()) == pytest.approx(0.5 / layer.bias_gain) and layer.bias_gain == 0.01
    layer.bias.data.fill_(5)
    WeightClipping().after_step("Dmain", D)
    assert torch.equal(layer.bias, torch.full_like(layer.bias, 1.0))


def test_a_clipped_dcgan_sees_its_labels_and_compares_images():
    """Its channel of the label begins as N(0, 1), as large as the image, the kernels as N(0, 1 / features): the bounds are so much wider."""
    from training.gan.networks import DCGANDiscriminator
    from training.gan.regularisers import WeightClipping

    torch.manual_seed(0)
    D = DCGANDiscriminator(3, 16, 1, channel_base=128, channel_max=16, minibatch_kernels=4)
    kernels = D.out.closeness
    begun = [float(weight.detach().std()) for weight in (D.embed.weight, kernels.T)]
    WeightClipping().after_step("Dmain", D)
    for weight, std in zip((D.embed.weight, kernels.T), begun):
        assert 0.3 * std < float(weight.detach().std()) < std
    assert float(D.embed.weight.detach().abs().max()) == 0.5 and float(D.conv0.weight.detach().abs().max()) == pytest.approx(0.01)
    assert float(kernels.T.detach().abs().max()) == pytest.approx(0.5 / kernels.in_features**0.5)


@pytest.mark.parametrize("std", [1.0, 0.15])
def test_latents_of_a_mixture_are_exact(std):
    """As many of each component, normal around its mean in every direction, the first coordinate like the others."""
    mapping = MixtureMapping(3, 4)
    mapping.means.copy_(100 * torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]]))
    mapping.std.fill_(std)
    z = torch.randn([30000, 4], generator=torch.Generator().manual_seed(0))
    mixed = mapping.mixed(z)
    component = torch.cdist(mixed, mapping.means).argmin(1)
    counts = component.bincount(minlength=3)
    assert float(((counts - 10000).double().square() / 10000).sum()) < 13.8  # chi-square with 2 degrees of freedom, 99.9%
    inside = (mixed - mapping.means[component]) / std
    for k in range(3):
        of_k = inside[component == k].double()
        assert torch.allclose(of_k.mean(0), torch.zeros(4, dtype=torch.float64), atol=0.05)
        assert torch.allclose(torch.cov(of_k.t()), torch.eye(4, dtype=torch.float64), atol=0.06)
        ordered = torch.special.ndtr(of_k[:, 0].sort().values)
        distance = (ordered - torch.linspace(0, 1, len(ordered), dtype=torch.float64)).abs().max()
        assert float(distance) < 1.95 / len(of_k) ** 0.5  # Kolmogorov-Smirnov, 99.9%
