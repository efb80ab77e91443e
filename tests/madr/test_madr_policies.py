"""Each memory policy against its law, by chi-square; and saved and restored to the bit."""

import io

import numpy as np
import pytest
import torch
from scipy import stats

from madr_plugin.memory.sample_memory import SampleMemory
from madr_spaces.seeds import generator_for
from tests.madr.test_madr_memory import fill, samples, survivors


def full_memory(policy, importance):
    memory = SampleMemory(len(importance), policy, half_life_kimg=0.0001)  # a mean age far below the capacity: every offer is taken
    memory.offer(samples(0, len(importance), importance), 0, 0, generator_for("first"))
    return memory


def test_forgetting_follows_its_half_life():
    """Capacity 50 of which an offer replaces a random one with probability 50/mean age: ages are geometric. Groups of half a half-life."""
    runs = 60
    kept = survivors("forgetting", runs, capacity=50, total=800, batch=50, half_life_kimg=0.1)
    by_age = kept[::-1].reshape(16, 50).sum(1)
    expected = 0.5 ** (np.arange(16) / 2)
    expected *= by_age.sum() / expected.sum()
    # The first 50 fill the memory for certain and stand for all that came before.
    by_age, expected = by_age[:12], expected[:12] * by_age[:12].sum() / expected[:12].sum()
    # Survivors of one run crowd each other out, which makes the statistic smaller, never larger.
    assert stats.chisquare(by_age, expected).pvalue > 1e-3


def test_importance_evicts_in_inverse_proportion():
    importance = torch.tensor([1.0, 2.0, 4.0, 8.0])
    evicted = np.zeros(4)
    for seed in range(1500):
        memory = full_memory("importance", importance)
        memory.offered = 0  # acceptance K/n: the next offer is taken
        if memory.offer(samples(100, 1), 1, 4, generator_for("one", seed)):
            evicted[int((memory.filled("features")[:, 0] == 100).nonzero()[0, 0])] += 1
    expected = 1 / importance.double().numpy()
    assert evicted.sum() == 1500 and stats.chisquare(evicted, expected / expected.sum() * 1500).pvalue > 1e-3


def test_progressive_keeps_all_offers_alike_once_it_stands_still():
    """At a constant effective capacity it is a reservoir: step 0 throughout means 128 slots."""
    kept = np.zeros(400)
    for seed in range(150):
        memory = SampleMemory(1000, "progressive", 1.0)
        for first in range(0, 400, 40):
            memory.offer(samples(first, 40), 0, first, generator_for("progressive", seed, first))
        assert memory.count == 128
        kept[memory.filled("features")[:, 0].long().numpy()] += 1
    assert stats.chisquare(kept.reshape(10, 40).sum(1)).pvalue > 1e-3


def test_fifo_holds_exactly_the_newest_and_where_they_came_from():
    memory = fill("fifo", 0, capacity=15)
    number, born = memory.filled("features")[:, 0].long(), memory.filled("born")
    assert sorted(number.tolist()) == list(range(85, 100)) and torch.equal(born, number // 10 * 10)


@pytest.mark.parametrize("policy", ["reservoir", "fifo", "forgetting", "progressive", "importance"])
def test_saved_and_restored_to_the_bit(policy):
    importance_of = (lambda n: 1.0 + n % 7) if policy == "importance" else None
    whole, half = (fill(policy, 3, capacity=30, total=total, importance_of=importance_of) for total in (200, 100))
    file = io.BytesIO()
    torch.save(half.live_state(), file)
    restored = SampleMemory(30, policy, 1.0)
    restored.load(torch.load(io.BytesIO(file.getvalue()), weights_only=True), torch.device("cpu"))
    for step in range(10, 20):
        importance = None if importance_of is None else torch.tensor([importance_of(n) for n in range(step * 10, step * 10 + 10)])
        restored.offer(samples(step * 10, 10, importance), step, step * 10, generator_for("test", 3, step))
    assert (restored.count, restored.offered, restored.next_slot) == (whole.count, whole.offered, whole.next_slot)
    assert all(torch.equal(restored.tensors[name], whole.tensors[name]) for name in SampleMemory.FIELDS)
