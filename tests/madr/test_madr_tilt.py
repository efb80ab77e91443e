"""The deficit tilt: the distribution it draws from, what D sees of it, its guard, resuming."""

import copy

import pytest
import torch

from madr_plugin.config import resolve
from madr_plugin.tilt import tilted_reals
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for
from tests.madr.toy_host import Host, madr_loss

TILT = dict(preset="witness", tilt=1, tilt_guard=0.0, deficit_window=64, cells=5)


def generator():
    return torch.Generator().manual_seed(0)


def test_replacing_some_reals_equals_drawing_all_in_proportion_to_v():
    v_N = torch.tensor([1.0, 1.0, 5.0, 1.5, 1.0, 2.0])
    class_N = torch.full([6], -1)
    uniform_B = torch.randint(6, [60000], generator=generator())
    row_B = tilted_reals.replacements(v_N, class_N, torch.full([60000], -1), torch.Generator().manual_seed(1))
    final_B = torch.where(row_B >= 0, row_B, uniform_B)
    expected_N = v_N / v_N.sum() * 60000
    chi_square = ((torch.bincount(final_B, minlength=6) - expected_N).square() / expected_N).sum()
    assert float(chi_square) < 20.5  # 99.9% point of 5 degrees of freedom
    assert float((row_B >= 0).float().mean()) == pytest.approx(float(tilted_reals.replaced_share(v_N, class_N)), abs=0.01)
    assert set(row_B.unique().tolist()) <= {-1, 2, 3, 5}  # only reals in deficit are brought in


def test_classes_keep_their_mass():
    v_N = torch.tensor([1.0, 4.0, 1.0, 1.0, 1.0])
    class_N = torch.tensor([0, 0, 1, 1, 1])
    class_B = torch.tensor([0, 1, 2] * 500)  # class 2: not among the reference
    row_B = tilted_reals.replacements(v_N, class_N, class_B, generator())
    assert (row_B[class_B != 0] == -1).all() and set(row_B[class_B == 0].tolist()) == {-1, 1}
    w_N = tilted_reals.normalised_within_classes(v_N, class_N)
    assert torch.allclose(w_N, torch.tensor([0.4, 1.6, 1, 1, 1]))


def fresh(madr=None, c_dim=0):
    """A host whose gates are wide enough for images of an untrained generator; these all lie in few cells."""
    host = Host(madr_loss(dict(TILT, **(madr or {}))), c_dim=c_dim)
    host.loss.engine.reference.radii_C.mul_(100)
    return host


def started(madr=None, c_dim=0, steps=4):
    host = fresh(madr, c_dim)
    for _ in range(steps):
        host.step()
    return host


def discriminator_gradient(host, rows, weights=None):
    """Mean over the microbatch (or weighted sum) of the gradient of D's real logit."""
    real = torch.from_numpy(host.images.images[rows]).float() / 127.5 - 1
    logits = host.D(real, None)
    loss = logits.mean() if weights is None else (logits[:, 0] * weights).sum()
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(host.D.parameters()))])


class RealLogit:
    """D phase: the mean logit of the reals, and a note of them."""

    def __init__(self, D):
        self.D, self.seen = D, []

    def begin_phase(self, phase, cur_nimg):
        pass

    def accumulate_gradients(self, phase, real_img, real_c, gen_z, gen_c, sync, gain):
        self.seen.append(real_img)
        self.D(real_img, real_c).mean().mul(gain).backward()


def test_what_d_learns_equals_weighted_reals_in_expectation():
    """The gradient at D over many tilted microbatches against one weighted by v over the whole data set."""
    host = started()
    v_N = host.loss.engine.tilt()
    assert float(v_N.max()) > 1.5 and float(v_N.min()) == 1
    host.set_learning("D")
    host.loss.base = RealLogit(host.D)
    random, gradients, count = torch.Generator().manual_seed(5), [], 300
    for _ in range(count):
        rows = torch.randint(len(host.images), [64], generator=random).numpy()
        real = torch.from_numpy(host.images.images[rows]).float() / 127.5 - 1
        before = real.clone()
        host.D_opt.zero_grad(set_to_none=True)
        host.loss.accumulate_gradients("Dmain", real, torch.zeros([64, 0]), None, torch.zeros([64, 0]), sync=False, gain=1)
        gradients.append(torch.cat([p.grad.flatten() for p in host.D.parameters()]))
        assert torch.equal(real, before)
    gradients = torch.stack(gradients)
    weighted = discriminator_gradient(host, slice(None), v_N / v_N.sum())
    uniform = discriminator_gradient(host, slice(None))
    noise = float((gradients.var(0).sum() / count).sqrt())
    assert float((gradients.mean(0) - weighted).norm()) < 2 * noise
    assert float((gradients.mean(0) - uniform).norm()) > 6 * noise


def test_phases_and_microbatches_draw_differently_and_again_the_same():
    host = started()
    draw = lambda phase, k: host.loss._tilted_reals(host.loss.engine, phase, k, torch.zeros([32, 3, 8, 8]), torch.zeros([32, 0]))
    assert torch.equal(draw("Dmain", 0), draw("Dmain", 0))
    assert not torch.equal(draw("Dmain", 0), draw("Dmain", 1)) and not torch.equal(draw("Dmain", 0), draw("Dreg", 0))
    host.loss.base = RealLogit(host.D)
    for phase in ("Dmain", "Dmain", "Dreg"):
        host.loss.accumulate_gradients(phase, torch.zeros([32, 3, 8, 8]), torch.zeros([32, 0]), None, None, sync=False, gain=1)
    for seen, wanted in zip(host.loss.base.seen, [draw("Dmain", 0), draw("Dmain", 1), draw("Dreg", 0)]):
        assert torch.equal(seen, wanted)


