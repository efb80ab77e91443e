"""The tilt's second form: weights on the gradient at D's real logits, equal to the first in expectation."""

import copy

import pytest
import torch

from madr_plugin.augment_pipe import MADRAugmentPipe
from madr_plugin.tilt import tilted_logits
from madr_spaces.errors import MADRError
from tests.madr.test_madr_loss import copy_weights
from tests.madr.toy_host import Host, base_loss, madr_loss

TILT = dict(preset="witness", tilt=1, tilt_guard=0.0, deficit_window=64, cells=5)


def started(madr=None, c_dim=0, steps=4, **changes):
    """A host whose gates are wide enough for images of an untrained generator, which then all lie in few cells."""
    host = Host(madr_loss({**TILT, "tilt_form": "weight", **(madr or {})}, style_mixing_prob=0, **changes), c_dim=c_dim)
    host.loss.engine.reference.radii_C.mul_(100)
    for _ in range(steps):
        host.step()
    with torch.no_grad():
        host.synthesis.noise_strength.zero_()
    return host


def reals(host, rows=slice(None)):
    return torch.from_numpy(host.images.images[rows]).float() / 127.5 - 1, torch.from_numpy(host.images.labels[rows])


def discriminator_gradient(host, phase, real, labels):
    """What the loss leaves in D's parameters in this phase; all its fakes are the same image."""
    host.set_learning("D")
    host.D_opt.zero_grad(set_to_none=True)
    torch.manual_seed(0)
    z = torch.randn([1, 8]).repeat(len(real), 1)
    host.loss.accumulate_gradients(phase, real, labels, z, torch.zeros([len(real), host.c_dim]), sync=False, gain=1)
    return torch.cat([torch.zeros(p.numel()) if p.grad is None else p.grad.flatten() for p in host.D.parameters()])


def bare_gradients(host, phase):
    """[N, parameters]: what the bare loss makes of each real alone; the fake part is the same in all."""
    bare = Host(base_loss(style_mixing_prob=0), c_dim=host.c_dim)
    copy_weights(host, bare)
    real, labels = reals(host)
    return torch.stack([discriminator_gradient(bare, phase, real[i : i + 1], labels[i : i + 1]) for i in range(len(real))])


@pytest.mark.parametrize("phase", ["Dmain", "Dreg", "Dboth"])
def test_the_whole_data_set_weighs_as_the_tilt_would_draw_it(phase):
    """Over all reals at once there is no noise: mean of weighted gradients = sum_r v_r/(N v_mean) g_r, also of the R1 penalty."""
    host = started()
    v_N = host.loss.engine.tilt()
    assert float(v_N.max()) > 1.5 and float(v_N.min()) == 1
    alone = bare_gradients(host, phase)
    weighted = discriminator_gradient(host, phase, *reals(host))
    drawn, uniform = (v_N / v_N.sum()) @ alone, alone.mean(0)
    assert float((weighted - drawn).norm()) < 1e-3 * float((drawn - uniform).norm())


def test_it_equals_the_first_form_in_expectation():
    """Mean over many microbatches of exchanged reals against the weighted whole."""
    weighted, exchanged = started(), started(dict(tilt_form="draw"))
    exchanged.loss.load_state_dict(weighted.loss.state_dict())
    copy_weights(weighted, exchanged)
    exchanged.loss.base = MeanLogit(exchanged.D)
    weighted.loss.base = MeanLogit(weighted.D)
    whole = discriminator_gradient(weighted, "Dmain", *reals(weighted))
    random, drawn = torch.Generator().manual_seed(5), []
    for _ in range(300):
        rows = torch.randint(len(weighted.images), [64], generator=random).numpy()
        drawn.append(discriminator_gradient(exchanged, "Dmain", *reals(exchanged, rows)))
    drawn = torch.stack(drawn)
    noise = float((drawn.var(0).sum() / len(drawn)).sqrt())
    assert float((drawn.mean(0) - whole).norm()) < 2 * noise
    plain, _ = reals(weighted)
    uniform = torch.cat([g.flatten() for g in torch.autograd.grad(weighted.D(plain, None).mean(), list(weighted.D.parameters()))])
    assert float((drawn.mean(0) - uniform).norm()) > 6 * noise


class MeanLogit:
    def __init__(self, D):
        self.D = D

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        self.D(real_img, real_c).mean().mul(gain).backward()


