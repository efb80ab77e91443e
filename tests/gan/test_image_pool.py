"""The pool of past fakes: which fakes D sees, what the pool takes up, and how."""

import pytest
import torch

from tests.gan.conftest import Linear
from tests.gan.toys import assert_derivative, attach
from training.gan.image_pool import in_turn, num_past
from training.gan.step import Step


def pool_of(toy, size=8, pack=1, **context):
    made, D, synthesis = toy("lsgan", [("image-pool", dict(size=size)), *([("pacgan", dict(m=pack))] if pack > 1 else [])])
    attach(made, D, **context)
    return made, D, made.parts[0]


def images_of(*values):
    """One constant image of each value."""
    return torch.tensor(values, dtype=torch.float64).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2).clone()


def values_of(images):
    return images[:, 0, 0, 0].tolist()


def seen_by_D(made, part, values, microbatch=0, phase="Dmain", labels=None):
    step = Step(made, phase, "D", microbatch, None, None, torch.zeros([len(values), 3]), None, True)
    images, labels = part.fakes_for_D(step, images_of(*values), torch.zeros([len(values), 0]) if labels is None else labels)
    return values_of(images), labels


def test_half_of_all_microbatches_together_are_of_the_past():
    assert [num_past(k, 4) for k in range(3)] == [2, 2, 2]
    assert [num_past(k, 1) for k in range(4)] == [0, 1, 0, 1] and [num_past(k, 3) for k in range(4)] == [1, 2, 1, 2]


def test_by_hand(toy):
    """Steps of four fakes 0-3, 4-7, ...: two of the first are shown again in the second; then two each replace what is there."""
    made, _, part = pool_of(toy, size=3)
    for index in range(6):
        before = sorted(values_of(part.memory["images"]))
        new = [4.0 * index + number for number in range(4)]
        made.begin_phase("Dmain", 4 * index)
        shown, _ = seen_by_D(made, part, new)
        assert shown == new if index == 0 else shown[::2] == new[:2] and set(shown[1::2]) <= set(before) and len(set(shown)) == 4
        part.remember("Dmain")
        after = sorted(values_of(part.memory["images"]))
        assert len(after) == min(2 * index + 2, 3) and len(set(after) & set(new)) == 2 and set(after) <= set(before) | set(new)
    assert part.memory["images"].dtype == torch.float16


def test_groups_of_minibatch_deviation_are_new_or_of_the_past(toy):
    """Sixteen fakes in groups of four: StyleGAN2 compares the images m, m + 4, m + 8, m + 12."""
    made, _, part = pool_of(toy, size=50)
    made.begin_phase("Dmain", 0), seen_by_D(made, part, range(100, 116)), part.remember("Dmain")
    made.begin_phase("Dmain", 16)
    shown, _ = seen_by_D(made, part, range(16))
    assert all(len({value >= 100 for value in shown[m::4]}) == 1 for m in range(4)) and sum(value >= 100 for value in shown) == 8
    assert in_turn(2, 3, 1).tolist() == [0, 2, 1, 3, 4] and in_turn(3, 2, 1).tolist() == [0, 3, 1, 4, 2]
    assert in_turn(1, 1, 2).tolist() == [0, 1, 2, 3] and in_turn(2, 1, 2).tolist() == [0, 1, 4, 5, 2, 3]


def test_only_adversarial_steps_fill_the_pool_and_penalties_see_it(toy):
    made, _, part = pool_of(toy)
    made.begin_phase("Dmain", 0), seen_by_D(made, part, [1.0, 2, 3, 4]), part.remember("Dmain")
    made.begin_phase("Dreg", 0)
    shown, _ = seen_by_D(made, part, [5.0, 6, 7, 8], phase="Dreg")
    part.remember("Dreg"), part.remember("Gmain")
    assert set(shown) - {5.0, 6.0} == set(values_of(part.memory["images"])) and len(part.memory["images"]) == 2


def test_labels_stay_with_their_images(toy):
    made, _, part = pool_of(toy, size=50)
    part.memory["labels"] = torch.zeros([0, 1])
    for index in range(5):
        new = [4.0 * index + number for number in range(4)]
        made.begin_phase("Dmain", 4 * index)
        shown, labels = seen_by_D(made, part, new, labels=torch.tensor(new)[:, None])
        assert labels[:, 0].tolist() == shown
        part.remember("Dmain")


