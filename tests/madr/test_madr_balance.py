"""How strong a term is where it arrives: reach of gradients to the parameters, the share that the balance gives, the guard of the tap."""

import pytest
import torch

from madr_plugin import config
from madr_plugin.host import tap
from madr_plugin.strength import balance
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Host, base_loss, madr_loss


def gradients_of(host, k=0):
    """Gradients of one generator microbatch, without a step."""
    host.set_learning("Gmain")
    host.G_opt.zero_grad(set_to_none=True)
    real, real_c, z, c = host.microbatch(0, k)
    host.loss.accumulate_gradients("Gmain", real, real_c, z, c, sync=False, gain=1)
    return [parameter.grad.clone() for parameter in host.G_parameters]


def test_reach_is_the_gradient_per_parameter_for_a_unit_on_the_image():
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(5, 20), torch.nn.Tanh(), torch.nn.Linear(20, 12))
    idle = torch.nn.Parameter(torch.zeros([3]))
    parameters = [*net.parameters(), idle]
    z, gradient = torch.randn([6, 5]), torch.randn([6, 12])
    image = net(z)
    expected = torch.autograd.grad((net(z) * gradient).sum(), list(net.parameters()))
    unit = float(gradient.norm(dim=1).mean())
    for size in (1.0, 250.0):
        reach_P = balance.Follower(image, parameters).reach(gradient * 1e-6, torch.tensor(size))
        assert torch.allclose(reach_P[:-1], torch.stack([part.norm() for part in expected]) / unit, rtol=1e-4)
        assert float(reach_P[-1]) == 0
    assert all(parameter.grad is None for parameter in parameters)
    image.sum().backward()  # the graph is still there


def test_a_gradient_of_nothing_is_no_measurement():
    net = torch.nn.Linear(2, 3)
    image = net(torch.ones([4, 2]))
    reach_P = balance.Follower(image, list(net.parameters())).reach(torch.zeros([4, 3]), torch.tensor(1.0))
    assert reach_P.isnan().all()
    kept = balance.GradientBalance("peak", {"term": 1.0}, "cpu", at="parameters")
    kept.sizes_P = torch.tensor([6.0, 3.0])
    ones = torch.ones([])
    kept.update(dict(host=ones, term=ones), dict(host=torch.tensor([1.0, 2.0]), term=torch.tensor([2.0, 4.0])))
    before = float(kept.factor("term"))
    kept.update({}, dict(term=reach_P))
    assert float(kept.factor("term")) == before == pytest.approx(0.5)


def test_tensors_that_only_one_side_reaches_do_not_count():
    ratio = balance.relative_reach(torch.tensor([3.0, 0.0, 5.0]), torch.tensor([1.0, 9.0, 0.0]), torch.tensor([10.0, 1e6, 1e6]))
    assert float(ratio) == pytest.approx(3)
    assert torch.isinf(balance.relative_reach(torch.zeros([2]), torch.ones([2]), torch.ones([2])))


def test_tensors_count_with_their_entries():
    ratio = balance.relative_reach(torch.tensor([8.0, 1.0]), torch.tensor([1.0, 1.0]), torch.tensor([2.0, 1.0]))
    assert float(ratio) == pytest.approx(4)


def test_the_term_gets_its_share_at_the_parameters():
    """Also where images answer to parameters quite differently along what phi sees and along what D sees."""

    def measured(at):
        host = Host(madr_loss(dict(preset="witness", weight=0.5, balance="present", shrink=0, balance_at=at)))
        bare = Host(base_loss())
        with torch.no_grad():
            for each in (host, bare):
                # D looks at the first pixel alone, and the last layer's part of it is stretched 30 times.
                first = torch.zeros_like(each.D.body[1].weight)
                first[:, 0] = each.D.body[1].weight[:, 0]
                each.D.body[1].weight.copy_(first)
                each.synthesis.layers[2].weight[0] *= 30
        ratios = []
        for k in range(40):
            with_term, alone = gradients_of(host, k), gradients_of(bare, k)
            host.loss._finish_step_if_open()
            if k >= 10:
                parts = [(a - b).norm() for a, b in zip(with_term, alone)], [b.norm() for b in alone]
                sizes = torch.tensor([float(p.numel()) for p in host.G_parameters])
                ratios.append(float(balance.relative_reach(torch.stack(parts[0]), torch.stack(parts[1]), sizes)))
        return float(torch.tensor(ratios).log().mean().exp())

    assert measured("parameters") == pytest.approx(0.5, rel=0.15)
    assert abs(measured("image") / 0.5 - 1) > 0.3


