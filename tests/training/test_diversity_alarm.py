"""The diversity monitor's alarm: silent on healthy generators, prompt on collapse and cycling, and what it says."""

import numpy as np
import pytest
import torch

from tests.training.planted_modes import (
    LATE,
    NUM_MODES,
    SIZE,
    STEPS_PER_TICK,
    drawn,
    fitted_monitor,
    healthy_life,
    images_of,
    new_monitor,
    only,
    run_life,
    wobbling,
)

HEALTHY_TICKS = 12
LATE_TICKS = LATE // STEPS_PER_TICK


def collapsed(kind, rng):
    """Endless thumbnails of a sick generator."""
    tick = 0
    while True:
        tick += 1
        if kind == "constant":
            yield images_of([4], np.random.default_rng(0)).expand(256, -1)
        elif kind == "two of ten":
            yield drawn(only(2, 7), rng)
        elif kind == "one mode at a time":
            yield drawn(only(tick % NUM_MODES), rng)
        elif kind == "halves in turn":
            yield drawn(only(*range(tick % 2 * 5, tick % 2 * 5 + 5)), rng)
        elif kind == "noise":
            yield torch.from_numpy(3 * rng.standard_normal([256, SIZE])).to(torch.float32)


def first(source, count):
    return [next(source) for _ in range(count)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("learning_ticks", [3, 40])
def test_never_on_a_healthy_generator(seed, learning_ticks):
    """Quick and slow learners, from noise on, with shares that wobble and with the noise of sampling."""
    rng = np.random.default_rng(seed)
    numbers, sentences = run_life(fitted_monitor(seed=seed), healthy_life(rng, 60, learning_ticks))
    assert sentences == [] and {n["alarm"] for n in numbers} == {0}
    assert numbers[0]["diversity"] < 0.1 and numbers[-1]["diversity"] > 0.6


@pytest.mark.parametrize("kind, alarm", [("constant", 1), ("two of ten", 1), ("one mode at a time", 2), ("halves in turn", 2), ("noise", 1)])
@pytest.mark.parametrize("seed", range(3))
def test_within_two_ticks_of_the_fall(kind, alarm, seed):
    monitor, rng = fitted_monitor(seed=seed), np.random.default_rng(seed)
    _, before = run_life(monitor, healthy_life(rng, HEALTHY_TICKS, 3))
    numbers, sentences = run_life(monitor, first(collapsed(kind, rng), 2))
    assert before == [] and numbers[1]["alarm"] == alarm and len(sentences) == 1
    assert {1: "has collapsed" if kind != "noise" else "unlike the real ones, 0% lie near any", 2: "cycles through modes"}[alarm] in sentences[0]
    later, more = run_life(monitor, first(collapsed(kind, rng), 30))  # it does not get used to it
    assert {n["alarm"] for n in later} == {alarm} and more == []


@pytest.mark.parametrize("kind, alarm", [("constant", 1), ("two of ten", 1), ("one mode at a time", 2), ("noise", 1)])
def test_collapsed_from_the_start(kind, alarm):
    """Left alone as long as a start may take; then told at once."""
    numbers, sentences = run_life(fitted_monitor(), first(collapsed(kind, np.random.default_rng(0)), LATE_TICKS + 2))
    assert {n["alarm"] for n in numbers[:LATE_TICKS]} == {0}
    assert numbers[LATE_TICKS + 1]["alarm"] == alarm and "no healthy snapshot yet" in sentences[0]


def test_one_bad_tick_is_no_collapse():
    monitor, rng = fitted_monitor(), np.random.default_rng(0)
    life = [drawn(wobbling(rng), rng) if tick % 5 else drawn(only(3), rng) for tick in range(1, 40)]
    assert run_life(monitor, life)[1] == []


def test_collapse_then_motion_is_called_cycling_and_recovery_is_told():
    monitor, rng = fitted_monitor(), np.random.default_rng(0)
    _, sentences = run_life(monitor, [*healthy_life(rng, HEALTHY_TICKS, 3), drawn(only(1), rng), drawn(only(1), rng), drawn(only(2), rng)])
    assert ["collapsed" in s for s in sentences] == [True, False] and "cycles" in sentences[1]
    numbers, sentences = run_life(monitor, [drawn(wobbling(rng), rng) for _ in range(12)])
    assert len(sentences) == 1 and "diverse again" in sentences[0] and numbers[-1]["alarm"] == 0


def test_the_last_healthy_snapshot_is_named_and_later_ones_are_not():
    monitor, rng = fitted_monitor(), np.random.default_rng(0)

    def tick(kimg, thumbs):
        monitor.observe(thumbs, kimg, int(kimg * 100))
        monitor.note_snapshot(f"network-snapshot-{int(kimg):06d}.pkl", kimg)
        return monitor.take_sentences()

    tick(100, 3 * torch.randn([256, SIZE], generator=torch.Generator().manual_seed(0)))
    assert monitor.healthy_name is None  # an untrained generator is no place to go back to
    for kimg in (110, 120):
        assert tick(kimg, drawn(wobbling(rng), rng)) == []
    assert tick(130, drawn(only(1), rng)) == [] and monitor.healthy_name == "network-snapshot-000120.pkl"
    (sentence,) = tick(140, drawn(only(1), rng))
    assert sentence.startswith("Diversity alarm at kimg 140.0: ") and sentence.endswith("; last healthy: network-snapshot-000120.pkl (kimg 120)")
    assert monitor.observe(drawn(only(1), rng), 150, 15000)["healthy_kimg"] == 120


def test_what_was_lost_and_found_again_is_counted():
    monitor, rng = fitted_monitor(), np.random.default_rng(0)
    everything, half, other = (drawn(only(*modes), rng) for modes in (range(10), range(5), range(5, 10)))
    numbers, _ = run_life(monitor, [everything, half, half, other, everything])
    assert [round(n["lost"], 1) for n in numbers] == [0, 0.5, 0.5, 0.5, 0]
    assert [round(n["turnover"], 1) for n in numbers] == [0, 0, 0, 1, 0]
    assert [round(n["found_again"], 1) for n in numbers[:3]] == [0, 0, 0] and min(n["found_again"] for n in numbers[3:]) > 0.8


def test_state_goes_on_exactly():
    """Saved in the middle of a fall, restored into a monitor that has seen nothing."""
    rng = np.random.default_rng(0)
    life = [*healthy_life(rng, HEALTHY_TICKS, 3), *first(collapsed("one mode at a time", rng), 12)]
    whole, parts, rest = fitted_monitor(), fitted_monitor(), new_monitor()
    for monitor in (whole, parts):
        monitor.note_snapshot("none.pkl", 0)
    numbers, sentences = run_life(whole, life)
    run_life(parts, life[: HEALTHY_TICKS + 1])
    assert not rest.is_fitted
    rest.load_state_dict(parts.state_dict())
    more = [rest.observe(thumbs, tick * 4.0, tick * STEPS_PER_TICK) for tick, thumbs in enumerate(life) if tick > HEALTHY_TICKS]
    assert more == numbers[HEALTHY_TICKS + 1 :] and rest.take_sentences() == sentences[-len(sentences) :] != []
