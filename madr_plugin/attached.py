"""Puts MADR's term on any generator that draws in one step and has a gradient at its image: no GAN, no host, no loop of ours.

    term = madr_plugin.attach(generator, "images.zip")      # or a tensor of images, or of points [N, D]
    for step in range(steps):
        images = generator(torch.randn(16, 64))
        (term(images) + other_loss).backward()
        optimizer.step(), optimizer.zero_grad()
        term.step()                                          # remember what was generated

Students of diffusion distillation, moment-matching networks, or a GAN whose loop is one's own. Must not know adversaries.
"""

import contextlib
import copy

import numpy as np
import torch

from madr_plugin import attached_reference, config, idle_knobs, objectives
from madr_plugin.base import collective, view
from madr_plugin.reals import reference as references
from madr_plugin.strength.signal_share import SignalShare
from madr_spaces import registry
from madr_spaces.errors import MADRError
from madr_spaces.images import classes_of, host_rng_untouched
from madr_spaces.seeds import generator_for

# Knobs that mean something without an adversary, a replay and a discriminator that sees reals.
KNOBS = ("term", "weight", "kernel", "reals", "shrink", "moments_horizon", "moments_shrink", "extractor", "weights", "weights_sha256")
KNOBS += ("width", "input_size", "view", "reference_cap", "anchors", "cells", "debt", "debt_weight", "debt_rate")
OF_IMAGES = {"weights", "weights_sha256", "width", "input_size", "view"}
MANY_ROUNDS = 256  # batches of one step, at which one asks whether step() was forgotten


@contextlib.contextmanager
def _by_arguments():
    """Tell whoever calls attach() which of its arguments an error means, where it speaks of a host's flags."""
    try:
        yield
    except MADRError as error:
        if "--madr" not in str(error):
            raise
        raise MADRError(f"{error} (Here MADR's flags are arguments of attach(): --madr-width=64 is width=64, --madr=0 is no attach().)") from error


def attach(generator, reference, *, labels=None, seed=0, device=None, announce=print, **knobs):
    """Build MADR's term for a generator.

    generator: torch.nn.Module that learns. reference: what it shall cover: a folder or zip of images, a data set object of the StyleGAN2-ADA
    kind, images [N, C, H, W] in [-1, 1] or uint8, or points [N, D], which are their own features. labels: [N, c] one-hot for a tensor reference,
    to compare within classes; a data set object has its own. seed: of all that the term draws. device: of the features, the generator's by default. knobs: as --madr-*, without
    the prefix, of those in KNOBS; the preset `moments` where they are not given.

    Raises MADRError, with what to do, for a generator without parameters that learn, a knob that is unknown or without effect, or a reference that
    cannot be used.
    """
    with _by_arguments():
        return _attached(generator, reference, labels, seed, device, announce, {name: value for name, value in knobs.items() if value is not None})


def _attached(generator, reference, labels, seed, device, announce, knobs):
    if not isinstance(generator, torch.nn.Module):
        raise MADRError(f"attach(): the generator must be the torch.nn.Module that is trained (got {type(generator).__name__})")
    parameters = [parameter for parameter in generator.parameters() if parameter.requires_grad]
    if not parameters:
        raise MADRError("attach(): no parameter of the generator learns; call generator.requires_grad_(True), or give the module that is trained")
    dataset = attached_reference.opened(reference, labels)
    are_points = list(dataset.image_shape[1:]) == [1, 1] and "extractor" not in knobs
    resolved = _resolved(knobs, are_points)
    if isinstance(dataset, attached_reference.TensorSet) and not are_points and float(dataset.values.min()) >= 0:
        announce(
            "MADR: note: all values of the reference lie in [0, 1], and pixels are read as [-1, 1]; that is right only if the generator draws none below 0"
        )
    device = _device(device, parameters[0].device)
    extractor = (
        attached_reference.PointSpace(dataset.image_shape)
        if are_points
        else registry.build(
            resolved.extractor, dataset.image_shape, resolved.width, seed, resolved.input_size, resolved.weights, resolved.weights_sha256
        )
    )
    extractor = extractor.eval().requires_grad_(False).to(device)
    try:
        real_features = references.build(dataset, extractor, resolved, seed, device, announce)
    except MADRError as error:
        if not are_points:
            raise
        raise MADRError(f"{error} (Points have no extractor: shift and scale them, and what the generator draws, to about zero and one.)") from error
    with host_rng_untouched():
        label_width = int(np.size(dataset[0][1]))
    term = AttachedTerm(resolved, real_features, extractor, seed, device, dataset.image_shape, label_width, announce)
    for note in term.objective.notes():
        announce(f"MADR: note: {note}")
    return term


