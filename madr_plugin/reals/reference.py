"""Features of the real training set: extracted once, kept on disk under a hash of what they depend on, with the scales
and cells that follow from them.

Must not know how images are read (madr_spaces/images.py) or what the terms make of them.
"""

import hashlib
import time

import numpy as np
import torch

from madr_plugin.base import collective, view
from madr_plugin.config import parse_view
from madr_plugin.maths import cells, kernels
from madr_plugin.reals import anchors, real_images
from madr_spaces import files, fitting, kmeans
from madr_spaces.distances import pairwise_distances, quantile_of_sorted, squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.images import data_fingerprint, host_rng_untouched, selection
from madr_spaces.seeds import generator_for
from madr_spaces.space import check_features

SUBSET = 2048  # reals against which radii are measured
TELL_SEC = 5  # between two lines on how far the extraction is
FORMAT = 6  # raise when the content of a cache file changes meaning


class Reference:
    """What the terms may ask about the reals. All tensors lie on `device`.

    With --madr-anchors the rows N are anchors, each standing for mass_N reals (else None: every row is one real); the
    cells and scales are those of the reals themselves, and image_*_N speak of every real image, compressed or not.
    """

    def __init__(self, bundle, device):
        moved = {name: value.to(device) for name, value in bundle.items()}
        self.features_ND = moved["features"].to(torch.float32)
        self.labels_N = moved["labels"]  # class index, -1 without labels
        self.mass_N = moved.get("mass")
        self.centroids_CD, self.radii_C = moved["centroids"], moved["radii"]
        self.shares_C, self.cell_of_real_N, self.class_C = moved["shares"], moved["cell_of_real"], moved["class"]
        self.scale = float(moved["scale"])  # median real distance s0
        self.scale_low, self.scale_high = float(moved["scale_low"]), float(moved["scale_high"])
        self.held_out = float(moved["held_out"])  # coverage of new images of the reals' distribution (cells.held_out_overlap)
        self.fingerprint = bytes(bundle["fingerprint"].tolist()).hex()
        self.subset_S = _spread_rows(len(self.features_ND)).to(device)
        # Radii are measured against reals: anchors lie apart from one another.
        self.subset_SD = moved["subset"].to(torch.float32) if "subset" in moved else self.features_ND[self.subset_S]
        self.subset_labels_S = moved.get("subset_labels", self.labels_N[self.subset_S])
        self.image_cells_N, self.image_labels_N = moved.get("image_cells", self.cell_of_real_N), moved.get("image_labels", self.labels_N)

    def draw(self, count, generator, weight_N=None):
        """`count` row numbers, each real alike or with probability proportional to weight_N -> int64 on the device."""
        if self.mass_N is not None:
            weight_N = self.mass_N if weight_N is None else self.mass_N * weight_N
        if weight_N is None:
            return torch.randint(len(self.features_ND), [count], generator=generator).to(self.features_ND.device)
        cumulative = weight_N.to(torch.float64).cumsum(0)
        position = torch.rand([count], generator=generator, dtype=torch.float64).to(cumulative.device) * cumulative[-1]
        return torch.searchsorted(cumulative, position).clamp(max=len(cumulative) - 1)

    def dead_zone_radius(self, rows, expected, draws):
        """Radius of the ball around each listed real that holds `expected` of `draws` samples if they come from p_data.

        The k-th smallest distance to a fixed subset of S reals (not itself) with k = expected * S / draws. draws: a number, or one per class
        ([classes]): then S, too, are the reals of the subset that are of the listed real's class.
        """
        if torch.is_tensor(draws):
            return self._radius_within_class(rows, expected, draws)
        num_subset = len(self.subset_SD)
        neighbours = min(max(1, round(expected * num_subset / max(draws, 1))), num_subset - 1)
        squared_RS = squared_distances(self.features_ND[rows], self.subset_SD)
        if self.mass_N is None:
            place_R = torch.searchsorted(self.subset_S, rows).clamp(max=num_subset - 1)
            itself_R = self.subset_S[place_R] == rows
            squared_RS[itself_R, place_R[itself_R]] = float("inf")
        if neighbours <= 32:  # the same value; kthvalue takes as long for the 3rd as for the 1000th
            return squared_RS.topk(neighbours, dim=1, largest=False).values[:, -1].sqrt()
        return squared_RS.kthvalue(neighbours, dim=1).values.sqrt()

    def _radius_within_class(self, rows, expected, draws_of_class):
        """dead_zone_radius() with reals and draws of each real's own class; where the subset holds no other real of it, over all classes."""
        class_R, class_S = self.labels_N[rows], self.subset_labels_S
        itself_RS = (
            self.subset_S[None, :] == rows[:, None]
            if self.mass_N is None
            else torch.zeros([len(rows), len(class_S)], dtype=torch.bool, device=rows.device)
        )
        usable_RS = (class_S[None, :] == class_R[:, None]) & ~itself_RS
        squared_RS = squared_distances(self.features_ND[rows], self.subset_SD).masked_fill(~usable_RS, float("inf"))
        usable_R, draws_R = usable_RS.sum(1), draws_of_class[class_R].clamp(min=1)
        place_R = (expected * usable_R / draws_R).round().clamp(min=1).minimum(usable_R).to(torch.int64) - 1
        nearest_RS = squared_RS.sort(dim=1).values
        within_R = nearest_RS.gather(1, place_R.clamp(min=0)[:, None])[:, 0].sqrt()
        return (
            torch.where(usable_R > 0, within_R, self.dead_zone_radius(rows, expected, int(draws_of_class.sum())))
            if (usable_R == 0).any()
            else within_R
        )


