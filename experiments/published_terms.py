"""What the published term, its controller and the remedies proposed for them do where the right answer is known, without training.

    python -m experiments.published_terms

The plugin's own code, on features drawn from known distributions; five seeds, seconds. Writes experiments/results/published_terms.json, from
which experiments/claims.py reads. Must not know what was claimed.
"""

import click
import torch

from dnnlib import cli
from experiments import records
from madr_plugin import config
from madr_plugin.maths import kernels, terms
from madr_plugin.memory.sample_memory import SampleMemory
from madr_plugin.objectives.published import PublishedObjective
from madr_spaces.distances import squared_distances
from madr_spaces.seeds import generator_for
from metrics import modes

PATH = records.RESULTS / "published_terms.json"
SEEDS = 5
EQUILIBRIUM = dict(trials=400, reals=400, batch=32, sigma=1.0)
MISSING = dict(num_modes=20, reals_per_mode=100, width=384, spread=0.5, memory=2048, steps=2000)
TRIPLES = dict(triples=50_000)
OUTLIERS = dict(width=16, reals=2000, offered=20_000, batch=64, capacity=512, share=0.05, distance=6.0)


def at_equilibrium(seed, trials, reals, batch, sigma):
    """dL/ds at s = 1 of generators s z, z and data N(0, 1): a term that leaves perfect generators alone has mean 0; above it, the generator shrinks.

    -> {term: mean over trials}; each with its own batch and reals. The published weights are those of a memory of the same distribution.
    """
    generator = generator_for("claims-equilibrium", seed)
    draw = lambda count: torch.randn([count, 1], generator=generator, dtype=torch.float64)
    reference = draw(reals)
    squared = squared_distances(reference, draw(reals))
    weights = terms.paper_weights(terms.gaussian_kernel(squared, sigma).mean(1), 1.0)
    kernel = kernels.MixtureKernel(sigma)
    found = dict(paper=[], witness=[])
    for _ in range(trials):
        scale = torch.ones([], dtype=torch.float64, requires_grad=True)
        fake = scale * draw(batch)
        losses = dict(paper=terms.paper_loss(fake, reference, weights, sigma), witness=terms.witness_loss(fake, draw(reals), kernel))
        for name, loss in losses.items():
            found[name].append(float(torch.autograd.grad(loss, scale, retain_graph=True)[0]))
    return {name: sum(values) / len(values) for name, values in found.items()}


class _Reals:
    """As much of a reference as the published terms look at."""

    mass_N = None

    def __init__(self, features_ND):
        self.features_ND = features_ND


def _published(reals_ND, memory_KD, controller, steps, seed):
    """The published objective after `steps` steps before an unchanging memory."""
    knobs = config.resolve(dict(preset="paper", extractor="pca", controller=controller, capacity=len(memory_KD)))
    memory = SampleMemory(len(memory_KD), "fifo", 1.0)
    empty = torch.zeros([len(memory_KD), 0])
    memory.offer(dict(features=memory_KD, latents=empty, layers=empty, labels=empty, importance=empty), 0, 0, generator_for("claims-memory", seed))
    objective = PublishedObjective(knobs, _Reals(reals_ND), seed)
    for step in range(steps):
        objective.after_step(step, memory)
    return objective