def test_each_of_several_steps_of_d_draws_anew_and_a_resumed_one_as_uninterrupted():
    """n_critic above 1: D learns again and again while G stands, with its regularisation between or without."""
    host = started()
    host.loss.base = RealLogit(host.D)

    def exchanged(of, phase="Dmain", rounds=2):
        of.loss.begin_phase(phase, 0)
        seen = len(host.loss.base.seen)
        for _ in range(rounds):
            of.loss.accumulate_gradients(phase, torch.zeros([32, 3, 8, 8]), torch.zeros([32, 0]), None, None, sync=False, gain=1)
        return torch.stack(host.loss.base.seen[seen:])

    engine = host.loss.engine
    draw = lambda *turn: tilted_reals.replacements(
        engine.tilt(), engine.reference.image_labels_N, torch.full([32], -1), generator_for(3, engine.step, 0, "tilt", "Dmain", *turn)
    )
    first, regularised = exchanged(host), exchanged(host, "Dreg")
    state = copy.deepcopy(engine.live_state())
    second = exchanged(host)
    assert not torch.equal(first, second) and not torch.equal(first, regularised) and not torch.equal(exchanged(host), second)
    assert torch.equal(first[0].flatten(1).any(1), draw() >= 0) and torch.equal(second[0].flatten(1).any(1), draw(1) >= 0)
    resumed = fresh()
    resumed.loss.engine.load(state)
    resumed.loss.base = host.loss.base
    assert torch.equal(exchanged(resumed), second)


def test_with_labels_that_are_no_classes_each_real_keeps_its_own():
    host = started()
    host.loss.base = RealLogit(host.D)
    several = torch.tensor([[1.0, 1.0, 0.0]]).repeat(200, 1)
    host.loss.accumulate_gradients("Dmain", torch.full([200, 3, 8, 8], 7.0), several, None, None, sync=False, gain=1)
    assert float(host.loss.base.seen[0].min()) == 7


def test_with_labels_a_real_is_exchanged_for_one_of_its_class():
    host = started(c_dim=2)  # three and two of the five groups
    host.loss.base = RealLogit(host.D)
    labels = torch.eye(2).repeat(100, 1)
    host.loss.accumulate_gradients("Dmain", torch.full([200, 3, 8, 8], 7.0), labels, None, None, sync=False, gain=1)
    pixels = torch.from_numpy(host.images.images).float() / 127.5 - 1
    exchanged = 0
    for image, label in zip(host.loss.base.seen[0], labels):
        if float(image.max()) < 7:
            [row] = (pixels == image).flatten(1).all(1).nonzero()[:, 0].tolist()
            assert host.images.labels[row].tolist() == label.tolist()
            exchanged += 1
    assert exchanged > 10


def test_guard_and_bound():
    host = started(dict(tilt_max=2.0))
    assert float(host.loss.engine.tilt().max()) <= 2
    assert float(host.loss.telemetry()["tilt"]) > 0
    guarded, bare = Host(madr_loss(dict(TILT, tilt_guard=0.4))), Host(madr_loss(dict(TILT, tilt=0)))  # an untrained G misses the true gates
    for _ in range(4):
        guarded.step(), bare.step()
    assert guarded.loss.engine.tilt() is None and guarded.loss.telemetry()["tilt"] == 0
    assert all(torch.equal(a, b) for a, b in zip(guarded.weights(), bare.weights()))
    assert "tilt" not in bare.loss.telemetry()


def test_resuming_is_bit_exact():
    whole = started(steps=4)
    first = started(steps=4)
    state = copy.deepcopy(first.loss.state_dict())
    second = fresh()
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    second.cur_nimg = first.cur_nimg
    second.loss.load_state_dict(state)
    for _ in range(3):
        whole.step(), second.step()
    assert whole.loss.engine.tilt() is not None
    assert all(torch.equal(a, b) for a, b in zip(whole.weights(), second.weights()))


def test_refusals():
    with pytest.raises(MADRError, match="--madr-tilt=1.*--madr-term=witness"):
        resolve(dict(preset="paper", tilt=1))
    with pytest.raises(MADRError, match="real_img"):
        Host(madr_loss(dict(TILT), base_class_name=f"{__name__}.WithoutReals"))


class WithoutReals:
    def __init__(self, device, G_mapping, G_synthesis, D, augment_pipe=None, **_):
        pass

    def accumulate_gradients(self, phase, gen_z, gain):
        pass


def test_the_bare_loss_is_no_part_of_this():
    """Without the flag D's reals are the host's own tensors."""
    host = started(dict(tilt=0))
    host.loss.base = RealLogit(host.D)
    real = torch.zeros([4, 3, 8, 8])
    host.loss.accumulate_gradients("Dmain", real, torch.zeros([4, 0]), None, None, sync=True, gain=1)
    assert host.loss.base.seen[0] is real
