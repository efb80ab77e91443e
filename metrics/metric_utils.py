"""From a network or a data set to feature statistics: options, detectors, sampling, caching, in any number of processes.

The numbers made of the statistics are elsewhere (kernels, neighbours); single metrics are in a file each.
"""

import copy
import json

import numpy as np
import torch

import dnnlib
from dnnlib.errors import UserError
from madr_spaces import sampling
from metrics import counts, detectors as detector_files, progress as showing, reading, stats_cache, subsets
from metrics.feature_stats import FeatureStats
from metrics.progress import ProgressMonitor

__all__ = [
    "MetricOptions",
    "get_feature_detector_name",
    "get_feature_detector",
    "FeatureStats",
    "ProgressMonitor",
    "compute_feature_stats_for_dataset",
    "compute_feature_stats_for_generator",
    "generate_images",
    "construct_dataset",
]


_MOMENT_SEC = 3.0
# With the versions of metrics and torch, which metric_main adds. detector: its name, hash, keywords and resize filter.
FACTS_OF_EVERY_LINE = (
    "data",
    "num_real",
    "num_gen",
    "detector",
    "k",
    "tie_rule",
    "truncation_psi",
    "truncation_cutoff",
    "noise_mode",
    "seed",
    "batch",
)


# ----------------------------------------------------------------------------------------------------------------
# Options.


class MetricOptions:
    """What a metric is computed for, and how; passed to every registered metric.

    detectors: {name: path} of detector files. seed: of latents, labels and subsets. num_gen, num_real: override the
    metric's own numbers of images. batch_size: images per generated batch. space: feature space of the diversity metrics,
    by name. strict_ties: distances equal to a radius do not count. trained_in: the extractor that led the network's
    training, None if none did. per_item: a dict that receives {result name: (real or generated, value of each item)}.
    snapshots: {name: function that opens its G} of the network's run, in order. given: GivenFeatures in place of network and
    data set. modes: count only the modes of stacked digits below this label. kept: a dict that holds what was computed of the
    reals, for later calls with other seeds. sides: {'real' or 'generated': FeatureStats} of files, in place of images. only_class:
    the OneClass of the data set to compare with. on_warning: what gets the sentences of warn. held_out: path of real images that
    nobody trained on. real_seed: of the draw of num_real images, where it is not seed. `facts` collects what the result
    depends on, for the result line.
    """

    def __init__(
        self,
        G=None,
        G_kwargs={},
        dataset_kwargs={},
        num_gpus=1,
        rank=0,
        device=None,
        progress=None,
        cache=True,
        *,
        detectors=None,
        seed=0,
        num_gen=None,
        num_real=None,
        batch_size=None,
        space=None,
        strict_ties=False,
        trained_in=None,
        per_item=None,
        snapshots=None,
        given=None,
        modes=None,
        kept=None,
        sides=None,
        only_class=None,
        on_warning=None,
        held_out=None,
        real_seed=None,
    ):
        assert 0 <= rank < num_gpus
        self.G = G
        self.G_kwargs = dnnlib.EasyDict(G_kwargs)
        self.dataset_kwargs = dnnlib.EasyDict(dataset_kwargs)
        self.num_gpus = num_gpus
        self.rank = rank
        self.device = torch.device(device) if device is not None else _default_device(rank)
        self.progress = progress.sub() if progress is not None and rank == 0 else ProgressMonitor()
        self.cache = cache
        self.detectors = dict(detectors or {})
        self.seed = seed
        self.real_seed = seed if real_seed is None else real_seed
        self.num_gen = num_gen
        self.num_real = num_real
        self.batch_size = batch_size
        self.space = space
        self.strict_ties = strict_ties
        self.trained_in = trained_in
        self.per_item = per_item
        self.snapshots = dict(snapshots or {})
        self.given = given
        self.modes = modes
        self.kept = kept
        self.sides = dict(sides or {})
        self.only_class = only_class
        self.held_out = held_out
        self.on_warning = on_warning or showing.warn
        self.asking = None  # the row of the metric that is computed
        self.facts = {}
        self._loaded_detectors = {} if kept is None else kept.setdefault("loaded detectors", {})

    @property
    def verbose(self):
        return self.rank == 0 and self.progress.verbose

    def record(self, **facts):
        """Note what the result depends on. None is a statement, too."""
        self.facts.update(facts)

    def keep_items(self, result_name, which, values_N):
        """Hand the items whose mean a result is to a caller that asked for them."""
        if self.per_item is not None:
            self.per_item[result_name] = which, values_N

    @property
    def wants_holders(self):
        """Whether a comparison is to follow that draws generated images again (comparison.Items): to find holders takes a pass of its own."""
        return hasattr(self.per_item, "holders")

    def keep_holders(self, result_name, holders_NH, num_generated):
        """Keep what holders.of_reals() found for a comparison's interval."""
        self.per_item.holders[result_name] = holders_NH, num_generated

    def once(self, key, compute):
        """compute(), or what it gave before under this key, if the caller keeps results. Every rank must ask alike."""
        if self.kept is None:
            return compute()
        if key not in self.kept:
            self.kept[key] = compute()
        return self.kept[key]

    def say(self, text):
        if self.verbose:
            print(text, flush=True)

    def warn(self, text):
        """Say what may spoil the number, once."""
        if self.rank == 0:
            self.on_warning(text)

    def stage(self, tag, num_items):
        """update(finished items) of a computation after the features, shown where it takes more than a moment."""
        monitor = ProgressMonitor(tag=tag, num_items=num_items, verbose=self.verbose)
        monitor.after_sec = _MOMENT_SEC
        return monitor.update

    def detector(self, url):
        """(callable, DetectorSource), loaded once per object."""
        if url not in self._loaded_detectors:
            self._loaded_detectors[url] = _load_in_turn(url, self)
        return self._loaded_detectors[url]