def _resolved(knobs, are_points):
    """Make options of the knobs, or refuse what attach() does not take or nothing would read."""
    strange = sorted(set(knobs) - set(KNOBS))
    if strange:
        raise MADRError(f"attach() takes the knobs {', '.join(KNOBS)}, not {strange[0]!r}: others belong to a GAN's training loop")
    idle = sorted(OF_IMAGES & set(knobs)) if are_points else []
    if idle:
        raise MADRError(
            f"attach(): {idle[0]} is of an extractor of images, and points are their own features; leave it out, or name one, such as extractor='pca'"
        )
    knobs = {name: f"{value:g}" if name == "moments_horizon" and isinstance(value, (int, float)) else value for name, value in knobs.items()}
    resolved = config.resolve(dict(preset="moments") | knobs)
    idle_knobs.refuse(knobs, resolved)
    if resolved.horizon_kimg is None:
        raise MADRError("attach(): moments_horizon=auto follows remembered latents, which attach() does not see; give a number of kimg, such as 0.8")
    if not resolved.parts:
        raise MADRError(f"attach(): term={resolved.term} is not for use without a GAN; take witness+moments, witness or moments")
    if "cells" in knobs and resolved.debt == "none":
        raise MADRError("attach(): cells has no effect without debt; add debt='potentials', or leave it out")
    return resolved


def _device(wanted, of_generator):
    try:
        device = torch.device(wanted if wanted is not None else of_generator)
        torch.zeros(1, dtype=torch.float64, device=device)
    except (RuntimeError, TypeError) as error:
        raise MADRError(
            f"attach(): device {wanted if wanted is not None else of_generator} cannot be used here, or has no float64 ({error}); take cpu or cuda"
        ) from error
    return device


