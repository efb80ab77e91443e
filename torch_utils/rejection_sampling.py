"""Discriminator rejection sampling (Azadi et al. 2018, 1810.06758): of a trained G's images, keep those that D finds as likely real.

At D's optimum its logit is log p_data(x) / p_G(x), up to a constant; accepting x with the probability p_data / (M p_G), M the largest
ratio, draws from p_data. Only sampling: nothing is trained. Must not know files, metrics or the command line.
"""

import dataclasses
import math

import torch

from dnnlib.errors import UserError

JUDGED_AT_ONCE = 32  # a D that compares the images of its batch always sees so many
MOST_PROPOSALS = 10_000  # for one image
STREAM = 0x4452  # of random numbers, beside those of other purposes
BURN_IN_ITEMS = 1 << 40  # items of a seed from here on begin with; none of them is an image that is kept
# How far a share of densities is kept from its ends, where their ratio is infinite; a D of least squares answers beyond them as well.
SHARE_MARGIN = 1e-4


# ---------------------------------------------------------------------------------------------------------------
# Logits as log density ratios.


# Adversarial terms (training/gan/adversarial.py) whose best D tells p, the data's density, from q, that of G.
LOGISTIC = ("minimax", "non-saturating", "relativistic")  # a = log p / q; the relativistic one up to a constant, which M takes away
SQUARES = ("least-squares", "whole-squares")  # a = p / (p + q)


@dataclasses.dataclass(frozen=True)
class Loss:
    """What D's logits mean. terms: of LOGISTIC or SQUARES. real_target: below 1 under one-sided label smoothing.

    is_assumed: nobody knows which loss trained D.
    """

    terms: str = "non-saturating"
    real_target: float = 1.0
    is_assumed: bool = False

    def facts(self):
        """What a result line states of it: nothing where it is known."""
        return dict(assumed_loss=self.terms) if self.is_assumed else {}

    def log_ratio(self, logits):
        """log p / q of logits, in float64, up to a constant.

        With a real target t the best D has the share s = t p / (p + q), which is a or sigmoid(a): log p / q = log s / (t - s).
        """
        logits, target = logits.to(torch.float64), self.real_target
        if self.terms in LOGISTIC and target == 1:
            return logits
        share = logits if self.terms in SQUARES else logits.sigmoid()
        share = share.clamp(SHARE_MARGIN, target - SHARE_MARGIN)
        return share.log() - (target - share).log()


def check_networks(G, D, network):
    """Refuse a D that does not judge single images of G."""
    if D.c_dim != G.c_dim and D.img_channels == G.img_channels:
        raise UserError(
            f"--drs: D of {network} reads {D.c_dim} numbers beside the image where G has {G.c_dim} of a label: it judges pairs (--method=veegan), not images; "
            "leave out --drs"
        )
    if D.img_channels != G.img_channels or D.img_resolution != G.img_resolution:
        raise UserError(
            f"--drs: D of {network} judges images of {D.img_channels} channels, G draws {G.img_channels}: it was trained on packs (--method=pacgan), "
            "of which none is one image; leave out --drs"
        )


# ---------------------------------------------------------------------------------------------------------------
# Acceptance.


@dataclasses.dataclass(frozen=True)
class Settings:
    """gamma: None, so that it is the `percentile` of F over the burn-in; eps: as in the paper. burn_in: images that M begins with.

    gamma = 0 draws from the data's distribution where D is right; below 0 more is accepted, above 0 less: what D finds most real.
    """

    gamma: float | None = None
    percentile: float = 95.0
    burn_in: int = 10_000
    eps: float = 1e-6


def acceptance_score(ratio_N, largest, gamma, eps):
    """F = a - M - log(1 - exp(a - M - eps)) - gamma (equation 8): an image is accepted with the probability sigmoid(F).

    ratio_N: log density ratios a <= M = largest. With gamma = eps = 0 this is exp(a - M) exactly.
    """
    below = ratio_N - largest
    return below - (-torch.expm1(below - eps)).log() - gamma


