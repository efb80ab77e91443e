"""Order of the data, seeds, gradient synchronisation, EMA, ADA: the parts of a step."""

import collections
import itertools
import os
import signal

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from training import ada, ema, phases, setup
from training.sampler import EpochOrder, MicrobatchSampler


@given(num_items=st.integers(1, 50), seed=st.integers(0, 2**40), start=st.integers(0, 200))
@settings(max_examples=50, deadline=None)
def test_every_epoch_is_a_permutation_and_any_position_can_be_entered(num_items, seed, start):
    order = EpochOrder(num_items, seed)
    stream = [order(p) for p in range(5 * num_items)]
    for epoch in range(5):
        assert sorted(stream[epoch * num_items : (epoch + 1) * num_items]) == list(range(num_items))
    late = EpochOrder(num_items, seed)
    assert [late(p) for p in range(start, start + 10)] == [EpochOrder(num_items, seed)(p) for p in range(start, start + 10)]


def test_epochs_and_seeds_differ():
    order = EpochOrder(100, 0)
    first, second = [order(p) for p in range(100)], [order(p) for p in range(100, 200)]
    other = EpochOrder(100, 1)
    assert first != second and first != [other(p) for p in range(100)] and first != list(range(100))


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 6])
def test_microbatches_do_not_depend_on_the_number_of_ranks(num_ranks):
    order = EpochOrder(17, 3)
    per_rank = [list(itertools.islice(MicrobatchSampler(order, 24, 4, r, num_ranks, start_nimg=48), 2 * 6 // num_ranks)) for r in range(num_ranks)]
    rounds = 6 // num_ranks
    merged = [per_rank[k % num_ranks][step * rounds + k // num_ranks] for step in range(2) for k in range(6)]
    assert list(itertools.chain(*merged)) == [order(p) for p in range(48, 96)]


def test_derived_seeds_do_not_collide():
    seeds = {phases.derived_seed(*numbers) for numbers in itertools.product(range(3), range(0, 320, 32), range(4), range(4), range(1, 3))}
    assert len(seeds) == 3 * 10 * 4 * 4 * 2 and all(0 <= seed < 2**63 for seed in seeds)


def test_latents_depend_on_the_microbatch_alone_and_leave_the_global_generator():
    labels = torch.eye(5)
    before = torch.get_rng_state()
    z, c = phases.draw_latents(0, 3, 8, 16, labels, random_seed=1, cur_nimg=64)
    torch.randn(7)
    again, _ = phases.draw_latents(0, 3, 8, 16, labels, random_seed=1, cur_nimg=64)
    assert torch.equal(z, again) and z.shape == (8, 16) and c.shape == (8, 5)
    others = [
        phases.draw_latents(*a, 8, 16, labels, random_seed=s, cur_nimg=n)[0]
        for a, s, n in [((1, 3), 1, 64), ((0, 2), 1, 64), ((0, 3), 2, 64), ((0, 3), 1, 96)]
    ]
    assert all(not torch.equal(z, other) for other in others)
    torch.set_rng_state(before)
    phases.draw_latents(0, 3, 8, 16, labels, 1, 64)
    assert torch.equal(before, torch.get_rng_state())


def test_labels_of_fakes_follow_those_of_the_reals():
    labels = torch.eye(2)[torch.tensor([0, 0, 0, 1])]
    drawn = torch.cat([phases.draw_latents(0, k, 64, 4, labels, 0, 0)[1] for k in range(40)])
    assert abs(float(drawn[:, 1].mean()) - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(drawn))


def test_synchronise_replaces_and_counts_what_is_not_finite():
    p, q = torch.nn.Parameter(torch.zeros(3)), torch.nn.Parameter(torch.zeros(2, 2))
    p.grad, q.grad = torch.tensor([1.0, float("nan"), float("inf")]), torch.full([2, 2], -float("inf"))
    assert int(phases.synchronise_gradients([p, q, torch.nn.Parameter(torch.zeros(1))])) == 6
    assert p.grad.tolist() == [1.0, 0.0, 1e5] and q.grad.flatten().tolist() == [-1e5] * 4


def test_sound_gradients_of_one_process_stay_where_they_are():
    p = torch.nn.Parameter(torch.zeros(3))
    p.grad = torch.tensor([1.0, -2.0, 3e38])
    place = p.grad.data_ptr(), p.grad._version
    assert int(phases.synchronise_gradients([p])) == 0
    assert (p.grad.data_ptr(), p.grad._version) == place and p.grad.tolist()[:2] == [1.0, -2.0]


def test_gradients_take_the_layout_of_their_weights():
    """Fused Adam goes through memory: with other strides it would give numbers to weights that they do not belong to."""
    start, gradient = torch.randn(4, 3, 2, 2).contiguous(memory_format=torch.channels_last), torch.randn(4, 3, 2, 2)
    ends = []
    for fused in (True, False):
        p = torch.nn.Parameter(start.clone())
        p.grad = gradient.clone()
        assert p.grad.stride() != p.stride()
        phases.synchronise_gradients([p])
        torch.optim.Adam([p], lr=0.1, fused=fused).step()
        ends.append(p.detach())
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0], start)


def test_finite_gradients_whose_sum_overflows_are_not_taken_for_infinite():
    p = torch.nn.Parameter(torch.zeros(2))
    p.grad = torch.tensor([3e38, 3e38])
    assert int(phases.synchronise_gradients([p])) == 0 and torch.equal(p.grad, torch.tensor([3e38, 3e38]))


def test_lazy_regularisation_rescales_the_optimizer():
    G, D = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    kwargs = dict(class_name="torch.optim.Adam", lr=0.5, betas=[0.25, 0.81], eps=1e-8)
    made, optimizers = phases.setup_phases(G, D, kwargs, kwargs, 4, None)
    assert [(p.name, p.interval) for p in made] == [("Gmain", 1), ("Greg", 4), ("Dboth", 1)]
    assert made[0].opt is made[1].opt is optimizers["G"]
    group = optimizers["G"].param_groups[0]
    assert group["lr"] == pytest.approx(0.4) and list(group["betas"]) == pytest.approx([0.25**0.8, 0.81**0.8])
    assert optimizers["D"].param_groups[0]["lr"] == 0.5


def test_ema_halves_after_its_half_life_and_copies_buffers():
    average, current = torch.nn.BatchNorm1d(1), torch.nn.BatchNorm1d(1)
    with torch.no_grad():
        average.weight.fill_(1), current.weight.fill_(0), current.running_mean.fill_(5)
    for _ in range(100):  # 100 steps of 10 images = 1 kimg
        ema.update_ema(average, current, ema.ema_beta(10, 1, None, 0))
    assert float(average.weight) == pytest.approx(0.5, abs=1e-4) and float(average.running_mean) == 5
    assert ema.ema_beta(10, 1, 0.05, cur_nimg=0) == 0 and ema.ema_beta(10, 1, 0.05, 2000) == 0.5**0.1


def test_ada_moves_towards_its_target_within_bounds():
    step = 64 * 4 / 500e3
    assert ada.adapted_p(0.2, 0.9, 0.6, 64, 4, 500, 1.0) == pytest.approx(0.2 + step)
    assert ada.adapted_p(0.2, 0.1, 0.6, 64, 4, 500, 1.0) == pytest.approx(0.2 - step)
    assert ada.adapted_p(0.0, -1.0, 0.6, 64, 4, 500, 1.0) == 0
    assert ada.adapted_p(0.8, 1.0, 0.6, 64, 4, 0.01, 0.8) == 0.8
    assert ada.adapted_p(0.3, float("nan"), 0.6, 64, 4, 500, 1.0) == 0.3 == ada.adapted_p(0.3, 0.6, 0.6, 64, 4, 500, 1.0)


def test_epoch_order_is_uniform():
    counts = collections.Counter(EpochOrder(10, seed)(0) for seed in range(2000))
    chi2 = sum((counts[i] - 200) ** 2 / 200 for i in range(10))
    assert chi2 < 27.9  # 99.9% quantile with 9 degrees of freedom


def test_readers_outlive_ctrl_c(tiny_zip):
    """The terminal sends it to all processes; the loop needs its readers for the step after which it saves."""
    kwargs = dict(class_name="training.dataset.ImageFolderDataset", path=tiny_zip())
    training_set, _ = setup.build_training_set(kwargs, torch.device("cpu"))
    batches = setup.build_data_iterator(training_set, False, dict(num_workers=1, prefetch_factor=1), torch.device("cpu"), 4, 4, 0, 1, 0, 0)
    next(batches)
    os.kill(batches._workers[0].pid, signal.SIGINT)
    shapes = {tuple(next(batches)[0].shape) for _ in range(4)}  # more than was fetched ahead
    assert len(shapes) == 1 and batches._workers[0].is_alive()


@pytest.mark.parametrize("gpu", [False, True])
def test_seeds_of_microbatches_are_those_of_torch(monkeypatch, gpu):
    """Also where no GPU is in use and the rest of torch.manual_seed() is left out."""
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: gpu)
    torch.manual_seed(phases.derived_seed(5, 64, 1, 3, 2))
    expected = torch.rand(4)
    phases.seed_microbatch(5, 64, 1, 3)
    assert torch.equal(torch.rand(4), expected)
