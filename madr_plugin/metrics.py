"""MADR's metrics for a fork that has none: precision, recall, density and coverage in the run's feature space and a held-out one.

Registered in the fork's own metrics.metric_main where the names are free (this project's own metrics of these names stay).
Uses of the fork its registry, its data set and its G; the k-NN kernels are here. Legend: N reals, M generated, D feature width.
"""

import copy
import sys

import torch

from madr_plugin import extractors
from madr_plugin.base import collective, seeds
from madr_plugin.base.errors import MADRError
from madr_plugin.config import MADRConfig
from madr_plugin.maths.terms import squared_distances
from madr_plugin.reals import real_images, reference

NUMBERS = ("precision", "recall", "density", "coverage")
SIZES = {"": 50_000, "_10k": 10_000}
K_PRECISION_RECALL, K_DENSITY_COVERAGE = 3, 5
MAX_REALS = 200_000
FEATURE_KNOBS = ("extractor", "weights", "weights_sha256", "input_size", "width")  # all that a metric takes from a run's options


# ----------------------------------------------------------------------------
# Kernels: arrays in, numbers out. Euclidean, exact; float64, so that rounding decides no neighbour that the features do not.


def neighbour_radii(features_ND, k, block=1024):
    """Distance of each item to its k-th nearest OTHER item -> float64 [N]; duplicates count as neighbours."""
    wide_ND = features_ND.to(torch.float64)
    if len(wide_ND) <= k:
        raise MADRError(f"a neighbourhood of {k} needs more than {k} images (got {len(wide_ND)}); use more images")
    radii = []
    for start in range(0, len(wide_ND), block):
        squared_nN = squared_distances(wide_ND[start : start + block], wide_ND)
        own = torch.arange(len(squared_nN), device=squared_nN.device)
        squared_nN[own, own + start] = float("inf")
        radii.append(squared_nN.topk(k, dim=1, largest=False).values[:, -1].sqrt())
    return torch.cat(radii)


def balls_per_point(points_MD, centres_ND, radii_N, block=1024):
    """(how many balls hold each point [M], how many points each ball holds [N]); the border belongs to the ball."""
    points_MD, centres_ND = points_MD.to(torch.float64), centres_ND.to(torch.float64)
    per_point, per_ball = [], torch.zeros([len(centres_ND)], dtype=torch.int64, device=centres_ND.device)
    for part_mD in points_MD.split(block):
        inside_mN = squared_distances(part_mD, centres_ND).sqrt() <= radii_N
        per_point.append(inside_mN.sum(1))
        per_ball += inside_mN.sum(0)
    return torch.cat(per_point), per_ball


def prdc(real_ND, fake_MD):
    """{number: value}: improved precision and recall (Kynkaanniemi et al. 2019, k = 3), density and coverage (Naeem et al. 2020, k = 5)."""
    in_real, _ = balls_per_point(fake_MD, real_ND, neighbour_radii(real_ND, K_PRECISION_RECALL))
    in_fake, _ = balls_per_point(real_ND, fake_MD, neighbour_radii(fake_MD, K_PRECISION_RECALL))
    per_fake, per_ball = balls_per_point(fake_MD, real_ND, neighbour_radii(real_ND, K_DENSITY_COVERAGE))
    return dict(
        precision=float((in_real > 0).double().mean()),
        recall=float((in_fake > 0).double().mean()),
        density=float(per_fake.double().mean() / K_DENSITY_COVERAGE),
        coverage=float((per_ball > 0).double().mean()),
    )


# ----------------------------------------------------------------------------
# Features.


