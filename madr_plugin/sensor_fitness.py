"""Measures whether the count of cells sees what a generator leaves out: deficits are planted, and the tilt's draw is held against the truth.

Half of the images are the reals; the other half stands for a generator that draws like them, but for one group. A blind
sensor draws that group's reals as often as they come, a perfect one with the largest weight.
"""

import dataclasses
import types

import torch

from madr_plugin.base import view
from madr_plugin.config import parse_view
from madr_plugin.maths import cells, coverage
from madr_plugin.memory.sensor import CellSensor
from madr_plugin.reals.fine_cells import FineCells, fit
from madr_plugin.tilt.fine_sensor import FineSensor
from madr_spaces.errors import MADRError
from madr_spaces.seeds import generator_for
from madr_spaces.space import check_features

FEWEST_OF_GROUP = 4  # images of a group: fewer cannot be split
MOST_GROUPS = 24  # that are left out in turn, the rarest
NUM_BLENDS = 2048
GROUPS_WITHOUT_LABELS = 10


@dataclasses.dataclass(frozen=True)
class Plan:
    """Holds how the sensor counts, as in training, and what is planted."""

    window: int
    num_cells: int
    quantile: float
    largest: float  # weight of a real
    unclear: float  # share of images that are blends of two
    repeats: int
    seed: int
    sensor: str = "cells"  # or fine: the tilt's, with the window that it chooses itself
    rarest: float = 0.004  # of the fine sensor


def perfect_ratio(share, largest):
    """Share of a group's reals drawn, over their true share, where they alone have the largest weight and all others 1."""
    return largest / (1 - share + share * largest)


def groups_of_pixels(images, seed, count=GROUPS_WITHOUT_LABELS):
    """Groups of alike images for sets without labels: k-means of the pixels at 8 x 8 -> int64 [N]."""
    small_NP = torch.nn.functional.adaptive_avg_pool2d(images, (8, 8)).flatten(1)
    return cells.fit_cells(small_NP, count, 1.0, generator_for("sensor-groups", seed))["cell_of_real"]


def planted_groups(class_N):
    """Which groups are left out in turn: those with fewer than half as many images as the mean group, else all; the rarest first."""
    count_C = torch.bincount(class_N)
    present, generated_C = (count_C > 0).sum(), count_C // 2  # as halves() splits them
    # While a group is left out the generator has to draw something else.
    usable = ((count_C >= FEWEST_OF_GROUP) & (generated_C < generated_C.sum())).nonzero()[:, 0]
    rare = usable[count_C[usable] < len(class_N) / (2 * present)]
    chosen = rare if len(rare) else usable
    if present < 2 or not len(chosen):
        raise MADRError(
            f"planted deficits need at least two groups, one of them of {FEWEST_OF_GROUP} images or more and another of 2 or more (got {int(present)} "
            f"groups, the largest of {int(count_C.max())} of {len(class_N)} images); use a larger set"
        )
    return chosen[count_C[chosen].argsort(stable=True)][:MOST_GROUPS].tolist()


def halves(class_N, generator):
    """Split each group in two, at random -> (rows of the reals, rows of the generator)."""
    order = torch.randperm(len(class_N), generator=generator)
    order = order[class_N[order].argsort(stable=True)]
    counts = torch.bincount(class_N)
    place = torch.arange(len(order)) - (counts.cumsum(0) - counts)[class_N[order]]
    return order[place % 2 == 0], order[place % 2 == 1]


