"""One microbatch of one phase: what came in, and the images and logits that are made of it, each when it is first asked for.

Parts of the loss that look at the same logits share them, and what nobody asks for is not computed.
"""

import functools

import torch

from training.gan.judge import Replay


class Step:
    """learner: 'G' or 'D'. cur_nimg: images shown to D before this step. microbatch: its number among those of all processes.

    z [N, z_dim] and labels [N, c_dim] of the fakes. In D's step fakes have no graph into G. leaves: of 'reals' and 'fakes', what D's
    logits shall be differentiable by.
    """

    def __init__(self, loss, phase, learner, microbatch, reals, real_labels, z, labels, sync, leaves=()):
        self.loss, self.phase, self.learner, self.microbatch = loss, phase, learner, microbatch
        self.cur_nimg = loss.cur_nimg
        self.z, self.labels, self.sync, self.leaves = z, labels, sync, leaves
        self._given_reals = reals, real_labels
        self._replays = {}

    # --- images -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def reals(self):
        """[N, C, H, W]: the reals that D sees."""
        return self._reals_and_labels[0]

    @functools.cached_property
    def fakes(self):
        """[N, C, H, W]: in G's step its images with their graph, in D's step the fakes that D sees."""
        return self._fakes_and_labels[0]

    @property
    def fresh_fakes(self):
        """[N, C, H, W]: in D's step G's own images of z, also where D sees others."""
        self.fakes  # noqa: B018 (makes them)
        return self._fresh

    @property
    def fakes_are_fresh(self):
        """Whether D's step shows D G's own images of z and no others."""
        self.fakes  # noqa: B018 (makes them)
        return self._is_fresh

    @property
    def real_labels(self):
        return self._reals_and_labels[1]

    @property
    def fake_labels(self):
        return self._fakes_and_labels[1]

    @functools.cached_property
    def _reals_and_labels(self):
        images, labels = self._given_reals
        images = images.detach()
        if self.learner == "D":
            for part in self.loss.parts:
                images, labels = part.reals_for_D(self, images, labels)
        return images.detach().requires_grad_("reals" in self.leaves), labels

    @functools.cached_property
    def _fakes_and_labels(self):
        self._replays["G"] = Replay(self.z.device)
        if self.learner == "G":
            return self.loss.run_G(self.z, self.labels, sync=self.sync)[0], self.labels
        with torch.no_grad():
            images, _ = self.loss.run_G(self.z, self.labels, sync=False)
        labels = self.labels
        self._fresh = images
        for part in self.loss.parts:
            images, labels = part.fakes_for_D(self, images, labels)
        self._is_fresh = images is self._fresh
        return images.detach().requires_grad_("fakes" in self.leaves), labels

    def remade(self, z):
        """G's images of other latents, with the labels, noise and style mixing that the step's own were made with. [N, z_dim] -> [N, C, H, W]."""
        self.fakes  # noqa: B018 (what is drawn for them is drawn again)
        with self._replays["G"], torch.set_grad_enabled(self.learner == "G"):
            return self.loss.run_G_aside(z, self.labels)

    # --- logits -----------------------------------------------------------------------------------------------------

    @functools.cached_property
    def judge(self):
        """What D answers in this step: of G's, perhaps another D than the present one."""
        judge = self.loss.judge
        for part in self.loss.parts if self.learner == "G" else ():
            judge = part.judge_for_G(self, judge)
        return judge

    @functools.cached_property
    def fake_logits(self):
        """[groups, 1]."""
        return self._judged("fakes", self.fakes)

    @functools.cached_property
    def real_logits(self):
        """[groups, 1]; without a graph in G's step."""
        with torch.set_grad_enabled(self.learner == "D"):
            return self._judged("reals", self.reals)

    def _judged(self, kind, images):
        labels = self.labels_for_D(kind)
        self._replays[kind] = Replay(images.device)
        return self.judge(images, labels)

    def labels_for_D(self, kind):
        """[N, any]: what D is told beside 'fakes' or 'reals'."""
        return self._labels_for_D[kind]()

    @functools.cached_property
    def _labels_for_D(self):
        def of(kind):
            return self._told(kind, *((self.fakes, self.fake_labels) if kind == "fakes" else (self.reals, self.real_labels)))

        return {kind: functools.cache(functools.partial(of, kind)) for kind in ("fakes", "reals")}

    def _told(self, kind, images, labels):
        """What D is told of images with these labels. [N, c_dim] -> [N, any]."""
        for part in self.loss.parts:
            labels = part.labels_for_D(self, kind, images, labels)
        return labels

    def judged_again(self, kind, images, labels=None):
        """D's logits of other images in the place of `kind` ('fakes', 'reals'), augmented by the same draws. [N, C, H, W] -> [groups, 1].

        labels: of the images, [N, c_dim], where they are not those of `kind`.
        """
        self.fake_logits if kind == "fakes" else self.real_logits  # noqa: B018
        told = self.labels_for_D(kind) if labels is None else self._told(kind, images, labels)
        with self._replays[kind]:
            return self.judge(images, told)
