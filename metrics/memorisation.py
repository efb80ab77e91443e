"""Is a generated image a copy of a training image? Small pictures in, nearest training images and how likely chance brings them so near.

1. Candidates: the training images whose 8 x 8 reduction is nearest to that of the image or of its mirror image.
2. Aligned distance: root mean squared difference of the pixels, the least over mirroring and shifts by up to one pixel.
3. Ratio: this distance over the one from that training image to its third-nearest other training image, so that plain
   pictures, which all resemble one another, do not look like copies.
4. Chance: the same ratio of training images among the others says what honest new images get. Towards 0 it falls as a
   power of the ratio (the dimension of the data, locally), which is fitted where there are many; so the chance of a very
   small ratio is known without ever having seen one. An image is suspect when its chance, times the number of images
   looked at, is below LEVEL.
5. Duplicates: a set may hold near-duplicates of its own, which are as suspect. Suspects are called copies when they are
   more than an honest sample of such a set would hold.

Must not know networks, data sets or pages. Legend: N training images, M looked at, C channels, S side, P pairs.
"""

from dataclasses import dataclass

import numpy as np
import scipy.stats
import torch

from madr_spaces import neighbours

SIDE = 32  # pixels; larger pictures are reduced
LEVEL = 0.01  # chance of a single false copy among all that are looked at
FEWEST = 100  # training images below which chance cannot be told
SCALE_K = 3  # which other training image gives the unit of distance: not the first, since sets hold duplicates
_COARSE = 8
_CANDIDATES = 4  # of the image, and as many of its mirror image
_MAX_NULL = 2000  # training images that chance is learned from
_TAIL = 0.25  # share of them, those of the smallest ratios, to which the power is fitted
_MOST_POWER = 12.0  # beyond this the fitted tail would call moderately small ratios impossible
_PAIRS = 512  # compared at a time


@dataclass(frozen=True)
class Resemblance:
    """Of each image looked at: nearest_M, index of the nearest training image; mirrored_M, whether mirrored; ratio_M; chance_M,
    the expected number of honest images with so small a ratio among M (NaN: too few training images to tell).
    num_twins of num_asked training images are as suspect among the others."""

    nearest_M: np.ndarray
    mirrored_M: np.ndarray
    ratio_M: np.ndarray
    chance_M: np.ndarray
    num_twins: int = 0
    num_asked: int = 0

    @property
    def suspects_M(self):
        return np.nan_to_num(self.chance_M, nan=np.inf) < LEVEL

    @property
    def copies_M(self):
        """The suspects, or none where the set's own near-duplicates account for their number."""
        suspects = self.suspects_M
        return suspects if suspects.any() and self.chance_of_number() < LEVEL else np.zeros_like(suspects)

    def chance_of_number(self):
        """Probability that an honest sample of M holds as many suspects: the predictive distribution after num_twins among
        num_asked (negative binomial); 0 where no training image has a twin."""
        if not self.num_twins:
            return 0.0
        return float(scipy.stats.nbinom.sf(self.suspects_M.sum() - 1, self.num_twins, self.num_asked / (self.num_asked + len(self.ratio_M))))

    @property
    def order_M(self):
        """Indices, the most suspicious first."""
        return np.argsort(self.ratio_M, kind="stable")


def thumbnails(images, side=SIDE):
    """uint8 [N, C, H, W] -> uint8 [N, C, S, S] with S <= side; smaller ones stay as they are."""
    images = torch.as_tensor(images)
    if images.shape[-1] <= side:
        return images.numpy()
    small = torch.nn.functional.interpolate(images.to(torch.float32), size=[side, side], mode="bilinear", align_corners=False, antialias=True)
    return small.round().clamp(0, 255).to(torch.uint8).numpy()


def find(training_NCSS, looked_at_MCSS, *, progress=None):
    """Resemblance of images to training images, both uint8 thumbnails. N must be at least 2. progress: called with the number of images done."""
    search = _Search(training_NCSS)
    nearest, distance, mirrored = search.nearest(looked_at_MCSS, 1, progress=progress)
    ratio = distance[:, 0] / search.scales(nearest[:, 0])
    if len(training_NCSS) < FEWEST:
        return Resemblance(nearest[:, 0], mirrored[:, 0], ratio, np.full(len(ratio), np.nan))
    honest = _ratios_among(search)
    num_twins = int((len(ratio) * tail_chance(honest, honest) < LEVEL).sum())
    return Resemblance(nearest[:, 0], mirrored[:, 0], ratio, len(ratio) * tail_chance(ratio, honest), num_twins, len(honest))


def tail_chance(ratio_M, honest_Q):
    """Probability that an honest image has so small a ratio, [M] in [0, 1].

    Above the quantile u of the honest ratios it is their share; below it share(u) (ratio / u)^power, with the power from
    the median of log(u / ratio) below u, where a few exact duplicates in the set weigh no more than their number.
    """
    honest = np.sort(honest_Q)
    u = max(honest[int(_TAIL * (len(honest) - 1))], 1e-12)
    below = honest[honest < u]
    middle = np.median(np.log(u / np.maximum(below, 1e-12))) if len(below) else np.log(2)
    power = min(np.log(2) / max(middle, 1e-6), _MOST_POWER)
    share = np.searchsorted(honest, ratio_M, side="right") / len(honest)
    return np.where(ratio_M < u, _TAIL * (np.minimum(ratio_M, u) / u) ** power, share)


