"""Dia-GAN: scores by hand, which logit is whose, and how often reals are drawn."""

import numpy as np
import pytest
import torch

from training import phases, sampler, setup
from training.gan import dia_gan
from training.gan.step import Step


def moments(*histories):
    """(count, sum, squares) of lists of logits."""
    return [torch.tensor([sum(a**power for a in logits) for logits in histories], dtype=torch.float64) for power in (0, 1, 2)]


def test_scores_by_hand():
    """Mean + k std: 3 + 2 * 1, 1 + 2 * 0, 0 + 2 * 2; that without a history has their mean."""
    assert dia_gan.scores(*moments([2, 4], [1], [-2, 2], []), k=2).tolist() == pytest.approx([5, 1, 4, 10 / 3])


def test_scores_are_clipped():
    """To .01 from below, and to 50 times the smallest."""
    assert dia_gan.scores(*moments([-3], [0.3], [2]), k=1).tolist() == pytest.approx([0.01, 0.3, 0.5])
    assert dia_gan.scores(*moments([0.1], [4], [7]), k=1).tolist() == pytest.approx([0.1, 4, 5])
    assert dia_gan.scores(*moments([], []), k=1).tolist() == [1, 1]


class Numbered(torch.utils.data.Dataset):
    """Image r is of the grey r, its label [r]."""

    def __len__(self):
        return 6

    def __getitem__(self, index):
        return np.full([1, 2, 2], index, dtype=np.uint8), np.array([index], dtype=np.float32)


def attached(toy):
    """The loss, D and the part; logits are noted from kimg .008 to .032."""
    made, D, synthesis = toy("non-saturating", [("dia-gan", dict(k=0.0, record=0.008, start=0.032))])
    made.attach(dict(G=synthesis, D=D, device="cpu", random_seed=5, training_set=Numbered(), batch_gpu=4))
    return made, D, made.parts[0]


def stream(position, count=4):
    """What the loop brings: rows, images, labels."""
    order = sampler.EpochOrder(6, phases.derived_seed(5, 0))
    rows = [order(position + place) for place in range(count)]
    images, labels = zip(*(Numbered()[row] for row in rows))
    return rows, torch.from_numpy(np.stack(images)).double() / 127.5 - 1, torch.from_numpy(np.stack(labels)).double()


def learn(made, cur_nimg, batch, rounds=2, phase="Dmain"):
    """One step of two microbatches of four images."""
    made.begin_phase(phase, cur_nimg)
    _, _, z, _ = batch()
    seen = []
    for round_index in range(rounds):
        rows, images, labels = stream(cur_nimg + 4 * round_index)
        seen += zip(rows, made.D(images, labels).flatten().tolist())
        made.accumulate_gradients(phase, images, labels, z, labels, round_index == rounds - 1, 1.0)
    made.end_phase(phase)
    return seen


def test_each_logit_is_noted_for_its_real(toy, batch):
    """From kimg .008 to .032; before and after, and in other phases, nothing is. A real may come twice in a step."""
    made, D, part = attached(toy)
    noted = []
    for cur_nimg in (0, 8, 16, 24, 32):
        seen = learn(made, cur_nimg, batch)
        noted += seen if 8 <= cur_nimg < 32 else []
    learn(made, 16, batch, phase="Gmain")
    for row in range(6):
        logits = [logit for index, logit in noted if index == row]
        assert part.memory["count"][row] == len(logits)
        assert float(part.memory["sum"][row]) == pytest.approx(sum(logits))
        assert float(part.memory["squares"][row]) == pytest.approx(sum(a**2 for a in logits))
    assert len(noted) == 24


def test_a_logit_that_is_no_number_is_left_out(toy):
    _, _, part = attached(toy)
    part._noted = [torch.tensor([[0, 1], [1, float("nan")], [2, float("inf")], [0, 3]], dtype=torch.float64)]
    part.remember("Dmain")
    assert part.memory["count"].tolist() == [2, 0, 0, 0, 0, 0] and part.memory["sum"].tolist() == [4, 0, 0, 0, 0, 0]


def drawn(made, cur_nimg, microbatch, batch, count=4, phase="Dmain"):
    made.cur_nimg = cur_nimg
    _, images, labels = stream(cur_nimg, count)
    _, _, z, _ = batch(count)
    return Step(made, phase, phase[0], microbatch, images, labels, z, labels, True)


