"""MADR's step: what happens on a generated microbatch, in a replay pass, and once at the end of a step.

During a step all state stands still; results of microbatches are collected and applied once, in global microbatch order,
identically on all processes. Must not know the host's loss, phases or loop.
"""

import contextlib
import math

import torch

from madr_plugin import objectives
from madr_plugin.base import collective, view
from madr_plugin.base.errors import MADRError
from madr_plugin.base.seeds import generator_for, global_rng_replaced
from madr_plugin.config import parse_view
from madr_plugin.host import tap
from madr_plugin.maths import terms
from madr_plugin.memory import sample_memory
from madr_plugin.memory.sensor import CellSensor
from madr_plugin.reals import real_images
from madr_plugin.strength import balance, controllers, signal
from madr_plugin.tilt import tilted_reals

STATE_FORMAT = 1


class Engine:
    """One per process. Built when the training set and the device are known."""

    def __init__(self, config, real_features, extractor, seed, device):
        self.config, self.reference, self.extractor, self.seed, self.device = config, real_features, extractor, seed, device
        self.view_parts = parse_view(config.view, extractor.default_view)
        self.objective = objectives.build(config, real_features, seed)
        self.memory = sample_memory.SampleMemory(config.capacity, config.memory, config.half_life_kimg)
        self.sensor = CellSensor(real_features, config.deficit_window, config.deficit_max, config.cell_quantile, device)
        self.controller = controllers.IntegralController(config.control_kimg) if config.controller == "integral" else None
        self.balance = balance.GradientBalance(config.balance, {"term": config.weight, "replay": config.replay_weight}, device, config.balance_at)
        self.signal = signal.SignalShare(device, config.shrink) if config.measures_signal else None
        self.step = 0  # generator steps so far
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
    def strength(self):
        """What the controllers and the noise leave of the coverage term, in [0, 1]."""
        strength = self.objective.strength * (1.0 if self.controller is None else self.controller.strength)
        return strength if self.signal is None else strength * self.signal.factor()

    @property
    def refresh_is_due(self):
        return self.config.refresh > 0 and self.memory.count > 0

    @property
    def replay_strength(self):
        """The replay follows the witness: where that finds nothing but noise the pull, too, would be mostly noise.

        So it rests also where a small mode is missing, which the witness's kernel does not see: the tilt is for those.
        """
        strength = 1.0 if self.controller is None else self.controller.strength
        return strength if self.signal is None else strength * self.signal.factor()

    @property
    def replay_is_due(self):
        return self.config.replay_weight > 0 and self.memory.count > 0 and self.step % self.config.replay_interval == 0

    def _parameters_to_follow(self, name, interval, generator_access):
        """Those of G to which a gradient is to be followed at this step; [] for most."""
        if not self.balance.at_parameters or not balance.reach_is_due(self.step // interval, known=not self.balance.lacks(name)):
            return []
        parameters = generator_access.parameters()
        self.balance.note_parameters(parameters)
        return parameters

    def tilt(self):
        """v >= 1 of each real image, [N]; None where the tilt rests."""
        v_C = self.tilt_of_cells()
        return None if v_C is None else v_C[self.reference.image_cells_N]

    @torch.no_grad()
    def tilt_of_cells(self):
        """v >= 1 of each cell, [C]; None without --madr-tilt, while its guard holds it, or where nothing is deficient.

        Follows from the window of recent images alone, so that resuming needs no state of its own.
        """
        if not self.config.tilt:
            return None
        if self._tilt[0] != self.step:
            sensor, v_C = self.sensor, None
            if float(sensor.inside()) >= self.config.tilt_guard:
                v_C = sensor.deficits(self.config.tilt_max)
                v_C = v_C if float(v_C.max()) > 1 else None
            self._tilt = (self.step, v_C)
        return self._tilt[1]

    def _witness_weights(self):
        v_C, reals = self.tilt_of_cells(), self.reference
        return None if v_C is None else tilted_reals.normalised_within_classes(v_C[reals.cell_of_real_N], reals.labels_N, reals.mass_N)

    @torch.no_grad()
    def _pull_weights(self):
        """Memory-weighted attraction: v of each real's cell, mean 1 within its class; None without --madr-attraction=deficit."""
        if self.config.attraction != "deficit":
            return None
        reals = self.reference
        return tilted_reals.normalised_within_classes(self.sensor.deficits()[reals.cell_of_real_N], reals.labels_N, reals.mass_N)

    def features(self, images, generator):
        """phi(view(x)): float32 [N, D], with gradients to the images."""
        return self.extractor(view.apply(images.to(torch.float32), self.view_parts, generator)).to(torch.float32)

    def on_generated(self, generator_access, image, latents, microbatch, gain, replayed, renewed):
        """The generator's image of the main phase: add the term's gradient to it, note what the end of the step needs.

        replayed, renewed: what replay() and renew() returned for the same microbatch.
        """
        generator = generator_for(self.seed, self.step, microbatch, "term")
        count = min(self.config.batch or len(image), len(image))
        if count == 1 and self.config.term == "witness" and self.config.weight > 0:
            raise MADRError(
                "the witness compares the images of a microbatch, and this one is a single image; use --batch-gpu (and --madr-batch) of 2 or more, "
                "or --madr-term=none, or --madr=0"
            )
        result = {name: value[:count] for name, value in latents.items()}
        result["norm_host"] = torch.zeros([], device=image.device)
        result.update(replayed)
        if renewed is not None:
            result["renewed_rows"], result["renewed_features"] = renewed
        self._results.append(result)
        self._generated += len(image)

        def loss_of(x):
            features_BD = self.features(x, generator)
            result["features"] = features_BD.detach()
            loss = self.objective.loss(features_BD, generator, self._witness_weights(), self._pull_weights()) if self.term_is_due else None
            if self.signal is not None and loss is not None:
                features_BD.register_hook(lambda gradient_BD: result.update(power=signal.feature_power(gradient_BD)))
            return features_BD.sum() * 0 if loss is None else loss

        gradient, factor = None, 0.0
        if self.term_is_due:
            gradient, _ = tap.gradient_at(image[:count], loss_of)
            if count < len(image):
                gradient = torch.cat([gradient, torch.zeros_like(image[count:], dtype=torch.float32)])
            result["norm_term"] = balance.mean_norm(gradient)
            factor = self.balance.factor("term") * self.strength * (self.config.interval * gain)
        else:
            with torch.no_grad():
                loss_of(image[:count].detach())

        self._watch_host_gradient(generator_access, image, gradient, factor, gain, result)

    def _watch_host_gradient(self, generator_access, image, gradient, factor, gain, result):
        """At the host's backward: the size of its gradient, where it and the term's get to if that is due, and the term joins it."""
        parameters = []
        if gradient is not None:
            parameters = self._parameters_to_follow("term", self.config.interval, generator_access)
        elif self.config.weight == 0:
            parameters = self._parameters_to_follow("host", 1, generator_access)
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
        """Replayed IMLE: reals drawn by deficit, the remembered latents nearest to them made again and pulled.

        Adds to the generator's .grad. Returns what the balance needs of the step, nan without a pair: dict(norm_replay, maybe reach_replay).
        """
        generator = generator_for(self.seed, self.step, microbatch, "replay")
        real_rows = self.reference.draw(max(1, round(batch_size * self.config.replay_share)), generator, self.sensor.weight_of_reals())
        real_RD = self.reference.features_ND[real_rows]
        entry_R, found_R = self._nearest_entries(real_RD, self.reference.labels_N[real_rows])
        entry_R, real_rows, real_RD = entry_R[found_R], real_rows[found_R], real_RD[found_R]
        result = dict(norm_replay=torch.full([], math.nan, device=self.device))
        parameters = self._parameters_to_follow("replay", self.config.replay_interval, generator_access)
        if parameters:
            result["reach_replay"] = balance.not_measured(parameters, self.device)
        if len(entry_R) == 0:
            return result
        picked = {name: self.memory.view(name)[entry_R] for name in ("latents", "layers", "labels")}

        def loss_of(x):
            features_RD = self.features(x, generator)
            return terms.imle_loss(features_RD, real_RD, self.reference.scale, self._still_far(features_RD, real_rows, real_RD))

        with global_rng_replaced(self.device, self.seed, self.step, microbatch, "replay-noise"), generator_access.buffers_kept():
            image = generator_access.remake(picked["latents"], picked["layers"], picked["labels"])
            gradient, _ = tap.gradient_at(image, loss_of)
            result["norm_replay"] = balance.mean_norm(gradient)
            if parameters:
                host = self.balance.norms["host"]
                result["reach_replay"] = balance.Follower(image, parameters).reach(gradient, torch.where(host > 0, host, torch.ones_like(host)))
            image.backward(
                (gradient * (self.balance.factor("replay") * self.replay_strength * gain)).to(image.dtype)
            )  # MADR: replay's part of G's gradient
        return result

    @torch.no_grad()
    def renew(self, generator_access, microbatch):
        """Features of a few random entries as the present generator makes them: (rows [R], features [R, D]), or None."""
        rows_R = torch.randint(self.memory.count, [self.config.refresh], generator=generator_for(self.seed, self.step, microbatch, "refresh-rows"))
        rows_R = rows_R.to(self.device)
        picked = {name: self.memory.view(name)[rows_R] for name in ("latents", "layers", "labels")}
        with global_rng_replaced(self.device, self.seed, self.step, microbatch, "refresh-noise"), generator_access.buffers_kept():
            image = generator_access.remake(picked["latents"], picked["layers"], picked["labels"])
        features_RD = self.features(image, generator_for(self.seed, self.step, microbatch, "refresh"))
        # Entries that cannot be made again keep what they have.
        return rows_R, torch.where((picked["layers"] >= 0)[:, None], features_RD, self.memory.view("features")[rows_R])

    def _nearest_entries(self, real_RD, class_R):
        """Row of the nearest memory entry that can be re-made (and is of the real's class, if it has one); and whether there is one."""
        squared_RK = terms.squared_distances(real_RD, self.memory.view("features"))
        unusable_K = self.memory.view("layers") < 0
        if unusable_K.any():
            squared_RK = squared_RK.masked_fill(unusable_K[None, :], math.inf)
        class_K = real_images.classes_of(self.memory.view("labels"))
        if (class_K >= 0).any():
            squared_RK = squared_RK.masked_fill((class_R[:, None] >= 0) & (class_R[:, None] != class_K[None, :]), math.inf)
        nearest_R, entry_R = squared_RK.min(dim=1)
        return entry_R, torch.isfinite(nearest_R)

    def _still_far(self, features_RD, real_rows, real_RD):
        """0 for reals that are reached: closer than the ball expected to hold `dead_zone` entries if p_g = p_data; None: no zone.

        With 3 expected a ball is empty by chance in about a tenth of the draws (it is itself drawn: its k-th of S reals): what is left of the
        pull at equilibrium. With labels both are counted within the real's class.
        """
        if self.config.dead_zone == 0:
            return None
        radius_R = self.reference.reach(real_rows, self.config.dead_zone, self._entries_per_class())
        return ((features_RD.detach() - real_RD).norm(dim=1) > radius_R).to(torch.float32)

    def _entries_per_class(self):
        """Entries of the memory among which _nearest_entries() looks for a real's: all, or those of each class, [classes]."""
        class_K = real_images.classes_of(self.memory.view("labels"))
        if not self.sensor.has_classes or not (class_K >= 0).any():
            return self.memory.count
        return torch.bincount(class_K[class_K >= 0], minlength=int(self.reference.labels_N.max()) + 1)

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
        gathered = {name: collective.gather_microbatches([result[name].contiguous() for result in rounds]) for name in sorted(rounds[0])}
        reaches = {name: gathered.pop("reach_" + name).nanmean(0) for name in ("host", "term", "replay") if "reach_" + name in gathered}
        self.balance.update(norms, reaches)
        if "power" in gathered:
            self.signal.update(gathered.pop("power").nanmean(), self.objective.null_power(gathered["features"].shape[1]))

        renewed = [gathered.pop(name).flatten(0, 1) for name in ("renewed_rows", "renewed_features") if name in gathered]
        if renewed:
            self.memory.renew_features(*renewed)
        samples = {name: value.flatten(0, 1) for name, value in gathered.items()}
        features_BD = samples["features"]
        self.sensor.note(features_BD, real_images.classes_of(samples["labels"]))
        if self.step % self.config.update_interval == 0:
            samples["importance"] = self._importance(features_BD)
            self.memory.offer(samples, self.step, self.nimg, generator_for(self.seed, self.step, "memory"), generated * self.config.update_interval)
        self.nimg += generated
        if self.controller is not None and self.step % self.config.control_interval == 0:
            # Counting noise at p_g = p_data is no deficit: without this allowance the strength would wander there instead of resting at 0.
            self.controller.update(float(self.sensor.coverage() + 2 * self.sensor.coverage_deviation()), generated * self.config.control_interval)
        self.objective.after_step(self.step, self.memory)
        self.step += 1

    def _importance(self, features_BD):
        """Critique's remedy 6: mean distance to the 10 nearest reals. Only its own policy pays for it."""
        if self.config.memory != "importance":
            return torch.ones([len(features_BD)], device=features_BD.device)
        squared_BN = terms.squared_distances(features_BD, self.reference.features_ND)
        nearest = squared_BN.topk(min(10, squared_BN.shape[1]), dim=1, largest=False)
        if self.reference.mass_N is None:
            return nearest.values.sqrt().mean(1)
        mass_Bk = self.reference.mass_N[nearest.indices]
        counted_Bk = torch.minimum(mass_Bk, (10 - mass_Bk.cumsum(1) + mass_Bk).clamp(min=0))  # an anchor is as many reals
        return (nearest.values.sqrt() * counted_Bk).sum(1) / counted_Bk.sum(1)

    # --- state and telemetry ------------------------------------------------------------------------------------------

    def live_state(self):
        """Everything a resumed run needs: the state's own tensors, numbers and words."""
        return dict(
            format=STATE_FORMAT,
            reference=self.reference.fingerprint,
            step=self.step,
            nimg=self.nimg,
            memory=self.memory.live_state(),
            sensor=self.sensor.live_state(),
            balance=self.balance.live_state(),
            signal={} if self.signal is None else self.signal.live_state(),
            objective=self.objective.live_state(),
            controller={} if self.controller is None else self.controller.live_state(),
        )

    def load(self, state):
        if state.get("format") != STATE_FORMAT:
            raise MADRError(
                f"the saved MADR state has format {state.get('format')!r}, this version reads {STATE_FORMAT}; resume with the version that wrote it"
            )
        if state["reference"] != self.reference.fingerprint:
            raise MADRError(
                "the saved MADR state belongs to other reference features: the training set or --madr-extractor, "
                "--madr-view, --madr-cells, --madr-deficit-window, --madr-anchors or --seed changed since; resume with the former ones, or start anew"
            )
        saved = state["memory"].get("tensors", {}).get("features")
        if saved is not None and len(saved) != self.config.capacity:
            raise MADRError(
                f"--madr-capacity={self.config.capacity} differs from the saved memory's {len(saved)}; resume with --madr-capacity={len(saved)}"
            )
        if len(state["sensor"]["cells"]) != self.config.deficit_window:
            raise MADRError(
                f"--madr-deficit-window={self.config.deficit_window} differs from the saved {len(state['sensor']['cells'])}; resume with the former one"
            )
        self.step, self.nimg = int(state["step"]), int(state["nimg"])
        self.memory.load(state["memory"], self.device)
        self.sensor.load(state["sensor"], self.device)
        if self.controller is not None and state.get("controller"):
            self.controller.load(state["controller"])
        self.balance.load(state["balance"], self.device)
        if self.signal is not None:
            self.signal.load(state.get("signal"), self.device)
        self.objective.load(state.get("objective", {}), self.device)
        self._results, self._generated = [], 0
        self._tilt = (-1, None)

    def kept_tensors(self):
        """{what: tensors kept on the device for it}."""
        of_reals = {id(value): value for value in vars(self.reference).values() if torch.is_tensor(value)}  # some bear two names
        return {
            "features of the reals": list(of_reals.values()),
            "memory": [*self.memory.tensors.values(), self.sensor.ledger.cells_W],
            "extractor": self.extractor.tensors(),
        }

    def telemetry(self):
        """{name: 0-d tensor or number}; the same on all processes."""
        values = dict(
            coverage=self.sensor.coverage(),
            inside=self.sensor.inside(),
            ess=self.sensor.effective_share(),
            memory=self.memory.count / self.config.capacity,
        )
        values["lambda"] = self.balance.factor("term") * self.strength
        values["gratio"] = self.balance.ratio("term") * self.strength
        if self.signal is not None:
            values["signal"] = self.signal.factor()
        if self.config.replay_weight > 0:
            values["lambda_replay"] = self.balance.factor("replay") * self.replay_strength
            values["gratio_replay"] = self.balance.ratio("replay") * self.replay_strength
        if self.config.tilt:
            v_N = self.tilt()
            values["tilt"] = 0.0 if v_N is None else tilted_reals.replaced_share(v_N, self.reference.image_labels_N)
        if self.memory.count:
            values["age_kimg"] = (self.nimg - self.memory.view("born").to(torch.float64)).mean() / 1000
        values.update(self.objective.telemetry())
        return values