def _spread_rows(num_rows):
    """At most SUBSET evenly spread rows: enough for radii, far cheaper than all."""
    return torch.linspace(0, num_rows - 1, min(num_rows, SUBSET), dtype=torch.float64).round().to(torch.int64)


def build(dataset, extractor, config, seed, device, announce=print):
    """Reference of a dataset in the extractor's space; also fits the extractor. From the cache where possible."""
    if config.anchors:
        anchors.import_faiss()  # said before hours of extraction, not after
    identity = _identity(dataset, extractor, config, seed)
    if hasattr(extractor, "knows") and extractor.knows(dataset) is False:
        announce(
            "MADR: note: the encoder of --madr-weights was trained on other images than these; python -m madr_plugin.check_extractor tells whether it suits them"
        )
    bundle = collective.from_first_process(lambda: _load(identity, announce), device)
    if not bundle:
        found = _features(dataset, extractor, config, seed, identity, device, announce)
        bundle = collective.from_first_process(
            lambda: _save(identity, _bundle(found["features"], found["labels"], extractor, config, seed), announce), device
        )
    if "anchor_error" in bundle:
        announce(anchors.sentence(len(bundle["image_cells"]), len(bundle["features"]), *bundle["anchor_error"].tolist(), config.reals))
    for note in _notes(bundle, dataset, config):
        announce(f"MADR: note: {note}")
    _put_into(extractor, bundle)
    return Reference({name: value for name, value in bundle.items() if not name.startswith("extractor.")}, device)


def _put_into(extractor, tensors):
    """What a cache file keeps of a fitted extractor."""
    buffers = dict(extractor.named_buffers())
    for name, value in tensors.items():
        if name.startswith("extractor."):
            buffers[name[len("extractor.") :]].copy_(value)


def _features(dataset, extractor, config, seed, identity, device, announce):
    """dict(features float16 [N, D], labels [N], extractor.*): from a cache file of their own, since cells, anchors and most seeds ask for no new ones."""
    # The seed chooses images: those that serve where not all do, and those to which the extractor is fitted.
    chooses = config.reference_cap < len(dataset) or extractor.images_to_fit > 0
    own = {name: identity[name] for name in ("format", "data", "selection", "extractor", "view", "cap")} | (dict(seed=seed) if chooses else {})
    found = collective.from_first_process(lambda: _load(own, announce), device)
    if not found:
        with host_rng_untouched():
            features_ND, labels_N = _extract(dataset, extractor, config, seed, device, announce)
        found = collective.from_first_process(lambda: _save(own, _rounded(features_ND, labels_N, extractor, seed), announce), device)
    _put_into(extractor, found)
    return found


