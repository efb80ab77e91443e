"""Every route to the published coverage score gives the same number, and its ratio to the reals' own is 1 at p_g = p_data."""

import pytest
import torch
from hypothesis import given, settings, strategies as st

from madr_plugin import config
from madr_plugin.maths import coverage, estimators, terms
from madr_spaces.errors import MADRError
from tests.madr.toy_host import Host, madr_loss

HALF_LEVEL = 0.51 / estimators.IncrementalScore.LEVELS + 1e-6  # and the rounding of float32


def drawn(count, width, seed):
    return torch.randn([count, width], generator=torch.Generator().manual_seed(seed))


@settings(max_examples=30, deadline=None)
@given(
    num_reals=st.integers(2, 60),
    width=st.integers(1, 20),
    sigma=st.floats(0.3, 5),
    changes=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 39)), max_size=12),
    seed=st.integers(0, 1000),
)
def test_brute_force_incremental_and_nearest_of_all_agree(num_reals, width, sigma, changes, seed):
    """Through any history of a memory that grows and replaces entries."""
    real, memory = drawn(num_reals, width, seed), drawn(40, width, seed + 1)
    exact, incremental = estimators.build("exact", real), estimators.build("incremental", real)
    size = 5
    for grown, replaced in [(0, 0), *changes]:
        size = max(size, min(grown, 40))
        memory[replaced % size] = drawn(1, width, seed + replaced)[0]
        expected = exact.scores(memory[:size], sigma)
        assert torch.allclose(incremental.scores(memory[:size], sigma), expected, rtol=1e-6, atol=HALF_LEVEL)
        assert torch.allclose(estimators.build("exact", real, k=40).scores(memory[:size], sigma), expected, rtol=1e-4, atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(num_reals=st.integers(1, 60), width=st.integers(1, 20), k=st.integers(1, 50), sigma=st.floats(0.3, 5), seed=st.integers(0, 1000))
def test_faiss_agrees_with_brute_force_among_the_nearest(num_reals, width, k, sigma, seed):
    pytest.importorskip("faiss")
    real, memory = drawn(num_reals, width, seed), drawn(40, width, seed + 1)
    brute, faiss = (estimators.build(name, real, k=k).scores(memory, sigma) for name in ("exact", "faiss"))
    assert torch.allclose(brute, faiss, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("most_bytes", [1 << 30, 0], ids=["levels kept", "levels computed again"])
def test_ten_thousand_updates_leave_no_error_behind(monkeypatch, most_bytes):
    monkeypatch.setattr(estimators.IncrementalScore, "MOST_BYTES", most_bytes)
    real, memory = drawn(70, 5, 0), drawn(30, 5, 1)
    incremental, generator = estimators.build("incremental", real), torch.Generator().manual_seed(2)
    for _ in range(10_000):
        memory[torch.randint(30, [4], generator=generator)] = torch.randn([4, 5], generator=generator)
        scores = incremental.scores(memory, 1.5)
    expected = coverage.kernel_score(real.double(), memory.double(), 1.5)
    assert float((scores - expected).abs().max()) < 1e-5
    assert (incremental.levels_KN is None) == (most_bytes == 0)


def test_a_memory_that_outgrows_the_room_for_levels_goes_on_without(monkeypatch):
    real, memory = drawn(20, 3, 0), drawn(40, 3, 1)
    monkeypatch.setattr(estimators.IncrementalScore, "MOST_BYTES", 2 * 20 * 25)
    incremental = estimators.build("incremental", real)
    for size in (10, 20, 24, 25, 26, 40):
        memory[size // 2] += 1
        expected = estimators.build("exact", real).scores(memory[:size], 1.0)
        assert torch.allclose(incremental.scores(memory[:size], 1.0), expected, rtol=1e-6, atol=HALF_LEVEL)
        assert (incremental.levels_KN is None) == (size > 25)


def test_ratio_is_one_where_the_memory_is_as_the_reals_are():
    real = drawn(1500, 3, 0)
    at_equilibrium = estimators.build("ratio", real).scores(drawn(1500, 3, 1), 1.0)
    assert float(at_equilibrium.mean()) == pytest.approx(1, abs=0.05)
    missing = real[:, 0] > 1.0
    memory = drawn(1500, 3, 1)
    without = estimators.build("ratio", real).scores(memory[memory[:, 0] < 0], 0.3)
    assert float(without[missing].mean()) < 0.1 and float(without[real[:, 0] < -0.5].mean()) > 1.5


def test_the_reals_own_score_is_leave_one_out():
    """Also where each row stands for several reals: as if all of them were listed."""
    real, memory = drawn(40, 3, 0), drawn(20, 3, 1)
    own = coverage.leave_one_out_score(real, lambda squared: terms.gaussian_kernel(squared, 0.8))
    assert torch.allclose(estimators.build("ratio", real).scores(memory, 0.8), coverage.kernel_score(real, memory, 0.8) / own, rtol=1e-4)
    mass = torch.randint(1, 5, [40], generator=torch.Generator().manual_seed(0)).float()
    full = real.repeat_interleave(mass.long(), dim=0)
    assert torch.allclose(
        estimators.build("ratio", real, mass_N=mass).scores(memory, 0.8).repeat_interleave(mass.long()),
        estimators.build("ratio", full).scores(memory, 0.8),
        rtol=1e-4,
    )


def test_the_ratio_makes_weights_that_differ():
    """The published score lies in [0, 1] and its weights hardly differ; the ratio does not saturate at small scores."""
    host = Host(madr_loss(dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1, estimator="ratio")))
    for _ in range(4):
        host.step()
    ratio = host.loss.engine.objective.weights_N
    plain = terms.paper_weights(
        coverage.kernel_score(host.loss.engine.reference.features_ND, host.loss.engine.memory.filled("features"), host.loss.engine.objective.sigma),
        1.0,
    )
    assert float(terms.effective_number(ratio)) < float(terms.effective_number(plain)) and float(ratio.sum()) == pytest.approx(1)
    with pytest.raises(MADRError, match="--madr-estimator=ratio .*--madr-term=paper"):
        config.resolve(dict(estimator="ratio"))


def test_parts_of_enhanced_come_with_its_term_or_alone():
    preset = config.resolve(dict(preset="enhanced"))
    assert (
        (preset.top_k, preset.bandwidth, preset.start_step)
        == (20, "warm", 500)
        == tuple(getattr(config.resolve(dict(term="enhanced", balance="fixed")), name) for name in ("top_k", "bandwidth", "start_step"))
    )
    assert config.resolve(dict(preset="enhanced", start_step=0, top_k=3)).top_k == 3
    alone = config.resolve(dict(preset="paper", top_k=5, estimator="faiss"))
    assert (alone.top_k, alone.bandwidth, alone.start_step) == (5, "memory", 0)


def test_the_published_term_starts_after_the_stated_steps():
    host = Host(madr_loss(dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1, start_step=6)))
    started = []
    for _ in range(8):
        host.step(num_microbatches=2)
        started.append(host.loss.engine.objective.weights_N is not None)
    assert started == [False] * 5 + [True] * 3


def test_top_k_alone_changes_the_scores():
    weights = []
    for top_k in (0, 2):
        host = Host(madr_loss(dict(preset="paper", extractor="pca", update_interval=1, start_fill=0.1, top_k=top_k)))
        for _ in range(3):
            host.step(num_microbatches=2)
        weights.append(host.loss.engine.objective.weights_N)
    assert not torch.allclose(*weights)
