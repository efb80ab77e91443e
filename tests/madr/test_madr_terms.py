"""The coverage terms and extractors as mathematics: gradients, definitions, behaviour at equilibrium."""

import math

import pytest
import torch

from madr_plugin import config
from madr_plugin.base import view
from madr_plugin.maths import coverage, kernels, terms
from madr_spaces import registry
from madr_spaces.distances import squared_distances
from madr_spaces.seeds import generator_for


def double(*shape, seed=0):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def kernel_of(name, scale=1.3):
    return kernels.KERNELS[name](scale)


@pytest.mark.parametrize(
    "loss",
    [
        lambda f: terms.witness_loss(f, double(6, 3, seed=1), kernel_of("mixture")),
        lambda f: terms.witness_loss(f, double(6, 3, seed=1), kernel_of("rational-quadratic"), torch.softmax(double(6, seed=2), 0)),
        lambda f: terms.imle_loss(f, double(5, 3, seed=1), 1.3),
        lambda f: terms.imle_loss(f, double(5, 3, seed=1), 1.3, torch.tensor([1.0, 0, 1, 1, 0], dtype=torch.float64)),
        lambda f: terms.paper_loss(f, double(6, 3, seed=1), torch.softmax(double(6, seed=2), 0), 0.9),
    ],
    ids=["witness-mixture", "witness-rational-weighted", "imle", "imle-dead-zone", "paper"],
)
def test_coverage_gradcheck_float64(loss):
    assert torch.autograd.gradcheck(loss, (double(5, 3).requires_grad_(),))


def test_witness_is_its_definition():
    fake, real, kernel = double(4, 3), double(7, 3, seed=1), kernel_of("mixture", 2.0)

    def k(a, b):
        return sum(math.exp(-float((a - b).square().sum()) / (2 * (2.0 * 2**-j) ** 2)) for j in range(4)) / 4

    repulsion = sum(k(fake[i], fake[j]) for i in range(4) for j in range(4) if i != j) / (4 * 3)
    attraction = sum(k(f, x) for f in fake for x in real) / (4 * 7)
    assert float(terms.witness_loss(fake, real, kernel)) == pytest.approx(repulsion - 2 * attraction, rel=1e-9)


def test_rational_quadratic_kernel_is_its_definition():
    a, b = double(3), double(3, seed=1)
    expected = sum((1 + float((a - b).square().sum()) / (2 * alpha * 1.7**2)) ** -alpha for alpha in (0.2, 0.5, 1.0, 2.0, 5.0)) / 5
    assert float(kernel_of("rational-quadratic", 1.7)((a - b).square().sum())) == pytest.approx(expected, rel=1e-12)


