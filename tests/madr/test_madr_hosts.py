"""Hosts in which MADR has to work as it does in the plain one: gradient accumulation, half precision, lazy regularisation."""

import pytest
import torch

from madr_spaces.errors import MADRError
from tests.madr.test_madr_loss import copy_weights, generator_gradients, warmed
from tests.madr.toy_host import Host, base_loss, madr_loss


def test_accumulated_gradients_are_the_mean_of_the_microbatches():
    """During a step all state stands still: two microbatches at half gain equal the mean of each alone."""
    options = dict(replay_interval=1)
    host = warmed(Host(madr_loss(options)), 4)
    state = host.loss.state_dict()
    together = generator_gradients(host, num_microbatches=2)
    alone = []
    for k in range(2):
        other = Host(madr_loss(options))
        copy_weights(host, other)
        other.loss.load_state_dict(state)
        other.loss.round_index = k
        other.set_learning("Gmain")
        other.G_opt.zero_grad(set_to_none=True)
        real, real_c, z, c = other.microbatch(0, k)
        other.loss.accumulate_gradients("Gmain", real, real_c, z, c, sync=False, gain=1)
        alone.append([parameter.grad.clone() for parameter in other.G_parameters])
    for both, first, second in zip(together, *alone):
        assert torch.allclose(both, (first + second) / 2, rtol=1e-4, atol=1e-6)


class Half(torch.nn.Module):
    """A synthesis network that computes and returns bfloat16."""

    def __init__(self, synthesis):
        super().__init__()
        self.synthesis = synthesis

    def forward(self, ws):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return self.synthesis(ws).to(torch.bfloat16)


def test_half_precision_images_get_their_gradient():
    def make(host):
        full, host.synthesis = host.synthesis, Half(host.synthesis)
        host.D.forward = lambda img, c: host.D.body(img.float())
        made = madr_loss(dict(replay_interval=1, refresh=2))(host)
        assert full is host.synthesis.synthesis
        return made

    host = warmed(Host(make), 5)
    state = host.loss.engine.memory
    assert state.filled("features").dtype == torch.float32 and all(torch.isfinite(w).all() for w in host.weights())
    gradients = generator_gradients(host)
    assert all(g.dtype == torch.float32 and torch.isfinite(g).all() and float(g.abs().sum()) > 0 for g in gradients)
    assert host.loss.telemetry()["gratio"] > 0


class Normalised(torch.nn.Module):
    """A synthesis network with what moves in a pass of its own: batch statistics, and a spectral norm's vectors."""

    def __init__(self, synthesis):
        super().__init__()
        self.synthesis, self.norm = synthesis, torch.nn.BatchNorm2d(3)
        self.last = torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(3, 3, 1))

    def forward(self, ws):
        return self.last(self.norm(self.synthesis(ws)))


def test_own_passes_leave_every_buffer_of_the_generator_as_it_was():
    """batch_norm changes its averages without telling autograd's version counter."""

    def make(host):
        host.synthesis = Normalised(host.synthesis)
        return madr_loss(dict(replay_interval=1, refresh=2))(host)

    host = warmed(Host(make), 5)
    engine, access = host.loss.engine, host.loss.generator_access
    buffers = dict(host.synthesis.named_buffers())
    assert len(buffers) >= 5 and float(buffers["norm.num_batches_tracked"]) > 0
    before = {name: value.clone() for name, value in buffers.items()}
    host.set_learning("Gmain")
    assert torch.isfinite(engine.replay(access, 8, 0, 1.0)["norm_replay"]) and engine.renew(access, 0) is not None
    assert all(torch.equal(before[name], value) for name, value in buffers.items())
    host.synthesis(torch.zeros([4, 3, 16]))  # the host's own pass moves them
    assert not torch.equal(before["norm.running_mean"], buffers["norm.running_mean"])


def test_a_loop_whose_phases_have_other_names_is_refused():
    """MADR would do nothing in it without a word."""
    host = Host(madr_loss())
    host.loss.base.accumulate_gradients = lambda *args, **kwargs: None
    real, real_c, z, c = host.microbatch(0, 0)
    with pytest.raises(MADRError, match="none of the generator phases.*disc, gen"):
        for _ in range(10):
            host.loss.accumulate_gradients("disc", real, real_c, z, c, sync=True, gain=1)
            host.loss.accumulate_gradients("gen", real, real_c, z, c, sync=True, gain=1)
    warming_up = Host(madr_loss())  # D alone for a while, then both
    warming_up.loss.base.accumulate_gradients = lambda *args, **kwargs: None
    for phase in ["Dmain", "Dreg"] * 20:
        warming_up.loss.accumulate_gradients(phase, real, real_c, z, c, sync=True, gain=1)


@pytest.mark.parametrize("phase", ["Greg", "Dreg"])
def test_lazy_regularisation_is_the_bases_own(phase):
    host, bare = warmed(Host(madr_loss(pl_weight=2)), 2), Host(base_loss(pl_weight=2))
    copy_weights(host, bare)
    found = []
    for h in (host, bare):
        h.set_learning(phase)
        for parameter in [*h.G_parameters, *h.D.parameters()]:
            parameter.grad = None
        real, real_c, z, c = h.microbatch(1, 0)
        h.loss.accumulate_gradients(phase, real, real_c, z, c, sync=True, gain=4)
        found.append([p.grad for p in [*h.G_parameters, *h.D.parameters()] if p.grad is not None])
    assert len(found[0]) == len(found[1]) and all(torch.equal(a, b) for a, b in zip(*found))