def _notes(bundle, dataset, config):
    """What a user with few images or with labels should know, sentence by sentence."""
    labels_N = bundle.get("image_labels", bundle["labels"])
    if float(bundle["held_out"]) <= cells.LEAST_HELD_OUT and len(labels_N) >= 50:
        yield (
            f"{len(labels_N)} real images are few for {len(bundle['shares'])} cells: most new images of their kind fall outside the gates, and coverage and the "
            f"controller that follows it are rough; --madr-cells={max(len(labels_N) // 20, 2)} would give each cell about twenty"
        )
    label_shape = list(getattr(dataset, "label_shape", []))
    present = sorted(set(labels_N.tolist()) - {-1})
    if len(label_shape) != 1 or not present:
        return
    absent = sorted(set(range(int(label_shape[0]))) - set(present))
    if absent:
        named = ", ".join(map(str, absent[:10])) + (", ..." if len(absent) > 10 else "")
        yield (
            f"{len(absent)} of the {label_shape[0]} classes have no image among the {len(labels_N)} of the reference ({named}): what G makes of them is "
            "not replayed and not tilted; add images, leave these classes out of the labels, or raise --madr-reference-cap"
        )
    if len(present) > 1 and len(bundle["class"]) == len(present):
        yield (
            f"{len(present)} classes share {config.num_cells} cells, one each, so that deficits within a class go unseen; "
            f"--madr-cells={4 * len(present)} --madr-deficit-window={40 * len(present)} would show them"
        )


def _identity(dataset, extractor, config, seed):
    """Everything the bundle depends on."""
    identity = dict(
        format=FORMAT,
        data=data_fingerprint(dataset),
        selection=selection(dataset),
        extractor=extractor.identity(),
        view=list(parse_view(config.view, extractor.default_view)),
        cap=config.reference_cap,
        cells=config.num_cells,
        quantile=config.cell_quantile,
        seed=seed,
    )
    return dict(identity, anchors=config.anchors, anchor_kernel=config.kernel) if config.anchors else identity


def _load(identity, announce):
    """The bundle from the cache, {} if it is not there."""
    name = identity["extractor"]["name"]
    found = files.load_known(identity, name, announce)
    if found:
        announce(f"MADR: {len(found['features'])} real features ({name}) from {files.path_of(identity, name)}")
    return found


def _save(identity, tensors, announce):
    return files.save_known(identity, identity["extractor"]["name"], tensors, announce)


def _rounded(features_ND, labels_N, extractor, seed):
    # Stored in half precision, so the first run must work with what a later one will read.
    half_ND = features_ND.to(torch.float16)
    _check_rounding(features_ND, half_ND, seed, extractor.identity()["name"])
    return dict(features=half_ND, labels=labels_N, **_kept_of(extractor))


def _kept_of(extractor):
    return {f"extractor.{name}": value for name, value in fitting.buffers_of(extractor).items()}


def _check_rounding(features_ND, half_ND, seed, name):
    """Refuse features that half precision blurs: small differences far from zero."""
    error = (features_ND - half_ND.to(torch.float32)).norm(dim=1).median()
    distance = quantile_of_sorted(pairwise_distances(features_ND, generator_for("reference-scale", seed)), 0.5)
    if torch.isfinite(error) and float(error) > 0.05 * float(distance) > 0:
        raise MADRError(
            f"the features of --madr-extractor={name} lie so far from zero that half precision loses their differences (rounding moves them by "
            f"{float(error / distance):.0%} of their distance); let the extractor subtract their mean, or choose another"
        )


def chosen_rows(num_images, config, seed):
    """Indices of the images that serve as reference; sorted, they are the order of Reference.features_ND."""
    return fitting.order(num_images, seed)[: config.reference_cap]


def refuse_few(num_images):
    """Refuse a reference that is too small for scales and cells."""
    if num_images < 16:
        raise MADRError(f"MADR needs at least 16 training images as reference (got {num_images}); add images or use --madr=0")


@torch.no_grad()
def _extract(dataset, extractor, config, seed, device, announce):
    """(features [N, D] float32, labels [N]) of the reference rows, each process reading its share. Fits the extractor."""
    rows = np.sort(chosen_rows(len(dataset), config, seed))
    refuse_few(len(rows))
    if extractor.images_to_fit:
        fitting.put(extractor, collective.from_first_process(lambda: fitting.fit(extractor, dataset, seed, device), device))
    whole = collective.sum_over_processes(lambda: _own_share(dataset, extractor, rows, config, seed, device, announce), device)
    check_features(whole["features"], extractor.identity()["name"])
    if (whole["labels"] < 0).any():
        whole["labels"].fill_(-1)  # attributes of which a few look one-hot are no classes
    return whole["features"], whole["labels"]