def test_features_far_from_the_origin_lose_no_digits():
    fake, real = double(4, 3) + 100, double(9, 3, seed=1) + 100
    fake[1] = fake[0]

    def gradient(dtype):
        x = fake.to(dtype).requires_grad_()
        return torch.autograd.grad(terms.witness_loss(x, real.to(dtype), kernel_of("mixture")), x)[0].to(torch.float64)

    assert torch.allclose(gradient(torch.float32), gradient(torch.float64), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", kernels.KERNELS)
def test_kernel_with_its_slope_is_the_kernel(name):
    kernel, squared = kernel_of(name), double(5, 4).square().requires_grad_()
    values, slope = kernel.with_slope(squared)
    assert torch.equal(values, kernel(squared))
    [exact] = torch.autograd.grad(kernel(squared).sum(), squared)
    assert torch.allclose(slope, exact, rtol=1e-12)


def test_witness_of_one_image_has_only_the_attraction():
    fake, real = double(1, 3), double(7, 3, seed=1)
    kernel = kernel_of("mixture")
    assert float(terms.witness_loss(fake, real, kernel)) == pytest.approx(-2 * float(kernel(squared_distances(fake, real)).mean()))


@pytest.mark.parametrize("loss", ["witness", "imle", "paper"])
def test_a_step_raises_the_coverage_of_an_uncovered_mode(loss):
    covered, missing = double(40, 2) * 0.3, double(40, 2, seed=1) * 0.3 + torch.tensor([2.0, 0.0])
    real, fake = torch.cat([covered, missing]), (double(16, 2, seed=2) * 0.3).requires_grad_()
    if loss == "witness":
        value = terms.witness_loss(fake, real, kernel_of("mixture", 2.0))
    elif loss == "imle":
        entry = squared_distances(missing, fake).argmin(1)
        value = terms.imle_loss(fake[entry], missing, 2.0)
    else:
        value = terms.paper_loss(fake, real, terms.paper_weights(coverage.kernel_score(real, fake.detach(), 1.0), 5.0), 1.0)
    [gradient] = torch.autograd.grad(value, fake)
    before = coverage.kernel_score(missing, fake.detach(), 0.5).mean()
    after = coverage.kernel_score(missing, fake.detach() - 0.1 * gradient / gradient.norm(dim=1).max(), 0.5).mean()
    assert after > before


def test_at_equilibrium_witness_has_no_mean_gradient_and_paper_has():
    """Generator x = s z + m with p_g = p_data = N(0, 1) at s = 1, m = 0: mean and standard error of dL/d(s, m) over trials."""
    generator = torch.Generator().manual_seed(5)
    gradients = {"witness": [], "paper": []}
    reference = torch.randn([400, 1], generator=generator, dtype=torch.float64)
    weights = terms.paper_weights(coverage.kernel_score(reference, torch.randn([400, 1], generator=generator, dtype=torch.float64), 1.0), 1.0)
    for _ in range(400):
        scale, shift = torch.ones([], dtype=torch.float64, requires_grad=True), torch.zeros([], dtype=torch.float64, requires_grad=True)
        fake = scale * torch.randn([32, 1], generator=generator, dtype=torch.float64) + shift
        real = torch.randn([128, 1], generator=generator, dtype=torch.float64)
        for name, value in [
            ("witness", terms.witness_loss(fake, real, kernel_of("mixture", 1.0))),
            ("paper", terms.paper_loss(fake, reference, weights, 1.0)),
        ]:
            gradients[name].append(torch.stack(torch.autograd.grad(value, [scale, shift], retain_graph=True)))
    z_scores = {}
    for name, values in gradients.items():
        values = torch.stack(values)
        z_scores[name] = (values.mean(0) / (values.std(0) / math.sqrt(len(values)))).tolist()
    assert max(map(abs, z_scores["witness"])) < 4
    assert z_scores["paper"][0] > 10  # positive: descending keeps shrinking the generator


# --- extractors ------------------------------------------------------------------------------------------------------


def images(count=64, seed=0, shape=(3, 8, 8)):
    return torch.rand([count, *shape], generator=torch.Generator().manual_seed(seed)) * 2 - 1


@pytest.mark.parametrize("name", ("pca", "random"))
def test_extractor_is_frozen_yet_differentiable(name):
    extractor = registry.build(name, (3, 8, 8), width=16).eval()
    extractor.fit(images())
    assert not list(extractor.parameters())
    x = images(3, seed=1).requires_grad_()
    before = {key: value.clone() for key, value in extractor.named_buffers()}
    extractor(x).square().sum().backward()
    assert x.grad is not None and (x.grad.flatten(1).abs().sum(1) > 0).all()
    assert all(torch.equal(before[key], value) for key, value in extractor.named_buffers())


@pytest.mark.parametrize("name", ("pca", "random"))
def test_extractor_gradcheck(name):
    extractor = registry.build(name, (1, 6, 6), width=4).eval()
    extractor.fit(images(shape=(1, 6, 6)))
    extractor = extractor.double()
    assert torch.autograd.gradcheck(extractor, (images(1, seed=1, shape=(1, 6, 6)).double().requires_grad_(),))


def test_pca_finds_the_principal_directions_and_sets_the_median_to_one():
    weights = (0.7 ** torch.arange(192.0)).reshape(3, 8, 8)  # a spectrum with gaps, as pictures have
    data = torch.randn([500, 3, 8, 8], generator=torch.Generator().manual_seed(0)) * weights
    extractor = registry.build("pca", (3, 8, 8), width=5)
    extractor.fit(data)
    centred = data.flatten(1) - data.flatten(1).mean(0)
    exact = torch.linalg.svd(centred, full_matrices=False).Vh[:5]
    basis = extractor.basis_PD / extractor.basis_PD.norm(dim=0)
    assert ((exact @ basis).abs().amax(1) > 0.98).all()
    assert float(torch.pdist(extractor(data)).median()) == pytest.approx(1, abs=0.02)


def test_random_extractor_depends_on_its_seed_alone():
    a, b, c = (registry.build("random", (3, 8, 8), seed=seed) for seed in (1, 1, 2))
    x = images(2)
    assert torch.equal(a(x), b(x)) and not torch.equal(a(x), c(x))


@pytest.mark.parametrize("parts", ["flip", "shift", "crop", "flip+shift+crop"])
def test_view_is_differentiable_and_keeps_the_range(parts):
    x = images(16).requires_grad_()
    seen = view.apply(x, config.parse_view(parts, "none"), generator_for("test"))
    assert seen.shape == x.shape and not torch.equal(seen, x)
    assert seen.abs().max() <= x.abs().max() + 1e-5
    seen.sum().backward()
    assert (x.grad.flatten(1).abs().sum(1) > 0).all()


def test_view_shift_moves_whole_pixels():
    x = images(32)
    seen = view.apply(x, ("shift",), generator_for("test"))
    distance = torch.cdist(seen.flatten(1)[:, :, None], x.flatten(1)[:, :, None])  # of every value to every value of the original
    assert distance.amin(2).max() < 1e-4
