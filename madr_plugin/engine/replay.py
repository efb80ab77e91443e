"""Makes remembered images again: to pull them to the reals that they come nearest to, and to renew their features.

Must not know the host's loss, phases or loop; changes nothing of the memory.
"""

import math

import torch

from madr_plugin.host import tap
from madr_plugin.maths import terms
from madr_plugin.strength import balance
from madr_spaces.distances import squared_distances
from madr_spaces.images import classes_of
from madr_spaces.seeds import generator_for, global_rng_replaced

OF_LATENTS = ("latents", "layers", "labels")  # fields of the memory from which an image is made again


class Replay:
    """Replays the memory of one engine, whose parts it shares. features(images, generator): phi of the images, as of every other batch.

    champions: the table from which latents are taken in the memory's place, or None.
    """

    def __init__(self, config, reference, memory, sensor, champions, strength, features, seed, device):
        self.config, self.reference, self.memory, self.sensor, self.champions = config, reference, memory, sensor, champions
        self.strength, self.features, self.seed, self.device = strength, features, seed, device

    def is_due(self, step):
        """Tell whether this step pulls remembered latents."""
        has_latents = self.memory.count > 0 if self.champions is None else self.champions.says_something
        return self.config.replay_weight > 0 and has_latents and step % self.config.replay_interval == 0

    def pull(self, step, generator_access, batch_size, microbatch, gain):
        """Pull remembered latents (replayed IMLE): draw reals by deficit, make the remembered latents nearest to them again, pull their images.

        Adds to the generator's .grad. Returns what the balance needs of the step, nan without a pair: dict(norm_replay, maybe reach_replay), and with
        champions how near those are now: champion_rows [count], -1 for none, and champion_squared [count].
        """
        generator, count = generator_for(self.seed, step, microbatch, "replay"), max(1, round(batch_size * self.config.replay_share))
        result = dict(norm_replay=torch.full([], math.nan, device=self.device))
        if self.champions is None:
            entry_R, real_rows = self._pairs(count, generator)
            latents_R = self._remembered(entry_R)
        else:
            real_rows = self.champions.draw(count, generator)
            latents_R = self.champions.latents_of(real_rows)
            result["champion_rows"] = torch.full([count], -1, dtype=torch.int64, device=self.device)
            result["champion_squared"] = torch.full([count], math.nan, device=self.device)
        real_RD = self.reference.features_ND[real_rows]
        parameters = self.strength.parameters_to_follow("replay", step // self.config.replay_interval, generator_access)
        if parameters:
            result["reach_replay"] = balance.not_measured(parameters, self.device)
        if len(real_rows) == 0:
            return result

        def loss_of(x):
            features_RD = self.features(x, generator)
            if self.champions is None:
                active_R = self.still_far(features_RD, real_rows, real_RD)
            else:
                squared_R = (features_RD.detach() - real_RD).square().sum(1)
                active_R = self.champions.still_far(squared_R, real_rows)
                result.update(champion_rows=real_rows, champion_squared=squared_R)
            return terms.imle_loss(features_RD, real_RD, self.reference.scale, active_R)

        with global_rng_replaced(self.device, self.seed, step, microbatch, "replay-noise"), generator_access.buffers_kept():
            image = generator_access.remake(*latents_R)
            gradient, _ = tap.gradient_at(image, loss_of)
            result["norm_replay"] = balance.mean_norm(gradient)
            if parameters:
                host = self.strength.balance.norms["host"]
                result["reach_replay"] = balance.Follower(image, parameters).reach(gradient, torch.where(host > 0, host, torch.ones_like(host)))
            # MADR: replay's part of G's gradient
            image.backward((gradient * (self.strength.factor("replay") * gain)).to(image.dtype))
        return result

    @torch.no_grad()
    def renewed(self, step, generator_access, microbatch):
        """Compute the features of a few random entries as the present generator makes them: (rows [R], features [R, D])."""
        rows_R = torch.randint(self.memory.count, [self.config.refresh], generator=generator_for(self.seed, step, microbatch, "refresh-rows"))
        rows_R = rows_R.to(self.device)
        with global_rng_replaced(self.device, self.seed, step, microbatch, "refresh-noise"), generator_access.buffers_kept():
            image = generator_access.remake(*self._remembered(rows_R))
        features_RD = self.features(image, generator_for(self.seed, step, microbatch, "refresh"))
        # Entries that cannot be made again keep what they have.
        can_R = self.memory.filled("layers")[rows_R] >= 0
        return rows_R, torch.where(can_R[:, None], features_RD, self.memory.filled("features")[rows_R])

    @torch.no_grad()
    def fresh(self, step, generator_access, z_BZ, c_BC, microbatch, count):
        """Make `count` new images with the labels of the batch in turn, in parts as large as the batch -> (features [count, D], classes [count])."""
        generator = generator_for(self.seed, step, microbatch, "fresh")
        labels = torch.zeros([len(z_BZ), 0], device=self.device) if c_BC is None else c_BC.detach().to(torch.float32)
        parts = []
        with global_rng_replaced(self.device, self.seed, step, microbatch, "fresh-noise"), generator_access.buffers_kept():
            for start in range(0, count, len(z_BZ)):
                size = min(len(z_BZ), count - start)
                z = torch.randn([size, 1, *z_BZ.shape[1:]], generator=generator).to(self.device)
                layers = torch.full([size], torch.iinfo(torch.int64).max, device=self.device)
                parts.append(self.features(generator_access.remake(z, layers, labels[:size]), generator))
        return torch.cat(parts), classes_of(labels).repeat(-(-count // len(z_BZ)))[:count].to(self.device)

    @torch.no_grad()
    def drift(self, step, nimg, generator_access, microbatch, count, age_kimg):
        """Measure how far the images of latents of about that age have moved since, beyond what noise inputs and views do to them.

        -> 0-d: mean of |f_now - f_then|^2 - |f_now - f_now'|^2 over 2 tr C of the reals, so 0 where nothing moves and 1 where nothing is left of
        them; nan without such latents. Each microbatch looks at other ones.
        """
        age_K = (nimg - self.memory.filled("born")).to(torch.float64) / 1000
        far_K = torch.where(self.memory.filled("layers") >= 0, (age_K - age_kimg).abs(), torch.inf)
        rows_R = far_K.sort(stable=True).indices[microbatch * count : (microbatch + 1) * count]
        rows_R = rows_R[far_K[rows_R] <= age_kimg / 2]
        if len(rows_R) == 0:
            return torch.full([], math.nan, device=self.device)
        now = []
        for purpose in ("drift", "drift-again"):
            with global_rng_replaced(self.device, self.seed, step, microbatch, purpose + "-noise"), generator_access.buffers_kept():
                image = generator_access.remake(*self._remembered(rows_R))
            now.append(self.features(image, generator_for(self.seed, step, microbatch, purpose)))
        moved_R = (now[0] - self.memory.filled("features")[rows_R]).square().sum(1) - (now[0] - now[1]).square().sum(1)
        spread = (self.reference.features_ND - self.reference.features_ND.mean(0)).square().sum(1).mean()
        return moved_R.mean() / (2 * spread)

    def _remembered(self, entry_R):
        """Return what entries of the memory are made of: (latents, layers, labels)."""
        return tuple(self.memory.filled(name)[entry_R] for name in OF_LATENTS)

    def _pairs(self, count, generator):
        """Draw reals by deficit and find each the nearest entry: (entries [R], rows of the reals [R]); R <= count: some classes have none."""
        real_rows = self.reference.draw(count, generator, self.sensor.weight_of_reals())
        entry_R, found_R = self.nearest_entries(self.reference.features_ND[real_rows], self.reference.labels_N[real_rows])
        return entry_R[found_R], real_rows[found_R]

    def nearest_entries(self, real_RD, class_R):
        """Find the row of the nearest memory entry that can be re-made (and is of the real's class, if it has one); and whether there is one."""
        squared_RK = squared_distances(real_RD, self.memory.filled("features"))
        unusable_K = self.memory.filled("layers") < 0
        if unusable_K.any():
            squared_RK = squared_RK.masked_fill(unusable_K[None, :], math.inf)
        class_K = classes_of(self.memory.filled("labels"))
        if (class_K >= 0).any():
            squared_RK = squared_RK.masked_fill((class_R[:, None] >= 0) & (class_R[:, None] != class_K[None, :]), math.inf)
        nearest_R, entry_R = squared_RK.min(dim=1)
        return entry_R, torch.isfinite(nearest_R)

    def still_far(self, features_RD, real_rows, real_RD):
        """Mark with 0 the reals in whose dead zone the image lies: the ball expected to hold `dead_zone` entries if p_g = p_data; None: no zone.

        With 3 expected a ball is empty by chance in about a tenth of the draws (it is itself drawn: its k-th of S reals): what is left of the
        pull at equilibrium. With labels both are counted within the real's class.
        """
        if self.config.dead_zone == 0:
            return None
        radius_R = self.reference.dead_zone_radius(real_rows, self.config.dead_zone, self._entries_per_class())
        return ((features_RD.detach() - real_RD).norm(dim=1) > radius_R).to(torch.float32)

    def _entries_per_class(self):
        """Count the entries of the memory among which nearest_entries() looks for a real's: all, or those of each class, [classes]."""
        class_K = classes_of(self.memory.filled("labels"))
        if not self.sensor.has_classes or not (class_K >= 0).any():
            return self.memory.count
        return torch.bincount(class_K[class_K >= 0], minlength=int(self.reference.labels_N.max()) + 1)
