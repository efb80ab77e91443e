"""Methods with networks, pools or histories of their own: the base class, and how they stay the same over processes and resumes.

What an Extra keeps belongs to the training state and is never part of a network snapshot. It must be the same in every process after
each phase: networks are built from the run's seed and learn by the mean gradient over processes; what is remembered of a step is
gathered with of_all_processes() and taken up in after_step(), so that during a step everybody sees what the step began with.
"""

import zlib

import torch

import dnnlib
from torch_utils import distributed
from training import phases
from training.gan.part import Part

G_PHASES, D_PHASES = ("Gmain", "Gboth"), ("Dmain", "Dboth")


class Extra(Part):
    """A Part with state. A subclass calls add_network() and add_memory() in build(); all else is done here.

    networks: {name: module}, optimizers: {name: optimizer}, memory: {name: tensor}; a memory may change its shape.
    """

    def __init__(self):
        self.networks, self.optimizers, self.memory = {}, {}, {}
        self._learns_in = {}
        self.is_built = False

    # --- building ---------------------------------------------------------------------------------------------------

    def build(self, context):
        """Add the networks and memories. context: see training.loss.Loss.attach; global draws are seeded by the run and the class."""

    def attach(self, context):
        self.device, self.seed = torch.device(context["device"]), int(context["random_seed"])
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(phases.derived_seed(self.seed, zlib.crc32(type(self).__name__.encode())))
            self.build(context)
        self.is_built = True

    def add_network(self, name, module, opt_kwargs, learns_in=G_PHASES):
        """A network that learns in these phases, from the gradients that the terms of those phases leave in it."""
        module = module.to(self.device).train().requires_grad_(False)
        distributed.broadcast_module(module)
        self.networks[name], self._learns_in[name] = module, learns_in
        self.optimizers[name] = dnnlib.util.construct_class_by_name(module.parameters(), **opt_kwargs)
        return module

    def add_memory(self, name, tensor):
        """A tensor that is part of the state; change it as self.memory[name]."""
        self.memory[name] = tensor.to(self.device)
        return self.memory[name]

    # --- learning ---------------------------------------------------------------------------------------------------

    def begin_phase(self, phase, cur_nimg):
        for name, module in self.networks.items():
            learns = phase in self._learns_in[name]
            module.requires_grad_(learns)
            if learns:
                self.optimizers[name].zero_grad(set_to_none=True)

    def after_step(self, phase, module):
        for name, own in self.networks.items():
            if phase in self._learns_in[name]:
                phases.synchronise_gradients(own.parameters())
                self.optimizers[name].step()
                own.requires_grad_(False)
        self.remember(phase)

    def remember(self, phase):
        """Called after each phase in every process: take up what its microbatches brought."""

    # --- state ------------------------------------------------------------------------------------------------------

    def state_dict(self):
        return dict(
            networks={name: module.state_dict() for name, module in self.networks.items()},
            optimizers={name: optimizer.state_dict() for name, optimizer in self.optimizers.items()},
            memory=dict(self.memory),
        )

    def load_state_dict(self, state):
        for name, module in self.networks.items():
            module.load_state_dict(state["networks"][name])
            self.optimizers[name].load_state_dict(state["optimizers"][name])
        self.memory = {name: tensor.to(self.device).clone() for name, tensor in state["memory"].items()}


def of_all_processes(rows_of_rounds):
    """The rows of all microbatches of a step, in the order of their numbers, in every process alike.

    rows_of_rounds: this process's microbatches in their order, a list of tensors [B, ...] of one shape. Collective. -> [all, ...].
    """
    own = torch.stack(rows_of_rounds).detach().contiguous()  # [rounds, B, ...]
    if distributed.get_world_size() == 1:
        return own.flatten(0, 1)
    parts = [torch.empty_like(own) for _ in range(distributed.get_world_size())]
    torch.distributed.all_gather(parts, own)
    return torch.stack(parts, dim=1).flatten(0, 2)  # microbatch k = round * processes + rank
