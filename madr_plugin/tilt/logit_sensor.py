"""Weighs each real by D's past logits of it: the sensor that needs no features (Dia-GAN: Lee et al. 2021, 2102.12033, section 4).

D's logit is its log density ratio of data over generated, so a real that G leaves out keeps a high one, and one that G makes in some weeks only
a varying one. Looked at are reals in the order of a shuffled list, whatever D is shown to learn from. Must not know features or losses.
"""

import types

import torch

from madr_plugin.base import collective
from madr_plugin.reals import real_images
from madr_spaces.errors import MADRError
from madr_spaces.images import host_rng_untouched
from madr_spaces.seeds import generator_for

STD_WEIGHT = 0.3  # k of the paper
LOWEST, MOST = 0.01, 50.0  # bounds of a score: from below, and as a multiple of the smallest
KEPT = 0.9  # of the weight of a real's former looks at each new one: about the last ten count


def scores(weight_N, first_N, second_N):
    """mean + k std of each real's logits, clipped to [LOWEST, MOST times the smallest] -> [N]; a real without any has the mean score.

    weight, first, second: sums of w, w l, w l^2 over its looks, float64 [N].
    """
    met_N = weight_N > 0
    mean_n = first_N[met_N] / weight_N[met_N]
    found_n = mean_n + STD_WEIGHT * (second_N[met_N] / weight_N[met_N] - mean_n.square()).clamp(min=0).sqrt()
    found_n = found_n.clamp(min=LOWEST)
    found_n = found_n.clamp(max=MOST * float(found_n.min()))
    return torch.full_like(weight_N, float(found_n.mean())).masked_scatter(met_N, found_n)


class LogitSensor:
    """v_r = score_r over the smallest score, 1 to 50. Each real is a cell of its own, so that what asks for cells finds them.

    dataset: an object of our own; rows_N: its index of each reference row; discriminator: DiscriminatorAccess.
    """

    NAMES = ("weight_N", "first_N", "second_N")

    def __init__(self, reference, dataset, rows_N, discriminator, seed):
        if reference.mass_N is not None:
            raise MADRError("--madr-tilt-sensor=logits weighs every real, and --madr-anchors keeps none; use --madr-anchors=0")
        self.dataset, self.rows_N, self.discriminator, self.seed = dataset, rows_N, discriminator, seed
        count, device = len(reference.features_ND), reference.features_ND.device
        each_N = torch.arange(count, device=device)
        shares_N = torch.full([count], 1 / count, device=device)
        self.cells = types.SimpleNamespace(cell_of_real_N=each_N, image_cells_N=each_N, shares_C=shares_N, class_C=reference.labels_N)
        self.device, self.position = device, 0  # reals looked at so far
        self.weight_N, self.first_N, self.second_N = (torch.zeros([count], dtype=torch.float64) for _ in self.NAMES)
        self._order = (-1, None)

    @torch.no_grad()
    def look(self, microbatch, rounds):
        """Note D's logits of the next reals, as many as the step has images: one microbatch for each of its own.

        Each is judged alone and has no real twice, so that the numbers depend on no number of processes.
        """
        size = min(microbatch, len(self.rows_N))
        rank, processes = collective.world()
        chunks = [self._rows(number, size) for number in range(rounds * processes)]
        own = [self._logits(chunks[number * processes + rank]) for number in range(rounds)]
        for rows, logits in zip(chunks, collective.gather_microbatches(own).to("cpu", torch.float64)):
            usable = logits.isfinite()
            rows, logits = rows[usable], logits[usable]
            for name, value in zip(self.NAMES, (torch.ones_like(logits), logits, logits.square())):
                sums_N = getattr(self, name)
                sums_N[rows] = KEPT * sums_N[rows] + value
        self.position += size * len(chunks)

    def _rows(self, number, size):
        """Reference rows of the microbatch `number` of this step; what is left over at the end of a list is passed over."""
        per_list = len(self.rows_N) // size
        whole, place = divmod(self.position // size + number, per_list)
        if self._order[0] != whole:
            self._order = (whole, torch.randperm(len(self.rows_N), generator=generator_for("logit-order", self.seed, whole)))
        return self._order[1][place * size : (place + 1) * size]

    def _logits(self, rows):
        with host_rng_untouched():
            images, labels = real_images.read_images_and_labels(self.dataset, self.rows_N[rows.numpy()])
        try:
            return self.discriminator.logits(images.to(self.device), labels.to(self.device))
        except Exception as error:
            if self.position > 0:
                raise  # this D has answered before
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise MADRError(
                f"--madr-tilt-sensor=logits: this discriminator cannot be asked about single images as they come ({reason}); use --madr-tilt-sensor=cells or fine"
            ) from error

    def note(self, features_BD, class_B):
        """Nothing: what is generated is not looked at."""

    def deficits(self, largest):
        """Weigh each real, v [N] from 1 to the smaller of `largest` and 50."""
        if not bool((self.weight_N > 0).any()):
            return torch.ones([len(self.weight_N)], device=self.device)
        found_N = scores(self.weight_N, self.first_N, self.second_N)
        return (found_N / found_N.min()).clamp(1, largest).to(self.device, torch.float32)

    def notes(self):
        yield "the tilt weighs reals by D's past logits; it reads and judges as many reals per step as are generated"

    def sentences(self, step, nimg):
        return []

    def telemetry(self):
        return dict(tilt_met=(self.weight_N > 0).to(torch.float64).mean())

    def tensors(self):
        return [self.weight_N, self.first_N, self.second_N]

    def live_state(self):
        return dict({name: getattr(self, name) for name in self.NAMES}, position=self.position)

    def load(self, state, device):
        """Take up what live_state() gave; {}, of a run with another sensor, begins anew."""
        if not state:
            return
        if state.get("weight_N") is None or len(state["weight_N"]) != len(self.weight_N):
            raise MADRError("the saved logits are of other reals; resume with the former --data and --madr-reference-cap")
        for name in self.NAMES:
            setattr(self, name, state[name].to("cpu", copy=True))
        self.position = int(state["position"])