def test_on_the_image_the_share_is_that_of_the_images_norms():
    kept = balance.GradientBalance("present", {"term": 0.7}, "cpu", at="image")
    kept.update(dict(host=torch.tensor(6.0), term=torch.tensor(2.0)))
    assert float(kept.factor("term")) == pytest.approx(2.1) and float(kept.ratio("term")) == pytest.approx(0.7)


def test_following_a_gradient_does_not_set_off_the_tap_again():
    net = torch.nn.Linear(3, 4)
    image, calls = net(torch.ones([2, 3])), []

    def on_host_gradient(gradient):
        calls.append(gradient.clone())
        balance.Follower(image, list(net.parameters())).reach(gradient, torch.tensor(1.0))

    tap.add_gradient(image, torch.full([2, 4], 10.0), 0.5, on_host_gradient)
    image.sum().backward()
    assert len(calls) == 1
    assert torch.equal(net.bias.grad, torch.full([4], 2 * (1 + 0.5 * 10)))


def test_measured_at_first_and_now_and_then():
    due = [occasion for occasion in range(100) if balance.reach_is_due(occasion)]
    assert due[:8] == list(range(8)) and due[8:] == list(range(32, 100, 32))


def test_a_term_that_is_off_does_not_cost_a_pass_at_every_step(monkeypatch):
    """Nothing of it ever reaches a parameter: its reach stays unknown."""
    passes = []
    original = balance.Follower.reach
    monkeypatch.setattr(balance.Follower, "reach", lambda self, *args: passes.append(True) or original(self, *args))
    host = Host(madr_loss(dict(term="none", replay_interval=1)))
    for _ in range(40):
        host.step(num_microbatches=1)
    assert host.loss.engine.strength.balance.lacks("term") and len(passes) <= 2 * (8 + 8) + 8 + 2


def test_resumed_before_the_next_measurement():
    host = Host(madr_loss(dict(replay_interval=1)))
    for _ in range(3):
        host.step()
    other = Host(madr_loss(dict(replay_interval=1)))
    other.loss.load_state_dict(host.loss.state_dict())
    ours, theirs = host.loss.engine.strength.balance, other.loss.engine.strength.balance
    for name in ("term", "replay"):
        assert float(ours.factor(name)) > 0 and torch.equal(ours.factor(name), theirs.factor(name))


# --- what a first or a missing measurement must not do ------------------------------------------------------------------------


def balanced(**first):
    """A balance at the parameters that knows the host and has seen `first` of the term."""
    kept = balance.GradientBalance("present", {"term": 1.0}, "cpu", at="parameters")
    kept.sizes_P = torch.tensor([6.0, 3.0])
    kept.update(dict(host=torch.tensor(1.0)), dict(host=torch.ones([2])))
    kept.update(dict(term=torch.tensor(first.get("norm", 1.0))), dict(term=torch.tensor(first.get("reach", [1.0, 1.0]))))
    return kept


def test_a_term_that_was_zero_at_first_or_for_long_comes_back_at_its_stated_size():
    late = balanced(norm=0.0)
    assert float(late.factor("term")) == 0
    late.update(dict(term=torch.tensor(2.0)))
    assert float(late.factor("term")) == pytest.approx(0.5)
    for _ in range(1000):
        late.update(dict(host=torch.tensor(1.0), term=torch.tensor(0.0)))
    assert float(late.factor("term")) == pytest.approx(0.5)


