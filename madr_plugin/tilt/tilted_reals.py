"""Shows reals of deficient cells to D and to the witness more often, until the deficit is gone: the tilt.

Feedback control with the short memory as its sensor: the target really shifts, so nothing compensates the weights. Must not
know losses or networks.
"""

import numpy as np
import torch

from madr_plugin.reals import real_images, reference
from madr_spaces.images import classes_of, host_rng_untouched
from madr_spaces.seeds import generator_for


def normalised_within_classes(v_N, class_N, mass_N=None):
    """w_r = v_r / mean of v over the class of r: within a class reals are drawn in proportion to v, the classes keep their mass.

    G does not choose its labels, so a deficit must not shift them. Without labels (-1) all reals are one class.
    mass_N: reals that each row stands for; None: one.
    """
    mean_K, slot_N = _class_means(v_N, class_N, mass_N)
    return v_N / mean_K[slot_N]


def replacements(v_N, class_N, class_B, generator):
    """For reals drawn uniformly (within classes class_B): the row that replaces each, -1 where it stays -> int64 [B].

    As v >= 1,  v_r / (N v_mean) = 1/v_mean * 1/N + (1 - 1/v_mean) * (v_r - 1) / sum_q (v_q - 1):  keep a real with
    probability 1/v_mean, else draw one in proportion to v - 1. The result is distributed in proportion to v, and where
    there is no deficit nothing is touched or read.
    """
    chance_B, place_B = torch.rand([2, len(class_B)], generator=generator, dtype=torch.float64).to(v_N.device)
    row_B = torch.full([len(class_B)], -1, dtype=torch.int64, device=v_N.device)
    excess_N = (v_N - 1).to(torch.float64)
    for index in class_B.unique().tolist():
        rows = (class_N == index).nonzero()[:, 0]
        total = excess_N[rows].sum()
        if len(rows) == 0 or float(total) <= 0:
            continue  # a class that the reference lacks, or one without deficit
        replaced_B = (class_B == index) & (chance_B < total / (total + len(rows)))  # 1 - 1/v_mean
        cumulative = excess_N[rows].cumsum(0)
        place = torch.searchsorted(cumulative, place_B[replaced_B] * cumulative[-1], right=True)
        row_B[replaced_B] = rows[place.clamp(max=len(rows) - 1)]
    return row_B


def replaced_share(v_N, class_N):
    """Expected share of D's reals that replacements() exchanges: 1 - 1/v_mean, averaged over classes by their size."""
    mean_K, slot_N = _class_means(v_N, class_N)
    return 1 - (1 / mean_K[slot_N]).mean()


def _class_means(v_N, class_N, mass_N=None):
    classes_K, slot_N = class_N.unique(return_inverse=True)
    if mass_N is not None:
        sums_K, masses_K = torch.zeros([2, len(classes_K)], dtype=v_N.dtype, device=v_N.device).index_add_(
            1, slot_N, torch.stack([mass_N * v_N, mass_N])
        )
        return sums_K / masses_K, slot_N
    sums_K = torch.zeros([len(classes_K)], dtype=v_N.dtype, device=v_N.device).index_add_(0, slot_N, v_N)
    return sums_K / torch.bincount(slot_N, minlength=len(classes_K)).to(v_N.dtype), slot_N


class TiltedReals:
    """Exchanges reals of a D microbatch. dataset: the host's, by an object of our own; rows_N: its index of each reference row."""

    def __init__(self, dataset, rows_N, seed):
        self.dataset, self.rows_N, self.seed = dataset, rows_N, seed

    def __call__(self, engine, phase, microbatch, real_img, real_c):
        """The images to use instead of real_img, which is left as it is. Each keeps its class, so the labels real_c stand."""
        v_N = engine.tilt()
        if v_N is None:
            return real_img
        class_N = engine.reference.image_labels_N
        class_B = torch.full([len(real_img)], -1, device=v_N.device)
        if real_c is not None and (class_N >= 0).any():
            class_B = classes_of(real_c.flatten(1)).to(v_N.device)
        elif real_c is not None and real_c.flatten(1).shape[1] > 0:
            return real_img  # labels that are no classes belong to their image
        generator = generator_for(self.seed, engine.step, microbatch, "tilt", phase, *engine.critic_turn)
        row_B = replacements(v_N, class_N, class_B, generator).cpu()
        places = (row_B >= 0).nonzero()[:, 0]
        if len(places) == 0:
            return real_img
        with host_rng_untouched():
            images = real_images.read_images(self.dataset, self.rows_N[row_B[places].numpy()])
        real_img = real_img.clone()
        real_img[places.to(real_img.device)] = images.to(real_img)
        return real_img


def open_for(training_set, training_set_kwargs, config, seed):
    """TiltedReals of a run. A data set of its own where possible: the host's may share a file with its loader's processes."""
    dataset = real_images.open_dataset(training_set_kwargs) if training_set_kwargs else training_set
    return TiltedReals(dataset, np.sort(reference.chosen_rows(len(dataset), config, seed)), seed)
