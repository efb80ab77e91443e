"""Sets a term's gradient against the adversarial one, both as they arrive at the generator's parameters.

Gradients of one size on the image can differ tenfold there: smooth ones (of pixels' principal components) add up over the
pixels, fine ones (of deep features) cancel. Must not know losses, images or processes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from madr_spaces.errors import MADRError

_TAKES_EDGES = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 6)
FIRST_OCCASIONS, EVERY, EVERY_UNKNOWN = 8, 32, 4


def reach_is_due(occasion: int, known: bool = True) -> bool:
    """Tell whether a term is followed to the parameters at its occasion 0, 1, ...: seldom, since each costs a pass back through G.

    More often while its reach is not known, but not always: a term that is off gives nothing to follow.
    """
    return occasion < FIRST_OCCASIONS or occasion % (EVERY if known else EVERY_UNKNOWN) == 0


def mean_norm(gradient_NCHW: torch.Tensor) -> torch.Tensor:
    """Compute the batch mean of each image's L2 norm -> 0-d float32."""
    return gradient_NCHW.detach().to(torch.float32).flatten(1).norm(dim=1).mean()


def not_measured(parameters: Sequence[torch.nn.Parameter], device: torch.device) -> torch.Tensor:
    """Make what stands in the place of a reach: nan."""
    return torch.full([len(parameters)], torch.nan, device=device)


class Follower:
    """Sends gradients on a generated image on to the parameters, beside the host's own backward pass."""

    def __init__(self, image: torch.Tensor, parameters: Sequence[torch.nn.Parameter]) -> None:
        self.parameters, self.dtype = parameters, image.dtype
        # The place in the graph, not the tensor: a host may go on to change its image in place.
        self.output = torch.autograd.graph.get_gradient_edge(image) if _TAKES_EDGES else image

    def reach(self, gradient: torch.Tensor, size: torch.Tensor) -> torch.Tensor:
        """Measure |d theta_p| of each parameter tensor p for a unit of mean_norm(gradient) -> [P]; 0: the gradient does not get there.

        size: norm to which the gradient is brought for the pass, so that half-precision layers carry it as they carry the host's.
        nan where the gradient is zero. Nothing is added to any .grad, and the graph stays.
        """
        norm = mean_norm(gradient)
        scaled = (gradient.to(torch.float32) * (size / norm)).to(self.dtype)
        try:
            parts = torch.autograd.grad((self.output,), self.parameters, (scaled,), retain_graph=True, allow_unused=True)
        except RuntimeError as error:
            if "heckpoint" not in str(error):
                raise
            raise MADRError(
                "this generator uses reentrant checkpointing, through which MADR cannot follow gradients to the parameters; "
                "use --madr-balance-at=image"
            ) from None
        return torch.stack([torch.zeros_like(norm) if part is None else part.to(torch.float32).norm().to(norm.device) for part in parts]) / size


def relative_reach(term_P: torch.Tensor, host_P: torch.Tensor, sizes_P: torch.Tensor) -> torch.Tensor:
    """Compute the geometric mean over parameters of term_p / host_p, each tensor counted with its entries -> 0-d; inf where no tensor gets both.

    Per tensor, because Adam brings each to a scale of its own: a plain norm would be that of a few biases.
    """
    both_P = (term_P > 0) & (host_P > 0)
    logs_P = torch.where(both_P, term_P, 1).log() - torch.where(both_P, host_P, 1).log()
    return torch.where(both_P.any(), ((logs_P * sizes_P).sum() / (both_P * sizes_P).sum().clamp(min=1)).exp(), torch.inf)


