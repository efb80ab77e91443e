"""Measures of one saved network of the StyleGAN2 backbone, against images that it may not have seen. Reals are looked at once.

Precision, recall, density, coverage and the Frechet distance in a space that no run was trained in and in random
convolutions; with a held-out part also copies of the training part and the distance over that of the held-out part; the share of rare
classes where there are labels; digits, where the data are stacked ones. Must not know methods or seeds of training.
"""

import numpy as np
import torch

from dnnlib.errors import UserError
from experiments import digit_bed
from madr_spaces import sampling
from metrics import detectors, digit_network, diversity, diversity_kernels, kernels, metric_main, metric_utils

RARE_BELOW = 0.05  # classes of a smaller share of the reals count as rare
SEED = 0  # of latents: the same for all networks
BESIDE = "random-conv"  # its numbers carry the prefix held_out_, unless it is the space asked for
MOST_SEEN = 10_000  # training images beyond which authenticity is left out: all their pairs would take longer than a run
MOST_CLASSES = 100  # more are the modes of stacked digits
_RAW = dict(return_features=True)


def class_shares(real_ND, class_N, fake_MD):
    """Share of the reals and of generated images per class, [K] each: an image belongs to its nearest real's class."""
    real, blocks = torch.from_numpy(real_ND), torch.from_numpy(fake_MD).split(1000)
    nearest_M = torch.cat([torch.cdist(block, real).argmin(1) for block in blocks]).numpy()
    real_K = np.bincount(class_N, minlength=class_N.max() + 1) / len(class_N)
    fake_K = np.bincount(class_N[nearest_M], minlength=len(real_K)) / len(fake_MD)
    return real_K, fake_K


def authenticity(seen_ND, other_MD):
    """Per cent of images that are no near copies of one of the training images."""
    return 100.0 * float(diversity_kernels.authentic_fakes(seen_ND, other_MD).mean())


