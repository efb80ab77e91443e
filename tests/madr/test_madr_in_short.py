"""in_short.py: the default as one slow function gives the engine's gradient, step after step, with what both remember."""

import copy
import types

import pytest
import torch

from madr_plugin import in_short
from madr_spaces.seeds import generator_for
from tests.madr.toy_host import Host, madr_loss

SEED, REALS, HORIZON = 3, 32, 80
OPTIONS = dict(
    preset="default", width=32, tilt=0, capacity=24, deficit_window=64, reals=REALS, moments_horizon=str(HORIZON / 1000), cells=6, view="none"
)


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
        purposes = {"term": (SEED, step, 0, "term"), "null": ("signal-null", SEED, 8), "moments-null": ("moments-null", SEED, 0)}
        ours = in_short.added_gradient(
            G, z.double(), phi, reals, adversarial, state, lambda name, *more: generator_for(*purposes[name], *more), REALS, HORIZON
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
    norms, objective = engine.strength.balance.norms, engine.objective
    for name, own in (
        ("adversarial", norms["host"]),
        ("term", norms["term"]),
        *((f"size {part}", objective.norms[part]) for part in objective.parts),
    ):
        assert float(state[name]) == pytest.approx(float(own), rel=1e-3)
    for part, signal in engine.strength.signals.items():
        assert float(state[f"P {part}"]) == pytest.approx(float(signal.power), rel=1e-3)
        assert float(state.get(f"null {part}", 1.0)) == pytest.approx(float(signal.null), rel=1e-3)
    memory, turn = objective.objectives["moments"].memory, objective.objectives["moments"].reals.turn_KK
    own = dict(weight=memory.weight_G[0], square=memory.square_G[0], first=turn @ memory.first_GD[0], second=turn @ memory.second_GDD[0] @ turn.T)
    for name, value in own.items():
        assert torch.allclose(torch.as_tensor(state[name], dtype=torch.float64), value, rtol=1e-4, atol=1e-5)


def test_it_is_short_and_needs_torch_alone(repo):
    lines = (repo / "madr_plugin" / "in_short.py").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 130 and [line for line in lines if line.startswith(("import", "from"))] == ["import math", "import torch"]