def test_reals_are_drawn_by_their_scores(toy, batch):
    """Chi-square over 6000 draws; images come as the loop hands them on, with their own labels."""
    made, D, part = attached(toy)
    part.memory["count"] += 1
    part.memory["sum"] += torch.tensor([1.0, 2, 3, 4, 5, 1], dtype=torch.float64)
    counts = torch.zeros([6])
    for number in range(60):
        step = drawn(made, 40, number, batch, count=100)
        rows = step.real_labels[:, 0]
        torch.testing.assert_close(step.reals, (rows / 127.5 - 1)[:, None, None, None].expand(-1, 1, 2, 2))
        counts += rows.long().bincount(minlength=6)
    wanted = 6000 * torch.tensor([1.0, 2, 3, 4, 5, 1]) / 16
    assert float(((counts - wanted).square() / wanted).sum()) < 20.5  # 5 degrees of freedom, 99.9%
    # The same at the same position, in the phase of penalties as well; others at another.
    first, again, penalised = (drawn(made, 40, 0, batch, 100, phase).reals for phase in ("Dmain", "Dmain", "Dreg"))
    assert torch.equal(first, again) and torch.equal(first, penalised)
    assert not torch.equal(first, drawn(made, 48, 0, batch, 100).reals) and not torch.equal(first, drawn(made, 40, 1, batch, 100).reals)


def test_before_the_start_and_in_steps_of_G_reals_stay(toy, batch):
    made, D, part = attached(toy)
    for cur_nimg, phase in ((24, "Dmain"), (40, "Gmain")):
        assert torch.equal(drawn(made, cur_nimg, 0, batch, phase=phase).reals, stream(cur_nimg)[1])


def test_a_state_brings_its_scores(toy, batch):
    made, D, part = attached(toy)
    learn(made, 8, batch)
    other, _, taken = attached(toy)
    assert len(drawn(other, 40, 0, batch).reals) == 4  # by the scores of an empty history
    other.load_state_dict(made.state_dict())
    assert all(torch.equal(taken.memory[name], part.memory[name]) for name in part.memory)
    assert torch.equal(drawn(other, 40, 0, batch, 64).reals, drawn(made, 40, 0, batch, 64).reals)


def test_rows_are_those_that_the_loop_brings(options_of, data16):
    """The stream of the data loader, at any position, in two processes."""
    options = options_of(method=["dia-gan"])
    training_set, in_memory = setup.build_training_set(options.training_set_kwargs, torch.device("cpu"))
    order = sampler.EpochOrder(len(training_set), phases.derived_seed(options.random_seed, 0))
    for rank in range(2):
        data = setup.build_data_iterator(training_set, in_memory, dict(), torch.device("cpu"), 8, 2, rank, 2, options.random_seed, 40)
        for cur_nimg, k in ((40, rank), (40, 2 + rank), (48, rank)):
            images, _ = next(data)
            assert np.array_equal(images.numpy(), np.stack([training_set[order(cur_nimg + 2 * k + place)][0] for place in range(2)]))


def test_when_it_begins(dry_run, refusal):
    options, printed = dry_run("--method=dia-gan", "--kimg=40")
    assert options["loss_kwargs"]["methods"][-1] == dict(name="dia-gan", k=0.3, record=15, start=30)
    assert "logits of reals are noted from kimg 15, reals drawn by them from kimg 30: --method=dia-gan" in printed
    for text in ("start=50", "record=30,start=20"):
        assert "use record < start < 40" in " ".join(refusal(f"--method=dia-gan:{text}", "--kimg=40").split())


@pytest.mark.parametrize("flags, words", [
    (["--gan=hinge"], "--method=dia-gan does not go with --gan=hinge"),
    (["--method=pacgan"], "--method=dia-gan and --method=pacgan contradict each other"),
    (["--madr=1", "--madr-tilt=1"], "--method=dia-gan and --madr-tilt=1 both decide which reals D sees"),
])  # fmt: skip
def test_what_it_does_not_go_with(refusal, flags, words):
    assert words in " ".join(refusal("--method=dia-gan", *flags).split())
