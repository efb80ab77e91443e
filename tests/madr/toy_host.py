"""A host of the StyleGAN2-ADA kind that trains in milliseconds: networks, data set, one training step."""

import numpy as np
import torch


class Mapping(torch.nn.Module):
    def __init__(self, z_dim=8, w_dim=16, num_ws=3, c_dim=0):
        super().__init__()
        self.layer = torch.nn.Linear(z_dim + c_dim, w_dim)
        self.num_ws = num_ws
        self.register_buffer("w_avg", torch.zeros([w_dim]))

    def forward(self, z, c, skip_w_avg_update=False):
        w = torch.tanh(self.layer(torch.cat([z, c], dim=1)))
        if not skip_w_avg_update:
            self.w_avg.copy_(w.detach().mean(0).lerp(self.w_avg, 0.9))
        return w[:, None, :].repeat(1, self.num_ws, 1)


class Synthesis(torch.nn.Module):
    """ws -> [N, 3, 8, 8]; draws noise from the global generator, as StyleGAN2 does."""

    def __init__(self, w_dim=16, num_ws=3):
        super().__init__()
        self.layers = torch.nn.ModuleList(torch.nn.Linear(w_dim, 3 * 8 * 8) for _ in range(num_ws))
        self.noise_strength = torch.nn.Parameter(torch.full([], 0.1))

    def forward(self, ws):
        x = sum(layer(ws[:, index]) for index, layer in enumerate(self.layers))
        x = x + torch.randn_like(x) * self.noise_strength
        return x.reshape(-1, 3, 8, 8)


class Discriminator(torch.nn.Module):
    def __init__(self, c_dim=0):
        super().__init__()
        self.body = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(192, 16), torch.nn.LeakyReLU(0.2), torch.nn.Linear(16, 1))

    def forward(self, img, c):
        return self.body(img)


class Images:
    """Seeded images in five brightness groups, with one-hot labels if asked."""

    def __init__(self, count=200, num_classes=0, seed=0):
        random = np.random.RandomState(seed)
        base = random.randint(0, 256, [5, 3, 8, 8])
        self.group = random.randint(0, 5, [count])
        self.images = np.clip(base[self.group] + random.randint(-20, 20, [count, 3, 8, 8]), 0, 255).astype(np.uint8)
        self.labels = np.eye(num_classes, dtype=np.float32)[self.group % num_classes] if num_classes else np.zeros([count, 0], np.float32)
        self.image_shape, self.label_shape = [3, 8, 8], [num_classes]

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        return self.images[index].copy(), self.labels[index]


class Host:
    """Networks, optimizers and one step in the manner of the training loop."""

    def __init__(self, make_loss, c_dim=0, seed=0, batch_gpu=8):
        torch.manual_seed(seed)
        self.mapping, self.synthesis, self.D = Mapping(c_dim=c_dim), Synthesis(), Discriminator()
        self.c_dim, self.batch_gpu, self.cur_nimg = c_dim, batch_gpu, 0
        self.in_ddp = False  # whether G's gradients are averaged by DistributedDataParallel
        self.G_parameters = [*self.mapping.parameters(), *self.synthesis.parameters()]
        self.G_opt = torch.optim.Adam(self.G_parameters, lr=2e-3, betas=(0.0, 0.99))
        self.D_opt = torch.optim.Adam(self.D.parameters(), lr=2e-3, betas=(0.0, 0.99))
        self.images = Images(num_classes=c_dim)
        self.loss = make_loss(self)

    def microbatch(self, phase_index, k):
        """Inputs of microbatch k, and the global generator seeded for it."""
        torch.manual_seed(self.cur_nimg * 1000 + phase_index * 100 + k)
        z = torch.randn([self.batch_gpu, 8])
        rows = torch.randint(len(self.images), [self.batch_gpu])
        real = torch.from_numpy(self.images.images[rows.numpy()]).float() / 127.5 - 1
        c = torch.from_numpy(self.images.labels[rows.numpy()])
        return real, c, z, c

    def step(self, num_microbatches=2, rank=0, num_gpus=1):
        rounds = num_microbatches // num_gpus
        for index, (phase, opt, parameters) in enumerate(
            [("Gmain", self.G_opt, self.G_parameters), ("Dboth", self.D_opt, list(self.D.parameters()))]
        ):
            self.set_learning(phase)
            opt.zero_grad(set_to_none=True)
            for r in range(rounds):
                real, real_c, z, c = self.microbatch(index, r * num_gpus + rank)
                self.loss.accumulate_gradients(phase, real, real_c, z, c, sync=(r == rounds - 1), gain=1 / rounds)
            if num_gpus > 1 and not (self.in_ddp and phase == "Gmain"):
                for parameter in parameters:
                    torch.distributed.all_reduce(parameter.grad)
                    parameter.grad /= num_gpus
            opt.step()
        self.cur_nimg += self.batch_gpu * num_microbatches

    def set_learning(self, phase):
        for parameter in self.G_parameters:
            parameter.requires_grad_(phase.startswith("G"))
        for parameter in self.D.parameters():
            parameter.requires_grad_(phase.startswith("D"))

    def weights(self):
        return [p.detach().clone() for p in [*self.G_parameters, *self.D.parameters()]]


BASE = dict(base_class_name="training.loss.StyleGAN2Loss", pl_weight=0, r1_gamma=0.1)


def madr_loss(madr=None, **changes):
    """Maker of a MADRLoss around StyleGAN2Loss for Host."""
    options = dict(dict(preset="replay", capacity=64, deficit_window=64, reals=32, random_seed=3), **(madr or {}))

    def make(host):
        from madr_plugin.loss import MADRLoss

        loss = MADRLoss(
            device=torch.device("cpu"), G_mapping=host.mapping, G_synthesis=host.synthesis, D=host.D, madr=options, **dict(BASE, **changes)
        )
        loss.attach(dict(training_set=host.images, random_seed=options["random_seed"]))
        return loss

    return make


def base_loss(**changes):
    """Maker of the bare StyleGAN2Loss."""

    def make(host):
        from training.loss import StyleGAN2Loss

        kwargs = {name: value for name, value in dict(BASE, **changes).items() if name != "base_class_name"}
        return StyleGAN2Loss(device=torch.device("cpu"), G_mapping=host.mapping, G_synthesis=host.synthesis, D=host.D, **kwargs)

    return make
