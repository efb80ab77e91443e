"""A step's phases: which network learns when, with which optimizer, from which microbatches.

Lazy regularisation (StyleGAN2, 1912.04958, appendix B): a regulariser that is applied only every r-th step shares the
network's optimizer, with its weight times r, and the optimizer's rates shrunk by r/(r+1) so that training speed stays.
Must not know losses, data or files.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.autograd.profiler import record_function

import dnnlib
from torch_utils import devices, distributed


class Phase:
    """One kind of update. name: e.g. 'Gmain'; module: the network that learns, whose parameters stay the same; interval: every how many steps.

    gain: factor on its loss, which makes up for lazy regularisation; None: the interval.
    """

    def __init__(self, name: str, module: torch.nn.Module, opt: torch.optim.Optimizer, interval: int, gain: int | None = None) -> None:
        self.name, self.module, self.opt, self.interval = name, module, opt, interval
        self.parameters = list(module.parameters())  # once: walking through all modules is slow
        self.gain = interval if gain is None else gain


def rates_of(opt_kwargs: Mapping[str, Any], reg_interval: int | None) -> dict[str, Any]:
    """Optimizer keywords for a network whose regulariser takes an extra step every `reg_interval` steps (None: never).

    With c = interval / (interval + 1), the share of its steps that are main ones: lr <- c * lr, beta <- beta^c.
    """
    share = 1.0 if reg_interval is None else reg_interval / (reg_interval + 1)
    rates = {"lr": opt_kwargs["lr"] * share}
    if "betas" in opt_kwargs:
        rates["betas"] = [float(beta) ** share for beta in opt_kwargs["betas"]]  # options say 0, PyTorch insists on 0.0
    return {**opt_kwargs, **rates}


def phases_of(
    letter: str, module: torch.nn.Module, opt_kwargs: Mapping[str, Any], reg_interval: int | None, every: int = 1
) -> tuple[list[Phase], torch.optim.Optimizer]:
    """([phases], optimizer) of one network. A None interval folds the regulariser into one 'both' phase. every: it learns on every n-th
    step alone, as strongly as it would on each."""
    opt = dnnlib.util.construct_class_by_name(module.parameters(), **rates_of(opt_kwargs, reg_interval))
    intervals = {"both": 1} if reg_interval is None else {"main": 1, "reg": reg_interval}
    return [Phase(letter + kind, module, opt, interval * every, gain=interval) for kind, interval in intervals.items()], opt


class LearningRates:
    """Learning rates over a run: those of the optimizers, falling linearly to 0 over its last part.

    optimizers: as they were built, before a state is loaded into them. total_kimg: length of the run. tail: that part's share of it, 0 to 1; 0: none.
    """

    def __init__(self, optimizers: Iterable[torch.optim.Optimizer], total_kimg: float, tail: float) -> None:
        self.total_nimg, self.tail = total_kimg * 1000, tail
        self.begun_with = [(opt, [group["lr"] for group in opt.param_groups]) for opt in optimizers]

    def share(self, cur_nimg: int) -> float:
        """What is left of the rates after cur_nimg images: min(1, (1 - cur_nimg / total_nimg) / tail)."""
        return 1.0 if not self.tail else min(max((1 - cur_nimg / self.total_nimg) / self.tail, 0.0), 1.0)

    def set(self, cur_nimg: int) -> None:
        """Have the optimizers learn at the rates of this position, whatever the part of the run before was meant to become."""
        if not self.tail:
            return  # as the optimizers are: a state may hold other rates
        for opt, rates in self.begun_with:
            for group, rate in zip(opt.param_groups, rates):
                group["lr"] = rate * self.share(cur_nimg)


def setup_phases(
    G: torch.nn.Module,
    D: torch.nn.Module,
    G_opt_kwargs: Mapping[str, Any],
    D_opt_kwargs: Mapping[str, Any],
    G_reg_interval: int | None,
    D_reg_interval: int | None,
    n_critic: int = 1,
) -> tuple[list[Phase], dict[str, torch.optim.Optimizer]]:
    """Phases in the order of a step, G's before D's, and the optimizers by the network's letter. n_critic: steps of D per step of G."""
    of_G, G_opt = phases_of("G", G, G_opt_kwargs, G_reg_interval, every=n_critic)
    of_D, D_opt = phases_of("D", D, D_opt_kwargs, D_reg_interval)
    return of_G + of_D, {"G": G_opt, "D": D_opt}