class Acceptance:
    """Who is accepted: M, the largest log ratio so far, and gamma. ratios_N: those of the burn-in.

    gamma follows M: it stays the percentile of F over the burn-in, all of it, so that it depends on no size of batches.
    """

    def __init__(self, ratios_N, settings):
        self.settings, self._burnt_in = settings, ratios_N.to(torch.float64).cpu()
        self.num_proposed = self.num_accepted = 0
        self.largest = -math.inf
        self._observe(self._burnt_in)

    def _observe(self, ratios_N):
        newest = float(ratios_N.max())
        if not math.isfinite(newest):
            raise UserError("--drs: D's logits are not finite numbers; take an earlier snapshot of the run, or leave out --drs")
        if newest <= self.largest:
            return
        self.largest, settings = newest, self.settings
        if settings.gamma is None:
            scores = acceptance_score(self._burnt_in, newest, 0.0, settings.eps)
            self.gamma = float(torch.quantile(scores, settings.percentile / 100))
        else:
            self.gamma = settings.gamma

    def probabilities(self, ratios_N):
        """How likely each is accepted; a new largest ratio counts at once."""
        ratios_N = ratios_N.to(torch.float64).cpu()
        self._observe(ratios_N)
        return acceptance_score(ratios_N, self.largest, self.gamma, self.settings.eps).sigmoid()

    def decide(self, ratios_N, uniform_N):
        """Whether each is accepted; uniform_N in [0, 1)."""
        return uniform_N < self.probabilities(ratios_N)

    @property
    def rate(self):
        """Accepted over proposed so far, None before the first."""
        return self.num_accepted / self.num_proposed if self.num_proposed else None

    def facts(self):
        """What a result line and a person may want to know."""
        return dict(
            acceptance=self.rate,
            proposed=self.num_proposed,
            accepted=self.num_accepted,
            largest=self.largest,
            gamma=self.gamma,
            percentile=self.settings.percentile if self.settings.gamma is None else None,
            burn_in=len(self._burnt_in),
            eps=self.settings.eps,
        )


def as_text(facts):
    """A line for the eye of Acceptance.facts()."""
    of = f", the {facts['percentile']:g}th percentile of the first {facts['burn_in']:.0f} images" if facts["percentile"] is not None else ""
    return (
        f"Discriminator rejection sampling accepted {facts['acceptance']:.1%} ({facts['accepted']:.0f} of {facts['proposed']:.0f} images; "
        f"largest logit {facts['largest']:.3g}, gamma {facts['gamma']:.3g}{of})."
    )


# ---------------------------------------------------------------------------------------------------------------
# Sampling.


class Proposals:
    """G and D together: latents and labels -> images and their log ratios.

    draw(z [N, z_dim], c [N, c_dim]) -> images [N, C, H, W]. D sees JUDGED_AT_ONCE of them at a time.
    """

    def __init__(self, draw, D, loss):
        self.draw, self.D, self.loss = draw, D, loss

    @torch.no_grad()
    def __call__(self, z_NZ, c_NC):
        """(images [N, C, H, W], log ratios [N]); N falls into parts of JUDGED_AT_ONCE."""
        images = [self.draw(z, c) for z, c in zip(z_NZ.split(JUDGED_AT_ONCE), c_NC.split(JUDGED_AT_ONCE))]
        logits = [self.D(img, c).flatten() for img, c in zip(images, c_NC.split(JUDGED_AT_ONCE))]
        return torch.cat(images), self.loss.log_ratio(torch.cat(logits))


def burnt_in(proposals, inputs, settings):
    """The Acceptance after the burn-in. inputs(first, count) -> (z, c) of proposals first, first + 1, ..."""
    ratios = []
    for first in range(0, settings.burn_in, JUDGED_AT_ONCE):
        ratios.append(proposals(*inputs(first, JUDGED_AT_ONCE))[1])
    return Acceptance(torch.cat(ratios)[: settings.burn_in], settings)


def tries(z_Z, random, device):
    """Iterate over the proposals of one image: (z [z_dim], uniform number), first z_Z, then what `random`, a NumPy generator, draws."""
    while True:
        yield z_Z.to(device), random.random()
        z_Z = torch.from_numpy(random.standard_normal(len(z_Z)).astype("float32"))


def accepted(proposals, acceptance, slots, labels_NC):
    """One accepted image for each slot: (images [N, C, H, W], latents [N, z_dim]).

    slots: for each image an iterator over its (z [z_dim], uniform number): its proposals, one after the other. labels_NC: of each.
    The slots that still wait share each batch in turn, so that D always sees whole ones; of a slot's proposals the first that is
    accepted counts, and those behind it are not counted at all.
    """
    waiting, images, latents = list(range(len(slots))), [None] * len(slots), [None] * len(slots)
    tried = 0
    while waiting:
        if tried >= MOST_PROPOSALS:
            raise UserError(
                f"--drs: no image was accepted in {MOST_PROPOSALS} proposals (gamma {acceptance.gamma:g}); lower --drs-gamma or --drs-percentile"
            )
        width = -(-len(waiting) // JUDGED_AT_ONCE) * JUDGED_AT_ONCE
        places = [waiting[index % len(waiting)] for index in range(width)]
        drawn = [next(slots[place]) for place in places]
        z = torch.stack([z for z, _uniform in drawn])
        found, ratios = proposals(z, labels_NC[places])
        keeps = acceptance.decide(ratios, torch.tensor([uniform for _z, uniform in drawn], dtype=torch.float64))
        for index, place in enumerate(places):
            if images[place] is None:
                acceptance.num_proposed += 1
                if keeps[index]:
                    images[place], latents[place] = found[index], z[index]
                    acceptance.num_accepted += 1
        tried += width // len(waiting)
        waiting = [place for place in waiting if images[place] is None]
    return torch.stack(images), torch.stack(latents)
