"""Does what a step of MADR does: on each generated microbatch, and once at the end of the step.

During a step all state stands still; results of microbatches are collected and applied once, in global microbatch order,
identically on all processes. Must not know the host's loss, phases or loop.
"""

import contextlib

import torch

from madr_plugin import objectives
from madr_plugin.base import collective, view
from madr_plugin.config import parse_view
from madr_plugin.engine import state as states
from madr_plugin.engine.replay import Replay
from madr_plugin.host import tap
from madr_plugin.memory import sample_memory
from madr_plugin.memory.champions import ChampionTable
from madr_plugin.memory.forgetting import ForgettingMeter
from madr_plugin.memory.sensor import CellSensor
from madr_plugin.strength import balance
from madr_plugin.strength.strength import Strength
from madr_plugin.tilt import tilted_reals
from madr_spaces.distances import squared_distances
from madr_spaces.errors import MADRError
from madr_spaces.images import classes_of
from madr_spaces.seeds import generator_for

DRIFT_EVERY = 16  # steps
OLD_IMAGES = "old_images"  # of a step's results: what the meter of forgetting keeps
MEASURED = "measured "  # before the names of what an objective measured, among a step's results


class Engine:
    """Runs MADR in one process. Built when the training set and the device are known."""

    def __init__(self, config, real_features, extractor, seed, device, discriminator=None, tilt_sensor=None):
        """discriminator: DiscriminatorAccess, None where the host shows none; tilt_sensor: None for the count of cells that the replay follows."""
        self.config, self.reference, self.extractor, self.seed, self.device = config, real_features, extractor, seed, device
        self.view_parts = parse_view(config.view, extractor.default_view)
        self.objective = objectives.build(config, real_features, seed)
        self.memory = sample_memory.SampleMemory(config.capacity, config.memory, config.half_life_kimg)
        self.sensor = CellSensor(real_features, config.deficit_window, config.deficit_max, config.cell_quantile, device)
        self.tilt_sensor = self.sensor if tilt_sensor is None else tilt_sensor
        self.discriminator = discriminator
        self.forgetting = ForgettingMeter() if config.forgetting and discriminator is not None else None
        self.champions = ChampionTable(real_features, config, device) if config.replay_from == "champions" else None
        of_replay = None if self.champions is None else self.champions.far_share
        self.strength = Strength(config, device, of_objective=lambda: self.objective.strength, of_replay=of_replay)
        self.replaying = Replay(config, real_features, self.memory, self.sensor, self.champions, self.strength, self.features, seed, device)
        self.begun_anew, self.left_behind = [], []  # where a loaded state is of other flags: what it lacked, what it had besides
        self.step = 0  # generator steps so far
        self.critic_steps = 0  # D's steps begun since G's last, where the host tells: draws for D are others in each
        self.nimg = 0  # generated images seen in them
        self.running = contextlib.nullcontext  # around own work inside the host's backward pass; the loss puts its cost meter here
        self._results = []  # one dict per local round of the running step
        self._generated = 0  # images of those rounds, with the ones that --madr-batch leaves out
        self._tilt = (-1, None)  # step and what tilt_of_cells() found in it

    # --- during a step --------------------------------------------------------------------------------------------

    @property
    def term_is_due(self):
        return self.config.weight > 0 and self.step % self.config.interval == 0

    @property
    def replay_is_due(self):
        return self.replaying.is_due(self.step)

    @property
    def refresh_is_due(self):
        return self.config.refresh > 0 and self.memory.count > 0

    @property
    def critic_turn(self):
        """Name the step of D among those that follow one step of G, for the seeds of draws: () for the first, then (1,), (2,), ..."""
        return (self.critic_steps - 1,) if self.critic_steps > 1 else ()

    def tilt(self):
        """Weigh each real image, v >= 1 [N]; None where the tilt rests."""
        v_C = self.tilt_of_cells()
        return None if v_C is None else v_C[self.tilt_sensor.cells.image_cells_N]

    @torch.no_grad()
    def tilt_of_cells(self):
        """Weigh each cell, v >= 1 [C]; None without --madr-tilt, while its guard holds it, or where nothing is deficient.

        Follows from what the sensors and the objective keep alone, so that resuming needs no state of its own.
        """
        if not self.config.tilt:
            return None
        if self._tilt[0] != self.step:
            v_C = None
            if float(self.sensor.inside()) >= self.config.tilt_guard:
                v_C = self._owed() if self.config.tilt_sensor == "debts" else self.tilt_sensor.deficits(self.config.tilt_max)
                v_C = v_C if float(v_C.max()) > 1 else None
            self._tilt = (self.step, v_C)
        return self._tilt[1]

    def _owed(self):
        """Weigh each cell by exp(g / temperature), the least one of its class 1, up to --madr-tilt-max."""
        potential_C, class_C = self.objective.potentials(), self.reference.class_C + 1  # -1: no class
        least_K = potential_C.new_full([int(class_C.max()) + 1], torch.inf).scatter_reduce(0, class_C, potential_C, "amin")
        return ((potential_C - least_K[class_C]) / self.config.tilt_temperature).exp().clamp(max=self.config.tilt_max).to(torch.float32)

    def _witness_weights(self):
        v_C, reals = self.tilt_of_cells(), self.reference
        return (
            None if v_C is None else tilted_reals.normalised_within_classes(v_C[self.tilt_sensor.cells.cell_of_real_N], reals.labels_N, reals.mass_N)
        )

    @torch.no_grad()
    def _pull_weights(self):
        """Weigh the attraction of each real by v of its cell, mean 1 within its class; None without --madr-attraction=deficit."""
        if self.config.attraction != "deficit":
            return None
        reals = self.reference
        return tilted_reals.normalised_within_classes(self.sensor.deficits()[reals.cell_of_real_N], reals.labels_N, reals.mass_N)

    def features(self, images, generator):
        """Compute phi(view(x)): float32 [N, D], with gradients to the images."""
        return self.extractor(view.apply(images.to(torch.float32), self.view_parts, generator)).to(torch.float32)

    def on_generated(self, generator_access, image, latents, microbatch, gain, replayed, renewed, fresh=None, drift=None):
        """Add the term's gradient to the generator's image of the main phase; note what the end of the step needs.

        replayed, renewed, fresh, drift: what the methods of these names returned for the same microbatch.
        """
        generator = generator_for(self.seed, self.step, microbatch, "term")
        count = min(self.config.batch or len(image), len(image))
        if count == 1 and self.config.needs_pairs:
            raise MADRError(
                "the coverage term compares the images of a microbatch, and this one is a single image; "
                "use --batch-gpu (and --madr-batch) of 2 or more, in a fork without that flag a larger --batch or fewer --gpus, "
                "or --madr-term=none, or --madr=0"
            )
        result = {name: value[:count] for name, value in latents.items()}
        result["norm_host"] = torch.zeros([], device=image.device)
        result.update(replayed)
        if renewed is not None:
            result["renewed_rows"], result["renewed_features"] = renewed
        if drift is not None:
            result[MEASURED + "drift"] = drift.to(torch.float32)
        if self.forgetting is not None and self.forgetting.is_due(self.step, self.nimg):
            result[OLD_IMAGES] = ForgettingMeter.share_of(image[:count])
        self._results.append(result)
        self._generated += len(image)

        def gradient_of(features_BD):
            result["features"] = features_BD
            seen = objectives.Seen(
                self._witness_weights(), self._pull_weights(), classes_of(result["labels"]).to(image.device), self.strength.shares(), fresh
            )
            gradient_BD, measured = self.objective.gradient(features_BD, generator, seen)
            result.update({MEASURED + name: value for name, value in measured.items()})
            return gradient_BD

        gradient, factor = None, 0.0
        if self.term_is_due:
            gradient = tap.gradient_through(image[:count], lambda x: self.features(x, generator), gradient_of)
            if count < len(image):
                gradient = torch.cat([gradient, torch.zeros_like(image[count:], dtype=torch.float32)])
            result["norm_term"] = balance.mean_norm(gradient)
            factor = self.strength.factor("term") * (self.config.interval * gain)
        else:
            with torch.no_grad():
                result["features"] = self.features(image[:count].detach(), generator)

        self._watch_host_gradient(generator_access, image, gradient, factor, gain, result)

    def _watch_host_gradient(self, generator_access, image, gradient, factor, gain, result):
        """At the host's backward, measure the size of its gradient, follow both gradients to the parameters if that is due, and add the term's."""
        parameters = []
        if gradient is not None:
            parameters = self.strength.parameters_to_follow("term", self.step // self.config.interval, generator_access)
        elif self.config.weight == 0:
            parameters = self.strength.parameters_to_follow("host", self.step, generator_access)
        followed = {}
        if parameters:
            # Made now: the host may change its image in place later on. nan until then, should its backward never come here.
            follower = balance.Follower(image, parameters)
            followed = {"reach_host": None} if gradient is None else {"reach_host": None, "reach_term": gradient}
            result.update({name: balance.not_measured(parameters, image.device) for name in followed})

        def on_host_gradient(host_gradient):
            with self.running():
                size = balance.mean_norm(host_gradient)
                result["norm_host"] = size / gain
                for name, own in followed.items():
                    result[name] = follower.reach(host_gradient if own is None else own, size)

        tap.add_gradient(image, gradient, factor, on_host_gradient)

    def replay(self, generator_access, batch_size, microbatch, gain):
        """Pull remembered latents to reals; adds to the generator's .grad. Returns what on_generated() is to be given of it."""
        return self.replaying.pull(self.step, generator_access, batch_size, microbatch, gain)

    def renew(self, generator_access, microbatch):
        """Look again at what a few entries of the memory have become. Returns what on_generated() is to be given of it."""
        return self.replaying.renewed(self.step, generator_access, microbatch)

    @property
    def fresh_is_due(self):
        return self.config.moments_fresh > 0 and self.term_is_due

    def fresh(self, generator_access, z_BZ, c_BC, microbatch):
        """Make images for their moments alone (--madr-moments-fresh). Returns what on_generated() is to be given of it."""
        return self.replaying.fresh(self.step, generator_access, z_BZ, c_BC, microbatch, self.config.moments_fresh)

    @property
    def drift_is_due(self):
        return self.objective.drift_age is not None and self.memory.count > 0 and self.step % DRIFT_EVERY == 0

    def drift(self, generator_access, count, microbatch):
        """Measure how far remembered images have moved. Returns what on_generated() is to be given of it."""
        return self.replaying.drift(self.step, self.nimg, generator_access, microbatch, count, self.objective.drift_age)

    # --- end of a step ----------------------------------------------------------------------------------------------

    @property
    def step_is_open(self):
        return bool(self._results)

    @torch.no_grad()
    def finish_step(self):
        """Apply the step's results of all microbatches of all processes, once, in global order."""
        rounds, self._results = self._results, []
        generated, self._generated = self._generated * collective.world()[1], 0
        measured = [name for name in ("host", "term", "replay") if "norm_" + name in rounds[0]]
        norms_RT = [torch.stack([result.pop("norm_" + name) for name in measured]) for result in rounds]
        norms = dict(zip(measured, collective.gather_microbatches(norms_RT).nanmean(0).unbind()))
        gathered = {name: collective.gather_microbatches([result[name] for result in rounds]) for name in sorted(rounds[0])}
        reaches = {name: gathered.pop("reach_" + name).nanmean(0) for name in ("host", "term", "replay") if "reach_" + name in gathered}
        self.strength.balance.update(norms, reaches)
        measured = {name[len(MEASURED) :]: gathered.pop(name).nanmean() for name in sorted(gathered) if name.startswith(MEASURED)}
        microbatch = gathered["features"].shape[1]
        if self.strength.signals:
            self.strength.update_signals(self.objective.signals(measured, microbatch))

        if OLD_IMAGES in gathered:
            images = gathered.pop(OLD_IMAGES)
            self.forgetting.look(images.flatten(0, 1), gathered["labels"][:, : images.shape[1]].flatten(0, 1), self.discriminator.logits)
        renewed = [gathered.pop(name).flatten(0, 1) for name in ("renewed_rows", "renewed_features") if name in gathered]
        if renewed:
            self.memory.renew_features(*renewed)
        remade = [gathered.pop(name).flatten() for name in ("champion_rows", "champion_squared") if name in gathered]
        samples = {name: value.flatten(0, 1) for name, value in gathered.items()}
        features_BD = samples["features"]
        class_B = classes_of(samples["labels"])
        self.sensor.note(features_BD, class_B)
        if self.champions is not None:
            self.champions.take_in(samples, generated, remade or None)
        if self.tilt_sensor is not self.sensor:
            self.tilt_sensor.note(features_BD, class_B)
            self.tilt_sensor.look(microbatch, len(rounds))
        if self.step % self.config.update_interval == 0:
            samples["importance"] = self._importance(features_BD)
            self.memory.offer(samples, self.step, self.nimg, generator_for(self.seed, self.step, "memory"), generated * self.config.update_interval)
        self.nimg += generated
        if self.step % self.config.control_interval == 0:
            self.strength.control(self._coverage_with_allowance, generated * self.config.control_interval)
        self.objective.after_step(self.step, self.memory, objectives.Batch(features_BD, class_B.to(self.device), generated, microbatch, measured))
        self.step += 1

    def _coverage_with_allowance(self):
        """Raise the coverage by what counting noise explains: at p_g = p_data the strength would wander otherwise instead of resting at 0."""
        return float(self.sensor.coverage() + 2 * self.sensor.coverage_deviation())

    def _importance(self, features_BD):
        """Rate samples for the importance policy by their mean distance to the 10 nearest reals. Costs nothing under the others."""
        if self.config.memory != "importance":
            return torch.ones([len(features_BD)], device=features_BD.device)
        squared_BN = squared_distances(features_BD, self.reference.features_ND)
        nearest = squared_BN.topk(min(10, squared_BN.shape[1]), dim=1, largest=False)
        if self.reference.mass_N is None:
            return nearest.values.sqrt().mean(1)
        mass_Bk = self.reference.mass_N[nearest.indices]
        counted_Bk = torch.minimum(mass_Bk, (10 - mass_Bk.cumsum(1) + mass_Bk).clamp(min=0))  # an anchor is as many reals
        return (nearest.values.sqrt() * counted_Bk).sum(1) / counted_Bk.sum(1)

    # --- state and telemetry: state.py ----------------------------------------------------------------------------------

    def live_state(self):
        return states.live_state(self)

    def load(self, state):
        states.load(self, state)
        self._results, self._generated = [], 0
        self._tilt = (-1, None)

    def kept_tensors(self):
        return states.kept_tensors(self)

    def telemetry(self):
        return states.telemetry(self)

    def notes(self, latent_width=None, latents_per_image=2):
        return list(states.notes(self, latent_width, latents_per_image))

    def sentences(self):
        return states.sentences(self)
