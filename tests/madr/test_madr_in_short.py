"""in_short.py: the default as one slow function gives the engine's gradient, step after step, replay and forgetting included."""

import copy
import types

import pytest
import torch

from madr_plugin import in_short
from madr_spaces.seeds import generator_for
from tests.madr.toy_host import Host, madr_loss

SEED, CAPACITY, WINDOW, REALS, HALF_LIFE, INTERVAL = 3, 24, 64, 32, 30, 4
OPTIONS = dict(capacity=CAPACITY, deficit_window=WINDOW, reals=REALS, half_life_kimg=HALF_LIFE / 1000, replay_interval=INTERVAL, cells=6, view="none")


class Whole(torch.nn.Module):
    """The toy's generator as one module of latents alone."""

    def __init__(self, host):
        super().__init__()
        self.mapping, self.synthesis = copy.deepcopy(host.mapping), copy.deepcopy(host.synthesis)

    def forward(self, z):
        return self.synthesis(self.mapping(z, z[:, :0], skip_w_avg_update=True))


@pytest.fixture(scope="module")
def steps():
    """[(gradients that the engine adds, those of in_short, what in_short kept)] of some steps; the second in float64."""
    host = Host(madr_loss(OPTIONS, style_mixing_prob=0), batch_gpu=8)
    # Noise would come from the global generator, in which the two differ.
    del host.synthesis.noise_strength
    host.synthesis.register_buffer("noise_strength", torch.zeros([]))
    host.G_parameters = [*host.mapping.parameters(), *host.synthesis.parameters()]
    host.G_opt = torch.optim.Adam(host.G_parameters, lr=2e-3, betas=(0.0, 0.99))
    engine, found, state = host.loss.engine, [], {}
    wide = {name: value.double() if torch.is_tensor(value) and value.is_floating_point() else value for name, value in vars(engine.reference).items()}
    reals, phi, D = types.SimpleNamespace(**wide), copy.deepcopy(engine.extractor).double(), copy.deepcopy(host.D).double()

    def adversarial(image):
        return torch.nn.functional.softplus(-D(image, None)).mean()

    for step in range(18):
        real, real_c, z, c = host.microbatch(0, 0)
        G = Whole(host).double()
        purposes = dict(term=(SEED, step, 0, "term"), replay=(SEED, step, 0, "replay"), memory=(SEED, step, "memory"), null=("signal-null", SEED, 8))
        ours = in_short.added_gradient(
            G, z.double(), phi, reals, adversarial, state, lambda name: generator_for(*purposes[name]), REALS, CAPACITY, WINDOW, HALF_LIFE, INTERVAL
        )
        host.set_learning("Gmain")
        host.G_opt.zero_grad(set_to_none=True)
        host.loss.accumulate_gradients("Gmain", real, real_c, z, c, sync=True, gain=1)
        alone = torch.autograd.grad(adversarial(G(z.double())), list(G.parameters()))
        found.append(([p.grad.double() - a for p, a in zip(host.G_parameters, alone)], ours, alone))
        host.G_opt.step()
        host.cur_nimg += 8
    return engine, state, found


def test_it_gives_the_engines_gradient_at_every_step(steps):
    _, _, found = steps
    for step, (theirs, ours, alone) in enumerate(found):
        # What remains of subtracting two float32 gradients is judged by their own size.
        for a, b, whole in zip(theirs, ours, alone):
            assert float((a - b).norm()) <= 1e-4 * float(whole.norm() + b.norm()), step
        total = sum(float(b.norm()) ** 2 for b in ours) ** 0.5
        assert (total == 0) == (step == 0) and total < 1e3


def test_it_measures_and_remembers_what_the_engine_does(steps):
    engine, state, _ = steps
    norms = engine.strength.balance.norms
    for name, own in (("adversarial", "host"), ("witness", "term"), ("replay", "replay")):
        assert float(state[name]) == pytest.approx(float(norms[own]), rel=1e-3)
    assert float(state["P_null"]) == pytest.approx(float(engine.strength.signals["witness"].null), rel=1e-3)
    assert sorted(state["cells"]) == sorted(engine.sensor.ledger.filled().tolist())
    assert torch.allclose(torch.stack(state["latents"]).float(), engine.memory.filled("latents")[:, 0])
    assert engine.memory.offered > engine.memory.count == CAPACITY and engine.memory.filled("born").max() > 8 * 3


def test_it_is_short_and_imports_torch_alone(repo):
    lines = (repo / "madr_plugin" / "in_short.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 90 and [line for line in lines if line.startswith(("import", "from"))] == ["import torch"]
