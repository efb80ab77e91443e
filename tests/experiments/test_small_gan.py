"""The host of the studies: against losses, networks and a loop written by hand, and that methods see the same draws."""

import pytest
import torch
import torch.nn.functional as F

from dnnlib.errors import UserError
from experiments import digit_bed, digits_study, small_gan, toy_2d, toy_methods
from experiments.digit_bed import Z_DIM
from madr_spaces.seeds import generator_for


class Images:
    """Random reals in the shape of a data set."""

    def __init__(self, side):
        self.image_shape = [3, side, side]
        self.reals = torch.rand([40, *self.image_shape], generator=torch.Generator().manual_seed(5)) * 2 - 1

    def __len__(self):
        return len(self.reals)


def build(options, side=14, batch=8, seed=3):
    return small_gan.build(options, digit_bed.networks(side), Images(side), seed, batch=batch, lr_G=1e-3, lr_D=1e-3, betas=(0.5, 0.999))


# ----------------------------------------------------------------------------------------------------------------
# By hand.


def networks_by_hand(side, pack):
    """The beds' networks out of PyTorch's own layers."""
    nn = torch.nn
    up = [32, 16] if side == 14 else [32, 16, 8]
    layers = [nn.Linear(Z_DIM, 32 * 49), nn.Unflatten(1, (32, 7, 7)), nn.BatchNorm2d(32), nn.ReLU()]
    for inputs, outputs in zip(up, up[1:]):
        layers += [nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()]
    G = nn.Sequential(*layers, nn.Conv2d(up[-1], 3, 3, padding=1), nn.Tanh())
    down = [3 * pack, 8, 16] if side == 14 else [3 * pack, 4, 8, 16]
    layers = []
    for inputs, outputs in zip(down, down[1:]):
        layers += [nn.Conv2d(inputs, outputs, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
    return G, nn.Sequential(*layers, nn.Flatten(), nn.Linear(16 * 9, 1))


def train_by_hand(side, reals, seed, steps, batch, gamma=0.0, pack=1):
    """Non-saturating losses, R1 and packs in a plain loop -> (G, [loss of G or D by turns])."""
    torch.manual_seed(seed)
    G, D = networks_by_hand(side, pack)
    generator, count, losses = generator_for("small-gan", seed), batch * pack, []
    opts = {net: torch.optim.Adam(net.parameters(), 1e-3, betas=(0.5, 0.999)) for net in (G, D)}
    judge = lambda images: D(images.reshape(len(images) // pack, 3 * pack, side, side))
    for _ in range(steps):
        for net in (G, D):
            z, rows = torch.randn([count, Z_DIM], generator=generator), torch.randint(len(reals), [count], generator=generator)
            if net is G:
                loss = F.softplus(-judge(G(z))).mean()
            else:
                real = reals[rows].requires_grad_()
                logits = judge(real)
                loss = F.softplus(judge(G(z).detach())).mean() + F.softplus(-logits).mean()
                if gamma:
                    [gradient] = torch.autograd.grad(logits.sum(), real, create_graph=True)
                    loss = loss + gamma / 2 * gradient.square().sum() / len(logits)
            opts[net].zero_grad()
            loss.backward()
            opts[net].step()
            losses.append(float(loss.detach()))
    return G, losses


@pytest.mark.parametrize("side", [14, 28])
@pytest.mark.parametrize("pack", [1, 2])
def test_networks_are_those_of_pytorchs_layers(side, pack):
    run = build(dict(method=("pacgan:m=2",)) if pack == 2 else {}, side)
    torch.manual_seed(3)
    G, D = networks_by_hand(side, pack)
    for own, by_hand in ((run.G, G), (run.D, D)):
        assert sorted(p.numel() for p in own.parameters()) == sorted(p.numel() for p in by_hand.parameters())
    z = torch.randn([4, Z_DIM])
    images = run.G(z, None)
    assert torch.equal(images, G(z)) and images.shape == (4, 3, side, side)
    packed = images.detach().reshape(4 // pack, 3 * pack, side, side)
    assert torch.equal(run.D(packed, None), D(packed))


@pytest.mark.parametrize("method", ["plain", "r1", "pacgan2"])
def test_training_is_that_of_the_loop_by_hand(method, monkeypatch):
    """The same seed gives the same losses, step for step: result files of either mean the same."""
    seen, images = [], Images(14)
    run = build(digits_study.METHODS[method])
    # What is differentiated in each step is its loss.
    backward = torch.Tensor.backward
    monkeypatch.setattr(
        torch.Tensor, "backward", lambda self, *args, **kwargs: (seen.append(float(self.detach())), backward(self, *args, **kwargs))[1]
    )
    small_gan.train(run, images.reals, 3, 6)
    monkeypatch.undo()
    G, losses = train_by_hand(14, images.reals, 3, 6, 8, gamma=1.0 if method == "r1" else 0.0, pack=2 if method == "pacgan2" else 1)
    assert seen == pytest.approx(losses, abs=1e-6) and len(seen) == 12
    z = torch.randn([16, Z_DIM], generator=torch.Generator().manual_seed(1))
    assert torch.allclose(run.G(z, None), G(z), atol=1e-4)


# ----------------------------------------------------------------------------------------------------------------
# Rows.


def test_methods_see_the_same_latents_and_reals(monkeypatch):
    seen = {}
    for method in ("plain", "r1", "hinge", "image-pool"):
        run = build(digits_study.METHODS[method])
        accumulate, seen[method] = run.loss.accumulate_gradients, []

        def listening(phase, real_img, gen_z, accumulate=accumulate, into=seen[method], **further):
            into.append((phase[0], real_img.sum().item(), gen_z.sum().item()))
            accumulate(phase=phase, real_img=real_img, gen_z=gen_z, **further)

        monkeypatch.setattr(run.loss, "accumulate_gradients", listening)
        small_gan.train(run, Images(14).reals, 7, 3)
    assert len({str(draws) for draws in seen.values()}) == 1
    assert len(seen["plain"]) == 6 and len({z for _, _, z in seen["plain"]}) == 6


# Rows with networks of StyleGAN2's or DCGAN's own, for which these have no place; and what remembers positions.
LEFT_OUT = {
    "spectral-norm": "changes the networks",
    "minibatch-discrimination": "changes the networks",
    "no-minibatch-std": "do not have",
    "dia-gan": "at random",
}


@pytest.mark.parametrize("method", [name for name in digits_study.METHODS if name not in LEFT_OUT])
def test_every_row_is_a_method_of_the_digit_beds(method):
    options = digits_study.METHODS[method]
    if "madr" in options:
        return  # tests/madr train these
    run = build(options)
    small_gan.train(run, Images(14).reals, 0, 1)
    assert all(bool(parameter.isfinite().all()) for net in (run.G, run.D) for parameter in net.parameters())


@pytest.mark.parametrize("method", ["plain", "wgan-gp", "gm-gan", "veegan", "unrolled", "rpgan+r1+r2"])
def test_rows_are_methods_of_the_toys(method):
    assert bool(torch.from_numpy(toy_2d.train(method, "ring", 0, 5)["samples"]).isfinite().all())


@pytest.mark.parametrize("method, words", LEFT_OUT.items())
def test_rows_that_do_not_fit_are_refused(method, words):
    with pytest.raises(UserError, match=words):
        build(digits_study.METHODS[method])


def test_files_state_methods_as_they_always_did():
    assert small_gan.resolved({}) == {} and small_gan.resolved(digits_study.METHODS["r1"]) == dict(r1_gamma=1.0)
    assert small_gan.resolved(digits_study.METHODS["pacgan2"]) == dict(pack=2)
    assert small_gan.resolved(digits_study.METHODS["imle"]) == dict(method=["imle"]) and small_gan.resolved(dict(gan="hinge")) == dict(gan="hinge")
    for entry in toy_methods.OWN_METHODS.values():
        assert "r1_gamma" not in entry and "pack" not in entry