def _default_device(rank):
    return torch.device("cuda", rank) if torch.cuda.is_available() else torch.device("cpu")


def _load_in_turn(url, opts):
    """Rank 0 first, so that a download happens once per machine; the others then find the file."""
    if opts.num_gpus > 1 and opts.rank != 0:
        torch.distributed.barrier()
    source = detector_files.find_detector(url, opts.detectors, verbose=opts.verbose)
    if opts.num_gpus > 1 and opts.rank == 0:
        torch.distributed.barrier()
    is_space_of_data = url.startswith(detector_files.SCHEME) and opts.dataset_kwargs.get("class_name")
    return detector_files.load(source, opts.device, construct_dataset(opts, whole=True) if is_space_of_data else None, opts.cache)


# ----------------------------------------------------------------------------------------------------------------
# Detectors by URL, as forks' own metrics ask for them.


def get_feature_detector_name(url):
    return detector_files.detector_name(url)


def get_feature_detector(url, device=torch.device("cpu"), num_gpus=1, rank=0, verbose=False):
    """The detector of a URL, a local path or 'extractor:NAME' as a callable on `device`."""
    opts = MetricOptions(num_gpus=num_gpus, rank=rank, device=device, progress=ProgressMonitor(verbose=verbose))
    return opts.detector(url)[0]


# ----------------------------------------------------------------------------------------------------------------
# Real images.


def construct_dataset(opts, whole=False, **overrides):
    """The data set of the options; its identity goes into the facts. whole: also where one class alone is looked at."""
    if opts.only_class is not None:
        return _recorded(opts, opts.only_class.whole if whole else opts.only_class, opts.dataset_kwargs)
    kwargs = dict(opts.dataset_kwargs, **overrides)
    if not kwargs.get("class_name"):
        raise UserError("This metric compares with real images, but no data set is known; give it with --data=PATH.")
    return _recorded(opts, dnnlib.util.construct_class_by_name(**kwargs), kwargs)


def _recorded(opts, dataset, kwargs):
    counts.check_channels(opts.G, dataset)
    opts.record(
        data=dict(
            fingerprint=dataset.content_fingerprint() if hasattr(dataset, "content_fingerprint") else None,
            name=dataset.name,
            num_images=len(dataset),
            image_shape=list(dataset.image_shape),
            xflip=bool(kwargs.get("xflip", False)),
            max_size=kwargs.get("max_size"),
        )
    )
    return dataset