class NetworkJudge:
    """training_kwargs: the data set of the runs, as a snapshot names it. held_out: path of the images to judge against; None: those of the training."""

    def __init__(self, training_kwargs, space, num_gen, held_out=None):
        self.training_kwargs, self.num_gen, self.held_out, self.kept = dict(training_kwargs), num_gen, held_out, {}
        self.space, self.spaces = space, list(dict.fromkeys([space, BESIDE]))
        self.reals_kwargs = self.training_kwargs
        if held_out is not None:
            self.reals_kwargs = dict(
                class_name="training.dataset.ImageFolderDataset", path=str(held_out), use_labels=False, max_size=None, xflip=False
            )
        self.training, self.reals = (
            metric_utils.construct_dataset(self.options(kwargs), use_labels=True) for kwargs in (self.training_kwargs, self.reals_kwargs)
        )
        if held_out is not None:
            self._check_held_out()
        self._known = {}  # moments, distances and the classifier, each found once

    def _check_held_out(self):
        if self.reals.image_shape != self.training.image_shape:
            raise UserError(
                f"--held-out={self.held_out} holds images of {self.reals.image_shape}, the runs were trained on {self.training.image_shape} "
                f"(channels, height, width); give the other part of the same set, as experiments.split_data writes it."
            )
        if self.reals.content_fingerprint() == self.training.content_fingerprint():
            raise UserError(f"--held-out={self.held_out} is the set that the runs were trained on; give images that they have not seen.")
        for space in self.spaces:
            if self.options(self.training_kwargs).detector(detectors.space_url(space))[1].fitted is not None:
                raise UserError(
                    f"--metric-space={space} is fitted to each data set, so that two of them cannot be compared in it; give a fixed space."
                )

    def check_trained_on(self, dataset_kwargs, network):
        """Refuse a network of other data: its numbers would be those of another study."""
        trained_on = metric_utils.construct_dataset(self.options(dict(dataset_kwargs)))
        if (trained_on.content_fingerprint(), len(trained_on)) != (self.training.content_fingerprint(), len(self.training)):
            raise UserError(
                f"{network} was trained on {dataset_kwargs['path']}, other runs on {self.training_kwargs['path']}, which holds other images."
            )

    def facts(self):
        """What a result depends on beside the networks, {} where they are judged against what they were trained on."""
        if self.held_out is None:
            return {}
        held_out = dict(name=self.reals.name, num_images=len(self.reals), fingerprint=self.reals.content_fingerprint())
        return dict(held_out=held_out, training=dict(num_images=len(self.training), fingerprint=self.training.content_fingerprint()))

    def options(self, dataset_kwargs, G=None):
        return metric_utils.MetricOptions(
            G=G, dataset_kwargs=dataset_kwargs, device=torch.device("cpu"), seed=SEED, num_gen=self.num_gen, space=self.space, kept=self.kept
        )

    def features(self, dataset_kwargs, space):
        """Features [N, D] of a data set."""
        return metric_utils.compute_feature_stats_for_dataset(
            self.options(dataset_kwargs), detectors.space_url(space), _RAW, capture_all=True
        ).get_all()

    def once(self, key, compute):
        if key not in self._known:
            self._known[key] = compute()
        return self._known[key]

    def moments(self, dataset_kwargs, space):
        """Mean and covariance of a data set's features."""
        return self.once(("moments", dataset_kwargs["path"], space), lambda: kernels.mean_and_covariance(self.features(dataset_kwargs, space)))

    # Measures.

    def __call__(self, G):
        """{measure: number} of a network."""
        opts = self.options(self.training_kwargs, G)
        fakes = diversity.generated_features(opts, [detectors.space_url(space) for space in self.spaces], self.num_gen)
        result = {}
        for space, fake in zip(self.spaces, fakes):
            result.update(self.compare(space, fake))
        if self.reals.has_onehot_labels and self.reals.label_dim <= MOST_CLASSES:
            result.update(self._classes(fakes[0]))
        if self.training.has_onehot_labels and self.training.label_dim > MOST_CLASSES:
            result.update(
                metric_main.calc_metric(
                    "madr_modes", G=G, dataset_kwargs=self.training_kwargs, device=opts.device, seed=SEED, num_gen=self.num_gen
                ).results
            )
            result.update(self._digits(opts))
        return result

    def of_training_images(self):
        """The scale of the measures: what training images get in place of generated ones, as many of them or all, and the held-out images' authenticity."""
        count = min(self.num_gen, len(self.training))
        chosen = np.sort(sampling.stream("subsets", SEED).permutation(len(self.training))[:count])
        result = dict(num_images=count)
        for space in self.spaces:
            seen = self.features(self.training_kwargs, space)
            result.update(self._numbers(space, seen[chosen]))
            if len(seen) <= MOST_SEEN:
                result[self._prefix(space) + "held_out_part_authenticity"] = authenticity(seen, self.features(self.reals_kwargs, space))
        return result

    def compare(self, space, fake_MD):
        """Numbers of generated features in one space."""
        result, prefix = self._numbers(space, fake_MD), self._prefix(space)
        if self.held_out is not None:
            seen_mean, seen_covariance = self.moments(self.training_kwargs, space)
            held_out = self.once(
                ("held out", space), lambda: kernels.frechet_distance(*self.moments(self.reals_kwargs, space), seen_mean, seen_covariance)
            )
            distance = kernels.frechet_distance(*kernels.mean_and_covariance(fake_MD), seen_mean, seen_covariance)
            result[prefix + "frechet_over_held_out"] = distance / held_out
            seen = self.features(self.training_kwargs, space)
            if len(seen) <= MOST_SEEN:
                result[prefix + "authenticity"] = authenticity(seen, fake_MD)
        return result

    def _numbers(self, space, fake_MD):
        real = self.features(self.reals_kwargs, space)
        items = diversity.per_item_numbers(self.options(self.training_kwargs), real, fake_MD, diversity.NUMBERS)
        result = {number: float(values.mean()) for number, (_, values) in items.items()}
        result["frechet"] = kernels.frechet_distance(*kernels.mean_and_covariance(fake_MD), *self.moments(self.reals_kwargs, space))
        return {self._prefix(space) + name: value for name, value in result.items()}

    def _prefix(self, space):
        return "" if space == self.space else "held_out_"

    def _classes(self, fake_MD):
        classes_N = np.array([int(self.reals.get_details(index).raw_label) for index in range(len(self.reals))])
        real_K, fake_K = class_shares(self.features(self.reals_kwargs, self.space), classes_N, fake_MD)
        rare = real_K < RARE_BELOW
        return dict(
            **({"rare_share": float(fake_K[rare].sum() / real_K[rare].sum())} if rare.any() else {}),
            class_total_variation=float(np.abs(real_K - fake_K).sum() / 2),
            class_share_real=real_K.tolist(),
            class_share_generated=fake_K.tolist(),
        )

    def _real_digits(self):
        """(the classifier, moments of its features of the reals, how sure it is of them)"""
        classifier = digit_network.obtain(self.training, torch.device("cpu"))
        images = np.stack([self.reals[index][0] for index in range(len(self.reals))])
        _, confidence, features = digit_bed.look_at(classifier, images)
        return classifier, kernels.mean_and_covariance(features), float(confidence.mean())

    def _digits(self, opts):
        """The Frechet distance below the classes of the digit classifier, one for all networks, and how sure it is relative to reals."""
        classifier, moments, sure = self.once("digits", self._real_digits)
        parts = [digit_bed.look_at(classifier, batch.numpy()) for batch in metric_utils.generate_images(opts, self.num_gen, 500)]
        features, confidence = (np.concatenate([part[which] for part in parts])[: self.num_gen] for which in (2, 1))
        return dict(
            digits_frechet=kernels.frechet_distance(*kernels.mean_and_covariance(features), *moments),
            digits_confidence=float(confidence.mean()) / sure,
        )