class GradientBalance:
    """Computes lambda_t = strength * n_host / (m_t R_t), for several terms t.

    n_host, n_t: running means (decay .98) of the batch-mean norm of each gradient on the image; R_t: relative_reach() of the
    running means (decay .8 over measurements) of reach(), or 1 with at = 'image'. m_t by mode:
    'present' n_t, so that the strength is the term's share and signal_share.py alone lets it vanish at equilibrium;
    'peak' max(n_t, .9995 p_t), which lets a term vanish with its gradient, also where no signal is told from noise;
    'fixed': lambda_t = strength.
    """

    DECAY, PEAK_DECAY, REACH_DECAY = 0.98, 0.9995, 0.8

    def __init__(self, mode: str, strengths: Mapping[str, float], device: torch.device, at: str = "image") -> None:
        self.mode, self.strengths = mode, dict(strengths)
        self.at_parameters = mode != "fixed" and at == "parameters"
        # -1: not measured yet. One tensor per quantity, so that nothing waits for the device.
        self.norms = {name: torch.full([], -1.0, device=device) for name in ["host", *self.strengths]}
        self.peaks = {name: torch.zeros([], device=device) for name in self.strengths}
        self.reaches = {name: torch.zeros([0], device=device) for name in self.norms}  # [P]; empty: not measured yet
        self.sizes_P = torch.zeros([0])  # entries of each parameter tensor
        self._found: dict[str, torch.Tensor] = {}  # relative_reach() by term, until something new is measured

    def factor(self, name: str) -> torch.Tensor:
        """Compute lambda of a term, 0-d; 0 until everything it rests on has been measured once."""
        strength = self.strengths[name]
        if self.mode == "fixed":
            return torch.full_like(self.norms["host"], strength)
        norm = self.peaks[name] if self.mode == "peak" else self.norms[name]
        factor = strength * self.norms["host"] / (norm * self._relative_reach(name)).clamp(min=1e-12)
        return torch.where((self.norms["host"] >= 0) & (norm > 0), factor, torch.zeros_like(factor))

    def _relative_reach(self, name: str) -> torch.Tensor | float:
        """Compute R_t; inf while one of the two is unknown. Found once per measurement."""
        if not self.at_parameters:
            return 1.0
        if name not in self._found:
            term_P, host_P = self.reaches[name], self.reaches["host"]
            known = len(term_P) > 0 and len(host_P) > 0
            self._found[name] = (
                relative_reach(term_P, host_P, self.sizes_P.to(term_P.device)) if known else torch.full_like(self.norms["host"], torch.inf)
            )
        return self._found[name]

    def lacks(self, name: str) -> bool:
        """Tell whether the reach of a gradient is yet to be measured."""
        return self.at_parameters and len(self.reaches[name]) == 0

    def note_parameters(self, parameters: Sequence[torch.nn.Parameter]) -> None:
        """Forget what is known of other parameters than these: hosts may freeze layers on the way."""
        sizes_P = torch.tensor([float(parameter.numel()) for parameter in parameters])
        if not torch.equal(sizes_P, self.sizes_P):
            self.sizes_P, self._found = sizes_P, {}
            self.reaches = {name: value_P[:0] for name, value_P in self.reaches.items()}

    def update(self, norms: Mapping[str, torch.Tensor], reaches: Mapping[str, torch.Tensor] | None = None) -> None:
        """Take in norms {name: 0-d} and reaches {name: [P]}. Names left out were not measured; zeros and what is not finite are passed over.

        A term that was zero for once has no size to be scaled by; counted in, it would blow up the steps after it.
        """
        if norms:
            # All at once: on small networks the number of operations is felt.
            old_T, value_T = torch.stack([self.norms[name] for name in norms]), torch.stack(list(norms.values())).to(torch.float32)
            blended_T = torch.where(old_T < 0, value_T, torch.lerp(value_T, old_T, self.DECAY))
            new_T = torch.where((value_T > 0) & (value_T < torch.inf), blended_T, old_T)
            self.norms.update(zip(norms, new_T.unbind()))
            for name in self.peaks.keys() & norms if self.mode == "peak" else ():
                self.peaks[name] = torch.maximum(self.norms[name], self.PEAK_DECAY * self.peaks[name])
        for name, value_P in (reaches or {}).items():
            if not bool(torch.isfinite(value_P).all()):
                continue
            old_P = self.reaches[name] if len(self.reaches[name]) else torch.zeros_like(value_P)
            self.reaches[name] = torch.where(old_P > 0, self.REACH_DECAY * old_P + (1 - self.REACH_DECAY) * value_P, value_P)
            self._found = {}

    def ratio(self, name: str) -> torch.Tensor:
        """Compute the size of the term's gradient relative to the host's, as it is applied, where the balance is struck."""
        present = self.norms[name].clamp(min=0) * self.factor(name) / self.norms["host"].clamp(min=1e-12) * (self.norms["host"] > 0)
        reach = self._relative_reach(name)
        return present if not self.at_parameters else torch.where(torch.isfinite(reach), present * reach, torch.zeros_like(present))

    def live_state(self) -> dict[str, Any]:
        return dict(norms=dict(self.norms), peaks=dict(self.peaks), reaches=dict(self.reaches), sizes=self.sizes_P)

    def load(self, state: dict[str, Any], device: torch.device) -> None:
        self._found = {}
        self.sizes_P = state["sizes"].cpu().clone() if "sizes" in state else self.sizes_P
        for kept in ("norms", "peaks", "reaches"):
            own = getattr(self, kept)
            setattr(self, kept, {name: state[kept][name].to(device, copy=True) if kept in state else own[name] for name in own})