def compute_feature_stats_for_dataset(
    opts, detector_url, detector_kwargs, rel_lo=0, rel_hi=1, batch_size=64, data_loader_kwargs=None, max_items=None, **stats_kwargs
):
    """FeatureStats (complete on every rank) of the real images, from the cache when their content is known there."""
    if "real" in opts.sides:
        return _of_file(opts, "real", num_real=opts.sides["real"].num_items)
    dataset = construct_dataset(opts)
    detector, source = opts.detector(detector_url)
    max_items = opts.num_real if opts.num_real is not None else max_items
    num_items = min(len(dataset), max_items) if max_items is not None else len(dataset)
    chosen = subsets.of_reals(opts, len(dataset))
    counts.check(opts, "real", num_items)
    opts.record(num_real=num_items, detector=detector_files.detector_facts(source, detector_kwargs))
    progress = opts.progress.sub(tag="dataset features", num_items=num_items, rel_lo=rel_lo, rel_hi=rel_hi)

    loader_kwargs = dict(
        batch_sampler=reading.batches(num_items, batch_size, opts.num_gpus, opts.rank, chosen),
        **reading.loader_kwargs(opts.device, num_items, data_loader_kwargs),
    )

    def compute():
        return _real_features(
            opts, dataset, loader_kwargs, detector, source, detector_kwargs, FeatureStats(max_items=num_items, **stats_kwargs), progress
        )

    if not hasattr(dataset, "content_fingerprint"):
        return compute()
    drawn_with = None if chosen is None else opts.real_seed
    facts = stats_cache.describe(dataset, opts.dataset_kwargs, source, detector_kwargs, max_items, stats_kwargs, drawn_with)
    return opts.once(json.dumps(facts, sort_keys=True), lambda: _from_cache(opts, facts, compute, progress) if opts.cache else compute())


def _of_file(opts, side, **counted):
    stats = opts.sides[side]
    if stats.num_items is not None:
        counts.check(opts, side, stats.num_items)
    opts.record(**counted)
    return stats


def _from_cache(opts, facts, compute, progress):
    path = stats_cache.cache_path(facts)
    stats = _cached_on_all_ranks(opts, path, facts)
    if stats is not None:
        progress.update(stats.num_items)
        return stats
    stats = compute()
    if opts.rank == 0 and stats_cache.save(path, facts, stats):
        opts.say(f"Statistics of the real images kept in {path}")
    return stats


def _real_features(opts, dataset, loader_kwargs, detector, source, detector_kwargs, stats, progress):
    """The images of the data set through the detector into `stats`."""
    dataset.close()  # workers must open the files themselves: a shared position in one file would mix up their reads
    for images, _labels in torch.utils.data.DataLoader(dataset, **loader_kwargs):
        features = detector_files.run_detector(detector, source, images.to(opts.device), detector_kwargs)
        stats.append_torch(features, num_gpus=opts.num_gpus, rank=opts.rank)
        progress.update(stats.num_items)
    return stats


def _cached_on_all_ranks(opts, path, facts):
    stats, complaint = stats_cache.load(path, facts)
    if complaint and opts.rank == 0:
        print(complaint, flush=True)
    found = torch.tensor(float(stats is not None), device=opts.device)
    if opts.num_gpus > 1:  # ranks on another machine have another disk
        torch.distributed.all_reduce(found, op=torch.distributed.ReduceOp.MIN)
    if not found.item():
        return None
    opts.say(f"Statistics of the real images taken from {path}")
    return stats


def state_every_fact(opts):
    """What every result line states, whatever the metric: what it has no use for is None, and that is a statement, too.

    The data set is named even where the number does not depend on it: scores of networks of different data are no comparison.
    """
    if "data" not in opts.facts and opts.dataset_kwargs.get("class_name"):
        construct_dataset(opts)
    for name in FACTS_OF_EVERY_LINE:
        opts.facts.setdefault(name, None)


