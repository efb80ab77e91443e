"""A method with a network and a memory of its own, for the tests: a reader of latents, and the last images."""

import torch

from training.gan import methods
from training.gan.extras import Extra, of_all_processes
from training.gan.rows import Method


class Counting(Extra):
    """G descends |reader(G(z)) - z|^2, the reader learns along; D sees the images of the step before beside its own fakes."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def build(self, context):
        G, dtype = context["G"], next(context["G"].parameters()).dtype
        self.size = G.img_channels * G.img_resolution**2
        self.add_network("reader", torch.nn.Linear(self.size, G.z_dim, dtype=dtype), dict(class_name="torch.optim.Adam", lr=0.1))
        self.add_memory("images", torch.zeros([0, self.size], dtype=dtype))

    def generator_term(self, step):
        flat = step.fakes.flatten(1)
        self.seen.append(flat.detach())
        return (self.networks["reader"](flat) - step.z).square().sum(1)

    def fakes_for_D(self, step, images, labels):
        half = len(images) // 2
        if len(self.memory["images"]):
            images = torch.cat([images[:half], self.memory["images"][step.microbatch * half :][: len(images) - half].reshape(-1, *images.shape[1:])])
        return images, labels

    def remember(self, phase):
        if phase in ("Gmain", "Gboth"):
            self.memory["images"], self.seen = of_all_processes(self.seen), []


def register():
    """Into the table of this process."""
    methods.METHODS.setdefault("counting", Method("counting", "X", "for tests", "none", "none", part=f"{__name__}.Counting"))