def with_half_missing(seed, num_modes, reals_per_mode, width, spread, memory, steps):
    """What the published quantities say of a memory that lacks half of the modes, and of one that lacks none.

    Modes of equal mass: centres of length about 1, spread around them in all directions. -> online recall, strength under the fixed and the adaptive
    target, and the mean weight of reals of missing modes over that of the others.
    """
    generator = generator_for("claims-missing", seed)
    normal = lambda count: torch.randn([count, width], generator=generator) / width**0.5
    centres_MD = normal(num_modes)
    of = lambda mode_N: centres_MD[mode_N] + spread * normal(len(mode_N))
    reals_ND = of(torch.arange(num_modes).repeat_interleave(reals_per_mode))
    found = {}
    for name, present in (("none_missing", num_modes), ("half_missing", num_modes // 2)):
        memory_KD = of(torch.randint(present, [memory], generator=generator))
        fixed, adaptive = (_published(reals_ND, memory_KD, controller, steps, seed) for controller in ("sigmoid", "adaptive"))
        found.update({f"recall_{name}": fixed.recall, f"strength_{name}": fixed.strength, f"adaptive_strength_{name}": adaptive.strength})
    weights_MR = fixed.weights_N.reshape(num_modes, reals_per_mode)
    found["weight_of_missing"] = float(weights_MR[num_modes // 2 :].mean() / weights_MR[: num_modes // 2].mean())
    found["strength_gained"] = found["strength_half_missing"] - found["strength_none_missing"]
    found["adaptive_strength_gained"] = found["adaptive_strength_half_missing"] - found["adaptive_strength_none_missing"]
    return found


def outliers_kept(seed, width, reals, offered, batch, capacity, share, distance):
    """Share of outliers in a memory to which a share of them was offered, by policy. Importance: the mean distance to the 10 nearest reals."""
    generator = generator_for("claims-outliers", seed)
    reals_ND = torch.randn([reals, width], generator=generator)
    found = dict(offered=share)
    for policy in ("reservoir", "importance"):
        memory, draws = SampleMemory(capacity, policy, 1.0), generator_for("claims-outliers", seed, 1)
        for first in range(0, offered, batch):
            outside_B = (torch.rand([batch], generator=draws) < share)[:, None]
            away_BD = torch.nn.functional.normalize(torch.randn([batch, width], generator=draws), dim=1) * distance * width**0.5
            features_BD = torch.where(outside_B, away_BD, torch.randn([batch, width], generator=draws))
            importance_B = squared_distances(features_BD, reals_ND).clamp(min=0).sqrt().topk(10, dim=1, largest=False).values.mean(1)
            empty = torch.zeros([batch, 0])
            samples = dict(features=features_BD, latents=empty, layers=empty, labels=outside_B.float(), importance=importance_B)
            memory.offer(samples, first // batch, first, draws)
        found[policy] = float(memory.filled("labels").mean())
    return found


def triples_drawn(seed, triples):
    """How many different modes so many triples of digits show, all digits equally likely: those of Stacked MNIST."""
    digits_N3 = torch.randint(10, [triples, 3], generator=generator_for("claims-triples", seed)).numpy()
    return dict(modes=float(len(set(modes.stacked_label(digits_N3).tolist()))))


MEASUREMENTS = {
    "at equilibrium": (at_equilibrium, EQUILIBRIUM),
    "half of the modes missing": (with_half_missing, MISSING),
    "outliers offered": (outliers_kept, OUTLIERS),
    "triples of digits": (triples_drawn, TRIPLES),
}


def measure(path=PATH, seeds=SEEDS):
    """Every measurement and seed that the file does not hold yet."""
    torch.set_num_threads(1)
    store = records.Store(path, dict(settings={name: settings for name, (_, settings) in MEASUREMENTS.items()}))
    for name, (function, settings) in MEASUREMENTS.items():
        for seed in range(seeds):
            if store.get(name, seed) is None:
                store.put(name, seed, function(seed, **settings))


@click.command()
@click.option("--seeds", type=cli.IntRange(min=2), default=SEEDS, show_default=True, help="Seeds of each measurement: 0, 1, ...")
def main(seeds):
    """Measure the published term, its controller and their remedies where the right answer is known."""
    measure(seeds=seeds)
    for name, entries in records.load(PATH)[1].items():
        print(name)
        for key in (key for key, value in next(iter(entries.values())).items() if isinstance(value, float)):
            mean, half_width = records.mean_and_interval([entry[key] for entry in entries.values()])
            print(f"  {key:<34}{mean:>9.4f} ± {half_width:.4f}")
    print(f"Written: {PATH}")


if __name__ == "__main__":
    cli.run(main)