def _own_share(dataset, extractor, rows, config, seed, device, announce, batch_size=64):
    """{features [N, D], labels [N]} with this process's batches filled in and zeros elsewhere: their sum is the whole, exactly."""
    rank, num_processes = collective.world()
    parts, features_ND, labels_N = parse_view(config.view, extractor.default_view), None, torch.zeros([len(rows)], dtype=torch.int64)
    starts, told = range(0, len(rows), batch_size), time.monotonic()
    for number, start in enumerate(starts):
        # Every process takes its first batch, if need be one of another's, to learn the width of the features.
        is_own = number % num_processes == rank
        if not is_own and not (features_ND is None and number == len(starts) - 1):
            continue
        here = slice(start, min(start + batch_size, len(rows)))
        images, classes = real_images.read_images_and_classes(dataset, rows[here])
        features = extractor(view.apply(images.to(device), parts, generator_for("reference-view", start))).to("cpu")
        if features_ND is None:
            features_ND = torch.zeros([len(rows), features.shape[1]])
        if is_own:
            features_ND[here], labels_N[here] = features, classes
        if time.monotonic() - told > TELL_SEC:
            told = time.monotonic()
            announce(f"MADR: features of {here.stop} / {len(rows)} training images")
    return dict(features=features_ND, labels=labels_N)


def _bundle(half_ND, labels_N, extractor, config, seed):
    features_ND = half_ND.to(torch.float32)
    if not torch.isfinite(features_ND).all():
        raise MADRError("features exceed half precision; choose another --madr-extractor")
    distances = pairwise_distances(features_ND, generator_for("reference-scale", seed))
    scales = {name: quantile_of_sorted(distances, share) for name, share in [("scale", 0.5), ("scale_low", 0.1), ("scale_high", 0.9)]}
    if float(scales["scale"]) <= 0:
        raise MADRError("more than half of the training images have the same features; remove duplicates or choose another --madr-extractor")
    bundle = dict(features=half_ND, labels=labels_N, **scales)
    bundle.update(cells.fit_cells_per_class(features_ND, labels_N, config.num_cells, config.cell_quantile, generator_for("reference-cells", seed)))
    bundle["held_out"] = cells.held_out_overlap(
        features_ND, labels_N, config.num_cells, config.cell_quantile, generator_for("reference-held-out", seed)
    )
    if 0 < config.anchors < len(features_ND):
        bundle.update(_anchored(features_ND, bundle, config, seed))
    bundle.update(_kept_of(extractor))
    digest = hashlib.sha256(bundle["features"].numpy().tobytes() + bundle["centroids"].numpy().tobytes()).digest()[:16]
    return dict(bundle, fingerprint=torch.tensor(list(digest), dtype=torch.uint8))


def _anchored(features_ND, bundle, config, seed):
    """The entries of a bundle that change when anchors take the reals' place, and the error of that."""
    made = anchors.compress(features_ND, bundle["labels"], config.anchors, seed)
    half_KD = made["anchors"].to(torch.float16)
    anchors_KD = half_KD.to(torch.float32)
    kernel = kernels.KERNELS[config.kernel](float(bundle["scale"]))
    error = [
        anchors.quantisation_error(features_ND, anchors_KD, made["anchor_of_real"]),
        *anchors.kernel_error(features_ND, anchors_KD, made["anchor_of_real"], kernel),
    ]
    cell_K = kmeans.nearest_centres(anchors_KD, bundle["centroids"], made["anchor_class"], bundle["class"])
    return dict(
        features=half_KD,
        labels=made["anchor_class"],
        mass=made["mass"],
        cell_of_real=cell_K,
        anchor_error=torch.tensor(error),
        subset=features_ND[_spread_rows(len(features_ND))].to(torch.float16),
        subset_labels=bundle["labels"][_spread_rows(len(features_ND))],
        image_cells=bundle["cell_of_real"],
        image_labels=bundle["labels"],
    )
