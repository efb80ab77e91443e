"""What D sees: images augmented, changed by methods, and joined to packs; and the logits that it answers with.

Must not know losses or phases.
"""

import torch


class Judge:
    """images [N, C, H, W], labels [N, c_dim] -> logits [N / pack, 1].

    D: callable on (images [N / pack, pack * C, H, W], labels [N / pack, pack * c_dim]). augment_pipe: module or None. views: functions
    images -> images of the same shape, after it. pack: consecutive images that D judges as one (PacGAN: Lin et al. 2018, 1712.04086).
    """

    def __init__(self, D, augment_pipe=None, views=(), pack=1):
        self.D, self.augment_pipe, self.views, self.pack = D, augment_pipe, tuple(views), pack

    def __call__(self, images, labels):
        if self.augment_pipe is not None:
            images = self.augment_pipe(images)
        for view in self.views:
            images = view(images)
        return self.D(packed(images, self.pack), packed(labels, self.pack))

    def with_D(self, D):
        """The same judge with other weights, or another function, in the place of D."""
        return Judge(D, self.augment_pipe, self.views, self.pack)


def packed(rows, pack):
    """Join each `pack` consecutive rows along their channels. [N, C, ...] -> [N / pack, pack * C, ...]."""
    if pack == 1:
        return rows
    return rows.reshape(len(rows) // pack, pack * rows.shape[1], *rows.shape[2:])


class Replay:
    """The state of PyTorch's global generators at one moment, to draw the same once more: noise, style mixing, augmentation."""

    def __init__(self, device):
        self.device = torch.device(device)
        self.cpu = torch.get_rng_state()
        self.cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None

    def __enter__(self):
        self.now = Replay(self.device)
        self.set()

    def __exit__(self, *_):
        self.now.set()

    def set(self):
        torch.set_rng_state(self.cpu)
        if self.cuda is not None:
            torch.cuda.set_rng_state(self.cuda, self.device)
