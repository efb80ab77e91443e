"""Ten planted modes as thumbnails, and generators over them that are healthy, collapsed or cycling, for the diversity monitor."""

import functools

import numpy as np
import torch

from metrics import diversity_kernels
from training.diversity import alarm, monitor as diversity_monitor

NUM_MODES, SIZE = 10, 3 * 8 * 8
LATE = alarm.GRACE_STEPS  # steps after which a start is over
STEPS_PER_TICK = 250

TEMPLATES = np.random.default_rng(7).uniform(-1, 1, [NUM_MODES, SIZE])


def images_of(modes, rng, noise=0.3):
    """Thumbnails [M, D] of the given mode numbers."""
    return torch.from_numpy(TEMPLATES[modes] + noise * rng.standard_normal([len(modes), SIZE])).to(torch.float32)


def drawn(shares, rng, count=diversity_monitor.NUM_FAKES):
    """Images of a generator with these shares of the modes."""
    return images_of(rng.choice(NUM_MODES, count, p=np.asarray(shares) / np.sum(shares)), rng)


def only(*modes):
    return [float(mode in modes) for mode in range(NUM_MODES)]


@functools.cache
def reference_of(num_reals, population, seed):
    monitor = new_monitor(seed)
    monitor.fit_thumbnails(images_of(np.arange(num_reals) % NUM_MODES, np.random.default_rng(100 + seed)), population)
    return monitor.state_dict()


def new_monitor(seed=0):
    return diversity_monitor.DiversityMonitor(seed, 4, torch.zeros([1, 0]), diversity_kernels.k_means)


def fitted_monitor(num_reals=1000, population=5000, seed=0):
    monitor = new_monitor(seed)
    monitor.load_state_dict(reference_of(num_reals, population, seed))
    return monitor


def wobbling(rng, strength=0.35):
    """Shares of a healthy generator in mid-training: all modes, unevenly, otherwise at every tick."""
    return np.exp(strength * rng.standard_normal(NUM_MODES))


def healthy_life(rng, ticks, learning_ticks):
    """Thumbnails per tick: noise, then blurred and lopsided images that get better, then all modes with wobbling shares.

    Latents are new at every tick, so that sampling alone moves every number, more than with the monitor's fixed ones.
    """
    for tick in range(ticks):
        skill = min(tick / learning_ticks, 1.0)
        if tick == 0:
            yield torch.from_numpy(3 * rng.standard_normal([diversity_monitor.NUM_FAKES, SIZE])).to(torch.float32)
            continue
        images = drawn(wobbling(rng, 0.35 + 2 * (1 - skill)), rng)
        blob = torch.from_numpy(rng.uniform(-1, 1, [1, SIZE])).to(torch.float32)
        yield images * skill + blob * (1 - skill)


def run_life(monitor, lives):
    """Every tick through the monitor: ([numbers], [sentences])."""
    numbers, sentences = [], []
    for tick, thumbs in enumerate(lives):
        numbers.append(monitor.observe(thumbs, tick * 4.0, tick * STEPS_PER_TICK))
        sentences += monitor.take_sentences()
    return numbers, sentences