@pytest.mark.parametrize("reach", [[float("nan")] * 2, [float("inf"), 1.0], [0.0, 0.0]], ids=["nan", "overflow", "nowhere"])
def test_without_a_reach_there_is_no_strength(reach):
    kept = balanced(reach=reach)
    assert float(kept.factor("term")) == 0 and float(kept.ratio("term")) == 0
    for _ in range(30):
        kept.update({}, dict(term=torch.tensor([2.0, 2.0])))
    assert float(kept.factor("term")) == pytest.approx(0.5, rel=1e-2)


def test_an_unknown_reach_is_measured_at_the_next_step_whichever_that_is():
    host = Host(madr_loss(dict(replay_interval=1)))
    for _ in range(12):  # past the first occasions
        host.step()
    state = host.loss.state_dict()
    del state["madr"]["balance"]["reaches"], state["madr"]["balance"]["sizes"]
    host = Host(madr_loss(dict(replay_interval=1)))
    host.loss.load_state_dict(state)
    kept = host.loss.engine.strength.balance
    assert kept.lacks("term") and kept.lacks("replay") and float(kept.factor("term")) == 0
    host.step()
    host.step()
    assert float(kept.factor("term")) > 0 and float(kept.factor("replay")) > 0


def test_a_host_may_freeze_layers_on_the_way():
    host = Host(madr_loss(dict(replay_interval=1)))
    for _ in range(3):
        host.step()
    host.G_parameters = list(host.synthesis.parameters())
    host.mapping.requires_grad_(False)
    for _ in range(70):
        host.step()
    kept = host.loss.engine.strength.balance
    assert len(kept.reaches["term"]) == len(kept.reaches["host"]) == len(kept.reaches["replay"]) == len(host.G_parameters)
    assert float(kept.factor("term")) > 0


def test_a_host_may_change_its_image_in_place():
    net = torch.nn.Linear(3, 4)
    image, reaches = net(torch.ones([2, 3])), []
    follower = balance.Follower(image, list(net.parameters()))
    tap.add_gradient(image, None, 0.0, lambda gradient: reaches.append(follower.reach(gradient, torch.tensor(1.0))))
    image.mul_(2.0)
    image.sum().backward()
    assert len(reaches) == 1 and float(reaches[0].min()) > 0


def test_a_pass_that_is_differentiated_again_is_not_the_hosts_loss():
    net = torch.nn.Linear(3, 4)
    z = torch.ones([2, 3], requires_grad=True)
    image, calls = net(z), []
    tap.add_gradient(image, torch.full([2, 4], 10.0), 0.5, calls.append)
    [slope] = torch.autograd.grad(image.sum(), z, create_graph=True)
    assert torch.allclose(slope, net.weight.sum(0).expand(2, 3)) and not calls
    (image.sum() + slope.square().sum()).backward()
    assert len(calls) == 1


def test_reentrant_checkpointing_is_a_sentence():
    from torch.utils.checkpoint import checkpoint

    first, second = torch.nn.Linear(3, 4), torch.nn.Linear(4, 4)
    image = checkpoint(second, first(torch.ones([2, 3])), use_reentrant=True)
    with pytest.raises(MADRError, match="--madr-balance-at=image"):
        balance.Follower(image, [*first.parameters(), *second.parameters()]).reach(torch.ones([2, 4]), torch.tensor(1.0))


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, "present"),
        (dict(shrink=0), "peak"),
        (dict(term="none"), "peak"),
        (dict(weight=0), "peak"),
        (dict(shrink=0, balance="present"), "present"),
        (dict(preset="paper", extractor="pca"), "fixed"),
    ],
    ids=str,
)
def test_the_default_balance_needs_the_signal(options, expected):
    assert config.resolve(dict(dict(preset="replay"), **options)).balance == expected
