"""The host of the studies: its losses by brute force, and that methods see the same draws."""

import torch
import torch.nn.functional as F

from experiments import small_gan


class Sum(torch.nn.Module):
    """Logit = weight . flattened image."""

    def __init__(self, inputs):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.linspace(-1, 2, inputs))

    def forward(self, img, c):
        return img.flatten(1) @ self.weight[:, None]


class Shift(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.bias = torch.nn.Parameter(torch.zeros(2))

    def forward(self, z, c):
        return (z + self.bias)[:, :, None, None]


def test_r1_adds_half_gamma_times_the_squared_gradient():
    grads = []
    for gamma in (0.0, 3.0):
        G, D = Shift(), Sum(2)
        real, z = torch.randn([8, 2, 1, 1], generator=torch.Generator().manual_seed(1)), torch.zeros([8, 2])
        small_gan.NonSaturatingLoss("cpu", G, D, r1_gamma=gamma).accumulate_gradients("Dmain", real, None, z, None, True, 1)
        grads.append(D.weight.grad.clone())
    # d/dw of gamma/2 |w|^2 is gamma w: the gradient of this logit with respect to its image is w.
    assert torch.allclose(grads[1] - grads[0], 3.0 * Sum(2).weight.detach(), atol=1e-5)


def test_pacgan_judges_neighbouring_images_together():
    G, D = Shift(), Sum(4)
    loss = small_gan.NonSaturatingLoss("cpu", G, D, pack=2)
    images = torch.arange(8.0).reshape(4, 2, 1, 1)
    by_hand = torch.stack([torch.cat([images[0], images[1]]).flatten() @ D.weight, torch.cat([images[2], images[3]]).flatten() @ D.weight])
    assert torch.allclose(loss.judge(images, None).flatten(), by_hand) and by_hand[0] != by_hand[1]


def test_generator_step_is_the_non_saturating_loss():
    G, D = Shift(), Sum(2)
    z = torch.randn([8, 2], generator=torch.Generator().manual_seed(2))
    small_gan.NonSaturatingLoss("cpu", G, D).accumulate_gradients("Gmain", None, None, z, None, True, 1)
    (expected,) = torch.autograd.grad(F.softplus(-((z + G.bias) @ D.weight)).mean(), G.bias)
    assert torch.allclose(G.bias.grad, expected)


def test_methods_see_the_same_latents_and_reals():
    seen = []

    class Listening(small_gan.NonSaturatingLoss):
        def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
            seen[-1].append((phase, real_img.sum().item(), gen_z.sum().item()))
            super().accumulate_gradients(phase, real_img, real_c, gen_z, gen_c, sync, gain)

    reals = torch.randn([50, 2, 1, 1])
    for gamma in (0.0, 1.0):
        seen.append([])
        G, D = Shift(), Sum(2)
        small_gan.train(Listening("cpu", G, D, r1_gamma=gamma), G, D, reals, 7, steps=3, batch=4, z_dim=2, lr_G=1e-2, lr_D=1e-2, betas=(0.5, 0.9))
    assert seen[0] == seen[1] and len(seen[0]) == 6 and len({entry[2] for entry in seen[0]}) == 6


def test_r1_and_plain_train_to_different_discriminators():
    weights = []
    for gamma in (0.0, 1.0):
        torch.manual_seed(0)
        G, D = Shift(), Sum(2)
        loss = small_gan.build_loss(G, D, None, 0, r1_gamma=gamma)
        small_gan.train(loss, G, D, torch.ones([50, 2, 1, 1]), 0, steps=20, batch=4, z_dim=2, lr_G=1e-2, lr_D=1e-1, betas=(0.5, 0.9))
        weights.append(D.weight.detach().clone())
    assert weights[1].norm() < weights[0].norm()
