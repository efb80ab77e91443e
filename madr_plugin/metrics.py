"""MADR's metrics for a fork that has none: precision, recall, density and coverage in the run's feature space and a held-out one.

Registered in the fork's own metrics.metric_main where the names are free (this project's own metrics of these names stay).
Uses of the fork its registry, its data set and its G. Space, images and kernels are those of this project's metrics
(madr_spaces), so that a name stands for one number. Legend: N reals, M generated, D feature width.
"""

import copy
import sys

import numpy as np
import torch

from madr_plugin.base import collective
from madr_plugin.config import MADRConfig
from madr_plugin.reals import real_images
from madr_spaces import files, fitting, names, neighbours, registry, sampling
from madr_spaces.images import data_fingerprint, host_rng_untouched, selection
from madr_spaces.neighbours import NUMBERS

SIZES = {"": 50_000, "_10k": 10_000}
BATCH_SIZE = 64
FORMAT = 1  # raise when the content of a cache file changes meaning

_registered = set()  # names under which our functions stand in the host's registry of this process


# ----------------------------------------------------------------------------
# Features.


def open_space(name, dataset, weights, sha256, device, announce):
    """The space, fitted to the data set if it is of that kind, by the first process for all."""
    space = registry.build_for_metric(name, dataset.image_shape, weights, sha256)
    if space.images_to_fit:
        fitting.put(space, collective.from_first_process(lambda: fitting.fitted(space, dataset, announce=announce), device))
    return space.to(device)


@torch.no_grad()
def real_features(space, dataset, device, announce):
    """Features [N, D] float32 of all images, each process looking at its share; kept on disk."""
    identity = dict(format=FORMAT, metric=space.identity(), digest=space.digest(), data=data_fingerprint(dataset), selection=selection(dataset))
    name = f"metric-{space.identity()['name']}"
    found = collective.from_first_process(lambda: files.load_known(identity, name, announce), device)
    if not found:
        shared = collective.sum_over_processes(lambda: dict(features=_own_share(space, dataset, device)), device)
        found = collective.from_first_process(lambda: files.save_known(identity, name, shared, announce), device)
    return found["features"]


def _own_share(space, dataset, device):
    """[N, D] with this process's batches filled in and zeros elsewhere: the sum over the processes is the whole, exactly."""
    rank, num_processes = collective.world()
    features_ND = None
    for number, start in enumerate(range(0, len(dataset), BATCH_SIZE)):
        # Every process looks at the first batch to learn the width of the features.
        is_own = number % num_processes == rank
        if not is_own and number:
            continue
        rows = range(start, min(start + BATCH_SIZE, len(dataset)))
        images = torch.from_numpy(np.stack([dataset[row][0] for row in rows])).to(device)
        found = space.of_bytes(images).to("cpu", torch.float32)
        if features_ND is None:
            features_ND = torch.zeros([len(dataset), found.shape[1]])
        if is_own:
            features_ND[rows.start : rows.stop] = found
    return features_ND


@torch.no_grad()
def generated_features(spaces, opts, dataset, num_gen):
    """[features [num_gen, D] of each space] of the same images of opts.G, the batches shared among the processes; the same whatever their number."""
    rank, num_processes = collective.world()
    G, seed = copy.deepcopy(opts.G).eval().requires_grad_(False).to(opts.device), getattr(opts, "seed", 0)
    size = getattr(opts, "batch_size", None) or sampling.batch_size(getattr(G, "img_resolution", dataset.image_shape[-1]), BATCH_SIZE)
    rounds = [[] for _ in spaces]
    for start in range(0, num_gen, size * num_processes):
        first = start + rank * size
        z = torch.from_numpy(sampling.latents(seed, first, size, G.z_dim)).to(opts.device)
        c = _labels(dataset, getattr(G, "c_dim", 0), sampling.label_items(seed, first, size, len(dataset))).to(opts.device)
        with sampling.noise(opts.device, seed, first // size):
            images = sampling.to_bytes(G(z, c, **opts.G_kwargs))
        for collected, space in zip(rounds, spaces):
            collected.append(space.of_bytes(images).to(torch.float32))
    return [collective.gather_microbatches(collected).flatten(0, 1)[:num_gen] for collected in rounds]


def _labels(dataset, c_dim, rows):
    if not c_dim:
        return torch.zeros([len(rows), 0])
    return torch.stack([torch.as_tensor(dataset[int(row)][1], dtype=torch.float32).reshape(-1) for row in rows])


def compute(opts, num_gen, config):
    """{'': {number: value}, '_<held-out space>': ...} over all reals, without mirrored copies."""
    whole = {name: value for name, value in dict(max_size=None, xflip=False).items() if name in opts.dataset_kwargs}
    dataset, device = real_images.open_dataset(dict(opts.dataset_kwargs, **whole)), torch.device(opts.device)
    announce = print if opts.rank == 0 else _silent
    held_out = names.held_out(config.extractor, config.extractor)
    results = {}
    with host_rng_untouched():
        spaces = {"": open_space(config.extractor, dataset, config.weights, config.weights_sha256, device, announce)}
        if held_out is not None:
            spaces[suffix_of(held_out)] = open_space(held_out, dataset, "", "", device, announce)
        reals = [real_features(space, dataset, device, announce) for space in spaces.values()]
        fakes = generated_features(list(spaces.values()), opts, dataset, num_gen)
    for suffix, real_ND, fake_MD in zip(spaces, reals, fakes):
        results[suffix] = neighbours.prdc(real_ND, fake_MD, device=device) if opts.rank == 0 else dict.fromkeys(NUMBERS, float("nan"))
    return results


def suffix_of(held_out):
    """What stands behind the name of a number in the held-out space: random-conv -> _random_conv."""
    return "_" + held_out.replace("-", "_")


def _silent(*_):
    pass


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
        beside = names.held_out(config.extractor, config.extractor)
        if opts.rank == 0:
            print(
                f"MADR: {name} in the space of {config.extractor}, where a run with --madr-extractor={config.extractor} was trained and is flattered; "
                + (f"trust the numbers with {suffix_of(beside)} beside it" if beside else "no space is left to hold out"),
                flush=True,
            )
        found = compute(opts, num_gen, config)
        return {name + pattern.format(number) + suffix: values[number] for suffix, values in found.items() for number in numbers}

    metric.__name__ = name
    return metric


def register(config=None):
    """Put those of them whose names are free into the host's registry. Returns the names; [] where the host has loaded none.

    A later run in the same process may be of another feature space: its functions take the place of ours, never of the host's.
    """
    metric_main = sys.modules.get("metrics.metric_main")  # the host's: its train.py and its loop import it first of all
    if not callable(getattr(metric_main, "register_metric", None)) or not callable(getattr(metric_main, "is_valid_metric", None)):
        return []
    own = {name: function for name, function in metrics(config).items() if name in _registered or not metric_main.is_valid_metric(name)}
    for function in own.values():
        metric_main.register_metric(function)
    _registered.update(own)
    return list(own)
