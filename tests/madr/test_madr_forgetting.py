"""The meter of forgetting: by hand, on a host that must not notice it, over processes' order, resuming, discriminators that it cannot ask."""

import copy

import pytest
import torch

from madr_plugin.host.discriminator_access import DiscriminatorAccess
from madr_plugin.memory import forgetting
from madr_plugin.memory.forgetting import ForgettingMeter
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Discriminator, Host, madr_loss

SMALL = dict(preset="witness")


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(forgetting, "EVERY", 2)
    monkeypatch.setattr(forgetting, "LEAST_IMAGES", 1)


def images(value, count=32):
    return torch.full([count, 1, 2, 2], float(value))


def test_it_is_the_change_since_d_had_learned_them():
    """D gives an image its value plus an offset of its own for images of value 1: learned at once (-3), then forgotten (+2)."""
    meter, offset = ForgettingMeter(), {0.0: 0.0, 1.0: 0.0}
    logits_of = lambda x, _labels: x[:, 0, 0, 0] + offset[float(x[0, 0, 0, 0])]
    meter.look(images(1), torch.zeros([32, 0]), logits_of)
    assert meter.value is None
    offset[1.0] = -3  # what D has learned by the next look is what is compared with, not what it said at first
    meter.look(images(0), torch.zeros([32, 0]), logits_of)
    assert meter.value is None
    offset[1.0] = 2
    meter.look(images(0), torch.zeros([32, 0]), logits_of)
    assert meter.value == pytest.approx(5)
    meter.look(images(0), torch.zeros([32, 0]), logits_of)
    assert meter.value == pytest.approx(5 / 2)  # two groups are judged now, and D knows the second as it did


def test_old_groups_leave_and_256_images_are_judged():
    meter, judged = ForgettingMeter(), []
    for look in range(20):
        judged.clear()
        meter.look(images(look), torch.zeros([32, 0]), lambda x, _: judged.append(len(x)) or x[:, 0, 0, 0] + look)
    assert sum(judged) == 256 + 32 and len(meter.groups) == 9  # the youngest is not compared yet
    assert [float(group["images"][0, 0, 0, 0]) for group in meter.groups] == list(range(11, 20))
    assert meter.value == pytest.approx(sum(range(1, 9)) / 8)  # one nat per look since each was learned, one to eight looks


@pytest.mark.parametrize("batch, between", [(1, 4096), (16, 256), (20, 256), (64, 64), (512, 64)])
def test_small_batches_take_more_steps_between_two_looks(monkeypatch, batch, between):
    """Not every image costs one of D: a look judges 288."""
    monkeypatch.undo()
    looks = [step for step in range(4 * 4096 + 1) if ForgettingMeter().is_due(step, step * batch)]
    assert looks[0] == 0 and abs((len(looks) - 1) * between / (4 * 4096) - 1) < 0.3
    assert all(later - earlier >= 64 and (later - earlier) * batch >= 4096 - 64 * batch for earlier, later in zip(looks, looks[1:]))


def test_memory_is_bounded():
    assert forgetting.group_size(torch.zeros([64, 3, 32, 32])) == 32
    large = torch.zeros([64, 3, 256, 256], dtype=torch.uint8)
    size = forgetting.group_size(large)
    assert size == 4 and size * 9 * 2 * large[0].numel() <= forgetting.MOST_BYTES
    assert forgetting.group_size(torch.zeros([3, 1, 2, 2])) == 3
    assert forgetting.group_size(torch.zeros([48, 1, 2, 2])) == 24  # of which groups of 3 can be made, too


def test_the_host_does_not_notice_it():
    """Weights and every other state are the same with and without it, also where D has buffers that its forward moves."""
    hosts = []
    for on in (0, 1):
        host = Host(madr_loss(dict(SMALL, forgetting=on)))
        for _ in range(8):
            host.step()
        hosts.append(host)
    without, with_it = hosts
    assert "forgetting" not in without.loss.telemetry() and isinstance(with_it.loss.engine.telemetry()["forgetting"], float)
    assert all(torch.equal(a, b) for a, b in zip(without.weights(), with_it.weights()))
    states = [host.loss.state_dict()["madr"] for host in hosts]
    assert set(states[1]) - set(states[0]) == {"forgetting"}


class Moving(Discriminator):
    """Counts its calls in a buffer and draws random numbers, as batch normalisation and dropout do."""

    def __init__(self):
        super().__init__()
        self.register_buffer("calls", torch.zeros([]))

    def forward(self, img, c):
        self.calls += 1
        return super().forward(img, c) + 0 * torch.rand([])


def test_asking_leaves_buffers_mode_and_random_numbers():
    D = Moving()
    state = torch.get_rng_state()
    found = DiscriminatorAccess(D).logits(torch.zeros([4, 3, 8, 8]), torch.zeros([4, 0]))
    assert found.shape == (4,) and float(D.calls) == 0 and D.training and torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in D.parameters())


def test_resuming_is_bit_exact():
    whole, first, second = (Host(madr_loss(SMALL)) for _ in range(3))
    for _ in range(7):
        whole.step(), first.step()
    for name in ("mapping", "synthesis", "D", "G_opt", "D_opt"):
        getattr(second, name).load_state_dict(copy.deepcopy(getattr(first, name).state_dict()))
    second.cur_nimg = first.cur_nimg
    second.loss.load_state_dict(copy.deepcopy(first.loss.state_dict()))
    assert second.loss.engine.forgetting.value == first.loss.engine.forgetting.value
    for _ in range(4):
        whole.step(), second.step()
    a, b = (host.loss.state_dict()["madr"]["forgetting"] for host in (whole, second))
    assert a["value"] == b["value"] and list(a["groups"]) == list(b["groups"])
    for key, group in a["groups"].items():
        assert all(torch.equal(value, b["groups"][key][name]) for name, value in group.items())


class Packed(Discriminator):
    """One logit for two images, as PacGAN's."""

    def forward(self, img, c):
        return super().forward(img, c)[::2]


@pytest.mark.parametrize("kind, words", [(Packed, "one logit per image"), (None, "ValueError: no images as they come")])
def test_a_discriminator_that_cannot_be_asked_is_told_once_and_ends_nothing(kind, words):
    meter = ForgettingMeter()

    def refusing(_images, _labels):
        raise ValueError("no images as they come")

    meter.look(
        images(1), torch.zeros([32, 0]), refusing if kind is None else lambda x, c: DiscriminatorAccess(kind()).logits(torch.zeros([8, 3, 8, 8]), c)
    )
    assert words in meter.fault and not meter.is_due(0, 0) and meter.value is None
    [sentence] = meter.sentences()
    assert sentence.startswith("MADR: forgetting is not measured") and meter.sentences() == []
    with pytest.raises(MADRError, match="one logit per image"):
        DiscriminatorAccess(Packed()).logits(torch.zeros([8, 3, 8, 8]), torch.zeros([8, 0]))