def _ratios_among(search):
    """Ratios of training images, each looked up among the others."""
    chosen = np.unique(np.linspace(0, len(search.images) - 1, _MAX_NULL).round().astype(np.int64))
    nearest, distance, _ = search.nearest(search.images[chosen], 1, own=chosen)
    return distance[:, 0] / search.scales(nearest[:, 0], without=chosen)


class _Search:
    """Nearest training images by aligned distance, among candidates."""

    def __init__(self, images_NCSS):
        self.images = images_NCSS
        self.coarse_ND = _coarse(images_NCSS)

    def nearest(self, images_MCSS, count, *, own=None, progress=None):
        """(indices, aligned distances, mirrored) [M, count] of the nearest training images; own: indices of the images themselves, left out."""
        candidates = np.concatenate([self._candidates(_coarse(version), own) for version in (images_MCSS, images_MCSS[..., ::-1])], axis=1)
        num = candidates.shape[1]
        rows = np.repeat(np.arange(len(images_MCSS)), num)
        told = None if progress is None else lambda pairs: progress(pairs // num)
        distance, mirrored = aligned_distances(images_MCSS, self.images, rows, candidates.ravel(), progress=told)
        distance, mirrored = distance.reshape(-1, num), mirrored.reshape(-1, num)
        # A candidate of the image and of its mirror image is one, and with few images the own one may be among them.
        order = np.argsort(candidates, axis=1, kind="stable")
        repeated = np.zeros(candidates.shape, bool)
        np.put_along_axis(repeated, order[:, 1:], np.diff(np.take_along_axis(candidates, order, 1), axis=1) == 0, axis=1)
        distance = np.where(repeated | (False if own is None else candidates == np.asarray(own)[:, None]), np.inf, distance)
        best = np.argsort(distance, axis=1, kind="stable")[:, :count]
        return tuple(np.take_along_axis(values, best, axis=1) for values in (candidates, distance, mirrored))

    def scales(self, indices_P, without=None):
        """Aligned distance of training images to their SCALE_K-th nearest other one, [P]; without: indices to leave out beside themselves."""
        items, back = np.unique(indices_P, return_inverse=True)
        near, distance, _ = self.nearest(self.images[items], SCALE_K + 1, own=items)
        near, distance = near[back], distance[back]
        if without is not None:
            distance = np.sort(np.where(near == np.asarray(without)[:, None], np.inf, distance), axis=1)
        finite = np.where(np.isfinite(distance), distance, -np.inf)
        wanted = finite[:, :SCALE_K].max(axis=1)  # with very few images: the farthest there is
        return np.maximum(wanted, 1.0)  # one grey level: what saving to 8 bits may change

    def _candidates(self, coarse_MD, own):
        count = min(_CANDIDATES + (own is not None), len(self.coarse_ND))
        norms_N = (self.coarse_ND**2).sum(axis=1)
        block = max(1, neighbours.TILE_BYTES // (4 * len(norms_N)))
        found = []
        for start in range(0, len(coarse_MD), block):
            squared = norms_N - 2 * coarse_MD[start : start + block] @ self.coarse_ND.T
            near = np.argpartition(squared, count - 1, axis=1)[:, :count]
            found.append(near.copy())  # a view would keep the whole block
        return np.concatenate(found)


def _coarse(images_NCSS):
    """float32 [N, D]: 8 x 8 reductions, which a shift by a pixel changes little, around mid grey."""
    parts = [
        torch.nn.functional.adaptive_avg_pool2d(
            torch.from_numpy(np.ascontiguousarray(images_NCSS[i : i + 4096])).to(torch.float32) - 127.5, min(_COARSE, images_NCSS.shape[-1])
        ).flatten(1)
        for i in range(0, len(images_NCSS), 4096)
    ]
    return torch.cat(parts).numpy()


def aligned_distances(a_NCSS, b_MCSS, i_P, j_P, *, progress=None):
    """(root mean squared difference of a[i_p] and b[j_p] in grey levels, the least over mirroring b and shifts by up to one
    pixel; whether mirrored) [P]. The rim of one pixel of a is left out, so that every shift compares as many pixels."""
    distances, mirrored = [], []
    for start in range(0, len(i_P), _PAIRS):
        i, j = i_P[start : start + _PAIRS], j_P[start : start + _PAIRS]
        a = torch.from_numpy(np.ascontiguousarray(a_NCSS[i])).to(torch.float32)[:, :, 1:-1, 1:-1]
        b = torch.from_numpy(np.ascontiguousarray(b_MCSS[j])).to(torch.float32)
        per_version = []
        for version in (b, b.flip(3)):
            shifted = [version[:, :, y : y + a.shape[2], x : x + a.shape[3]] for y in range(3) for x in range(3)]
            per_version.append(torch.stack([(a - part).square().mean(dim=[1, 2, 3]) for part in shifted]).amin(dim=0))
        plain, flipped = per_version
        distances.append(torch.minimum(plain, flipped).sqrt())
        mirrored.append(flipped < plain)
        if progress is not None:
            progress(start + len(i))
    return torch.cat(distances).double().numpy(), torch.cat(mirrored).numpy()