def derived_seed(*numbers: int) -> int:
    """A 63-bit seed from a tuple of integers; neighbouring tuples give unrelated seeds."""
    text = ",".join(str(int(number)) for number in numbers).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little") >> 1


def draw_latents(
    phase_index: int, microbatch: int, batch_gpu: int, z_dim: int, labels: torch.Tensor, random_seed: int, cur_nimg: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Latents and labels of one microbatch: (z [batch_gpu, z_dim], c [batch_gpu, c_dim]), on the CPU.

    Own generator, seeded by what identifies the microbatch: the same on any number of processes and after a resume.
    labels: [num_images, c_dim] of the training set; a generated image takes the label of a random real one.
    """
    generator = torch.Generator().manual_seed(derived_seed(random_seed, cur_nimg, phase_index, microbatch, 1))
    z = torch.randn([batch_gpu, z_dim], generator=generator)
    c = labels[torch.randint(len(labels), [batch_gpu], generator=generator)]
    return z, c


def seed_microbatch(random_seed: int, cur_nimg: int, phase_index: int, microbatch: int) -> None:
    """Seed torch's global generators (noise inputs, style mixing, augmentation draw from them)."""
    seed = derived_seed(random_seed, cur_nimg, phase_index, microbatch, 2)
    if torch.cuda.is_initialized() or devices.mps_available():
        torch.manual_seed(seed)
    else:  # the same numbers; the other function writes down its callers for a GPU that may come, which takes far longer than to seed
        torch.default_generator.manual_seed(seed)


@torch.no_grad()
def synchronise_gradients(parameters: Iterable[torch.nn.Parameter]) -> torch.Tensor:
    """Mean of the gradients over ranks, non-finite values replaced. Returns their number as a 0-d tensor.

    A stray overflow is normal with float16 and must not reach the weights: nan -> 0, +-inf -> +-1e5. The caller
    counts; a run in which this happens step after step is broken and must stop.
    """
    learning = [p for p in parameters if p.grad is not None]
    if not learning:
        return torch.zeros([], dtype=torch.int64)
    for p in learning:
        if p.grad.stride() != p.stride():  # rare; a fused optimizer would take its numbers in another order
            p.grad = torch.empty_like(p).copy_(p.grad)
    gradients = [p.grad for p in learning]
    flat = torch.cat([grad.reshape(-1) for grad in gradients])
    distributed.all_reduce_mean_(flat)
    if distributed.get_world_size() == 1 and flat.device.type == "cpu" and torch.isfinite(flat.sum()):
        # As they were: what is not finite would show in the sum. A GPU would have to wait for this answer.
        return torch.zeros([], dtype=torch.int64)
    num_nonfinite = (~torch.isfinite(flat)).sum()
    torch.nan_to_num(flat, nan=0, posinf=1e5, neginf=-1e5, out=flat)
    for grad, clean in zip(gradients, flat.split([grad.numel() for grad in gradients])):
        grad.copy_(clean.reshape(grad.shape))
    return num_nonfinite


def _let_learn(parameters: Iterable[torch.nn.Parameter], learn: bool) -> None:
    for parameter in parameters:
        parameter.requires_grad_(learn)


def run_phase(phase: Phase, phase_index: int, loss: Any, microbatches: Sequence[tuple], random_seed: int, cur_nimg: int) -> torch.Tensor:
    """Gradients of all microbatches of this process, then one optimizer step. Returns the non-finite count (0-d tensor).

    microbatches: list of (k, real_img, real_c, gen_z, gen_c); k: global microbatch number.
    """
    phase.opt.zero_grad(set_to_none=True)
    _let_learn(phase.parameters, True)
    for round_index, (k, real_img, real_c, gen_z, gen_c) in enumerate(microbatches):
        seed_microbatch(random_seed, cur_nimg, phase_index, k)
        loss.accumulate_gradients(
            phase=phase.name,
            real_img=real_img,
            real_c=real_c,
            gen_z=gen_z,
            gen_c=gen_c,
            sync=(round_index == len(microbatches) - 1),
            gain=phase.gain / len(microbatches),
        )
    _let_learn(phase.parameters, False)
    with record_function(phase.name + ": step"):
        num_nonfinite = synchronise_gradients(phase.parameters)
        phase.opt.step()
    return num_nonfinite