class AttachedTerm:
    """MADR's term: call it with generated images, step() after the optimizer. Keeps what it remembers in state_dict().

    B times the gradient of what it returns at the B images' features is the mixture of the term's parts, of mean size weight x the share of it that
    is signal and not sampling noise (strength/signal_share.py): in collapse near `weight`, near 0 where generated and real agree. Its value says
    nothing; `measured` has what was found. The same numbers on any number of processes, if each calls it equally often per step.
    """

    def __init__(self, resolved, real_features, extractor, seed, device, image_shape, label_width=0, announce=print):
        self.announce = announce
        self.config, self.reference, self.extractor, self.seed, self.device = resolved, real_features, extractor, seed, device
        self.image_shape = list(image_shape)
        self.view_parts = config.parse_view(resolved.view, extractor.default_view)
        built = objectives.build(resolved, real_features, seed)
        self.objective = built if isinstance(built, objectives.MixedObjective) else objectives.MixedObjective({resolved.parts[0]: built})
        self.signals = {part: SignalShare(device, exponent) for part, exponent in resolved.measured_parts.items()}
        self.compares_classes, self.label_width = bool((real_features.labels_N >= 0).any()), label_width
        self.steps = 0
        self.measured = {}  # of the newest call: name -> number
        self._rounds = []

    def __call__(self, images, labels=None):
        """Compute the term of a generated batch -> 0-d with a graph to the images.

        images: [B, C, H, W] in [-1, 1] as the reference's, or points [B, D]; B of 2 or more. labels: one-hot [B, c] where classes are compared.
        """
        # The host's automatic precision is for networks: what is compared here is differences of large sums.
        with _by_arguments(), torch.autocast(self.device.type, enabled=False):
            return self._term(images, labels)

    def _term(self, images, labels):
        images = self._checked(images)
        rank, processes = collective.world()
        microbatch = len(self._rounds) * processes + rank
        generator = generator_for(self.seed, self.steps, microbatch, "term")
        features_BD = self.extractor(view.apply(images, self.view_parts, generator)).to(torch.float32)
        class_B = self._classes(images, labels)
        shares = {part: signal.factor() for part, signal in self.signals.items()}
        gradient_BD, measured = self.objective.gradient(features_BD.detach(), generator, objectives.Seen(class_B=class_B, shares=shares))
        self._rounds.append((features_BD.detach(), class_B, {name: value.detach().to(torch.float32) for name, value in measured.items()}))
        if len(self._rounds) == MANY_ROUNDS:
            self.announce(
                f"MADR: note: {MANY_ROUNDS} batches since the last step(): nothing is remembered, and their features are kept, until step() is called; "
                "call it after each step of the optimizer"
            )
        # A part whose noise is not measured (--madr-shrink=0) speaks in full.
        measured_all = len(shares) == len(self.config.parts)
        strength = self.config.weight * (torch.stack(list(shares.values())).max() if measured_all else 1.0)
        self.measured = {name: float(value) for name, value in measured.items()} | dict(strength=float(strength))
        if gradient_BD is None:
            return features_BD.sum() * 0
        return (features_BD * (gradient_BD * strength / len(images))).sum()

    def _checked(self, images):
        """Refuse what would teach the generator nothing, or something wrong."""
        if not torch.is_tensor(images):
            raise MADRError(
                f"the generated images must be one tensor (got {type(images).__name__}); give the image alone of what the generator returns"
            )
        if not images.requires_grad or not torch.is_grad_enabled():
            raise MADRError("the generated images carry no gradient; call the generator outside torch.no_grad(), and do not detach its images")
        images = images[:, :, None, None] if images.ndim == 2 else images
        if list(images.shape[1:]) != self.image_shape:
            raise MADRError(
                f"generated images must be of the reference's shape {self.image_shape} (got {list(images.shape[1:])}); resize one of both"
            )
        if len(images) < 2:
            raise MADRError("the term compares the images of a batch, and this is a single one; give 2 or more")
        return images.to(torch.float32)

    def _classes(self, images, labels):
        """Tell the class of each image, -1 where none are compared -> int64 [B]."""
        if labels is None and self.compares_classes:
            raise MADRError("the reference has classes, and these images come without; call term(images, labels) with one-hot labels [B, c]")
        if labels is None:
            return torch.full([len(images)], -1, device=images.device)
        label_BL = attached_reference.numbers(labels, "labels of the images").to(images.device, torch.float32)
        if not self.label_width:
            raise MADRError("these images come with labels, and the reference has none; leave them out, or give attach() the labels of the reference")
        if list(label_BL.shape) != [len(images), self.label_width]:
            raise MADRError(
                f"labels must be vectors as the reference's, one-hot where they are classes: shape {[len(images), self.label_width]} for these images "
                f"(got {list(label_BL.shape)})"
            )
        return classes_of(label_BL)

    @torch.no_grad()
    def step(self):
        """Take in what was generated since the last step, once; call it after the optimizer's step."""
        with _by_arguments(), torch.autocast(self.device.type, enabled=False):
            self._step()
        for sentence in self.objective.sentences():
            self.announce(f"MADR: {sentence}")

    def _step(self):
        if not self._rounds:
            raise MADRError("step() without a batch: call the term with generated images first")
        rounds, self._rounds = self._rounds, []
        if len({len(features_BD) for features_BD, _, _ in rounds}) > 1:
            raise MADRError(f"the batches of one step must be of one size (got {[len(features_BD) for features_BD, _, _ in rounds]})")
        features = collective.gather_microbatches([features_BD for features_BD, _, _ in rounds])
        class_B = collective.gather_microbatches([class_B for _, class_B, _ in rounds]).flatten(0, 1)
        names = sorted(rounds[0][2])
        measured = {name: collective.gather_microbatches([found[name] for _, _, found in rounds]).nanmean() for name in names}
        microbatch, features_BD = features.shape[1], features.flatten(0, 1)
        for part, (power, null) in self.objective.signals(measured, microbatch).items():
            if part in self.signals:
                self.signals[part].update(power, null)
        self.objective.after_step(self.steps, None, objectives.Batch(features_BD, class_B, len(features_BD), microbatch, measured))
        self.steps += 1

    def state_dict(self):
        """Return what a resumed run needs: plain tensors and numbers. Call it between steps."""
        live = dict(objective=self.objective.live_state(), signals={part: signal.live_state() for part, signal in self.signals.items()})
        return dict(copy.deepcopy(live), steps=self.steps, fingerprint=self.reference.fingerprint)

    def load_state_dict(self, state):
        """Take up what state_dict() gave, and announce what knobs have changed of it. Raises MADRError where it is of other reals or another feature space."""
        if not isinstance(state, dict) or not {"objective", "signals", "steps", "fingerprint"} <= set(state):
            raise MADRError("this is no state of MADR's term; give what its state_dict() returned (the generator's is another)")
        if state["fingerprint"] != self.reference.fingerprint:
            raise MADRError("this state is of another reference or feature space; attach() with the former ones, or start anew")
        with _by_arguments():
            begun, left = objectives.load(self.objective, state["objective"], self.device)
        for what in begun:
            self.announce(f"MADR: note: the state is of other knobs: {what} begins anew")
        for what in left:
            self.announce(f"MADR: note: the state also holds {what}, which the present knobs do not use: it is given up")
        for part, signal in self.signals.items():
            signal.load(state["signals"].get(part, {}), self.device)
        self.steps, self._rounds = int(state["steps"]), []