@torch.no_grad()
def measure(extractor, images, class_N, plan):
    """-> dict(ratios: {group: drawn share over true share while it is left out}, at_rest: the same with nothing left out, shares: {group: true share},

    window and num_cells: those that the sensor has, moved: share of D's draws that move to other reals while nothing is left out).
    """
    if extractor.images_to_fit:
        extractor.fit(images[: extractor.images_to_fit])
    parts, generator = parse_view("auto", extractor.default_view), generator_for("sensor-views", plan.seed)

    def features(these):
        found = torch.cat([extractor(view.apply(part, parts, generator)).to(torch.float32) for part in these.split(64)])
        check_features(found, extractor.identity()["name"])
        return found

    random = generator_for("sensor", plan.seed)
    real_rows, fake_rows = halves(class_N, random)
    sensor = _sensor_of(features(images[real_rows]), plan)
    pool_M, blends = sensor.assign(features(images[fake_rows])), None
    if plan.unclear > 0:
        blend_nD, groups_n2 = _blends(images, class_N, fake_rows, features, random)
        blends = sensor.assign(blend_nD), groups_n2
    class_of_real, class_of_fake = class_N[real_rows], class_N[fake_rows]
    planted, ratios = planted_groups(class_N), {}
    shares = {group: float((class_of_real == group).double().mean()) for group in planted}

    def drawn_over_truth(missing, groups):
        """Mean over the repeats of (share of each group's reals in a tilted draw) / (true share)."""
        pool = (class_of_fake != missing).nonzero()[:, 0]
        total, moved = dict.fromkeys(groups, 0.0), 0.0
        for _ in range(plan.repeats):
            weight_N = sensor.weights(_window(pool_M[pool], blends, missing, plan.unclear, sensor.window, random))
            moved += float((weight_N / weight_N.mean() - 1).clamp(min=0).mean()) / plan.repeats
            for group in groups:
                total[group] += float(weight_N[class_of_real == group].sum() / weight_N.sum()) / shares[group] / plan.repeats
        return total, moved

    for group in planted:
        ratios.update(drawn_over_truth(group, [group])[0])
    at_rest, moved = drawn_over_truth(-1, planted)
    return dict(ratios=ratios, at_rest=at_rest, shares=shares, window=sensor.window, num_cells=sensor.num_cells, moved=moved)


class _Sensor:
    """The plugin's own sensor, fed with cells instead of features, of which each image's is found once. window, num_cells: what it counts."""

    def __init__(self, assign, make, cell_of_real_N):
        self.assign, self._make, self._cell_of_real_N = assign, make, cell_of_real_N
        made = make()
        self.window, self.num_cells, self._largest = len(made.ledger.cells_W), len(made.reference.shares_C), made.deficit_max

    def weights(self, cell_W):
        """Weigh each real after a window of images in these cells -> [N]."""
        sensor = self._make()
        sensor.ledger.add(cell_W)
        return sensor.deficits()[self._cell_of_real_N] if self._largest > 1 else torch.ones([len(self._cell_of_real_N)])


def _sensor_of(real_ND, plan):
    classless_N = torch.full([len(real_ND)], -1)
    if plan.sensor == "fine":
        found = FineCells(real_ND, classless_N, fit(real_ND, classless_N, plan.rarest, plan.seed))
        knobs = types.SimpleNamespace(tilt_rarest=plan.rarest, tilt_max=plan.largest, tilt_window_images=None)
        assign = lambda features_MD: torch.cat([found.assign(part) for part in features_MD.split(256)])
        return _Sensor(assign, lambda: FineSensor(found, knobs, real_ND.device), found.cell_of_real_N)
    fitted = cells.fit_cells_per_class(real_ND, classless_N, plan.num_cells, plan.quantile, generator_for("reference-cells", plan.seed))
    reference = types.SimpleNamespace(shares_C=fitted["shares"], class_C=fitted["class"])
    return _Sensor(
        lambda features_MD: coverage.assign_to_cells(features_MD, fitted["centroids"], fitted["radii"]),
        lambda: CellSensor(reference, plan.window, plan.largest, plan.quantile, real_ND.device),
        fitted["cell_of_real"],
    )


def _blends(images, class_N, rows, features, random):
    """(features of the means of two images of unlike groups [n, D], their groups [n, 2]): what a generator draws between two modes."""
    pairs = rows[torch.randint(len(rows), [NUM_BLENDS, 2], generator=random)]
    pairs = pairs[class_N[pairs[:, 0]] != class_N[pairs[:, 1]]]
    mixed = (images[pairs[:, 0]] + images[pairs[:, 1]]) / 2
    return features(mixed), class_N[pairs]


def _window(pool_M, blends, missing, share, size, random):
    """Cells of a window's images, in no order: drawn from the pool, and the unclear share from blends of other groups than the missing one."""
    num_unclear, unclear = 0, pool_M[:0]
    if blends is not None:
        cell_n, groups_n2 = blends
        usable = cell_n[(groups_n2 != missing).all(1)]
        num_unclear = round(share * size) if len(usable) else 0
        unclear = usable[torch.randint(max(len(usable), 1), [num_unclear], generator=random)]
    clear = pool_M[torch.randint(len(pool_M), [size - num_unclear], generator=random)]
    return torch.cat([clear, unclear])[torch.randperm(size, generator=generator_for("sensor-order", size))]


def window_for(share, largest):
    """Images of a window that expects as many of a group as the largest weight: in a shorter one no weight can rise so far."""
    return int(-(-largest // share)) if share > 0 else 0