def test_consistency_judges_fresh_fakes_under_their_own_labels(toy):
    """Half of what D sees has the labels of the past; G's own images, of which zcr asks D, have those of the step."""

    class LabelReader(Linear):
        def forward(self, img, c):
            told.append(c[:, 0].tolist())
            return super().forward(img, c) + c

    told, D = [], LabelReader([1, 2, 2])
    made, *_ = toy("lsgan", [("image-pool", dict(size=8)), ("zcr", {})], D=D)
    attach(made, D)
    made.parts[0].memory.update(images=images_of(0.25, 0.5, 0.75).half(), labels=torch.full([3, 1], 9.0))
    labels = torch.arange(4.0, dtype=torch.float64)[:, None]
    made.begin_phase("Dmain", 0)
    step = Step(made, "Dmain", "D", 0, None, None, torch.randn(4, 3, dtype=torch.float64), labels, True)
    step.fake_logits, made.parts[1].discriminator_term(step)
    assert told == [[0, 9, 1, 9], [0, 1, 2, 3], [0, 1, 2, 3]]


def test_packs_are_new_or_of_the_past_as_a_whole(toy):
    made, _, part = pool_of(toy, pack=3)
    made.begin_phase("Dmain", 0), seen_by_D(made, part, range(12)), part.remember("Dmain")
    made.begin_phase("Dmain", 12)
    shown, _ = seen_by_D(made, part, range(20, 26), microbatch=1)
    assert shown[:3] == [20, 21, 22] and max(shown[3:]) < 12
    shown, _ = seen_by_D(made, part, range(20, 23), microbatch=0)
    assert shown == [20, 21, 22]


def test_how_a_step_is_divided_changes_nothing(toy):
    """Two microbatches of four are shown the images of the past that one of eight is shown, each once."""
    made, _, part = pool_of(toy, size=50)
    for index in range(3):
        made.begin_phase("Dmain", 8 * index), seen_by_D(made, part, [8.0 * index + number for number in range(8)]), part.remember("Dmain")
    made.begin_phase("Dmain", 24)
    whole, _ = seen_by_D(made, part, range(100, 108))
    halves = [seen_by_D(made, part, range(100, 104), microbatch=k)[0] for k in range(2)]
    assert whole[1::2] == halves[0][1::2] + halves[1][1::2] and len(set(whole)) == 8


def test_every_image_of_the_pool_is_replaced_as_often_as_others(toy):
    made, _, part = pool_of(toy, size=10)
    stayed = torch.zeros(10)
    for index in range(400):
        before = part.memory["images"].clone()
        made.begin_phase("Dmain", 8 * index), seen_by_D(made, part, [8.0 * (index % 100) + number for number in range(8)]), part.remember("Dmain")
        if len(before) == 10:
            stayed += (before == part.memory["images"]).flatten(1).all(1)
    replaced = 397 - stayed  # four of ten each time, after three steps that filled the pool
    assert float((replaced - 397 * 0.4).abs().max()) < 4 * (397 * 0.4 * 0.6) ** 0.5


def test_a_step_that_is_not_finite_does_not_stay(toy):
    made, _, part = pool_of(toy)
    made.begin_phase("Dmain", 0), seen_by_D(made, part, [float("nan"), float("inf"), -float("inf"), 1e30]), part.remember("Dmain")
    assert bool(part.memory["images"].isfinite().all())


def test_the_whole_loss_has_the_gradient_of_its_value(toy, batch, monkeypatch):
    """D's terms are means over all its fakes, half of them of the past."""
    made, D, part = pool_of(toy)
    reals, none, z, c = batch()
    part.memory["images"] = images_of(0.25, -0.5, 0.75).half()
    part.memory["labels"] = torch.zeros([3, 0])
    assert_derivative(made, D, "Dmain", (reals, none, z, c), monkeypatch)
    made.begin_phase("Dmain", 0)
    step = Step(made, "Dmain", "D", 0, reals, none, z, c, True)
    fakes = step.fakes
    assert not step.fakes_are_fresh and torch.equal(fakes[::2], made.G_synthesis(z[:, None])[:2].detach()) and len(set(values_of(fakes[1::2]))) == 2
    wanted = (D(fakes, c).square() / 2).mean() + ((D(reals, none) - 1).square() / 2).mean()
    [gradient] = torch.autograd.grad(wanted, [D.weight])
    torch.testing.assert_close(D.weight.grad, gradient)


def test_a_batch_without_halves_is_refused(refusal, dry_run):
    said = " ".join(refusal("--method=image-pool", "--batch=1").split())
    assert "--method=image-pool fills half of D's batch" in said and "--batch=1 is a single image" in said and "--batch=2 or more" in said
    said = " ".join(refusal("--method=image-pool:size=50", "--method=pacgan:m=4", "--batch=4").split())
    assert "--batch=4 is a single pack" in said and "--batch=8 or more" in said
    _, printed = dry_run("--method=image-pool:size=50", "--batch=4")
    assert "a pool of 50, which takes 0.0768 MB" in printed


@pytest.mark.parametrize("value", ["0", "-1", "2.5", "many"])
def test_sizes(refusal, value):
    assert "size must be a whole number from 1" in " ".join(refusal(f"--method=image-pool:size={value}").split())
