"""The tap: a gradient added at the generator's image, and the balance that scales it.

With x = img.detach() and g = d L_cov / dx, adding lambda * g to the gradient that arrives at img equals adding
lambda * L_cov to the generator's loss, by the chain rule, whatever that loss is. No second pass of G is needed.
"""
import torch


def gradient_at(image, loss_of):
    """g = d loss_of(x) / dx at x = image.detach(). Returns (g, value). The image's own graph is not touched."""
    with torch.enable_grad():
        x = image.detach().to(torch.float32).requires_grad_(True)
        value = loss_of(x)
        [gradient] = torch.autograd.grad(value, x)
    return gradient, value.detach()


def mean_norm(gradient_NCHW):
    """Batch mean of each image's L2 norm -> 0-d float32."""
    return gradient_NCHW.detach().to(torch.float32).flatten(1).norm(dim=1).mean()


def add_gradient(image, gradient, factor, on_host_gradient):
    """MADR: at backward, factor * gradient (None: nothing) joins what arrives at `image`; on_host_gradient sees the host's part first."""
    def hook(host_gradient):
        on_host_gradient(host_gradient)
        if gradient is None:
            return host_gradient
        return host_gradient + (factor * gradient).to(host_gradient.dtype)
    image.register_hook(hook)


class GradientBalance:
    """lambda_t = strength * n_host / p_t, for several terms t.

    n_host, n_t: running means (decay .98) of the batch-mean norm of each gradient on the image.
    p_t = max(n_t, .9995 p_t): dividing by the PEAK lets a term vanish with its gradient at equilibrium; dividing by the
    present norm (mode 'present') would blow up noise there. Mode 'fixed': lambda_t = strength.
    """

    DECAY, PEAK_DECAY = 0.98, 0.9995

    def __init__(self, mode, strengths, device):
        self.mode, self.strengths = mode, dict(strengths)
        # -1: not measured yet. One tensor per quantity, so that nothing waits for the device.
        self.norms = {name: torch.full([], -1.0, device=device) for name in ["host", *self.strengths]}
        self.peaks = {name: torch.zeros([], device=device) for name in self.strengths}

    def factor(self, name):
        """lambda of a term as a 0-d tensor; 0 until both norms have been measured once."""
        strength = self.strengths[name]
        if self.mode == "fixed":
            return torch.full_like(self.norms["host"], strength)
        norm = self.peaks[name] if self.mode == "peak" else self.norms[name]
        factor = strength * self.norms["host"] / norm.clamp(min=1e-12)
        return torch.where((self.norms["host"] >= 0) & (norm > 0), factor, torch.zeros_like(factor))

    def update(self, measured):
        """measured: {name: 0-d tensor}; names left out were not measured. Values that are not finite are passed over."""
        for name, value in measured.items():
            old = self.norms[name]
            blended = torch.where(old < 0, value, self.DECAY * old + (1 - self.DECAY) * value)
            self.norms[name] = torch.where(torch.isfinite(value), blended, old)
            if name in self.peaks:
                self.peaks[name] = torch.maximum(self.norms[name], self.PEAK_DECAY * self.peaks[name])

    def ratio(self, name):
        """Size of the term's gradient relative to the host's, as it is applied."""
        present = self.norms[name].clamp(min=0) * self.factor(name)
        return present / self.norms["host"].clamp(min=1e-12) * (self.norms["host"] > 0)

    def live_state(self):
        return dict(norms=dict(self.norms), peaks=dict(self.peaks))

    def load(self, state, device):
        self.norms = {name: state["norms"][name].to(device, copy=True) for name in self.norms}
        self.peaks = {name: state["peaks"][name].to(device, copy=True) for name in self.peaks}