@torch.no_grad()
def generated_features(extractor, opts, dataset, num_gen, batch_size=32):
    """Features [num_gen, D] of opts.G, the batches shared among the processes; the same whatever their number."""
    rank, num_processes = collective.world()
    G = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device)
    rounds = []
    for start in range(0, num_gen, batch_size * num_processes):
        first = start + rank * batch_size
        generator = seeds.generator_for("metric", first)
        z = torch.randn([batch_size, G.z_dim], generator=generator).to(opts.device)
        rows = torch.randint(len(dataset), [batch_size], generator=generator).tolist()
        labels = [torch.as_tensor(dataset[row][1], dtype=torch.float32).reshape(-1) for row in rows] if getattr(G, "c_dim", 0) else []
        c = torch.stack(labels).to(opts.device) if labels else torch.zeros([batch_size, 0], device=opts.device)
        with seeds.global_rng_replaced(opts.device, "metric-noise", first):
            images = G(z, c, **opts.G_kwargs)
        images = (images.to(torch.float32) * 127.5 + 128).clamp(0, 255).to(torch.uint8).to(torch.float32) / 127.5 - 1
        rounds.append(extractor(images).to(torch.float32))
    return collective.gather_microbatches(rounds).flatten(0, 1)[:num_gen]


def held_out_extractor(name):
    """A space in which the run was not trained."""
    return "pca" if name == "random" else "random"


def compute(opts, num_gen, config):
    """{'': {number: value}, '_<held-out space>': ...} over all reals, without mirrored copies."""
    results, held_out = {}, held_out_extractor(config.extractor)
    whole = {name: value for name, value in dict(max_size=None, xflip=False).items() if name in opts.dataset_kwargs}
    dataset = real_images.open_dataset(dict(opts.dataset_kwargs, **whole))
    with real_images.host_rng_untouched():
        for suffix, space in (("", config), (f"_{held_out}", MADRConfig(extractor=held_out))):
            space = MADRConfig(**{name: getattr(space, name) for name in FEATURE_KNOBS}, view="none", reference_cap=MAX_REALS)
            extractor = extractors.build(space.extractor, dataset.image_shape, space.width, 0, space.input_size, space.weights, space.weights_sha256)
            extractor = extractor.eval().requires_grad_(False).to(opts.device)
            reals = reference.build(dataset, extractor, space, 0, torch.device(opts.device), announce=lambda text: None)
            fake_MD = generated_features(extractor, opts, dataset, num_gen).half().float()  # as the reals are kept
            results[suffix] = prdc(reals.features_ND, fake_MD) if opts.rank == 0 else dict.fromkeys(NUMBERS, float("nan"))
    return results


# ----------------------------------------------------------------------------
# Registration.


def metrics(config):
    """{name: function of the fork's MetricOptions}: madr_prdc and madr_<number>, with 50,000 or (_10k) 10,000 generated images."""
    config = config or MADRConfig()
    made = {}
    for short, num_gen in SIZES.items():
        made[f"madr_prdc{short}"] = _metric(f"madr_prdc{short}", NUMBERS, "_{}", num_gen, config)
        for number in NUMBERS:
            made[f"madr_{number}{short}"] = _metric(f"madr_{number}{short}", (number,), "", num_gen, config)
    return made


def _metric(name, numbers, pattern, num_gen, config):
    def metric(opts):
        if opts.rank == 0:
            print(
                f"MADR: {name} in the space of {config.extractor}, where a run with --madr-extractor={config.extractor} was trained and is flattered; "
                f"trust the numbers with _{held_out_extractor(config.extractor)} beside it",
                flush=True,
            )
        found = compute(opts, num_gen, config)
        return {name + pattern.format(number) + suffix: values[number] for suffix, values in found.items() for number in numbers}

    metric.__name__ = name
    return metric


def register(config=None):
    """Put those of them whose names are free into the host's registry. Returns the names; [] where the host has loaded none."""
    metric_main = sys.modules.get("metrics.metric_main")  # the host's: its train.py and its loop import it first of all
    if not callable(getattr(metric_main, "register_metric", None)) or not callable(getattr(metric_main, "is_valid_metric", None)):
        return []
    free = {name: function for name, function in metrics(config).items() if not metric_main.is_valid_metric(name)}
    for function in free.values():
        metric_main.register_metric(function)
    return list(free)