class Flip(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("p", torch.ones([]))

    def forward(self, images):
        return images.flip(3)


def test_reals_are_recognised_behind_the_augmentation():
    pipe = MADRAugmentPipe(base=Flip())
    host = started(augment_pipe=pipe)
    flipped, _ = reals(host)
    weight_N = host.loss._real_weights.weights(host.loss.engine, "Dmain", 0, flipped, torch.zeros([200, 0]))
    host.loss.base = WithPipe(host.D, pipe)
    got = discriminator_gradient(host, "Dmain", *reals(host))
    expected = torch.autograd.grad((host.D(flipped.flip(3), None)[:, 0] * weight_N).mean(), list(host.D.parameters()))
    assert torch.allclose(got, torch.cat([g.flatten() for g in expected]), atol=1e-6) and float(weight_N.max()) > 1


class WithPipe(MeanLogit):
    def __init__(self, D, pipe):
        self.D, self.pipe = D, pipe

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        (self.D(self.pipe(real_img), real_c).mean() + 0 * self.D(self.pipe(torch.zeros([4, 3, 8, 8])), None).sum()).mul(gain).backward()


class Blurred(MeanLogit):
    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        self.D(real_img * 0.5, real_c).mean().backward()


def test_a_host_that_shows_d_other_images_is_refused():
    host = started()
    host.loss.base = Blurred(host.D)
    with pytest.raises(MADRError, match="--madr-tilt-form=draw"):
        discriminator_gradient(host, "Dmain", *reals(host))
    assert not host.D._forward_hooks  # nothing of ours stays behind
    discriminator_gradient(host, "Dreg", *reals(host))  # a regulariser may speak of other images


def test_classes_keep_their_mean_weight_and_unknown_ones_their_own():
    v_C, share_C, class_C = torch.tensor([1.0, 4, 1, 2]), torch.tensor([0.3, 0.1, 0.2, 0.4]), torch.tensor([0, 0, 1, 1])
    w_C = tilted_logits.weight_of_cells(v_C, share_C, class_C)
    assert torch.allclose((w_C * share_C)[:2].sum(), share_C[:2].sum()) and torch.allclose((w_C * share_C)[2:].sum(), share_C[2:].sum())
    host = started(c_dim=2)
    real, labels = reals(host)
    weigh = lambda labels: host.loss._real_weights.weights(host.loss.engine, "Dmain", 0, real, labels)
    weight_N, classes = weigh(labels), labels.argmax(1)
    assert all(float(weight_N[classes == index].mean()) == pytest.approx(1, abs=1e-4) for index in (0, 1)) and float(weight_N.max()) > 1.05
    assert torch.equal(weigh(torch.zeros([200, 2])), torch.ones(200))  # no class at all


def test_guard_bound_and_telemetry():
    host = started(dict(tilt_max=2.0))
    real, labels = reals(host)
    weight_N = host.loss._real_weights.weights(host.loss.engine, "Dmain", 0, real, labels)
    assert float(weight_N.max() / weight_N.min()) == pytest.approx(2, rel=1e-4) and host.loss.telemetry()["tilt"] > 0
    guarded, bare = Host(madr_loss(dict(TILT, tilt_form="weight", tilt_guard=0.4))), Host(madr_loss(dict(TILT, tilt=0)))
    for _ in range(4):
        guarded.step(), bare.step()
    assert guarded.loss.telemetry()["tilt"] == 0
    assert all(torch.equal(a, b) for a, b in zip(guarded.weights(), bare.weights()))


def test_resuming_is_bit_exact():
    whole, first, second = started(), started(), started(steps=0)
    copy_weights(first, second)
    for name in ("G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    second.loss.load_state_dict(copy.deepcopy(first.loss.state_dict()))
    for _ in range(3):
        whole.step(), second.step()
    assert whole.loss.engine.tilt() is not None and all(torch.equal(a, b) for a, b in zip(whole.weights(), second.weights()))


def test_refusals():
    with pytest.raises(MADRError, match="argument D"):
        tilted_logits.RealLogitWeights(None, None)
    with pytest.raises(MADRError, match="one row of logits per image"):
        tilted_logits._weigh_gradient(torch.zeros([3, 1]), torch.ones(4))


def test_without_the_flag_no_hook_is_set():
    host = Host(madr_loss(dict(TILT)), c_dim=0)
    assert host.loss._real_weights is None
    host.step()
    assert not host.D._forward_hooks
