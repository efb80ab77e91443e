"""Image pool: half of the fakes that D learns from are of the past (Shrivastava et al. 2017, 1612.07828, section 2.3).

Letters in shapes: N images of a microbatch, B of a step, K of the pool.
"""

import zlib

import torch

from training import phases
from training.gan.extras import D_PHASES, Extra, of_all_processes

# Half precision is finer than the 8 bits of the reals, and halves what the pool takes here and in every training state.
POOL_DTYPE, LARGEST = torch.float16, 1e4
_POSITION = zlib.crc32(b"image-pool")


def num_past(microbatch, groups):
    """How many of a microbatch's groups of images are of the past: the halves of all microbatches together are half of the step."""
    return (microbatch + 1) * groups // 2 - microbatch * groups // 2


def in_turn(num_new, num_past, pack):
    """Order packs of images, the new ones first, so that new and past take turns -> rows, int64.

    StyleGAN2's D sees how much the images m, m + M, m + 2M, ... of M groups differ. Where M is even each group is then of one kind, as
    G's are when D judges them; in mixed ones a collapse would pass for variety.
    """
    turn = torch.cat([2 * torch.arange(num_new), 2 * torch.arange(num_past) + 1]).argsort()
    return (turn[:, None] * pack + torch.arange(pack)).flatten()


class ImagePool(Extra):
    """E_fake = 1/B (sum over B/2 fakes of G now + sum over B/2 fakes of the pool), in D's steps alone (1612.07828, algorithm 1 and section 2.3).

    pool: images [K, C, H, W] and their labels [K, c_dim], K <= size. After each of D's steps B/2 of its new fakes, by chance, fill the
    pool, or replace as many of its images. D is shown the pool as it was before the step, no image twice unless the pool is smaller
    than B/2; the first step has new fakes alone. Where D judges packs, each pack is new or of the past. New and past take turns (in_turn).
    Penalties at fakes see the same fakes.
    """

    def __init__(self, size=1000):
        super().__init__()
        self.size, self.cur_nimg = size, 0
        self._new = []  # (images, labels) of the running step, one pair per microbatch

    def build(self, context):
        G = context["G"]
        self.add_memory("images", torch.zeros([0, G.img_channels, G.img_resolution, G.img_resolution], dtype=POOL_DTYPE))
        self.add_memory("labels", torch.zeros([0, G.c_dim]))

    def begin_phase(self, phase, cur_nimg):
        super().begin_phase(phase, cur_nimg)
        self.cur_nimg, self._new = cur_nimg, []

    def fakes_for_D(self, step, images, labels):
        if step.phase in D_PHASES:
            self._new.append((images, labels))
        size, pack = len(self.memory["images"]), step.judge.pack
        groups = len(images) // pack
        count = num_past(step.microbatch, groups) * pack
        if size == 0 or count == 0:
            return images, labels
        begin = step.microbatch * groups // 2 * pack
        order = torch.randperm(size, generator=self._generator(step.phase))
        chosen = order[(begin + torch.arange(count)) % size].to(images.device)
        past, labels_of_past = self.memory["images"][chosen].to(images.dtype), self.memory["labels"][chosen].to(labels.dtype)
        rows = in_turn(groups - count // pack, count // pack, pack).to(images.device)
        return torch.cat([images[:-count], past])[rows], torch.cat([labels[:-count], labels_of_past])[rows]

    def remember(self, phase):
        if phase in D_PHASES:
            images, labels = (of_all_processes(list(rows)) for rows in zip(*self._new))
            self._new = []
            self.take_up(images, labels)

    def take_up(self, images, labels):
        """Half of a step's new fakes into the pool. [B, C, H, W], [B, c_dim]."""
        generator = self._generator("taking up")
        chosen = torch.randperm(len(images), generator=generator)[: min(len(images) // 2, self.size)].to(images.device)
        images = images[chosen].nan_to_num(nan=0).clamp(-LARGEST, LARGEST).to(POOL_DTYPE)  # one bad step must not stay for as long as the pool
        new = dict(images=images, labels=labels[chosen])
        present = len(self.memory["images"])
        room = min(self.size - present, len(chosen))
        slots = torch.randperm(present, generator=generator)[: len(chosen) - room].to(images.device)
        for name, rows in new.items():
            self.memory[name][slots] = rows[room:].to(self.memory[name].dtype)
            if room:
                self.memory[name] = torch.cat([self.memory[name], rows[:room].to(self.memory[name].dtype)])

    def _generator(self, purpose):
        """For one purpose at this position of the run, alike in every process."""
        return torch.Generator().manual_seed(phases.derived_seed(self.seed, self.cur_nimg, _POSITION, zlib.crc32(purpose.encode())))
