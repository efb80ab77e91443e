"""IMLE beside the adversarial term: every real pulls the fake that is nearest to it, so that none is forgotten.

Implicit maximum likelihood estimation (Li and Malik 2018, 1809.09087), joined to a GAN (InclusiveGAN: Yu et al. 2020, 2004.03355).
Letters in shapes: N reals of a microbatch, K latents of the pool, Z their dimensions, P pixel values at which images are compared.
"""

import zlib

import torch

from dnnlib.errors import UserError
from torch_utils import distributed, misc
from training import phases
from training.gan import penalties
from training.gan.extras import G_PHASES, Extra, of_all_processes

LARGEST_SIDE = 64  # pixels: larger images are averaged down to it before they are compared, so that a pool stays small
_POSITION = zlib.crc32(b"imle")


def nearest(reals_NP, fakes_KP, same_NK):
    """The nearest fake of each real among those that it may choose, by |x - y|^2. same_NK: bool. -> (index [N], whether there is any [N])."""
    distances_NK = torch.cdist(reals_NP, fakes_KP).masked_fill(~same_NK, float("inf"))
    least_N, index_N = distances_NK.min(1)
    return index_N, least_N.isfinite()


def compared(images):
    """Images as they are compared: of at most LARGEST_SIDE pixels a side, flat. [N, C, H, W] -> [N, P]."""
    factor = -(-images.shape[2] // LARGEST_SIDE)
    if factor > 1:
        images = torch.nn.functional.avg_pool2d(images, factor)
    return images.flatten(1)


class IMLE(Extra):
    """G: weight |G(z_j(x)) - x|^2, a mean over pixels, for each real x of the batch, j(x) = argmin_j |G(z_j) - x|^2 (1809.09087, algorithm 1).

    z_j: a pool of `size` latents, drawn anew every `interval` steps of G; their images are of the G at that moment, and the nearest
    one is remade with a gradient. The first step of G has no pool yet. With classes, a real pulls fakes of its own class; one whose
    class the pool lacks pulls none. One value per real that pulls. G is in evaluation mode for these images: with batch
    normalisation the nearest fakes would be normalised by one another.
    """

    def __init__(self, weight=1.0, size=512, interval=100):
        super().__init__()
        self.weight, self.size, self.interval = weight, size, interval
        self.cur_nimg = 0

    def build(self, context):
        self.G, self.training_set, self.chunk = context["G"], context["training_set"], context["batch_gpu"]
        dtype = next(self.G.parameters()).dtype
        if self.G.c_dim and not self.training_set.has_onehot_labels:
            raise UserError(
                "--method=imle pulls fakes towards reals of their own class, and the labels of this data set are no class numbers: "
                "leave out --cond or --method=imle"
            )
        self.add_memory("z", torch.zeros([0, self.G.z_dim], dtype=dtype))
        self.add_memory("labels", torch.zeros([0, self.G.c_dim]))
        self.add_memory("compared", torch.zeros([0, 0], dtype=dtype))
        self.add_memory("age", torch.zeros([], dtype=torch.int64))  # steps of G since the latents were drawn

    def begin_phase(self, phase, cur_nimg):
        super().begin_phase(phase, cur_nimg)
        self.cur_nimg = cur_nimg

    def generator_term(self, step):
        if len(self.memory["z"]) == 0:
            return None
        labels = self.memory["labels"].to(step.real_labels.dtype)
        same_NK = (step.real_labels[:, None] == labels[None]).all(2)
        index_N, found_N = nearest(compared(step.reals), self.memory["compared"], same_NK)
        index_N = index_N[found_N]
        if len(index_N) == 0:
            return None
        return self.weight * penalties.image_distance(self._images(self.memory["z"][index_N], labels[index_N]), step.reals[found_N])

    def remember(self, phase):
        if phase in G_PHASES:
            age = self.memory["age"]
            age += 1
            if len(self.memory["z"]) == 0 or int(age) >= self.interval:
                self.draw_pool()
                age.zero_()

    @torch.no_grad()
    def draw_pool(self):
        """New latents and their images. Collective: each process makes a share of them, in microbatches seeded by their numbers."""
        processes, rank = distributed.get_world_size(), distributed.get_rank()
        rounds = -(-self.size // (self.chunk * processes))
        made = [self._chunk_of_pool(round_index * processes + rank) for round_index in range(rounds)]
        for name, rows in zip(("z", "labels", "compared"), zip(*made)):
            self.memory[name] = of_all_processes(list(rows))[: self.size].clone()

    def _chunk_of_pool(self, number):
        """(z, labels, images as they are compared) of some consecutive latents of the pool."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(phases.derived_seed(self.seed, self.cur_nimg, _POSITION, number))  # for noise inputs, too
            z = torch.randn([self.chunk, self.G.z_dim]).to(self.device, self.memory["z"].dtype)
            labels = self._labels(torch.randint(len(self.training_set), [self.chunk]))
            return z, labels, compared(self._images(z, labels))

    def _labels(self, index):
        """Those of some reals: the classes are as frequent as in the data. [N] -> [N, c_dim]."""
        if self.G.c_dim == 0:
            return torch.zeros([len(index), 0], device=self.device)
        return torch.stack([torch.as_tensor(self.training_set.get_label(int(i)), dtype=torch.float32) for i in index]).to(self.device)

    def _images(self, z, labels):
        """G's, each of one latent alone, without style mixing. [N, Z] -> [N, C, H, W]."""
        with misc.evaluation_mode(self.G):
            return self.G.synthesis(self.G.mapping(z, labels, skip_w_avg_update=True))
