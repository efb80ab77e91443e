"""Remembers, for each real image, the latent whose image came nearest to it: the table of champions. Must not know losses or generators of images.

Shapes: N reals, B generated images, R rows listed, D feature width, P latents per image, Z their width, c width of labels.
"""

import torch

from madr_plugin.base import collective
from madr_plugin.maths import champions
from madr_spaces.errors import MADRError
from madr_spaces.images import classes_of

DECAY = 0.98  # of what is known about the drift, per measurement
MIB = 2**20


class ChampionTable:
    """Keeps per real r: d_r^2 (`squared`, inf: no champion yet), the images generated when it was measured (`measured`), the threshold tau_r, and

    `latents`, `layers`, `labels`, from which the champion is made again. A row changes hands when a generated image of the real's class is nearer than the
    champion is expected to be by now, e_r^2 = d_r^2 + v age_r; v is what champions made again have been found to lose. tau_r begins as the first
    champion's distance and shrinks while it is met, never below a floor: the ball in which --madr-dead-zone of the images made so far would lie at
    p_g = p_data, or where that is less, the distance of the nearest other real.
    """

    OF_LATENTS = ("latents", "layers", "labels")
    NAMES = ("squared", "measured", "threshold", *OF_LATENTS)
    NUMBERS = ("moved", "aged")

    def __init__(self, reference, config, device):
        self.reals_ND, self.class_N, self.device = reference.features_ND, reference.labels_N, device
        self.config, self.limit_mib = config, config.champion_mib
        try:
            found = collective.from_first_process(lambda: dict(radii=champions.held_out_radii(self.reals_ND, self.class_N).cpu()), device)
        except ValueError as error:
            raise MADRError(f"--madr-replay-from=champions: {error}; remove duplicate images or choose another --madr-extractor") from error
        self.radii_NK = found["radii"].to(device)
        self.nimg = 0  # images generated so far
        self.moved = self.aged = torch.zeros([], dtype=torch.float64, device=device)
        self.tensors = {}  # there with the first images, when the width of latents is known
        self.has_classes = bool((self.class_N >= 0).any())
        self.square_N = self.reals_ND.square().sum(1)
        self._known = {}  # what follows from the state, until that changes

    # --- its size -----------------------------------------------------------------------------------------------------

    def mib(self, latents, labels):
        """Compute what it will occupy. latents: numbers per image, P Z; labels: width."""
        return len(self.reals_ND) * (4 * (latents + labels + self.radii_NK.shape[1]) + 4 + 8 + 4 + 8) / MIB

    def check_size(self, latents, labels):
        """Refuse a table above the limit. Raises MADRError with what helps."""
        needed = self.mib(latents, labels)
        if needed > self.limit_mib:
            fit = int(self.limit_mib / needed * len(self.reals_ND))
            raise MADRError(
                f"the champions of {len(self.reals_ND)} reals would take {needed:.1f} MiB, and --madr-champion-mib={self.limit_mib} is the limit; "
                f"raise it to {int(needed) + 1}, lower --madr-reference-cap to {fit}, or use --madr-replay-from=memory"
            )

    def note(self, latents, labels):
        """Say how large it will be."""
        return f"the champions of {len(self.reals_ND)} reals will take up to {self.mib(latents, labels):.1f} MiB"

    # --- while a step runs ----------------------------------------------------------------------------------------------

    @property
    def is_empty(self):
        return not self.tensors

    @property
    def says_something(self):
        """Tell whether enough images have been made to miss one near a real: until then nothing is pulled and no threshold moves."""
        return not self.is_empty and self._place() is not None

    def _place(self):
        return champions.rank_expected(len(self.reals_ND), self.nimg, self.config.dead_zone)

    @property
    def drift(self):
        """v: by how much the squared distance of a champion is found to grow per image generated -> 0-d float64."""
        return (self.moved / self.aged.clamp(min=1)).clamp(min=0)

    def _aged_squared(self):
        age_N = (self.nimg - self.tensors["measured"]).to(torch.float32)
        return champions.aged_squared(self.tensors["squared"], age_N, self.drift.to(torch.float32))

    def distances(self):
        """e_r, expected by now -> float32 [N]; inf without a champion."""
        if "distances" not in self._known:
            self._known["distances"] = self._aged_squared().sqrt()
        return self._known["distances"]

    def draw(self, count, generator):
        """Draw rows of reals whose champion is beyond tau_r, with replacement, in proportion to min(e_r / tau_r, --madr-deficit-max) -> int64 [count]; [0]: none is."""
        if not self.says_something:
            return torch.zeros([0], dtype=torch.int64, device=self.device)
        weight_N = champions.pull_weights(self.distances(), self.tensors["threshold"], self.config.deficit_max)
        cumulative_N = weight_N.to(torch.float64).cumsum(0)
        position = torch.rand([count], generator=generator, dtype=torch.float64).to(self.device) * cumulative_N[-1]
        if not float(cumulative_N[-1]) > 0:
            return torch.zeros([0], dtype=torch.int64, device=self.device)
        return torch.searchsorted(cumulative_N, position, right=True).clamp(max=len(weight_N) - 1)

    def latents_of(self, rows_R):
        """Return what the champions of these reals are made of: (latents [R, P, Z], layers [R], labels [R, c])."""
        return tuple(self.tensors[name][rows_R] for name in self.OF_LATENTS)

    def still_far(self, squared_R, rows_R):
        """Mark with 0 the rows whose champion, made again, lies within tau_r -> float32 [R]."""
        return (squared_R > self.tensors["threshold"][rows_R].square()).to(torch.float32)

    def far_share(self):
        """Compute the share of reals whose champion is beyond tau_r -> 0-d in [0, 1]."""
        if not self.says_something:
            return torch.zeros([], device=self.device)
        if "far" not in self._known:
            distance_N = self.distances()
            self._known["far"] = ((distance_N > self.tensors["threshold"]) & torch.isfinite(distance_N)).to(torch.float32).mean()
        return self._known["far"]

    # --- end of a step --------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def take_in(self, samples, generated, remade=None):
        """Take in a step's images of all processes, in global order, and what its champions made again have come to.

        samples: {features [B, D], latents [B, P, Z], layers [B], labels [B, c]}; layers -1: cannot be made again. generated: images of the step.
        remade: (rows [R], squared distances [R]); rows of -1 and what is not finite are passed over.
        """
        if self.is_empty:
            self._allocate(samples)
        if remade is not None:
            self._measure_again(*remade)
        self._challenge(samples)
        self.nimg += generated
        self._known = {}
        if self.says_something:
            halvings, floor_N = generated / (1000 * self.config.champion_kimg), self.radii_NK[:, self._place()]
            self.tensors["threshold"] = champions.shrunk_thresholds(self.tensors["threshold"], self.distances(), floor_N, halvings)

    def _allocate(self, samples):
        shape = list(samples["latents"].shape[1:])
        self.check_size(samples["latents"][0].numel(), samples["labels"].shape[1])
        N, device = len(self.reals_ND), self.device
        self.tensors = dict(
            squared=torch.full([N], torch.inf, device=device),
            measured=torch.zeros([N], dtype=torch.int64, device=device),
            threshold=torch.full([N], torch.inf, device=device),
            latents=torch.zeros([N, *shape], device=device),
            layers=torch.zeros([N], dtype=torch.int64, device=device),
            labels=torch.zeros([N, samples["labels"].shape[1]], device=device),
        )

    def _measure_again(self, rows_R, squared_R):
        """Note the distances that champions have now, and learn from them how distances grow. Of a row listed twice the later one stays."""
        known_R = (rows_R >= 0) & torch.isfinite(squared_R)
        rows_R, squared_R = rows_R[known_R], squared_R[known_R]
        if len(rows_R) == 0:
            return
        kept = self.tensors
        growth = (squared_R.to(torch.float64) - kept["squared"][rows_R].to(torch.float64)).sum()
        self.moved = DECAY * self.moved + growth
        self.aged = DECAY * self.aged + (self.nimg - kept["measured"][rows_R]).sum()
        last_place = {row: place for place, row in enumerate(rows_R.tolist())}
        rows, places = torch.tensor([list(last_place), list(last_place.values())], device=rows_R.device).unbind()
        kept["squared"][rows] = squared_R[places]
        kept["measured"][rows] = self.nimg

    def _challenge(self, samples):
        """Give rows to generated images that are nearer to their real than its champion is expected to be."""
        kept, features_BD = self.tensors, samples["features"]
        lowest_N, image_N = self._nearest_images(samples)
        rows = (lowest_N < self._aged_squared()).nonzero()[:, 0]
        images = image_N[rows]
        squared_R = (self.reals_ND[rows] - features_BD[images]).square().sum(1)  # of products little is left where two are near
        is_new_R = ~torch.isfinite(kept["squared"][rows])
        kept["threshold"][rows] = torch.where(is_new_R, squared_R.sqrt(), kept["threshold"][rows])
        kept["squared"][rows], kept["measured"][rows] = squared_R, self.nimg
        for name in self.OF_LATENTS:
            value = samples[name][images]
            kept[name][rows] = value.to(kept[name].dtype).expand(-1, *kept[name].shape[1:])

    def _nearest_images(self, samples):
        """Find the nearest image that may become champion: (squared distance [N], inf where there is none; image [N])."""
        usable_B = (samples["layers"] >= 0) & torch.isfinite(samples["features"]).all(1)
        features_BD = torch.where(usable_B[:, None], samples["features"], 0)
        square_B = torch.where(usable_B, features_BD.square().sum(1), torch.inf)
        apart_BN = torch.addmm(square_B[:, None], features_BD, self.reals_ND.T, alpha=-2)  # without |x_r|^2, which no image can help
        if self.has_classes:
            class_B = classes_of(samples["labels"]).to(self.device)
            apart_BN.masked_fill_((self.class_N >= 0) & (class_B >= 0)[:, None] & (class_B[:, None] != self.class_N), torch.inf)
        lowest_N, image_N = apart_BN.min(dim=0)
        return (lowest_N + self.square_N).clamp_(min=0), image_N

    # --- state and telemetry ----------------------------------------------------------------------------------------------

    def live_state(self):
        """Return the state's own tensors and numbers."""
        return dict(nimg=self.nimg, tensors=dict(self.tensors), **{name: getattr(self, name) for name in self.NUMBERS})

    def load(self, state):
        """Take up what live_state() gave; {}: of a run without champions, which are looked for from now on. Raises MADRError for other reals."""
        tensors = state.get("tensors", {})
        if tensors and len(tensors["squared"]) != len(self.reals_ND):
            raise MADRError(
                f"the saved champions are of {len(tensors['squared'])} reals, the reference has {len(self.reals_ND)}; resume with the former "
                "--madr-reference-cap, or start anew"
            )
        self.tensors = {name: value.to(self.device, copy=True) for name, value in tensors.items()}
        self.nimg, self._known = int(state.get("nimg", 0)), {}
        for name in self.NUMBERS:
            value = state.get(name, torch.zeros([], dtype=torch.float64))
            setattr(self, name, torch.as_tensor(value, dtype=torch.float64).to(self.device, copy=True))

    def telemetry(self):
        """Return numbers to report: the share of reals that have a champion, and of those with one beyond tau_r; medians over reals of d_r and tau_r
        over the distance of the nearest other real; the mean age of measurements."""
        if self.is_empty:
            return {}
        kept = self.tensors
        has_N = torch.isfinite(kept["squared"])
        unit_N = self.radii_NK[has_N, 0]
        if not bool(has_N.any()):
            return dict(champions=0.0)
        return dict(
            champions=has_N.to(torch.float32).mean(),
            champions_far=self.far_share(),
            champion_distance=(kept["squared"][has_N].sqrt() / unit_N).median(),
            champion_threshold=(kept["threshold"][has_N] / unit_N).median(),
            champion_age_kimg=(self.nimg - kept["measured"][has_N]).to(torch.float64).mean() / 1000,
        )