# ----------------------------------------------------------------------------------------------------------------
# Generated images.


def frozen_copy(G, device):
    return copy.deepcopy(G).eval().requires_grad_(False).to(device)


class LabelSource:
    """Labels for generated items: those of real images drawn at random, or empty ones for unconditional networks."""

    def __init__(self, opts):
        self.seed, self.device, self.c_dim = opts.seed, opts.device, opts.G.c_dim
        self.dataset = construct_dataset(opts, use_labels=True) if self.c_dim else None
        if self.c_dim and self.dataset.label_dim != self.c_dim:
            raise UserError(
                f"The network takes labels of {self.c_dim} values, but those of {self.dataset.name} have {self.dataset.label_dim}; "
                "give the data set it was trained on with --data."
            )

    def take(self, first, count):
        if self.dataset is None:
            return torch.zeros([count, 0], device=self.device)
        items = sampling.label_items(self.seed, first, count, len(self.dataset))
        return torch.from_numpy(np.stack([self.dataset.get_label(i) for i in items])).to(self.device)


def generate_images(opts, num_items, batch_gen):
    """Yield batches of uint8 images [batch_gen, C, H, W] for this rank until all ranks together have num_items.

    Global batch b holds items b*batch_gen...; it belongs to rank b mod num_gpus and draws its noise from (seed, b). So
    the images do not depend on the number of processes; latents and labels do not depend on batch_gen either.
    A set of images in the place of the network (two_sets.Images) brings its own.
    """
    if hasattr(opts.G, "batches"):
        yield from opts.G.batches(opts, num_items, batch_gen)
        return
    G = frozen_copy(opts.G, opts.device)
    labels = LabelSource(opts)
    per_round = batch_gen * opts.num_gpus
    for first_round in range(0, num_items, per_round):
        first = first_round + opts.rank * batch_gen
        z = torch.from_numpy(sampling.latents(opts.seed, first, batch_gen, G.z_dim)).to(opts.device)
        with torch.no_grad(), sampling.noise(opts.device, opts.seed, first // batch_gen):
            img = G(z=z, c=labels.take(first, batch_gen), **opts.G_kwargs)
            yield sampling.to_bytes(img)


def record_sampling(opts, num_gen, batch_gen):
    if hasattr(opts.G, "batches"):
        opts.record(num_gen=num_gen, seed=opts.seed)
        return
    opts.record(
        num_gen=num_gen,
        seed=opts.seed,
        batch=batch_gen,
        truncation_psi=opts.G_kwargs.get("truncation_psi", 1),
        truncation_cutoff=opts.G_kwargs.get("truncation_cutoff"),
        noise_mode=opts.G_kwargs.get("noise_mode", "random"),
    )


def compute_feature_stats_for_generator(
    opts, detector_url, detector_kwargs, rel_lo=0, rel_hi=1, batch_size=64, batch_gen=None, jit=False, **stats_kwargs
):
    """FeatureStats (complete on every rank) of generated images. max_items, among stats_kwargs, says how many.

    jit is accepted for callers that pass it; the network is never traced, since tracing changes no number.
    """
    if "generated" in opts.sides:
        return _of_file(opts, "generated", num_gen=opts.sides["generated"].num_items)
    if opts.num_gen is not None:
        stats_kwargs["max_items"] = opts.num_gen
    num_items = stats_kwargs["max_items"]
    batch_gen = opts.batch_size or batch_gen or sampling.batch_size(opts.G.img_resolution, batch_size)
    detector, source = opts.detector(detector_url)
    record_sampling(opts, num_items, batch_gen)
    opts.record(detector=detector_files.detector_facts(source, detector_kwargs))
    stats = FeatureStats(**stats_kwargs)
    progress = opts.progress.sub(tag="generator features", num_items=num_items, rel_lo=rel_lo, rel_hi=rel_hi)
    for images in generate_images(opts, num_items, batch_gen):
        features = detector_files.run_detector(detector, source, images, detector_kwargs)
        stats.append_torch(features, num_gpus=opts.num_gpus, rank=opts.rank)
        progress.update(stats.num_items)
    return stats
